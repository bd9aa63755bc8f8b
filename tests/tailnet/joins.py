"""Measure how long machines that join one by one take to become targets."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tests.support import builds
from tests.tailnet.bed import start_exporter, until
from tests.tailnet.node import Node
from tests.tailnet.server import Sampler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.tailnet.bed import Bed
    from tests.tailnet.server import Server, Target


@dataclass(frozen=True)
class Join:
    """When the control plane stored a machine, and seconds from then on.

    `told`: the server's tailscaled knew it; `file`: the target file had its address; `ready`: its own tailscaled had
    checked its network and ran; `held`, `up`: the scraper had it as a target, and had scraped it.
    """

    name: str
    told: float
    file: float
    ready: float
    held: float
    up: float


class Crowd:
    """Machines on one host, each with its own tailscaled, and one exporter on loopback for all."""

    def __init__(self, bed: Bed, size: int) -> None:
        self.bed = bed
        self.host = bed.world.host("crowd")
        names = [f"m{number:02}" for number in range(1, size + 1)]
        self.nodes = {name: Node(self.host, bed.control, builds.NEW, name=name, tun=False) for name in names}
        start_exporter(self.host)
        for node in self.nodes.values():
            node.start()

    @property
    def names(self) -> tuple[str, ...]:
        """Return their names."""
        return tuple(self.nodes)

    def join_all(self, server: Server, jobs: Sequence[str] = ("run",), seconds: float = 120) -> dict[str, list[Join]]:
        """Let them join one by one, each when the one before is in `run`'s file.

        Return the times of each machine by job; `seconds` limits the wait for a scrape.
        """
        seen = {name: _Times() for name in self.names}
        ups: list[threading.Thread] = []
        with Sampler(server) as sampler:
            for name, node in self.nodes.items():
                ups.append(_when_ready(seen[name], node, self.bed.keys[""]))
                until(f"{server.node.name} is told of {name}", partial(_told, server, name), every=0.02)
                seen[name].told = time.time()
                until(f"the file has {name}", partial(_located, server, name), every=0.01)
                seen[name].file = server.targets_file().stat().st_mtime
            for thread in ups:
                thread.join(120)
            for job in jobs:
                until(f"{job} scrapes all", partial(server.scrapes, self.names, job=job), seconds)
            time.sleep(1)  # so that the sampler has looked, too
        return {job: [self._join(name, times, sampler, job) for name, times in seen.items()] for job in jobs}

    def _join(self, name: str, times: _Times, sampler: Sampler, job: str) -> Join:
        event = self.bed.control.registered_at(name)
        assert event is not None
        start = event.timestamp()
        held = sampler.first(job, name, _has_address)
        up = sampler.first(job, name, _is_up)
        return Join(name, times.told - start, times.file - start, times.ready - start, held - start, up - start)


@dataclass
class _Times:
    """As `Join`, in seconds since the epoch; nan if unknown."""

    told: float = math.nan
    file: float = math.nan
    ready: float = math.nan


def _has_address(target: Target) -> bool:
    return not target.url.startswith(f"http://{target.instance}.")


def _is_up(target: Target) -> bool:
    return target.health == "up"


def _when_ready(times: _Times, node: Node, key: str) -> threading.Thread:
    """Log a machine in, in the background, and record when it was done."""

    def work() -> None:
        node.up(key)
        times.ready = time.time()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def _told(server: Server, name: str) -> bool:
    return name in server.node.peers()


def _located(server: Server, name: str) -> bool:
    return not server.published()[name].startswith(f"{name}.")


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile: the smallest value that this percentage does not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)]
