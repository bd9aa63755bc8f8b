"""Compare `refresh` and `run` with tailscalesd: time to answer, and cost while running.

    make bench                                          after the pipeline's rows
    .venv/bin/python -m bench.tailscalesd 10 1000       these sizes

All ask one LocalAPI on a unix socket that serves one saved status. `refresh` is a whole process, from start to files
written. tailscalesd runs already and is asked over HTTP with its cache off (`--poll=1ns`). The running cost is that of
30 s of polling every 5 s: `run --interval 5s`, and tailscalesd with `--poll=5s`, asked every 5 s as by Prometheus.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bench.refresh import ENVIRONMENT, PROGRAM, ROOT, make, median, timed, wait_for, write_config
from bench.resident import usage
from tests.support.builds import NotBuiltError, tailscalesd
from tests.support.programs import free_port

if TYPE_CHECKING:
    from collections.abc import Generator

SIZES = (10, 1_000, 10_000)
TURNS = 7
_RESIDENT_S = 30.0
_EVERY_S = 5.0


@contextmanager
def started(*command: str | Path) -> Generator[subprocess.Popen[bytes]]:
    """Run a program while the block lasts."""
    words = [str(word) for word in command]
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT, env=ENVIRONMENT | {"NO_COLOR": "1"}
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def peer(socket: Path, port: int, poll: str) -> list[str | Path]:
    """Return tailscalesd's command."""
    return [tailscalesd(), "--localapi", f"--localapi_socket={socket}", f"--address=127.0.0.1:{port}", f"--poll={poll}"]


def ask(port: int) -> float:
    """Ask tailscalesd once; return the seconds that it took."""
    start = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
        answer.read()
    return time.perf_counter() - start


def answers(port: int) -> int:
    """Wait until tailscalesd answers; return the number of its devices."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
                return len(json.loads(answer.read()))
        except OSError:
            time.sleep(0.05)
    raise SystemExit("tailscalesd did not start")


def resident(name: str, process: subprocess.Popen[bytes], port: int | None) -> None:
    """Measure a running process for a while; ask tailscalesd meanwhile."""
    cpu, _ = usage(process.pid)
    end = time.monotonic() + _RESIDENT_S
    while time.monotonic() < end:
        time.sleep(_EVERY_S)
        if port is not None:
            ask(port)
    after, memory = usage(process.pid)
    print(f"  {name:<32} {(after - cpu) / _RESIDENT_S * 100:>6.2f} % of a core {memory:>6.0f} MiB")


def measure(size: int, place: Path) -> None:
    """Measure one size."""
    make(size, place)
    socket = place / "s"
    write_config(place, socket)
    config = str(place / "config.yaml")
    ours: list[float] = []
    theirs: list[float] = []
    print(f"{size} nodes")
    port = free_port()
    with (
        started(sys.executable, "-m", "tests.support.localapi", socket, place / "status.json"),
        started(*peer(socket, port, "1ns")),
    ):
        wait_for(socket)
        if answers(port) != size:
            raise SystemExit("tailscalesd does not see every node")
        for _ in range(TURNS):
            shutil.rmtree(place / "out", ignore_errors=True)
            ours.append(timed([str(PROGRAM), "refresh", "-q", "--config", config]).wall)
            theirs.append(ask(port))
    ratio = median([a / b for a, b in zip(ours, theirs, strict=True)])
    print(f"  refresh, whole process           {median(ours) * 1000:>8.0f} ms")
    print(f"  tailscalesd, one answer          {median(theirs) * 1000:>8.0f} ms    refresh / tailscalesd {ratio:.2f}")
    with started(sys.executable, "-m", "tests.support.localapi", socket, place / "status.json"):
        wait_for(socket)
        with started(PROGRAM, "run", "--interval", f"{_EVERY_S:g}s", "--config", config) as process:
            time.sleep(3)
            resident("run, a round every 5 s", process, None)
        port = free_port()
        with started(*peer(socket, port, f"{_EVERY_S:g}s")) as process:
            answers(port)
            resident("tailscalesd, asked every 5 s", process, port)


def main() -> None:
    """Measure the sizes given, or all."""
    try:
        tailscalesd()
    except NotBuiltError as error:
        print(f"tailscalesd: not measured: {error}")
        return
    print("tailscalesd 0.5.0")
    for size in [int(word) for word in sys.argv[1:]] or SIZES:
        with tempfile.TemporaryDirectory(prefix="clan-discovery-bench-") as place:
            measure(size, Path(place))


if __name__ == "__main__":
    main()
