"""Simulate 1,000 agents on one machine, and count what arrives: memory and CPU of the receiver and of the stores.

    make bench-agents

What is real: nginx with the config that `token write` makes for 1,000 tokens, TLS, VictoriaMetrics and VictoriaLogs,
in a network namespace of their own. What is simulated: the agents. One program (bench/agent_load.py) keeps a connection
for each of them, with its own token, and sends what vmagent and vlagent would: a block of metrics and one of log lines
each 15 seconds, and again until it is taken. In the middle, nginx is reloaded and VictoriaMetrics restarted.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.stack.agents import METRICS, PUSH, agents_bed, ask

if TYPE_CHECKING:
    from tests.stack.agents import Server
    from tests.tailnet.world import Process

AGENTS: Final = 1000
SERIES: Final = 700
"""About what node exporter serves on a NixOS machine."""
LINES: Final = 10
INTERVAL_S: Final = 15.0
ROUNDS: Final = 6
FLAGS: Final = ("-search.maxUniqueTimeseries=2000000", "-search.maxQueryDuration=10m")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_WAIT_S: Final = 600.0
_STOP_S: Final = 120.0


@dataclass
class Use:
    """What a program and its children used: CPU seconds, and the most memory that they had, in MiB."""

    cpu_s: float = 0.0
    memory_mib: float = 0.0


def children(pid: int) -> list[int]:
    """Return a process and its children."""
    found = [pid]
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                found.append(int(place.name))
    return found


def use_of(pid: int) -> Use:
    """Return what a process and its children use now."""
    used = Use()
    for each in children(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            rollup = Path(f"/proc/{each}/smaps_rollup").read_text()
        except OSError:
            continue
        used.cpu_s += (int(fields[11]) + int(fields[12])) / _TICKS
        used.memory_mib += int(rollup.partition("Pss:")[2].split()[0]) / 1024
    return used


def watch(server: Server, load: Process, disturb: float) -> dict[str, Use]:
    """Measure the programs until the load ends; reload nginx and restart VictoriaMetrics after some seconds."""
    total = {name: Use() for name in server.running}
    latest = {name: use_of(process.pid).cpu_s for name, process in server.running.items()}
    begun = time.monotonic()
    disturbed = False
    while load.alive and time.monotonic() - begun < _WAIT_S:
        for name, process in server.running.items():
            now = use_of(process.pid)
            total[name].memory_mib = max(total[name].memory_mib, now.memory_mib)
            total[name].cpu_s += max(0.0, now.cpu_s - latest[name])
            latest[name] = now.cpu_s
        if not disturbed and time.monotonic() - begun > disturb:
            disturbed = True
            os.kill(server.running["front"].pid, signal.SIGHUP)
            server.stop("metrics", seconds=_STOP_S)
            server.start_metrics("newer", *FLAGS)
            latest["metrics"] = 0.0
        time.sleep(0.5)
    return total


def stored(server: Server) -> tuple[int, int, int]:
    """Return how many samples are stored, of how many machines, and how many lines."""
    server.flush()
    query = "sum(count_over_time(bed_load[1h])) by (machine)"
    url = f"http://127.0.0.1:{METRICS}/api/v1/query"
    found = json.loads(ask(server.host, url, "--data-urlencode", f"query={query}", seconds=600))["data"]["result"]
    return sum(int(one["value"][1]) for one in found), len(found), server.count_lines()


def main() -> None:
    """Print what was sent and stored, and what that cost."""
    with agents_bed() as bed:
        server = bed.server
        server.tokens |= {f"machine{number:04}": secrets.token_urlsafe(32) for number in range(AGENTS)}
        server.start_metrics("newer", *FLAGS)
        server.start_logs()
        server.start_front()
        host = bed.world.host("load")
        tokens = host.place / "tokens.json"
        tokens.write_text(json.dumps(server.tokens))
        words = [sys.executable, "-m", "bench.agent_load", tokens, server.ca, server.host.v4, PUSH]
        numbers = [SERIES, LINES, INTERVAL_S, ROUNDS]
        begun = time.monotonic()
        load = host.start(*map(str, [*words, *numbers]), log="load")
        used = watch(server, load, INTERVAL_S * ROUNDS / 2)
        took = time.monotonic() - begun
        sent = json.loads(load.said().splitlines()[-1])
        samples, machines, lines = stored(server)
        wanted = AGENTS * ROUNDS * SERIES
        print(f"{AGENTS} agents, {SERIES} series and {LINES} lines each {INTERVAL_S:g} s, for {took:.0f} s")
        print(f"blocks taken {sent['blocks']}, tried again {sent['again']}, slowest {sent['slowest_s']:.2f} s")
        print(
            f"samples stored {samples:,} of {wanted:,}, of {machines} machines; "
            f"lines stored {lines:,} of {AGENTS * ROUNDS * LINES:,}"
        )
        for name, use in used.items():
            print(f"{name:8} {100 * use.cpu_s / took:5.1f} % of a core, {use.memory_mib:6.0f} MiB")


if __name__ == "__main__":
    main()
