"""Fixtures: a tailnet, or a skip with the reason."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.builds import NoGoError, NotBuiltError, build_all
from tests.support.programs import absent
from tests.tailnet.bed import Bed
from tests.tailnet.world import NoWorldError

if TYPE_CHECKING:
    from collections.abc import Generator

_PROGRAMS = ("prometheus", "vmagent", "prometheus-node-exporter")


@pytest.fixture(scope="session")
def _programs_built() -> None:
    """Build the Go programs that are missing."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        absent("tailnet", f"{', '.join(missing)} not on PATH")
    try:
        build_all("tailnet")
    except NoGoError as error:
        absent("tailnet", str(error), required=False)  # optional, because .ci/run installs no Go
    except NotBuiltError as error:
        absent("tailnet", str(error))


@pytest.fixture
def bed(_programs_built: None) -> Generator[Bed]:
    """A tailnet with a control plane and no machines."""
    yield from _bed(Bed())


@pytest.fixture
def bed_v6(_programs_built: None) -> Generator[Bed]:
    """A tailnet whose control plane assigns only IPv6 addresses."""
    yield from _bed(Bed(v4=False))


def _bed(bed: Bed) -> Generator[Bed]:
    try:
        made = bed.__enter__()
    except NoWorldError as error:
        absent("tailnet", f"no namespaces: {error}")
    try:
        yield made
        strangers = made.world.strangers()
    finally:
        made.__exit__()
    assert not strangers, "something tried to leave the machine"
