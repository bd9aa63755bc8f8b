"""A machine that joins is in the target file when the control plane has told, and is scraped at the next interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.tailnet.joins import Crowd
from tests.tailnet.server import Server

if TYPE_CHECKING:
    from tests.tailnet.bed import Bed

pytestmark = pytest.mark.timeout(900)
JOINS = 30


def test_thirty_joins(bed: Bed) -> None:
    """Registered, in the file, scraped: by push, for the interval is an hour. How soon, `make bench-tailnet` says."""
    bed.machine("monitor")
    bed.join("monitor")
    crowd = Crowd(bed, JOINS)
    server = Server(bed.machines["monitor"], ("monitor", *crowd.names), interval="1h")
    server.start("run", "prometheus")
    joins = crowd.join_all(server)["run"]
    assert len(joins) == JOINS
