"""The bed, where it can be made; where not, one line says why."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.support.programs import REQUIRE_REAL, skipped
from tests.tailnet.bed import Bed
from tests.tailnet.programs import NotBuiltError, build_all
from tests.tailnet.world import NoWorldError

if TYPE_CHECKING:
    from collections.abc import Generator

_PROGRAMS = ("prometheus", "vmagent", "prometheus-node-exporter")


@pytest.fixture(scope="session")
def _programs_built() -> None:
    """Build the Go programs where they are not there yet."""
    absent = [name for name in _PROGRAMS if shutil.which(name) is None]
    if absent:
        _not_here(f"{', '.join(absent)} not on PATH", required=True)
    try:
        build_all()
    except NotBuiltError as error:
        # Go itself cannot be demanded: it is no package of the kind that .ci/run installs.
        _not_here(str(error), required=shutil.which("go") is not None)


@pytest.fixture
def bed(_programs_built: None) -> Generator[Bed]:
    """A tailnet of this test's own, with a control plane and no machines yet."""
    yield from _bed(Bed())


@pytest.fixture
def bed_v6(_programs_built: None) -> Generator[Bed]:
    """A tailnet whose control plane gives out IPv6 addresses alone."""
    yield from _bed(Bed(v4=False))


def _bed(bed: Bed) -> Generator[Bed]:
    try:
        made = bed.__enter__()
    except NoWorldError as error:
        _not_here(f"no namespaces: {error}", required=True)
    try:
        yield made
        strangers = made.world.strangers()
    finally:
        made.__exit__()
    assert not strangers, "something tried to leave the machine"


def _not_here(why: str, *, required: bool) -> NoReturn:
    skipped["tailnet"] = why
    if required and REQUIRE_REAL:
        pytest.fail(f"tailnet: {why}, and CLAN_DISCOVERY_REQUIRE_REAL is set")
    pytest.skip(f"tailnet: {why}")
