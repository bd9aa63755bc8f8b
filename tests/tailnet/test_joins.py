"""A machine that joins is in the target file when the control plane has told, and is scraped at the next interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.tailnet.joins import Crowd, percentile
from tests.tailnet.server import INTERVAL_S, Server

if TYPE_CHECKING:
    from tests.tailnet.bed import Bed

JOINS = 30
_PROMETHEUS_S = 5.0
"""So often Prometheus takes up what its discovery found (discovery/manager.go, updatert)."""
_HANDSHAKE_S = 5.0
"""After this WireGuard tries the handshake again that the first packet to a new peer asks for (REKEY_TIMEOUT)."""
_SLACK_S = 3.0
"""For two cores that do everything at once."""


def test_thirty_joins(bed: Bed) -> None:
    """Registered, in the file, scraped: by push, for the interval is 30 s."""
    bed.machine("monitor")
    bed.join("monitor")
    crowd = Crowd(bed, JOINS)
    server = Server(bed.machines["monitor"], ("monitor", *crowd.names))
    server.start("run", "prometheus")
    joins = crowd.join_all(server)["run"]
    assert len(joins) == JOINS
    assert percentile([join.file for join in joins], 95) < 2.0
    for join in joins:
        assert join.held - join.file < _PROMETHEUS_S + _SLACK_S, join
        assert join.up - max(join.held, join.ready) < INTERVAL_S + _HANDSHAKE_S + _SLACK_S, join
