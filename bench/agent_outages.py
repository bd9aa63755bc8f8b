"""Measure how soon everything that agents queued for an hour is stored, once they are online again.

    make bench-agents

An hour is scaled: 240 scrapes of 700 series (one each 15 seconds) in 96 seconds, and 1,000 lines of the journal.
That is long enough for vmagent and vlagent to wait as long between two attempts as they ever do. Ten agents at a time,
each offline at its own moment, through nginx with tokens and TLS to VictoriaMetrics and VictoriaLogs. The time counts
from the network to the moment when queries find the last sample and the last line.

Two kinds of outage: the machine has no network (`no route`), or packets vanish without an answer (`silence`).
"""

from __future__ import annotations

import json
import secrets
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from tests.stack.agents import LOGS, METRICS, Line, agents_bed, ask, twice, unsent

if TYPE_CHECKING:
    from tests.stack.agents import Agent, Bed, Server

AGENTS: Final = 10
ROUNDS: Final = 2
SCRAPES: Final = 240
SCRAPE_MS: Final = 400
SERIES: Final = 700
LINES: Final = 1000
TO_REACH_S: Final = 30.0
_MOST_S: Final = 300.0


def last_scrape(server: Server, agent: Agent) -> float:
    """Return the number of the last scrape of an agent that a query finds."""
    query = f'max_over_time(bed_sequence{{machine="{agent.name}"}}[10m])'
    url = f"http://127.0.0.1:{METRICS}/api/v1/query"
    found = json.loads(ask(server.host, url, "--data-urlencode", f"query={query}"))["data"]["result"]
    return max((float(one["value"][1]) for one in found), default=0.0)


def lines_of(server: Server, agent: Agent) -> int:
    """Return how many different lines of an agent a query finds."""
    query = f"machine:={agent.name} | count_uniq(_msg) total"
    url = f"http://127.0.0.1:{LOGS}/select/logsql/query"
    return int(json.loads(ask(server.host, url, "--data-urlencode", f"query={query}"))["total"])


def outage(server: Server, agent: Agent, written: int, number: int, *, silence: bool) -> tuple[float, float]:
    """Let an agent be offline for a scaled hour, and return the seconds until its metrics and its logs are stored."""
    if silence:
        # The address of the server stays known, so packets are sent, and no answer comes.
        agent.host.run(
            "ip", "neigh", "replace", server.host.v4, "lladdr", server.mac(), "dev", "eth0", "nud", "permanent"
        )
    agent.leave()
    until = max(agent.scrapes()) + SCRAPES
    now = time.time_ns() // 1000
    for part in range(10):
        first = written + part * LINES // 10
        agent.write([Line(now + part * 1000 + one, f"line {first + one}") for one in range(LINES // 10)])
        agent.upload()
        while max(agent.scrapes()) < until - SCRAPES + SCRAPES * (part + 1) // 10:
            time.sleep(0.05)
    agent.come_back(number)
    last, begun = max(agent.scrapes()), time.monotonic()
    metrics = logs = 0.0
    while not (metrics and logs) and time.monotonic() - begun < _MOST_S:
        if not metrics and last_scrape(server, agent) >= last:
            metrics = time.monotonic() - begun
        if not logs and lines_of(server, agent) >= written + LINES:
            logs = time.monotonic() - begun
        time.sleep(0.2)
    return metrics or _MOST_S, logs or _MOST_S


def measure(bed: Bed, agents: list[Agent], kind: str, done: int) -> list[tuple[float, float]]:
    """Return the times of all agents and rounds of a kind of outage; `done` rounds were before."""
    times: list[tuple[float, float]] = []
    for turn in range(ROUNDS):

        def one(agent: Agent, place: int, turn: int = turn) -> None:
            time.sleep(secrets.randbelow(10_000) / 1000)
            number = 20 + place + AGENTS * (done + turn)
            times.append(outage(bed.server, agent, (done + turn) * LINES, number, silence=kind == "silence"))

        threads = [threading.Thread(target=one, args=(agent, place)) for place, agent in enumerate(agents)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(
            f"{kind}: round {turn + 1}: {' '.join(f'{one:.1f}/{two:.1f}' for one, two in times[-AGENTS:])}",
            file=sys.stderr,
        )
    return times


def main() -> None:
    """Print the times of each kind, and what is missing or stored twice."""
    with agents_bed() as bed:
        server = bed.server
        agents = [bed.agent(f"machine{number}") for number in range(AGENTS)]
        server.start_metrics("newer")
        server.start_logs()
        server.start_front()
        for agent in agents:
            agent.scrape_ms = SCRAPE_MS
            agent.start_exporter(series=SERIES)
            agent.start_metrics()
            agent.start_logs()
        for done, kind in enumerate(("no route", "silence")):
            times = sorted(max(each) for each in measure(bed, agents, kind, done * ROUNDS))
            p95 = times[max(0, -(-len(times) * 95 // 100) - 1)]
            print(
                f"{kind:8} {len(times)} outages: median {times[len(times) // 2]:.1f} s, p95 {p95:.1f} s, "
                f"longest {times[-1]:.1f} s; to reach: p95 < {TO_REACH_S:g} s"
            )
        server.flush()
        for agent in agents:
            samples = server.samples(f'bed_sequence{{machine="{agent.name}"}}')
            failed = [each for each in server.samples(f'up{{machine="{agent.name}"}}') if each.value == 0]
            lines = server.lines(f"machine:={agent.name}")
            print(
                f"{agent.name}: {len(agent.scrapes())} scrapes, {len(failed)} given up on, "
                f"missing {len(unsent(agent, samples))}, twice {twice(samples)}; "
                f"{len(lines)} lines, twice {twice(lines)}"
            )


if __name__ == "__main__":
    main()
