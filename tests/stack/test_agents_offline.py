"""What an agent collects while it is offline arrives later, once, with its own times."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.stack.agents import AGENTS, LONG_S, Line, agents_bed, repeated, twice, unsent
from tests.support.programs import eventually

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.stack.agents import Agent, AgentName, Bed, Server
    from tests.support.receiver import Which

_PART: int = 60
"""Scrapes and lines of each part of an outage: an hour of scrapes, one a minute."""
_BLOCK: int = 40
"""More scrapes than a block holds: those of a second, later if the machine is busy."""
_LATE_MS: int = 3000
"""How much later than its time a scrape may be on a busy machine; the outage is several times as long."""


@pytest.fixture
def bed() -> Generator[Bed]:
    with agents_bed() as made:
        yield made


def is_pending(agent: Agent, name: AgentName) -> bool:
    """Tell whether an agent has something in its queue."""
    return agent.pending(name) > 0


def write(agent: Agent, start: int, count: int) -> None:
    """Write lines to the journal of an agent, and let the upload send them to vlagent."""
    now = time.time_ns() // 1000
    agent.write([Line(now + number, f"line {start + number:05}") for number in range(count)])
    agent.upload()


def arrived(server: Server, agent: Agent, lines: int) -> None:
    """Wait until everything that was scraped so far, and so many lines, are stored."""
    last = max(agent.scrapes())

    def all_here() -> bool:
        server.flush()
        newest = max((sample.value for sample in server.samples("bed_sequence")), default=0)
        return newest >= last and len({line.text for line in server.lines()}) >= lines

    eventually("everything is stored", all_here, LONG_S)


@pytest.mark.parametrize("which", ["debian", "newer"])
def test_an_outage_with_a_reboot_loses_nothing_and_stores_nothing_twice(bed: Bed, which: Which) -> None:
    agent = bed.agent("dino", which)
    server = bed.server
    server.start_metrics(which)
    server.start_logs()
    server.start_front()
    agent.start_exporter()
    agent.start_metrics()
    agent.start_logs()
    write(agent, 0, 10)
    agent.more_scrapes(10)
    arrived(server, agent, 10)

    agent.leave()
    left = max(agent.scrapes())
    write(agent, 10, _PART)
    agent.more_scrapes(_PART)
    agent.stop("vmagent", "vlagent")
    agent.start_metrics()
    agent.start_logs()
    write(agent, 10 + _PART, _PART)
    agent.more_scrapes(_PART)
    for name in AGENTS:
        eventually(f"{name} keeps what it cannot send", partial(is_pending, agent, name), LONG_S)
    agent.come_back(120)
    arrived(server, agent, 10 + 2 * _PART)

    samples = server.samples("bed_sequence")
    failed = [sample for sample in server.samples("up") if sample.value == 0]
    assert len(unsent(agent, samples)) <= len(failed) + 1, "a scrape that vmagent gave up on, also when it stopped"
    assert all(abs(number - left) < _BLOCK for number in repeated(samples)), "of one block, the answer was lost"
    assert [sample.value for sample in samples] == sorted(sample.value for sample in samples)
    scrapes = agent.scrapes()
    for sample in samples:
        number = round(sample.value)
        assert scrapes[number] - _LATE_MS <= sample.at <= scrapes[number] + _LATE_MS

    lines = server.lines()
    assert [line.text for line in dict.fromkeys(lines)] == [f"line {number:05}" for number in range(10 + 2 * _PART)]
    # systemd-journal-upload sends the entry at its cursor again at each start, with the same `__CURSOR`.
    assert twice(lines) <= 2, "one for each further start"
