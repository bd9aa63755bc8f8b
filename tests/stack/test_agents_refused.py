"""What an agent does with what the receiver refuses: try again, or drop it."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from tests.stack.agents import FAULTS, LONG_S, VLAGENT, VMAGENT, Line, agents_bed, metric
from tests.support.programs import eventually

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from tests.stack.agents import Bed
    from tests.support.receiver import Which

_DROPPED: Final[Mapping[str, set[int]]] = {
    "vmagent debian": {400, 409},
    "vmagent newer": {400, 409, 415},
    "vlagent": {400, 404},
}
"""All other statuses are tried again, until the receiver takes the block."""


@pytest.fixture
def bed() -> Generator[Bed]:
    with agents_bed() as made:
        yield made


@pytest.mark.parametrize("which", ["debian", "newer"])
def test_vmagent_keeps_what_is_refused_except_for_these_statuses(bed: Bed, which: Which) -> None:
    agent = bed.agent("dino", which)
    server = bed.server
    server.start_metrics(which)
    server.start_faulty_front()
    agent.start_without_jobs()

    def counted(name: str, label: str = "") -> float:
        return metric(agent.host, VMAGENT, f"vmagent_remotewrite_{name}_total", label)

    def stored(series: str) -> bool:
        server.flush()
        return bool(server.samples(series))

    dropped: set[int] = set()
    for status in FAULTS:
        # The first refusal of all may only make vmagent choose the older protocol.
        answers = 2 if status == FAULTS[0] else 1
        before = counted("packets_dropped")
        server.answer_with(status)
        # Nothing else is sent, so what is refused is the block with this sample.
        agent.push(f'bed_refused{{status="{status}"}}')

        def refused(label: str = f'status_code="{status}"', answers: int = answers, before: float = before) -> bool:
            return counted("requests", label) >= answers or counted("packets_dropped") > before

        def is_over(series: str = f'bed_refused{{status="{status}"}}', before: float = before) -> bool:
            return counted("packets_dropped") > before or stored(series)

        eventually(f"vmagent is refused with {status}", refused, LONG_S)
        server.answer_with(None)
        eventually(f"what was refused with {status} is dropped or stored", is_over, LONG_S)
        if counted("packets_dropped") > before:
            dropped.add(status)
        agent.push(f'bed_later{{status="{status}"}}')
        eventually("a later sample is stored", partial(stored, f'bed_later{{status="{status}"}}'), LONG_S)
        assert stored(f'bed_refused{{status="{status}"}}') == (status not in dropped)
    assert dropped == _DROPPED[f"vmagent {which}"]


def test_vlagent_keeps_what_is_refused_except_for_these_statuses(bed: Bed) -> None:
    agent = bed.agent("dino")
    server = bed.server
    server.start_logs()
    server.start_faulty_front()
    agent.start_logs()

    def refused(status: int) -> bool:
        return metric(agent.host, VLAGENT, "vlagent_remotewrite_requests_total", f'status_code="{status}"') > 0

    def stored(text: str) -> bool:
        server.flush()
        return text in {line.text for line in server.lines()}

    dropped: set[int] = set()
    for status in FAULTS:
        server.answer_with(status)
        # systemd-journal-upload sends the last entry again at its next start, so that one proves nothing.
        now = time.time_ns() // 1000
        agent.write([Line(now, f"refused with {status}"), Line(now + 1, "the last entry")])
        agent.upload()
        eventually(f"vlagent is refused with {status}", partial(refused, status), LONG_S)
        server.answer_with(None)
        agent.write([Line(time.time_ns() // 1000, f"after {status}")])
        agent.upload()
        eventually("a later line arrives", partial(stored, f"after {status}"), LONG_S)
        if not stored(f"refused with {status}"):
            dropped.add(status)
    assert dropped == _DROPPED["vlagent"]
