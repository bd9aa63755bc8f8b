"""No packet leaves the bed, and the watch on the bridge sees one that would."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.programs import absent
from tests.tailnet.bed import until

if TYPE_CHECKING:
    from tests.tailnet.bed import Bed

pytestmark = pytest.mark.timeout(900)


def test_what_tries_to_leave_is_seen_and_goes_nowhere(bed: Bed) -> None:
    """A start and login sends no packet outside; a packet to the Internet is seen."""
    resolver = Path("/etc/resolv.conf").read_text()
    bed.machine("monitor")
    bed.machine("db")
    bed.join("monitor", "db")
    bed.settled("monitor", ["db"])
    assert bed.world.strangers() == []
    if bed.world.tun:  # MagicDNS was set up in the host's own /etc only.
        assert "100.100.100.100" in bed.machines["db"].host.run("cat", "/etc/resolv.conf")
    assert Path("/etc/resolv.conf").read_text() == resolver
    send = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))"
    bed.machines["db"].host.run("python3", "-c", send)
    until("the packet is seen", lambda: any("> 192.0.2.1" in line for line in bed.world.strangers()))
    bed.world.forgive()


def test_where_scrapes_go_while_tailscaled_is_away(bed: Bed) -> None:
    """Traffic takes the default route; an unreachable route with a lower priority prevents it."""
    if not bed.world.tun:
        absent("/dev/net/tun", "not to be opened here: tailscaleds do without", required=False)
    bed.machine("monitor")
    bed.machine("db")
    bed.join("monitor", "db")
    bed.settled("monitor", ["db"])
    monitor, db = bed.machines["monitor"], bed.machines["db"].address

    def route() -> str:
        return monitor.host.run("ip", "route", "get", db, check=False)

    assert "dev tailscale0" in route()
    monitor.stop()
    assert f"via {bed.world.edge.v4}" in route()
    monitor.host.run("ip", "route", "add", "unreachable", "100.64.0.0/10")
    assert route() == ""
    monitor.start()
    until("tailscaled's own route goes before", lambda: "dev tailscale0" in route())
