"""Compare the computation of shares with a `refresh`: 100,000 machines with three exporters, three members.

    make bench-shard                   two replicas
    make bench-shard ARGS="10000 1"    another size, another number of replicas

The shares of all targets and their fingerprint are computed in this process, and `refresh` runs as a process without a
shard; both in turn, some times. Time is CPU time; the ratio is the median of the ratios of the pairs.
"""

from __future__ import annotations

import gc
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.refresh import PROGRAM, timed
from bench.scale import EXPORTERS, make, write_config
from clan_discovery.model import Shard, ShardMember
from clan_discovery.resolve.shard import Assignment, targets_fingerprint

SIZE: Final = 100_000
RUNS: Final = 3
GOAL: Final = 0.1


def shares(size: int, replicas: int) -> float:
    """Compute the share of each target of so many machines, and the fingerprint; return the CPU seconds."""
    members = tuple(ShardMember(name) for name in ("mon1", "mon2", "mon3"))
    shard = Shard(member="mon1", members=members, replicas=replicas)
    targets = [(job, f"host-{number:06d}") for number in range(size) for job in EXPORTERS]
    gc.collect()
    gc.disable()  # as the program does
    begin = time.process_time()
    assignment = Assignment(shard)
    for job, instance in targets:
        assignment.of(job, instance)
    targets_fingerprint(targets)
    taken = time.process_time() - begin
    gc.enable()
    return taken


def refreshed(place: Path, config: Path) -> float:
    """Run `refresh` into an empty directory; return the CPU seconds."""
    shutil.rmtree(place / "targets", ignore_errors=True)
    return timed([str(PROGRAM), "refresh", "-q", "--config", str(config)]).cpu


def main(arguments: list[str]) -> None:
    """Print the time of both, and the ratio."""
    size = int(arguments[0]) if arguments else SIZE
    replicas = int(arguments[1]) if len(arguments) > 1 else 2
    with tempfile.TemporaryDirectory() as place:
        make(size, Path(place))
        config = write_config(Path(place))
        pairs = [(shares(size, replicas), refreshed(Path(place), config)) for _ in range(RUNS)]
    share, refresh = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    told = "reached" if ratio <= GOAL else "missed"
    print(f"{size:,} machines, {len(EXPORTERS)} exporters each, 3 members, {replicas} replicas")
    print(f"  shares of all targets  {share:7.2f} s CPU ({share / size / len(EXPORTERS) * 1e6:.1f} us per target)")
    print(f"  refresh                {refresh:7.2f} s CPU")
    print(f"  ratio                  {ratio:7.3f}   goal <= {GOAL}: {told}")


if __name__ == "__main__":
    main(sys.argv[1:])
