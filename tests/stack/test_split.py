"""`output.split` on real scrapers: they read the files of a job by the scrape config that `show` prints."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from clan_discovery.syntax.target_file import Split
from tests.stack.fleet import says
from tests.support.programs import eventually, get_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.model import Json
    from tests.stack.fleet import Fleet
    from tests.stack.scrapers import Scraper

MACHINES = [f"m{number}" for number in range(12)]


def made(fleet: Callable[..., Fleet], count: int, *types: str) -> Fleet:
    """Return a fleet of twelve machines whose jobs have so many files."""
    found = fleet(*types)
    found.hosts = {name: f"127.0.1.{number}" for number, name in enumerate(MACHINES, 1)}
    found.output["split"] = count
    return found


def has(member: Scraper, fleet: Fleet) -> bool:
    """Tell whether a scraper has each target once, at its address."""
    match get_json(f"{member.url}/api/v1/targets?state=active"):
        case {"data": {"activeTargets": [*targets]}}:
            found = sorted(map(_target, targets))
        case other:
            raise AssertionError(other)
    port = fleet.ports["node"]
    return found == sorted((name, f"http://{host}:{port}/metrics") for name, host in fleet.hosts.items())


def _target(target: Json) -> tuple[str, str]:
    match target:
        case {"labels": {"instance": str(instance)}, "scrapeUrl": str(url)}:
            return instance, url
        case other:
            raise AssertionError(other)


def test_every_scraper_reads_all_files_of_a_job(fleet: Callable[..., Fleet]) -> None:
    """Also after the number of files changes, without a reload; `verify` finds every target."""
    split = made(fleet, 4, "node", "systemd")
    split.serve_all()
    split.scrape()
    assert sorted(file.name for file in split.targets.glob("*.json")) == sorted(
        f"{job}.{number}.json" for job in split.ports for number in range(4)
    )
    split.expect()
    for count in (6, 2):
        split.output["split"] = count
        split.refresh()
        split.expect()


def test_one_changed_machine_is_one_changed_file(fleet: Callable[..., Fleet]) -> None:
    """Every scraper takes it up, and keeps the other targets."""
    split = made(fleet, 8)
    split.scrape()
    for member in split.members:
        eventually(f"{member.name} has every target", partial(has, member, split), 150)
    before = {file.name: file.read_bytes() for file in split.targets.glob("*.json")}
    split.hosts["m3"] = "127.0.2.3"
    split.refresh()
    after = {file.name: file.read_bytes() for file in split.targets.glob("*.json")}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"{Split(8).name('node', 'm3')}.json"}
    for member in split.members:
        eventually(f"{member.name} has the new address", partial(has, member, split), 150)


def test_a_file_that_the_scrape_config_leaves_out(fleet: Callable[..., Fleet]) -> None:
    """`verify` names the targets of this file alone, and the pattern that reads all of them."""
    split = made(fleet, 4)
    split.serve_all()
    split.refresh()
    unread = Split(4).name("node", "m0")
    (job,) = split.jobs()
    files: list[Json] = [f"{split.targets}/{name}.json" for name in Split(4).names("node") if name != unread]
    split.scrape([{**job, "file_sd_configs": [{"files": files}]}])
    inside = [name for name in MACHINES if Split(4).name("node", name) == unread]
    assert 0 < len(inside) < len(MACHINES), json.dumps(inside)
    split.expect(
        {f"node/{name}": "not_read" for name in inside},
        says=says("node/m0", r"its targets are in .*/node\.\*\.json", fix=r"files: \['.*/node\.\*\.json'\]"),
    )
