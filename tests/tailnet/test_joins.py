"""A machine that joins is in the target file at once, and is scraped at the next interval."""

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
    """A join reaches the file and the scraper by push: the interval is an hour. `make bench-tailnet` measures it."""
    bed.machine("monitor")
    bed.join("monitor")
    crowd = Crowd(bed, JOINS)
    server = Server(bed.machines["monitor"], ("monitor", *crowd.names), interval="1h")
    server.start("run", "prometheus")
    joins = crowd.join_all(server)["run"]
    assert len(joins) == JOINS
