"""Measure `run`: latency from a tailnet change to the file, idle cost, memory growth.

    make bench-resident                       200 changes, 60 s idle, 10,000 rounds (about 5 minutes)
    make bench-resident ARGS="20 10 500"      fewer of each

The LocalAPI is the test server, which implements watch-ipn-bus. The latency is from the message on the bus until the
file has the new address (polled every millisecond).
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
from pathlib import Path

from tests.support.fleet import inventory, node, status
from tests.support.localapi import Behaviour, localapi

PROGRAM = str(Path(sys.executable).with_name("clan-discovery"))
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
TICK = os.sysconf("SC_CLK_TCK")


def write_world(place: Path) -> Path:
    """Write a config that asks the test server, and an inventory of ten machines; return the config."""
    (place / "inventory.json").write_text(json.dumps(inventory(["monitor", *(f"m{n}" for n in range(9))])))
    (place / "config.yaml").write_text(
        "inventory: {file: inventory.json}\n"
        f"backends: {{tailscale: {{tailnet: {{socket: {place}/s}}}}}}\noutput: {{directory: out/targets}}\n"
    )
    return place / "config.yaml"


def answer(address: int) -> bytes:
    """Return a status in which m0 has this address."""
    moved = f"100.70.{address >> 8}.{address & 255}"
    return json.dumps(status([node(1, "monitor"), node(2, "m0", TailscaleIPs=[moved])])).encode()


def wait_for(what: str, file: Path, seconds: float = 20.0) -> None:
    """Wait until a file contains a text."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if what in file.read_text():
                return
        except OSError:
            pass
        time.sleep(0.001)
    raise SystemExit(f"{what} never came")


def usage(pid: int) -> tuple[float, float]:
    """Return the CPU seconds and the resident MiB of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return (int(fields[11]) + int(fields[12])) / TICK, resident / (1 << 20)


def latencies(changes: int, how: Behaviour, file: Path) -> list[float]:
    """Change the tailnet this many times, with pauses; return the seconds from message to file."""
    found: list[float] = []
    for number in range(1, changes + 1):
        how.body = answer(number)
        start = time.monotonic()
        how.emit(b'{"PeersChanged": [{}]}')
        wait_for(f'"100.70.{number >> 8}.{number & 255}:9100"', file)
        found.append(time.monotonic() - start)
        time.sleep(0.05)
    return found


def idle(seconds: float, pid: int, directory: Path) -> None:
    """Measure a process that only does its cycles; print the cost."""
    inotify = shutil.which("inotifywait")
    watch = None
    if inotify is not None:
        words = [inotify, "-m", "-q", "-e", "modify,create,delete,move,attrib", str(directory)]
        watch = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    before = Path(f"/proc/{pid}/io").read_text()
    cpu, _ = usage(pid)
    time.sleep(seconds)
    after, memory = usage(pid)
    wrote = [int(io.partition("write_bytes: ")[2].split()[0]) for io in (before, Path(f"/proc/{pid}/io").read_text())]
    print(f"idle for {seconds:.0f} s: {(after - cpu) / seconds * 100:.2f} % of a core, {memory:.0f} MiB resident")
    print(f"  bytes written meanwhile (state: when each backend last answered): {wrote[1] - wrote[0]}")
    if watch is not None:
        watch.terminate()
        out, _ = watch.communicate(timeout=10)
        print(f"  inotify events in the output directory: {len(out.splitlines())}")


def growth(rounds: int, how: Behaviour, pid: int) -> None:
    """Start this many cycles by bus messages; print the memory meanwhile."""
    print(f"{rounds} rounds, resident MiB along the way:", end="")
    asked = how.connections
    for part in range(1, 11):
        while how.connections - asked < rounds * part // 10:
            how.emit(b'{"PeersChanged": [{}]}')
            time.sleep(0.002)
        print(f" {usage(pid)[1]:.1f}", end="", flush=True)
        how.events.clear()
    print()


def main() -> None:
    """Measure."""
    given = [int(word) for word in sys.argv[1:]]
    changes, seconds, rounds = [*given, *(200, 60, 10_000)[len(given) :]]
    with tempfile.TemporaryDirectory(prefix="clan-discovery-bench-") as name:
        place = Path(name)
        config = write_world(place)
        file = place / "out/targets/node.json"
        with localapi(place / "s", Behaviour(body=answer(0))) as how:
            process = subprocess.Popen([PROGRAM, "run", "-c", str(config), "--interval", "30s"], env=ENVIRONMENT)
            try:
                wait_for("100.70.0.0:9100", file)
                while not how.watchers:
                    time.sleep(0.01)
                time.sleep(1.5)
                found = sorted(latencies(changes, how, file))
                p95 = found[int(len(found) * 0.95)]
                print(f"from message to file, {changes} changes: p50 {statistics.median(found):.3f} s, p95 {p95:.3f} s")
                idle(seconds, process.pid, file.parent)
            finally:
                process.kill()
                process.wait()
        with localapi(place / "s", Behaviour(body=answer(0))) as how:
            quick = [sys.executable, "-c", _QUICK, "run", "-c", str(config), "--interval", "1h"]
            process = subprocess.Popen(quick, env=ENVIRONMENT)
            try:
                while not how.watchers:
                    time.sleep(0.01)
                growth(rounds, how, process.pid)
            finally:
                process.kill()
                process.wait()


# The debounce limits the rate of cycles, so it is disabled to run ten thousand of them.
_QUICK = (
    "import clan_discovery.resident.loop as d; d._QUIET_S = d._MAX_BURST_S = 0.0\n"
    "from clan_discovery.cli.main import entry; entry()"
)

if __name__ == "__main__":
    main()
