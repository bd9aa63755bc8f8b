"""Power cuts, full disks, full queues and wrong clocks: what is lost, and what goes on afterwards."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.stack.agents import (
    LONG_S,
    VLAGENT,
    VMAGENT,
    Line,
    agents_bed,
    ask,
    cut_power,
    metric,
    repeated,
    twice,
    unsent,
)
from tests.support.programs import eventually

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tests.stack.agents import Agent, Bed, Server
    from tests.support.receiver import Which
    from tests.tailnet.world import Host

_DAY_S: Final = 86_400
_BLOCK: Final = 40
"""More scrapes than the block in flight holds: those of a second, later if the machine is busy."""
_SMALLEST_QUEUE: Final = 16 * (32 * 1024**2 + 8)


@pytest.fixture
def bed() -> Generator[Bed]:
    with agents_bed() as made:
        yield made


def newest(server: Server) -> int:
    """Return the number of the newest scrape that is stored."""
    server.flush()
    return round(max((sample.value for sample in server.samples("bed_sequence")), default=0))


def arrived(server: Server, agent: Agent) -> None:
    """Wait until what was scraped so far, or later samples, are stored."""
    last = max(agent.scrapes())
    eventually("the newest scrape is stored", lambda: newest(server) >= last, LONG_S)


def queued(agent: Agent) -> int:
    """Wait until vmagent has scrapes on disk, and return the number of the last scrape that is surely there."""

    def written() -> float:
        return metric(agent.host, VMAGENT, "vm_persistentqueue_blocks_written_total")

    # That begins once nothing was sent for five seconds. Each second has a block, and is synced with the next one.
    eventually("the queue is on disk", lambda: agent.in_memory("vmagent") == 0 < agent.pending("vmagent"), LONG_S)
    last, blocks = max(agent.scrapes()), written()
    eventually("later blocks are on disk", lambda: written() >= blocks + 4, LONG_S)
    return last


def texts(server: Server) -> set[str]:
    """Return the lines that are stored."""
    server.flush()
    return {line.text for line in server.lines()}


def small_disk(host: Host, size: str) -> Path:
    """Mount a small filesystem in memory, and return where."""
    mounted = host.place / "small"
    mounted.mkdir()
    host.run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", mounted)
    return mounted


def fill(host: Host, disk: Path, *, leave: int) -> None:
    """Fill a disk except for some bytes."""
    free = int(host.run("df", "--output=avail", "-B1", disk).split()[-1])
    host.run("fallocate", "-l", str(free - leave), disk / "full")


def failed(server: Server) -> int:
    """Return how many scrapes vmagent gave up on."""
    return sum(1 for sample in server.samples("up") if sample.value == 0)


def test_a_power_cut_loses_the_block_in_flight_and_the_last_seconds(bed: Bed) -> None:
    agent = bed.agent("dino")
    server = bed.server
    server.start_metrics("newer")
    server.start_front()
    agent.queue = agent.own_filesystem()
    agent.start_exporter()
    agent.start_metrics()
    agent.more_scrapes(10)
    arrived(server, agent)

    agent.leave()
    left = max(agent.scrapes())
    agent.more_scrapes(100)
    on_disk = queued(agent)
    cut_power(agent)
    agent.stop("vmagent", by=signal.SIGKILL)
    agent.remount()
    last = max(agent.scrapes())
    agent.start_metrics()
    agent.come_back(120)
    arrived(server, agent)

    samples = server.samples("bed_sequence")
    assert all(abs(number - left) < _BLOCK for number in repeated(samples)), "of one block, the answer was lost"
    lost = [number for number in unsent(agent, samples) if left + _BLOCK < number <= on_disk or number > last]
    assert len(lost) <= failed(server)


def test_a_full_queue_drops_the_oldest_and_says_so(bed: Bed) -> None:
    agent = bed.agent("dino")
    server = bed.server
    server.make_certificate()
    agent.start_exporter()
    agent.most = "1MiB"
    agent.start_metrics()
    assert "rounding the -remoteWrite.maxDiskUsagePerURL" in agent.running["vmagent"].said()
    agent.more_scrapes(20)

    block = agent.place / "block"
    rows = (f'bed_fill{{blob="{base64.b64encode(os.urandom(750)).decode()}"}} 1\n' for _ in range(20_000))
    block.write_text("".join(rows))
    url = f"http://127.0.0.1:{VMAGENT}/api/v1/import/prometheus"
    for _ in range(100):
        ask(agent.host, url, "--data-binary", f"@{block}")
        if metric(agent.host, VMAGENT, "vm_persistentqueue_bytes_dropped_total") > 0:
            break
    assert metric(agent.host, VMAGENT, "vm_persistentqueue_bytes_dropped_total") > 0
    assert agent.pending("vmagent") <= _SMALLEST_QUEUE
    size = sum(file.stat().st_size for file in agent.state.glob("vmagent/**/*") if file.is_file())
    assert size <= 2 * _SMALLEST_QUEUE, "one chunk of what is queued, one of what is being sent"
    agent.more_scrapes(20)
    kept = max(agent.scrapes()) - 20

    drop = [{"action": "drop", "source_labels": ["__name__"], "regex": "bed_fill"}]
    (server.place / "relabel.yml").write_text(json.dumps(drop))
    server.start_metrics("newer", f"-relabelConfig={server.place / 'relabel.yml'}")
    server.start_front()
    arrived(server, agent)
    lost = unsent(agent, server.samples("bed_sequence"))
    assert lost
    assert sum(number > kept for number in lost) <= failed(server)


def test_a_full_disk_of_the_agent_ends_vmagent_until_there_is_space(bed: Bed) -> None:
    agent = bed.agent("dino")
    server = bed.server
    server.make_certificate()
    agent.queue = small_disk(agent.host, "8m")
    agent.start_exporter()
    agent.start_metrics()
    agent.more_scrapes(60)
    on_disk = queued(agent)
    fill(agent.host, agent.queue, leave=0)
    eventually("vmagent ends", lambda: not agent.running["vmagent"].alive, LONG_S)
    assert "no space left on device" in agent.running["vmagent"].said()
    agent.stop("vmagent")
    agent.host.run("rm", agent.queue / "full")

    agent.start_metrics()
    server.start_metrics("newer")
    server.start_front()
    agent.more_scrapes(10)
    arrived(server, agent)
    # The block that was cut short can make vmagent skip what it queued behind it.
    lost = [number for number in unsent(agent, server.samples("bed_sequence")) if _BLOCK < number <= on_disk]
    assert len(lost) <= failed(server), "what was on disk before is sent"


def test_a_full_disk_of_the_server_loses_nothing(bed: Bed) -> None:
    agent = bed.agent("dino")
    server = bed.server
    small = small_disk(server.host, "96m")
    server.start_metrics("newer", data=small / "metrics")
    server.start_logs(data=small / "logs")
    server.start_front()
    agent.start_exporter()
    agent.start_metrics()
    agent.start_logs()
    arrived(server, agent)
    # Both stores refuse to write with less than 10 MB.
    fill(server.host, small, leave=5 * 1024**2)
    count = 0

    def refused() -> bool:
        nonlocal count
        now = time.time_ns() // 1000
        agent.write([Line(now + number, f"line {count + number:05}") for number in range(2)])
        count += 2
        agent.upload()
        return all(
            metric(agent.host, port, f"{name}_remotewrite_retries_count_total") > 0
            for name, port in (("vmagent", VMAGENT), ("vlagent", VLAGENT))
        )

    eventually("both stores refuse", refused, LONG_S)
    agent.more_scrapes(20)
    server.host.run("rm", small / "full")
    arrived(server, agent)
    eventually("all lines are stored", lambda: len(texts(server)) == count, LONG_S)
    samples = server.samples("bed_sequence")
    assert len(unsent(agent, samples)) <= failed(server)
    assert twice(samples) == 0


@pytest.mark.parametrize("which", ["debian", "newer"])
@pytest.mark.parametrize("shift_s", [_DAY_S, -_DAY_S], ids=["ahead", "behind"])
def test_samples_of_a_clock_a_day_wrong_are_stored_with_that_time(bed: Bed, which: Which, shift_s: int) -> None:
    agent = bed.agent("dino", which)
    server = bed.server
    server.start_metrics(which)
    server.start_front()
    agent.start_exporter(shift_s)
    agent.start_metrics()
    agent.more_scrapes(20)
    arrived(server, agent)
    samples = server.samples("bed_sequence")
    assert len(unsent(agent, samples)) <= failed(server)
    scrapes = agent.scrapes()
    assert all(sample.at == scrapes[round(sample.value)] + shift_s * 1000 for sample in samples)


def test_victorialogs_stores_lines_of_a_clock_a_day_wrong_and_drops_older_ones(bed: Bed) -> None:
    agent = bed.agent("dino")
    server = bed.server
    server.start_logs("-retentionPeriod=30d")
    server.start_front()
    agent.start_logs()
    now = time.time_ns() // 1000
    shifts = {"a month behind": -31, "a week behind": -8, "a day behind": -1, "right": 0, "a day ahead": 1}
    for text, days in (*shifts.items(), ("three days ahead", 3), ("the last entry", 0)):
        agent.write([Line(now + days * _DAY_S * 1_000_000, text)])
        agent.upload()
    eventually("the last entry is stored", lambda: "the last entry" in texts(server), LONG_S)
    stored = {line.text: line.at for line in server.lines()}
    assert stored == {
        text: now + shifts.get(text, 0) * _DAY_S * 1_000_000
        for text in ("a week behind", "a day behind", "right", "a day ahead", "the last entry")
    }
