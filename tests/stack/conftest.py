"""Fixtures: the six scrapers, shared by the tests of a module, and a fleet for each test."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.stack.fleet import Fleet, new_ports
from tests.stack.scrapers import VERSIONS, scraper
from tests.support.programs import absent

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.stack.scrapers import Scraper


_LONGEST_S: Final = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test of this directory more time than others have: it waits for many programs."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_LONGEST_S))


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Generator[list[Scraper]]:
    """The six scrapers, without jobs; those that are not installed are named in the last line of the output."""
    with contextlib.ExitStack() as stack:
        found: list[Scraper] = []
        for kind, which in VERSIONS:
            with contextlib.suppress(pytest.skip.Exception):
                place = tmp_path_factory.mktemp(f"{kind}-{which}")
                extra = {"victoria-metrics": ["-enableTCP6"], "vmagent": ["-enableTCP6"]}
                found.append(stack.enter_context(scraper(kind, which, place, extra=extra.get(kind, ()))))
        if not found:
            absent("stack", "no scraper is installed")
        yield found


@pytest.fixture
def fleet(members: list[Scraper], tmp_path: Path) -> Generator[Callable[..., Fleet]]:
    """Return a function that makes a fleet of `db` and `web` with these exporter types."""
    with contextlib.ExitStack() as stack:

        def make(*types: str) -> Fleet:
            hosts = {"db": "127.0.0.2", "web": "127.0.0.3"}
            return Fleet(tmp_path, members, hosts, new_ports(*(types or ("node",))), running=stack)

        yield make
