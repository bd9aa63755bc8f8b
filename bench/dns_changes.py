"""Measure the time from a change of a zone to the new address in the target file of `run`.

    python -m bench.dns_changes [CHANGES]     default: 20; part of `make bench-resident`

The time is compared with the TTL of the answer. A Knot on loopback serves the zone. The time starts with the signal
that makes Knot read the zone file, and ends when the target file has the new address (polled every 10 ms). The
interval of `run` is an hour.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.support.dns import knot

PROGRAM: Final = str(Path(sys.executable).with_name("clan-discovery"))
TTL_S: Final = 3
WAIT_S: Final = 60.0
ZONE: Final = "lan.example"


def write_config(place: Path, port: int) -> Path:
    """Write a config that lists one name; return it."""
    config = place / "config.yaml"
    config.write_text(
        f"backends:\n  dns:\n    lan: {{names: [db.{ZONE}], type: A, job: node, min_ttl: 1s, timeout: 3s,"
        f' allow_networks: [127.0.1.0/24], servers: ["127.0.0.1:{port}"]}}\noutput: {{directory: targets}}\n'
    )
    return config


def seconds_until(file: Path, text: bytes) -> float:
    """Wait until a file contains a text; return the seconds that it took."""
    start = time.monotonic()
    while not (file.exists() and text in file.read_bytes()):
        if time.monotonic() - start > WAIT_S:
            sys.exit(f"{file} does not hold {text.decode()} after {WAIT_S:g} s")
        time.sleep(0.01)
    return time.monotonic() - start


def measure(place: Path, changes: int) -> list[float]:
    """Change the zone this many times; return the seconds from each change to the target file."""
    with knot(place, {ZONE: "db A 127.0.1.1\n"}, ttl=TTL_S) as server:
        command = [PROGRAM, "run", "--interval", "1h", "--config", str(write_config(place, server.port))]
        with (place / "run.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                file = place / "targets/node.json"
                seconds_until(file, b"127.0.1.1:")
                found: list[float] = []
                for turn in range(changes):
                    time.sleep(0.7 * turn % TTL_S)  # at any point in the TTL of the answer
                    server.rewrite(ZONE, f"db A 127.0.1.{turn % 200 + 2}\n", TTL_S)
                    found.append(seconds_until(file, f"127.0.1.{turn % 200 + 2}:".encode()))
                return found
            finally:
                process.terminate()


def main() -> None:
    """Measure and print."""
    changes = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as made:
        found = sorted(measure(Path(made), changes))
    print(f"{changes} changes of a zone with a TTL of {TTL_S} s: seconds until the target file has the new address")
    print(f"  median {statistics.median(found):.2f}, largest {found[-1]:.2f}")


if __name__ == "__main__":
    main()
