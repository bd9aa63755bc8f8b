"""Large fleets: time is linear, pages stay small, and little is kept of a scraper's answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from clan_discovery.emit.status import FleetView, StatusInput
from clan_discovery.inventory.clan.declare import Options, declare
from clan_discovery.inventory.clan.wire import parse_inventory
from clan_discovery.resolve.resolver import Policy, resolve
from clan_discovery.verify import wire
from clan_discovery.verify.judge import Situation, judge
from clan_discovery.verify.match import ScraperAnswer
from clan_discovery.web.pages import render_fleet
from clan_discovery.web.query import matching, paginated, read_query
from tests.support.answering import DIRECTORY, resolution_of, target_of
from tests.support.fleet import inventory
from tests.support.growth import PARTS, assert_linear, cpu_time
from tests.support.status import report_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.model import Target

SIZE = 4000


def expected(size: int) -> list[Target]:
    """Return a target for each of so many machines."""
    return [target_of("node", f"m{number:06}", f"100.64.{number >> 8}.{number & 255}:9100") for number in range(size)]


def answer_of(targets: Sequence[Target]) -> bytes:
    """Return `/api/v1/targets` of Prometheus that scrapes these targets, and more labels that are not read."""
    active = [
        {
            "discoveredLabels": {
                "__address__": target.address,
                "__meta_filepath": f"{DIRECTORY}/node.json",
                "__meta_clan_machine_tags": ",all,",
                "__scrape_interval__": "1m",
                "job": "node",
                **target.labels,
            },
            "labels": {"job": "node", "instance": target.machine, "machine": target.machine},
            "scrapePool": "node",
            "scrapeUrl": f"http://{target.address}/metrics",
            "lastError": "",
            "lastScrape": "2026-11-20T10:00:00.123456789Z",
            "health": "up",
        }
        for target in targets
    ]
    data = {"activeTargets": active, "droppedTargets": [{"discoveredLabels": active[0]["discoveredLabels"]}]}
    return json.dumps({"status": "success", "data": data}).encode()


def test_verify_is_linear_in_the_targets() -> None:
    """Decoding and judging."""

    def measured(size: int) -> float:
        targets = expected(size)
        body = answer_of(targets)

        def work() -> None:
            found = wire.targets(body)
            answer = ScraperAnswer(name="one", url="http://one", active=found.active_targets or ())
            situation = Situation(resolution=resolution_of(targets), answers=[answer], now=0.0)
            assert {verified.verdict for verified in judge(situation).targets} == {"up"}

        return cpu_time(work)

    assert_linear(lambda: (measured(SIZE // PARTS), measured(SIZE)))


def test_only_labels_that_are_read_are_kept_of_an_answer() -> None:
    """Equal values are one string: a scraper with 300,000 targets answers with 380 MB."""
    found = wire.targets(answer_of(expected(50)))
    active = found.active_targets or []
    dropped = next(iter(found.dropped_targets or ()))
    read = {"__address__", "__meta_filepath", "__meta_clan_observed", "instance", "job"}
    assert {frozenset(scraped.discovered_labels) for scraped in active} == {frozenset(read)}
    assert set(dropped.discovered_labels) == read
    assert {frozenset(scraped.labels) for scraped in active} == {frozenset({"job", "instance"})}
    for name in ("__meta_filepath", "job"):
        assert len({id(scraped.discovered_labels[name]) for scraped in active}) == 1
    assert len({id(scraped.scrape_pool) for scraped in active}) == 1


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        ({"__meta_kubernetes_pod_name": "a", "__meta_consul_dc": "b", "x": "y"}, {"__meta_consul_sd"}),
        ({"__meta_url": "http://a/", "__meta_kubernetes_pod_name": "a"}, {"__meta_url"}),
        ({"x": "y"}, set[str]()),
    ],
)
def test_the_kind_of_a_foreign_discovery_is_kept(labels: dict[str, str], kept: set[str]) -> None:
    """`verify` names it in the finding."""
    data = {"activeTargets": [{"discoveredLabels": labels}]}
    found = wire.targets(json.dumps({"status": "success", "data": data}).encode())
    scraped = next(iter(found.active_targets or ()))
    assert set(scraped.discovered_labels) == kept


def view_of(size: int) -> FleetView:
    """Return the status of so many machines, none of which is seen."""
    names = ["monitor", *(f"m{number:06}" for number in range(1, size))]
    declared = declare(parse_inventory(json.dumps(inventory(names)).encode(), "inventory.json"), Options())
    resolution = resolve(declared, (), (), Policy(), now=datetime(2026, 11, 20, tzinfo=UTC))
    return FleetView(StatusInput(declared=declared, report=report_of(resolution)))


@pytest.mark.parametrize("query", [{}, {"page": "3"}, {"q": "m0"}, {"state": "declared"}])
def test_a_page_has_the_same_size_for_any_fleet(query: dict[str, str]) -> None:
    """Rows beyond a page are found by search and by page number."""

    def size_of(machines: int) -> int:
        fleet = view_of(machines).fleet
        asked = read_query(query)
        return len(render_fleet(fleet, asked, paginated(matching(fleet.machines, asked), asked.page), failing=""))

    assert size_of(8 * 500) < 1.1 * size_of(500)
