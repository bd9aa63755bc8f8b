"""The series that alert rules read of machines: tags, description, limits, units and needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from clan_discovery.emit.expected import render_expected
from clan_discovery.model import Machine, MachineLimit, MachineNeed, MachineUnit, Resolution
from tests.support.answering import resolution_of, target_of
from tests.test_expected import checked, lines

if TYPE_CHECKING:
    from collections.abc import Iterable


def resolution(machines: Iterable[Machine], **changes: object) -> Resolution:
    """Return a resolution with one target on each machine."""
    machines = tuple(machines)
    targets = [target_of("node", machine.name, f"10.0.0.{n}:9100") for n, machine in enumerate(machines)]
    return msgspec.structs.replace(resolution_of(targets), machines=machines, **changes)


def series(found: Resolution, name: str) -> list[str]:
    """Return the series of a name; promtool accepts all of them."""
    return lines(checked(render_expected(found, {})), f"clan_discovery_{name}{{")


DB = Machine(name="db")
NAS = Machine(name="nas", tags=("all", "nas", "storage"), description="the big disk box")
WEB = Machine(name="web")


def test_machine_has_its_tags_and_its_description() -> None:
    """The tags that clan gives to all machines tell a reader nothing."""
    assert series(resolution([NAS]), "machine_info") == [
        'description="the big disk box",machine="nas",tags="nas,storage"} 1.0'
    ]


def test_machine_without_target_has_no_series() -> None:
    """Also if the scraper leaves its target to another server. A target of no declared machine has empty tags."""
    targets = [target_of("node", "web", "10.0.0.1:9100"), target_of("app", "db", "10.0.0.2:80")]
    found = msgspec.structs.replace(
        resolution_of(targets),
        machines=(NAS, DB),
        limits=(MachineLimit(machine="nas", name="disk_percent", value=95, because="x"),),
        units=(MachineUnit(machine="nas", unit="a.service", because="x"),),
        needs=(MachineNeed(machine="web", on="nas", because="x"), MachineNeed(machine="nas", on="web", because="x")),
    )
    rule = {"app": [{"source_labels": ["machine"], "regex": "db", "action": "drop"}]}
    body = checked(render_expected(found, rule))
    assert lines(body, "clan_discovery_machine_info{") == ['description="",machine="web",tags=""} 1.0']
    assert [line for line in body.decode().splitlines() if 'machine="nas"' in line] == []


def test_limit_of_a_machine_wins_over_that_of_every_machine() -> None:
    limits = [("*", "disk_percent", 85.0), ("nas", "disk_percent", 95.5), ("web", "unit_restarts", 0.0)]
    given = tuple(MachineLimit(machine=m, name=n, value=v, because="x") for m, n, v in limits)
    assert series(resolution([NAS, WEB], limits=given), "limit") == [
        'machine="nas",name="disk_percent"} 95.5',
        'machine="web",name="disk_percent"} 85.0',
        'machine="web",name="unit_restarts"} 0.0',
    ]


def test_units_and_needs() -> None:
    found = resolution(
        [DB, WEB],
        units=(MachineUnit(machine="db", unit="postgresql.service", because="x"),),
        needs=(MachineNeed(machine="web", on="db", because="x"),),
    )
    assert series(found, "unit") == ['machine="db",unit="postgresql.service"} 1.0']
    assert series(found, "needs") == ['machine="web",on="db"} 1.0']


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ('say "hi" \\ $HOME ${X} {{ $value }}', 'say \\"hi\\" \\\\ $HOME ${X} {{ $value }}'),
        ("two\r\nlines\t\v end ", "two lines end"),
        ("a\x1b[31mred\x00\u202e\x7f", "a\\\\x1b[31mred\\\\x00\\\\u202e\\\\x7f"),
        ("Größe 数", "Größe 数"),
        ("half \ud800", "half \\\\ud800"),
        ("x" * 10_000, "x" * 497 + "..."),
        ("\x00" * 10_000, "\\\\x00" * 124 + "\\\\..."),
        ("y" * 500, "y" * 500),
    ],
)
def test_hostile_words_stay_one_label_of_bounded_length(given: str, written: str) -> None:
    """The order of tags is that of the inventory, and one may be hostile, too."""
    found = resolution([Machine(name="nas", tags=(given,), description=given)])
    assert series(found, "machine_info") == [f'description="{written}",machine="nas",tags="{written}"}} 1.0']
