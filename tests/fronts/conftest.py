"""Fixtures: a bed for each proxy that is installed or built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fronts.bed import Bed
from tests.fronts.proxies import VERSIONS, make_proxy

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fronts.proxies import Kind


@pytest.fixture(params=VERSIONS, ids=["-".join(version) for version in VERSIONS])
def bed(request: pytest.FixtureRequest, tmp_path: Path) -> Bed:
    """Return a bed with a proxy that does not run yet."""
    found: tuple[Kind, str] = request.param
    return Bed(make_proxy(*found, tmp_path))
