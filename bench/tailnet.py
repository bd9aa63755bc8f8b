"""Compare with tailscalesd on a real tailnet: time to see a join, and targets lost in faults.

    make bench-tailnet              all (about 20 minutes)
    make bench-tailnet ARGS=joins   one part: joins, nights

One Prometheus on one machine of the test bed has four jobs: the file of `run`, the file of `refresh` every 5 s, and two
tailscalesds: one tuned (`--poll=5s`, http_sd every 5 s), one with the defaults (5 minutes, 60 s). Prometheus's list of
targets is polled every 100 ms. A lost machine is one that is up and declared, but no target for a while.
"""

from __future__ import annotations

import signal
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from tests.support import builds
from tests.support.builds import NotBuiltError
from tests.tailnet.bed import Bed, until
from tests.tailnet.joins import Crowd, percentile
from tests.tailnet.server import Sampler, Server
from tests.tailnet.world import NoWorldError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

JOBS: Final = {
    "run": "clan-discovery run",
    "timer": "clan-discovery refresh, every 5 s",
    "tailscalesd": "tailscalesd, tuned",
    "tailscalesd-default": "tailscalesd, defaults",
}
_JOINS: Final = 30
_MINUTE: Final = 60.0
_ALL_CACHES_S: Final = 420.0
"""Longer than tailscalesd's cache of 5 minutes and Prometheus's 60 s together."""


def joins() -> None:
    """Let thirty machines join; print for each job the time until Prometheus has them as targets."""
    with Bed() as bed:
        bed.machine("monitor")
        bed.join("monitor")
        crowd = Crowd(bed, _JOINS)
        server = Server(bed.machines["monitor"], ("monitor", *crowd.names))
        server.start("run", "timer", "tailscalesd", "tailscalesd-default", "prometheus")
        found = crowd.join_all(server, tuple(JOBS), seconds=_ALL_CACHES_S)
    print(f"\n{_JOINS} joins: seconds from the control plane's own record to Prometheus's list of targets")
    print("  (from the record until this machine's tailscaled knew: " + _spread([j.told for j in found["run"]]) + ")")
    print("  (until it stood in run's file:                        " + _spread([j.file for j in found["run"]]) + ")")
    for job, name in JOBS.items():
        print(f"  {name:<36} {_spread([join.held for join in found[job]])}")


def _spread(values: Sequence[float]) -> str:
    return f"p50 {percentile(values, 50):6.2f}  p95 {percentile(values, 95):6.2f}  max {max(values):6.2f}"


class Night:
    """A server and two machines, and a table of the targets that each fault cost each job."""

    def __init__(self, bed: Bed) -> None:
        for name in ("monitor", "db", "web"):
            bed.machine(name, builds.OLD if name == "monitor" else builds.NEW)
        bed.join("monitor", "db", "web")
        self.bed = bed
        self.monitor = bed.machines["monitor"]
        self.server = Server(self.monitor, ("monitor", "db", "web"))
        self.server.start("run", "timer", "tailscalesd", "tailscalesd-default", "prometheus")
        self.recover()

    def recover(self) -> None:
        """Wait until every job has every machine, up, before the next fault."""
        for job in JOBS:
            until(f"{job} is whole", partial(self.server.scrapes, self.server.declared, job=job), _ALL_CACHES_S)

    def trouble(self, name: str, happen: Callable[[], None]) -> None:
        """Cause a fault; print which targets each job lost, and for how long."""
        with Sampler(self.server) as sampler:
            happen()
            self.recover()
        print(f"\n{name} (targets were looked at every {sampler.longest_gap_s:.1f} s or more often)")
        for job, title in JOBS.items():
            lost = sampler.lost(job, self.server.declared)
            worst = (
                f"{len(lost)} of {len(self.server.declared)} lost, for up to {max(lost.values()):.1f} s"
                if lost
                else "nothing lost"
            )
            print(f"  {title:<36} {worst}", flush=True)

    def restart(self) -> None:
        """Stop and start tailscaled, as an update does."""
        self.monitor.stop()
        time.sleep(3)
        self.monitor.start()

    def kill(self) -> None:
        """Kill tailscaled; its socket is left over."""
        self.monitor.stop(signal.SIGKILL)
        time.sleep(3)
        self.monitor.start()

    def upgrade(self) -> None:
        """Update tailscaled from a version before the bus changed to one after."""
        self.monitor.stop()
        time.sleep(3)
        self.monitor.version = builds.NEW
        self.monitor.start()

    def logout(self) -> None:
        """Log out for a minute."""
        self.monitor.cli("logout")
        time.sleep(_MINUTE)
        self.monitor.up(self.bed.keys[""])

    def away(self, seconds: float) -> None:
        """Stop tailscaled for this many seconds."""
        self.monitor.stop()
        time.sleep(seconds)
        self.monitor.start()

    def headscale(self) -> None:
        """Stop the control plane for a minute."""
        self.bed.control.stop()
        time.sleep(_MINUTE)
        self.bed.control.start()


def nights() -> None:
    """Cause faults of tailscaled and headscale; print the lost targets."""
    with Bed() as bed:
        night = Night(bed)
        night.trouble("tailscaled restarted, away for 3 s", night.restart)
        night.trouble("tailscaled killed, away for 3 s", night.kill)
        night.trouble(f"tailscaled upgraded, {builds.OLD} to {builds.NEW}, away for 3 s", night.upgrade)
        night.trouble("tailscaled logged out for a minute", night.logout)
        night.trouble("headscale stopped for a minute", night.headscale)
        night.trouble("tailscaled away for a minute", lambda: night.away(_MINUTE))
        night.trouble("tailscaled away for seven minutes", lambda: night.away(_ALL_CACHES_S))


def main() -> None:
    """Run the parts given, or all."""
    parts = {"joins": joins, "nights": nights}
    try:
        builds.build_all("tailnet", lambda line: print(line, flush=True))
        for part in sys.argv[1:] or parts:
            parts[part]()
    except (NotBuiltError, NoWorldError) as error:
        raise SystemExit(f"no tailnet here: {error}") from error


if __name__ == "__main__":
    main()
