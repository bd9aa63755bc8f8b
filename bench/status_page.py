"""Measure the status page of `run` with 10,000 machines and three exporters on each.

    make bench-page

`run` is a process of its own, and each request is a connection of its own. The first request after a cycle makes the
rows of all machines; later ones only select and render. Time is the median of some requests, from the connection
to the last byte.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.support.fleet import fleet, inventory
from tests.support.programs import free_port

if TYPE_CHECKING:
    from tests.support.fleet import Object

PROGRAM: Final = Path(sys.executable).with_name("clan-discovery")
MACHINES: Final = 10_000
REPEATS: Final = 9
START_S: Final = 120.0
PAGES: Final = (
    ("first page", ""),
    ("page 50", "?page=50"),
    ("search, 10 machines", "?q=host-0123"),
    ("search, no machine", "?q=nothing"),
    ("state missing", "?state=missing"),
    ("one machine", "machines/host-00123"),
    ("JSON, all machines", "api/v1/machines"),
    ("JSON, one machine", "api/v1/machines/host-00123"),
)


def write_files(place: Path, port: int) -> None:
    """Write an inventory, a status in which 100 machines are missing, and a config."""
    names = [f"host-{number:05d}" for number in range(MACHINES)]
    exporters: Object = {"exporters": {"node": {}, "systemd": {}, "nginx": {}}}
    (place / "inventory.json").write_text(json.dumps(inventory(names, exporters)))
    (place / "status.json").write_text(json.dumps(fleet([*names[:-100], *(f"stray-{n}" for n in range(100))])))
    config = {
        "inventory": {"file": "inventory.json"},
        "backends": {"tailscale": {"tailnet": {"status_file": "status.json"}}},
        "output": {"directory": "targets"},
        "web": {"listen": f"127.0.0.1:{port}"},
    }
    (place / "config.json").write_text(json.dumps(config))


def timed(url: str) -> tuple[float, int]:
    """Return how many milliseconds a request takes, and how many bytes the answer has."""
    start = time.perf_counter()
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - our own server on loopback
        size = len(answer.read())
    return (time.perf_counter() - start) * 1000, size


def cpu_ms(pid: int) -> float:
    """Return the CPU time of a process so far. Not from /proc, which counts in steps of 10 ms."""
    clock = (~pid << 3) | 2  # as clock_getcpuclockid(3) makes it
    return time.clock_gettime(clock) * 1000


def wait_until_ready(url: str, seconds: float = START_S) -> None:
    """Wait for the first refresh cycle. It asks for the metrics, so that the first page is still to be made."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError):
            timed(f"{url}metrics")
            return
        time.sleep(0.2)
    raise SystemExit("`run` did not become ready")


def cycle(place: Path, url: str) -> None:
    """Start a refresh cycle by touching the status, and wait until its page differs."""
    before = as_of(url)
    (place / "status.json").touch()
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        time.sleep(1.1)  # `as_of` has whole seconds
        if as_of(url) != before:
            return
    raise SystemExit("no refresh cycle")


def as_of(url: str) -> str:
    """Return the line of the metrics that says when the newest cycle was."""
    with urllib.request.urlopen(f"{url}metrics", timeout=60) as answer:  # noqa: S310 - as above
        lines: list[str] = answer.read().decode().splitlines()
    return next(line for line in lines if line.startswith("clan_discovery_last_round_timestamp_seconds "))


def main() -> None:
    """Print a row for each kind of page."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        write_files(place, port)
        command = [str(PROGRAM), "run", "--config", str(place / "config.json"), "--interval", "1h"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until_ready(url)
            timed(url)  # compiles the templates
            fresh: list[tuple[float, int]] = []
            cpu: list[float] = []
            for _ in range(5):
                cycle(place, url)
                before = cpu_ms(process.pid)
                fresh.append(timed(url))
                cpu.append(cpu_ms(process.pid) - before)
            print(f"status page of {MACHINES:,} machines with 3 exporters each")
            print(row("first after a cycle", fresh), f" ({statistics.median(cpu):.0f} ms CPU)")
            for name, path in PAGES:
                print(row(name, [timed(url + path) for _ in range(REPEATS)]))
        finally:
            process.terminate()
            process.wait(30)


def row(name: str, runs: list[tuple[float, int]]) -> str:
    """Format the median of some requests."""
    milliseconds = statistics.median(time for time, _ in runs)
    return f"  {name:<22} {milliseconds:>7.0f} ms {runs[-1][1]:>10,} bytes"


if __name__ == "__main__":
    main()
