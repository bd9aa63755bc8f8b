"""Compare `refresh` as a process with a `curl | jq` that joins names to `ip:port`.

    make bench                     all sizes, 7 pairs each (3 at 100,000)
    make bench ARGS="1000 10000"   these sizes

Both ask the same server on a unix socket for the same status and read the same inventory; they run in turn, A B A B,
and each ratio is the median of the ratios of the pairs. `refresh` first writes to an empty directory, as the pipeline
does, and then runs again without a change. Memory is the peak of the largest process (wait4, ru_maxrss).
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.fleet import fleet, inventory

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(sys.executable).with_name("clan-discovery")
# As in a user's shell: byte code is cached, output is buffered.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
SIZES = (10, 1_000, 10_000, 100_000)
# The fastest form found for jq 1.6: INDEX is eight times as slow at 10,000 nodes.
JOIN = """\
.CurrentTailnet.MagicDNSSuffix as $suffix
| ([.Self, .Peer[]] | map({(.DNSName | split(".")[0]): .TailscaleIPs[0]}) | add) as $nodes
| [$inventory[0].machines | keys[]
   | {targets: ["\\($nodes[.] // (. + "." + $suffix)):9100"], labels: {instance: ., machine: .}}]
"""


@dataclass(frozen=True)
class Run:
    """One run of one command: seconds of wall clock and of CPU, and MiB of the largest process."""

    wall: float
    cpu: float
    memory: float


def timed(command: list[str]) -> Run:
    """Run a command to its end; return its time and memory from the kernel."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT, env=ENVIRONMENT)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{command[0]} exited with {process.returncode}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def wait_for(socket: Path) -> None:
    """Wait until the server listens."""
    deadline = time.monotonic() + 30
    while not socket.exists():
        if time.monotonic() > deadline:
            raise SystemExit("the server did not start")
        time.sleep(0.02)


def median(values: list[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def row(name: str, runs: list[Run]) -> str:
    """Format the medians of a command's runs."""
    wall, cpu, memory = (median([getattr(r, key) for r in runs]) for key in ("wall", "cpu", "memory"))
    return f"  {name:<22} {wall * 1000:>9.0f} ms {cpu * 1000:>9.0f} ms CPU {memory:>8.0f} MiB"


def measure(size: int, place: Path) -> tuple[Run, Run]:
    """Measure one size; print its rows; return the medians of refresh and of the pipeline."""
    # In a separate process: a child's peak memory includes the memory of its parent at the fork.
    subprocess.run([sys.executable, "-m", "bench.refresh", "--make", str(size), str(place)], check=True, cwd=ROOT)
    (place / "join.jq").write_text(JOIN)
    socket = place / "tailscaled.sock"
    write_config(place, socket)
    ours = [str(PROGRAM), "refresh", "--config", str(place / "config.yaml")]
    pipeline = (
        f"curl -s --unix-socket {socket} http://local-tailscaled.sock/localapi/v0/status"
        f" | jq -c --slurpfile inventory {place}/inventory.json -f {place}/join.jq > {place}/pipeline.json"
    )
    theirs = ["bash", "-o", "pipefail", "-c", pipeline]
    command = [sys.executable, "-m", "tests.support.localapi", str(socket), str(place / "status.json")]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT)
    try:
        wait_for(socket)
        first: list[Run] = []
        again: list[Run] = []
        peer: list[Run] = []
        for turn in range((3 if size >= 100_000 else 7) + 1):
            shutil.rmtree(place / "out", ignore_errors=True)
            runs = timed(ours), timed(ours), timed(theirs)
            if turn:  # the first turn warms the page cache
                for kept, run in zip((first, again, peer), runs, strict=True):
                    kept.append(run)
        subprocess.run([sys.executable, "-m", "bench.refresh", "--agree", str(place)], check=True, cwd=ROOT)
    finally:
        server.kill()
        server.wait()

    def ratio(runs: list[Run], key: str) -> float:
        return median([getattr(a, key) / getattr(b, key) for a, b in zip(runs, peer, strict=True)])

    print(f"{size} nodes")
    print(row("refresh, all written", first))
    print(row("refresh, unchanged", again))
    print(row("curl | jq", peer))
    for what, key in (("wall", "wall"), ("CPU", "cpu")):
        print(f"  refresh / pipeline, {what}: {ratio(first, key):.2f} written, {ratio(again, key):.2f} unchanged")
    print(f"  refresh / pipeline, memory: {ratio(first, 'memory'):.2f}")
    return middle(first), middle(peer)


def write_config(place: Path, socket: Path) -> None:
    """Write a config that asks this socket, with a timeout that a slow machine keeps."""
    (place / "config.yaml").write_text(
        "inventory: {file: inventory.json}\n"
        f"backends: {{tailscale: {{tailnet: {{socket: {socket}, timeout: 60s}}}}}}\n"
        "output: {directory: out/targets}\n"
    )


def make(size: int, place: Path) -> None:
    """Write a status and an inventory of this size."""
    names = ["monitor", *(f"host-{number}" for number in range(1, size))]
    (place / "status.json").write_text(json.dumps(fleet(names)))
    (place / "inventory.json").write_text(json.dumps(inventory(names)))


def middle(runs: list[Run]) -> Run:
    """Return the medians as one run."""
    return Run(*(median([getattr(r, key) for r in runs]) for key in ("wall", "cpu", "memory")))


def agree(place: Path) -> None:
    """Exit if the two found different addresses, because a ratio of different work is meaningless."""
    ours = {g["labels"]["instance"]: g["targets"] for g in json.loads((place / "out/targets/node.json").read_bytes())}
    theirs = {g["labels"]["instance"]: g["targets"] for g in json.loads((place / "pipeline.json").read_bytes())}
    if ours != theirs:
        raise SystemExit("the two commands do not agree")


def main() -> None:
    """Measure the sizes given, or all."""
    if sys.argv[1:2] == ["--make"]:
        make(int(sys.argv[2]), Path(sys.argv[3]))
        return
    if sys.argv[1:2] == ["--agree"]:
        agree(Path(sys.argv[2]))
        return
    for program in ("curl", "jq"):
        if shutil.which(program) is None:
            raise SystemExit(f"the peer needs {program}: on Debian, apt install {program}")
    sizes = [int(size) for size in sys.argv[1:]] or list(SIZES)
    found: dict[int, Run] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="clan-discovery-bench-") as place:
            found[size], _ = measure(size, Path(place))
    bare = [timed([sys.executable, "-c", "import pydantic, httpx"]) for _ in range(8)][1:]
    print("start")
    print(row("import pydantic, httpx", bare))
    if 10 in found:
        print(f"  refresh with 10 nodes / bare import: {found[10].wall / median([r.wall for r in bare]):.2f}")
    if {10_000, 100_000} <= found.keys():
        small, large = found[10_000], found[100_000]
        slower, larger = large.wall / small.wall, large.memory / small.memory
        print(f"growth from 10,000 to 100,000: time x{slower:.1f}, memory x{larger:.1f}")


if __name__ == "__main__":
    main()
