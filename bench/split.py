"""Measure how many bytes one machine's change writes with `output.split`, and what dividing the lists costs.

    make bench-split                       100,000 machines, three exporters each, 64 files for each job
    make bench-split ARGS="10000 64"       other numbers

A file counts as written if it was replaced. CPU times are of whole processes, medians of some runs in turn.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench.refresh import PROGRAM, ROOT, timed
from bench.scale import EXPORTERS, write_config

SIZE: Final = 100_000
FILES: Final = 64
RUNS: Final = 3
GOAL: Final = 2.0


def refresh(place: Path, count: int) -> tuple[float, float]:
    """Run `refresh` with so many files for each job; return its CPU seconds and its peak memory in MiB."""
    config = write_config(place, output={"directory": "targets", "split": count})
    run = timed([str(PROGRAM), "refresh", "-q", "--config", str(config)])
    return run.cpu, run.memory


def move_a_machine(place: Path, number: int) -> None:
    """Give one machine of the tailnet another address, by a number from 0."""
    status = json.loads((place / "status.json").read_text())
    peer = next(iter(status["Peer"].values()))
    peer["TailscaleIPs"] = [f"100.127.{number // 256}.{number % 256}"]
    (place / "status.json").write_text(json.dumps(status))


def written(place: Path, count: int) -> tuple[int, int, int]:
    """Change one machine; return the bytes of all target files, of the written ones, and the number of these."""
    shutil.rmtree(place / "targets", ignore_errors=True)
    refresh(place, count)
    before = {file.name: file.stat().st_ino for file in (place / "targets").glob("*.json")}
    move_a_machine(place, count)
    refresh(place, count)
    after = {file.name: file.stat() for file in (place / "targets").glob("*.json")}
    sizes = [status.st_size for name, status in after.items() if before.get(name) != status.st_ino]
    return sum(status.st_size for status in after.values()), sum(sizes), len(sizes)


def print_written(place: Path, files: int) -> None:
    """Print what one change writes, without and with several files."""
    for count in (1, files):
        every, changed, number = written(place, count)
        share = 100 * changed / every
        goal = f"; goal: {GOAL:.0f} %" if count > 1 else ""
        print(
            f"  {count} files for each job: {changed:,} of {every:,} bytes in {number} files, {share:.2f} %{goal}",
            flush=True,
        )


def print_cost(place: Path, files: int) -> None:
    """Print what a refresh costs, without and with several files."""
    costs: dict[int, list[tuple[float, float]]] = {1: [], files: []}
    for _ in range(RUNS):
        for count, found in costs.items():
            shutil.rmtree(place / "targets")
            found.append(refresh(place, count))
    for count, found in costs.items():
        cpu, memory = statistics.median(run[0] for run in found), max(run[1] for run in found)
        print(f"  refresh, all written, {count} files for each job: CPU {cpu:.2f} s, peak memory {memory:.0f} MiB")


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--written"]:  # in a process of its own, which reads the status: see below
        print_written(Path(sys.argv[2]), int(sys.argv[3]))
        return
    size, files = [*map(int, sys.argv[1:]), *(SIZE, FILES)[len(sys.argv) - 1 :]]
    with tempfile.TemporaryDirectory(prefix="clan-discovery-bench-") as name:
        print(f"{size:,} machines, {len(EXPORTERS)} exporters each; one machine gets another address", flush=True)
        # The peak memory of a child is at least that of its parent at its start.
        for words in (["bench.scale", "--make", str(size), name], ["bench.split", "--written", name, str(files)]):
            subprocess.run([sys.executable, "-m", *words], check=True, cwd=ROOT)
        print_cost(Path(name), files)


if __name__ == "__main__":
    main()
