"""Measure how time and memory grow from 10,000 to 100,000 machines with three exporters each.

    make bench-scale                       both sizes, about 10 minutes
    make bench-scale ARGS="1000 10000"     two other sizes

Time is CPU time, the median of some runs. Memory is the peak of the process, in MiB. Of a process that stays (`run`),
the time is that of the work alone, and the memory is the peak since its start. `verify` asks a stand-in over loopback,
which has all targets and answers as Prometheus 2.42 does. The work after one machine's change: bench/resident.py.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from bench.refresh import PROGRAM, ROOT, timed
from bench.status_page import cpu_ms, wait_until_ready
from bench.verify import serve, wait_for_url
from tests.support.fleet import fleet, inventory
from tests.support.programs import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.fleet import Object

SIZES: Final = (10_000, 100_000)
RUNS: Final = 3
START_S: Final = 600.0
GOAL: Final = 11.0
LEAST_MS: Final = 20.0
IDLE_MS: Final = 20.0
"""The CPU time that a cycle takes at least, and that a process takes in 3 s without one."""
EXPORTERS: Final = ("node", "systemd", "nginx")
PAGES: Final = (
    ("page, first after a cycle", ""),
    ("page, another", "?page=50"),
    ("page, search", "?q=host-00123"),
    ("page, one machine", "machines/host-000123"),
    ("http_sd, one job", "sd/node"),
    ("metrics", "metrics"),
    ("JSON of all machines", "api/v1/machines"),
)


class Cost(NamedTuple):
    """CPU seconds, peak memory in MiB, and for answers over HTTP their bytes."""

    cpu: float
    memory: float
    size: int = 0


def make(size: int, place: Path) -> None:
    """Write an inventory, and a status in which one machine of a hundred is missing."""
    names = ["monitor", *(f"host-{number:06d}" for number in range(1, size))]
    exporters: Object = {"exporters": {name: {} for name in EXPORTERS}}
    (place / "inventory.json").write_text(json.dumps(inventory(names, exporters)))
    (place / "status.json").write_text(json.dumps(fleet(names[: -size // 100])))


def write_config(place: Path, **more: object) -> Path:
    """Write a config that reads both files."""
    config = {
        "inventory": {"file": "inventory.json"},
        "backends": {"tailscale": {"tailnet": {"status_file": "status.json"}}},
        "output": {"directory": "targets"},
    }
    (place / "config.json").write_text(json.dumps(config | more))
    return place / "config.json"


def process(*words: str) -> Cost:
    """Run the program as a process, some times, and return the medians."""
    runs = [timed([str(PROGRAM), *words]) for _ in range(RUNS)]
    return Cost(statistics.median(run.cpu for run in runs), max(run.memory for run in runs))


def refreshed(place: Path, config: Path) -> Cost:
    """Run `refresh` into an empty directory."""

    def once() -> Cost:
        shutil.rmtree(place / "targets", ignore_errors=True)
        run = timed([str(PROGRAM), "refresh", "-q", "--config", str(config)])
        return Cost(run.cpu, run.memory)

    runs = [once() for _ in range(RUNS)]
    return Cost(statistics.median(run.cpu for run in runs), max(run.memory for run in runs))


def verified(place: Path) -> Cost:
    """Run `verify` beside a stand-in that has all targets."""
    (place / "url").unlink(missing_ok=True)
    server = subprocess.Popen([sys.executable, "-m", "bench.scale", "--serve", str(place)], cwd=ROOT)
    try:
        scrapers = {"scrapers": {"one": {"url": wait_for_url(place, START_S)}}, "timeout": "5m"}
        return process("verify", "--config", str(write_config(place, verify=scrapers)))
    finally:
        server.kill()
        server.wait()


def peak(pid: int) -> float:
    """Return the peak memory of a process since its start, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def cycle(place: Path, pid: int) -> None:
    """Start a cycle of `run` by touching the status, and wait until it is over: until the process rests.

    To ask for the metrics until they change would cost more than the cycle: they have 70 MB.
    """
    start = last = cpu_ms(pid)
    (place / "status.json").touch()
    deadline = time.monotonic() + START_S
    while True:
        time.sleep(3)
        now = cpu_ms(pid)
        if now - start > LEAST_MS and now - last < IDLE_MS:
            return
        if time.monotonic() > deadline:
            raise SystemExit("no refresh cycle, or one without an end")
        last = now


def resident(place: Path) -> dict[str, Cost]:
    """Measure a cycle of `run`, and what it serves."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    config = write_config(place, web={"listen": f"127.0.0.1:{port}"})
    command = [str(PROGRAM), "run", "--config", str(config), "--interval", "1h"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def cost(work: Callable[[str], int], path: str) -> Cost:
        before = cpu_ms(running.pid)
        size = work(path)
        return Cost((cpu_ms(running.pid) - before) / 1000, peak(running.pid), size)

    def get(path: str) -> int:
        with urllib.request.urlopen(url + path, timeout=START_S) as answer:  # noqa: S310 - our own server on loopback
            return len(answer.read())

    def one_cycle(path: str) -> int:
        del path
        cycle(place, running.pid)
        return 0

    try:
        wait_until_ready(url, START_S)
        runs: dict[str, list[Cost]] = {}
        for _ in range(RUNS):
            runs.setdefault("run, one cycle", []).append(cost(one_cycle, ""))
            for name, path in PAGES:
                runs.setdefault(name, []).append(cost(get, path))
    finally:
        running.terminate()
        running.wait(60)
    return {
        name: Cost(statistics.median(c.cpu for c in costs), costs[-1].memory, costs[-1].size)
        for name, costs in runs.items()
    }


def measure(size: int) -> dict[str, Cost]:
    """Measure all parts at one size."""
    with tempfile.TemporaryDirectory(prefix="clan-discovery-bench-") as name:
        place = Path(name)
        # In a process of its own, because the peak memory of a child is at least that of its parent at its start.
        subprocess.run([sys.executable, "-m", "bench.scale", "--make", str(size), str(place)], check=True, cwd=ROOT)
        config = write_config(place)
        found = {"refresh": refreshed(place, config), "show": process("show", "--config", str(config))}
        found |= resident(place)
        return found | {"verify": verified(place)}


def print_growth(sizes: tuple[int, int], small: dict[str, Cost], large: dict[str, Cost]) -> None:
    """Print each part at both sizes, and the ratios."""
    times = sizes[1] / sizes[0]
    print(f"{sizes[0]:,} and {sizes[1]:,} machines, {len(EXPORTERS)} exporters each; goal: {GOAL / 10 * times:.1f} x")
    for name, cost in large.items():
        one = small[name]
        answer = f" {one.size / 1e6:8.3f} {cost.size / 1e6:8.3f} MB" if cost.size else ""
        print(
            f"  {name:<26} CPU {one.cpu:7.2f} {cost.cpu:7.2f} s, x {cost.cpu / max(one.cpu, 0.01):5.1f}; "
            f"memory {one.memory:6.0f} {cost.memory:6.0f} MiB, x {cost.memory / one.memory:4.1f}{answer}"
        )


def main() -> None:
    """Measure two sizes."""
    if sys.argv[1:2] == ["--make"]:
        make(int(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1:2] == ["--serve"]:
        served = Path(sys.argv[2])
        serve(served, sorted((served / "targets").glob("*.json")))
    else:
        given = tuple(int(word) for word in sys.argv[1:]) or SIZES
        sizes = given[0], given[-1]
        small, large = (measure(size) for size in sizes)
        print_growth(sizes, small, large)


if __name__ == "__main__":
    main()
