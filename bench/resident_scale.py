"""Measure a refresh cycle of `run` after one node's change, beside a full one, at 100,000 machines.

    make bench-incremental                       100,000 machines with 3 exporters each
    make bench-incremental ARGS="10000 1"        fewer of both
    make bench-incremental ARGS="100000 3 64"    with `output.split: 64`

The resident process is `run` with `web`, and runs a cycle when it is told, not on its timer. Before each cycle, one
node has got another address. `full` forgets what the process keeps between cycles, so that every node is interpreted,
resolved and rendered again; `one change` keeps it. Times are CPU seconds of the process by phase, without those of the
phases within and of garbage collections. The test server is in another process.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from bench.web import free_port, write_world
from tests.support.fleet import fleet
from tests.support.localapi import Behaviour, localapi

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5
PHASES = {
    "read the response": ("backends.tailscale:LocalAPI.get",),
    "decode, convert nodes": ("backends.tailscale:parse_status",),
    "trust": ("round:believe",),
    "memory of trust": ("memory:Memories.read", "memory:Memories.load", "memory:Memories.save"),
    "resolve": ("round:resolve",),
    "render": ("round:render_jobs",),
    "publish": ("round:publish",),
    "history": ("memory:HistoryFile.read", "memory:HistoryFile.record"),
    "log": ("resident.events:Events.cycle_succeeded",),
    "lists of http_sd": ("resident.serving:Serving.update",),
}


class Clock:
    """CPU seconds by phase: those of a phase within another one count only for the inner one."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self._within = [0.0]
        self._began = 0.0

    def timed(self, phase: str, function: Callable[..., object]) -> Callable[..., object]:
        """Return a function that counts its time for a phase."""

        @functools.wraps(function)
        def wrapped(*args: object, **kwargs: object) -> object:
            start = time.process_time()
            self._within.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                took = time.process_time() - start
                self.spent[phase] += took - self._within.pop()
                self._within[-1] += took

        return wrapped

    def collecting(self, when: str, _: object) -> None:
        """Count a garbage collection as a phase of its own; see `gc.callbacks`."""
        if when == "start":
            self._began = time.process_time()
            return
        took = time.process_time() - self._began
        self.spent["garbage collection"] += took
        self._within[-1] += took

    def watch(self) -> None:
        """Wrap the functions of all phases."""
        gc.callbacks.append(self.collecting)
        for phase, places in PHASES.items():
            for place in places:
                module, _, name = place.partition(":")
                owner: object = importlib.import_module(f"clan_discovery.{module}")
                *parents, last = name.split(".")
                for parent in parents:
                    owner = getattr(owner, parent)
                found = getattr(owner, last)
                if isinstance(owner, type) and isinstance(vars(owner)[last], classmethod):
                    setattr(owner, last, staticmethod(self.timed(phase, found)))
                else:
                    setattr(owner, last, self.timed(phase, found))


def resident(config: str) -> None:
    """Be `run`: after each cycle, print what it took, and wait for a line on stdin. `full` forgets the cache."""
    from clan_discovery.cli.main import entry  # noqa: PLC0415 - only in the process that is measured
    from clan_discovery.resident.loop import Daemon  # noqa: PLC0415

    clock = Clock()
    clock.watch()
    began = time.process_time()

    def wait(self: Daemon, _: object) -> frozenset[str]:
        nonlocal began
        now = time.process_time()
        print(json.dumps({**clock.spent, "all": now - began, **memory()}), flush=True)
        clock.spent.clear()
        began = now
        line = sys.stdin.readline().strip()
        if not line:
            self.wake.call("stop")
            os._exit(0)
        if line == "full":
            setattr(self, "_cache_paths", None)  # noqa: B010 - as after a change of the output directory
        return frozenset({"bus"})

    setattr(Daemon, "_wait", wait)  # noqa: B010 - the loop goes on when it is told
    sys.argv = ["clan-discovery", "run", "-c", config, "--log-level", "error"]
    entry()


def memory() -> dict[str, float]:
    """Return the resident MiB of this process, and its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return {"MiB": found["VmRSS"], "peak MiB": found["VmHWM"]}


class World:
    """A fleet with a node that changes its address at each step, and the process under test."""

    def __init__(self, place: Path, machines: int, jobs: int, split: int, how: Behaviour) -> None:
        names = ["monitor", *(f"host-{number}" for number in range(1, machines))]
        self.how = how
        self._before, self._after = json.dumps(fleet(names)).encode().split(b'"100.64.0.77"', 1)
        self._steps = 0
        self.change()
        more = f'web: {{listen: "127.0.0.1:{free_port()}"}}\n'
        config = write_world(place, names, more, jobs)
        config.write_text(config.read_text().replace("directory: targets", f"directory: targets, split: {split}"))
        command = [sys.executable, "-m", "bench.resident_scale", "--resident", str(config)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def change(self) -> None:
        """Give one node another address."""
        self._steps += 1
        self.how.body = self._before + f'"100.99.0.{self._steps}"'.encode() + self._after

    def cycle(self, kind: str) -> dict[str, float]:
        """Change a node, run a cycle, and return what it took."""
        self.change()
        if self._process.stdin is not None:
            print(kind, file=self._process.stdin, flush=True)
        return self.answer()

    def answer(self) -> dict[str, float]:
        """Return what the cycle took that runs."""
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise SystemExit("the process ended")
        found: dict[str, float] = json.loads(line)
        return found

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def show(kinds: dict[str, list[dict[str, float]]]) -> None:
    """Print the medians of each phase, and the ratio."""
    names = [*PHASES, "garbage collection", "all", "MiB", "peak MiB"]
    print(f"  {'':24}" + "".join(f"{kind:>14}" for kind in kinds))
    for name in names:
        values = [statistics.median(run.get(name, 0.0) for run in runs) for runs in kinds.values()]
        print(f"  {name:24}" + "".join(f"{value:>14.2f}" for value in values))


def main(machines: int = 100_000, jobs: int = 3, split: int = 1) -> None:
    """Measure."""
    what = f"{machines} machines, {jobs} exporters on each, output.split {split}"
    print(f"{what}; CPU seconds of a cycle of `run`, median of {ROUNDS}")
    with tempfile.TemporaryDirectory(prefix="clan-discovery-bench-") as name:
        place = Path(name)
        how = Behaviour()
        with localapi(place / "s", how):
            world = World(place, machines, jobs, split, how)
            try:
                first = world.answer()
                world.cycle("one change")
                # In turn, because the load of the machine changes.
                pairs = [(world.cycle("full"), world.cycle("one change")) for _ in range(ROUNDS)]
            finally:
                world.stop()
    full, changed = ([pair[number] for pair in pairs] for number in (0, 1))
    show({"first": [first], "full": full, "one change": changed})
    ratios = [one["all"] / whole["all"] for whole, one in pairs]
    every = " ".join(f"{ratio:.2f}" for ratio in sorted(ratios))
    print(f"one change / full: {statistics.median(ratios):.2f} (of {every}; goal: 0.5)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--resident"]:
        resident(sys.argv[2])
    else:
        main(*map(int, sys.argv[1:]))
