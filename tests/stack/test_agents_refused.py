"""What an agent does with what the receiver refuses: try again, or drop it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from tests.stack.agents import FAULTS, LONG_S, VLAGENT, VMAGENT, agents_bed, metric
from tests.support.programs import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from tests.stack.agents import Agent, AgentName, Bed
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


def dropped(bed: Bed, agent: Agent, name: AgentName, push: Callable[[str], None]) -> set[int]:
    """Return the statuses with which an agent drops what is refused.

    `push` gives it one sample or line of a name. It has nothing else to send, so that is what is refused.
    """
    server = bed.server
    port = {"vmagent": VMAGENT, "vlagent": VLAGENT}[name]

    def counted(what: str, label: str = "") -> float:
        return metric(agent.host, port, f"{name}_remotewrite_{what}_total", label)

    def stored(pushed: str) -> bool:
        server.flush()
        return bool(server.samples(pushed)) if name == "vmagent" else pushed in {line.text for line in server.lines()}

    found: set[int] = set()
    for status in FAULTS:
        pushed, later = f"refused_{status}", f"later_{status}"
        before = counted("packets_dropped")
        # The first refusal of all may only make vmagent choose the older protocol.
        answers = 2 if status == FAULTS[0] else 1

        def is_dropped(before: float = before) -> bool:
            return counted("packets_dropped") > before

        def is_refused(label: str = f'status_code="{status}"', answers: int = answers) -> bool:
            return is_dropped() or counted("requests", label) >= answers

        def is_over(pushed: str = pushed) -> bool:
            return is_dropped() or stored(pushed)

        server.answer_with(status)
        push(pushed)
        eventually(f"{name} is refused with {status}", is_refused, LONG_S)
        server.answer_with(None)
        eventually(f"what was refused with {status} is dropped or stored", is_over, LONG_S)
        if is_dropped():
            found.add(status)
        push(later)
        eventually("what is sent later is stored", partial(stored, later), LONG_S)
        assert stored(pushed) == (status not in found)
    return found


@pytest.mark.parametrize("which", ["debian", "newer"])
def test_vmagent_keeps_what_is_refused_except_for_these_statuses(bed: Bed, which: Which) -> None:
    agent = bed.agent("dino", which)
    bed.server.start_metrics(which)
    bed.server.start_faulty_front()
    agent.start_without_jobs()
    assert dropped(bed, agent, "vmagent", agent.push_sample) == _DROPPED[f"vmagent {which}"]


def test_vlagent_keeps_what_is_refused_except_for_these_statuses(bed: Bed) -> None:
    agent = bed.agent("dino")
    bed.server.start_logs()
    bed.server.start_faulty_front()
    agent.start_logs("-remoteWrite.flushInterval=100ms")
    assert dropped(bed, agent, "vlagent", agent.push_line) == _DROPPED["vlagent"]
