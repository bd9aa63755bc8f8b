"""Outages on a real tailnet: whatever happens to tailscaled, headscale or the network, no target is lost.

One Prometheus and one vmagent read the files of `run` and of `refresh` on a timer; their target lists are sampled ten
times a second.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support import builds
from tests.tailnet.bed import until
from tests.tailnet.server import PROMETHEUS, VMAGENT, Sampler, Server

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.tailnet.bed import Bed

pytestmark = pytest.mark.timeout(900)
MINUTE = 60.0
MODES = ("run", "timer")


def small_tailnet(bed: Bed, version: str = builds.NEW) -> Server:
    """Bring up a server and two machines, all scraped."""
    for name in ("monitor", "db", "web"):
        bed.machine(name, version if name == "monitor" else builds.NEW)
    bed.join("monitor", "db", "web")
    server = Server(bed.machines["monitor"], ("monitor", "db", "web", "attic"))
    server.start()
    all_up(server)
    return server


def all_up(server: Server, names: frozenset[str] = frozenset({"monitor", "db", "web"}), seconds: float = 120) -> None:
    """Wait until both scrapers scrape these machines, in both modes."""
    for port in (PROMETHEUS, VMAGENT):
        for job in MODES:
            until(f"{port} {job} scrapes all", partial(server.scrapes, names, port, job), seconds)


def _holds(server: Server, names: set[str], port: int) -> bool:
    return names == set(server.targets(port)["run"])


@contextlib.contextmanager
def nothing_is_lost(server: Server) -> Generator[None]:
    """Sample during the block; no target may be missing from either scraper, or at another address, in any sample."""
    before = {port: server.targets(port) for port in (PROMETHEUS, VMAGENT)}
    with Sampler(server, PROMETHEUS) as prometheus, Sampler(server, VMAGENT) as vmagent:
        yield
        time.sleep(1)
    for port, sampler in ((PROMETHEUS, prometheus), (VMAGENT, vmagent)):
        for job in MODES:
            wanted = {name: target.url for name, target in before[port][job].items()}
            for when, targets in sampler.seen:
                found = {name: target.url for name, target in targets.get(job, {}).items()}
                assert found == wanted, f"{port} {job} at {when}"


def test_tailscaled_is_restarted_killed_logged_out_and_upgraded(bed: Bed) -> None:
    """Upgrade tailscaled under a running `run`, across the change of the bus."""
    server = small_tailnet(bed, builds.OLD)
    monitor = bed.machines["monitor"]
    with nothing_is_lost(server):
        monitor.stop()
        time.sleep(3)
        monitor.start()
        all_up(server)

        monitor.stop(signal.SIGKILL)
        assert monitor.socket.exists()
        time.sleep(3)
        monitor.start()
        all_up(server)

        monitor.cli("logout")
        time.sleep(6)  # longer than the timer's interval
        monitor.up(bed.keys[""])
        all_up(server)

        monitor.stop()
        monitor.version = builds.NEW
        monitor.start()
        all_up(server)
    assert "1.102" in str(monitor.status()["Version"])

    # The new bus wakes it, too: a join arrives long before the interval of 30 s.
    bed.machine("cellar")
    server.declare(*server.declared, "cellar")
    until("it stands at its name", lambda: "cellar" in server.published())
    bed.join("cellar")
    address = bed.machines["cellar"].address
    until("and at its address", lambda: server.published()["cellar"] == f"{address}:9100")
    assert not server.running["run"].said().count("Traceback")


def test_headscale_is_stopped_for_a_minute(bed: Bed) -> None:
    """No target is lost, and all stay up: the tunnels need no control plane."""
    server = small_tailnet(bed)
    with nothing_is_lost(server):
        bed.control.stop()
        until("tailscaled knows it is alone", lambda: not bed.machines["monitor"].self_online())
        time.sleep(MINUTE)
        all_up(server)
        # tailscaled still reports every peer online, but without a control plane that proves nothing.
        said = server.clan_discovery("show", "--format", "json")
        assert '"db"' in said
        assert '"online": true' not in said
        bed.control.start()
        until("tailscaled is back", bed.machines["monitor"].self_online)
    all_up(server)


def test_the_server_is_cut_off_from_the_network(bed: Bed) -> None:
    """While it is cut off, every target is kept, and is down until the network is back."""
    server = small_tailnet(bed)
    with nothing_is_lost(server):
        server.host.down()
        until("nobody else is up", lambda: server.up() <= {"monitor"})
        time.sleep(MINUTE / 2)
        server.host.up()
        all_up(server)


def test_a_reboot_with_tailscaled_late_by_a_minute(bed: Bed) -> None:
    """After a reboot with only the state left and no tailscaled, the targets are there at once, unchanged."""
    server = small_tailnet(bed)
    before = server.published()
    server.stop("run", "timer", "prometheus", "vmagent")
    server.node.stop(signal.SIGKILL)
    server.node.socket.unlink()
    for mode in MODES:
        shutil.rmtree(server.place / mode / "targets")
    for data in ("tsdb", "vmagent-data"):
        shutil.rmtree(server.place / data)
    server.start()
    for mode in MODES:
        assert server.published(mode) == before
    for port in (PROMETHEUS, VMAGENT):
        until(f"{port} has the targets", partial(_holds, server, set(before), port))
    with nothing_is_lost(server):
        time.sleep(MINUTE)
        server.node.start()
        all_up(server)


def test_two_servers_side_by_side(bed: Bed) -> None:
    """Each scrapes every machine, including the other server; an outage of one does not affect the other."""
    for name in ("monitor", "watcher", "db"):
        bed.machine(name)
    bed.join("monitor", "watcher", "db")
    declared = ("monitor", "watcher", "db")
    servers = [Server(bed.machines[name], declared) for name in ("monitor", "watcher")]
    for server in servers:
        server.start()
    for server in servers:
        all_up(server, frozenset(declared))
    first, second = servers
    assert first.published() == second.published()
    with nothing_is_lost(first), nothing_is_lost(second):
        first.node.stop()
        time.sleep(8)
        assert {"watcher", "db"} <= second.up(PROMETHEUS, "run")
        first.node.start()
        for server in servers:
            all_up(server, frozenset(declared))
