"""The boards of Grafana: their layout, links and queries, decoded by the project's structs and by another library."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

import msgspec
import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.conftest import ROOT
from tests.support.boards import DIRECTORY, NAMES, Asked, LinkFile, Step, Thresholds, board, filled, queries
from tools.boards.grafana import SCHEMA, document
from tools.boards.model import Board, LayoutError, Panel, Query, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clan_discovery.model import Json

BUILT_IN: Final = {"__rate_interval", "__interval", "__data"}


@pytest.mark.parametrize("name", NAMES)
def test_panels_fill_the_grid_without_overlap(name: str) -> None:
    """Each line of 24 columns is full, from the top to the lowest panel."""
    taken: dict[tuple[int, int], str] = {}
    for panel in board(name).panels:
        place = panel.grid_pos
        cells = {(x, y) for x in range(place.x, place.x + place.w) for y in range(place.y, place.y + place.h)}
        assert not cells & taken.keys(), f"{panel.title} covers another panel"
        taken |= dict.fromkeys(cells, panel.title)
    height = 1 + max(y for _, y in taken)
    assert taken.keys() == {(x, y) for x in range(24) for y in range(height)}


@pytest.mark.parametrize("name", NAMES)
def test_panels_of_a_closed_row_fill_its_place(name: str) -> None:
    """They are below their row, next to each other."""
    for row in board(name).panels:
        if row.panels:
            assert {panel.grid_pos.y for panel in row.panels} == {row.grid_pos.y + 1}
            places = sorted(panel.grid_pos.x for panel in row.panels)
            assert places[0] == 0
            assert sum(panel.grid_pos.w for panel in row.panels) == 24


def test_row_that_does_not_fill_the_grid_is_an_error() -> None:
    """It names the row."""
    panel = Panel(title="p", about="", kind="stat", width=7, queries=(Query("up"),))
    for panels in ((panel,), (panel,) * 4, (panel, msgspec.structs.replace(panel, width=0)) + (panel,) * 3):
        made = Board(name="b", title="B", about="", variables=(), rows=(Row(title="odd", height=4, panels=panels),))
        with pytest.raises(LayoutError, match="odd"):
            document(made)


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_unique_and_the_uid_is_pinned(name: str) -> None:
    """Links name the uid."""
    found = board(name)
    ids = [panel.id for panel in found.all_panels()]
    assert len(ids) == len(set(ids))
    assert found.uid == f"clan-{name}"
    assert found.schema_version == SCHEMA == 39


def test_committed_boards_are_the_seven() -> None:
    """And no file of another is left."""
    assert NAMES == ("fleet", "host", "units", "storage", "media", "stack", "logs")
    assert {file.name for file in DIRECTORY.iterdir()} == {f"{name}.json" for name in NAMES}
    assert len({board(name).title for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_says_what_it_is_for(name: str) -> None:
    """A person who was woken up reads it."""
    assert [panel.title for panel in board(name).all_panels() if panel.type != "row" and not panel.description] == []


def lost(written: Json, read: Json, path: str = "") -> Iterator[str]:
    """Yield what a decoder did not keep."""
    if isinstance(written, dict) and isinstance(read, dict):
        for key, value in written.items():
            yield from lost(value, read[key], f"{path}.{key}") if key in read else [f"{path}.{key}"]
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for number, (one, other) in enumerate(zip(written, read, strict=True)):
            yield from lost(one, other, f"{path}[{number}]")
    elif written != read:
        yield f"{path}: {written!r}, read as {read!r}"


@pytest.mark.parametrize("name", NAMES)
def test_another_decoder_reads_all_of_it(name: str) -> None:
    """Grafana's SDK keeps every key, so that none is misspelt."""
    register_default_plugins()
    written = json.loads((DIRECTORY / f"{name}.json").read_text())
    read = json.loads(json.dumps(Dashboard.from_json(written), cls=JSONEncoder))
    assert list(lost(written, read)) == []


@pytest.mark.parametrize("asked", queries(), ids=lambda asked: asked.place)
def test_every_query_parses(asked: Asked) -> None:
    """As PromQL; the tests of the stack run it."""
    promql_parser.parse(filled(asked.target.expr, "nas"))


@pytest.mark.parametrize("name", NAMES)
def test_only_variables_of_the_board_are_used(name: str) -> None:
    """In queries, links and datasources."""
    text = (DIRECTORY / f"{name}.json").read_text()
    used = set(re.findall(r"\$\{?([a-z_]+)", text))
    names = {variable.name for variable in board(name).templating.variables}
    assert used - BUILT_IN - {"__all"} <= names
    assert names - {"page"} <= used
    assert {"datasource", "page"} <= names


@pytest.mark.parametrize("name", NAMES)
def test_every_board_leads_to_the_status_page(name: str) -> None:
    """To that of the machine where it is about one, else from each cell that names a machine."""
    found = board(name)
    assert [one.query for one in found.templating.variables if one.name == "page"] == [""]
    urls = [link.url for link in found.links if link.type == "link"]
    if name in ("host", "logs"):
        assert urls == ["${page}/machines/${machine}"]
    else:
        assert urls == ["${page}/"]
    for panel in found.all_panels():
        for override in panel.field_config.overrides if panel.field_config else []:
            if override.matcher.options == "Machine":
                [links] = [entry.value for entry in override.properties if entry.id == "links"]
                assert [link["url"] for link in msgspec.json.decode(links, type=list[dict[str, str | bool]])] == [
                    "/d/clan-host?var-datasource=${datasource}&var-machine=${__data.fields.Machine}",
                    "${page}/machines/${__data.fields.Machine}",
                ]


@pytest.mark.parametrize("name", NAMES)
def test_boards_lead_to_each_other(name: str) -> None:
    """With the machine and the time."""
    assert LinkFile("Boards", "", "dashboards") in board(name).links


class Rule(msgspec.Struct, frozen=True):
    """A rule of the shipped files."""

    alert: str = ""
    annotations: dict[str, str] = {}


class Group(msgspec.Struct, frozen=True):
    """A group of rules."""

    rules: list[Rule]


class Rules(msgspec.Struct, frozen=True):
    """A rule file."""

    groups: list[Group]


def alerts() -> list[Rule]:
    """Return the shipped alerts that lead to a board."""
    files = sorted((ROOT / "clan_discovery/data/rules").glob("*.yml"))
    documents = [msgspec.convert(yaml.safe_load(file.read_text()), Rules) for file in files]
    return [r for d in documents for group in d.groups for r in group.rules if "board" in r.annotations]


def test_every_alert_leads_to_a_board() -> None:
    """The board exists, and has the variables that the link sets."""
    variables = {board(name).uid: {v.name for v in board(name).templating.variables} for name in NAMES}
    for rule in alerts():
        found = re.fullmatch(r"/d/([a-z-]+)(?:\?(.*))?", rule.annotations["board"])
        assert found is not None, rule
        assert found[1] in variables, rule
        given = re.findall(r"(?:^|&)var-([a-z]+)=", found[2] or "")
        assert set(given) <= variables[found[1]], rule


def steps_of(name: str, title: str, column: str = "") -> list[Step]:
    """Return the colours of a panel, or of a column of it."""
    [panel] = [p for p in board(name).all_panels() if p.title == title and p.type != "row"]
    assert panel.field_config is not None
    for override in panel.field_config.overrides:
        for entry in override.properties:
            if override.matcher.options == column and entry.id == "thresholds":
                return msgspec.json.decode(entry.value, type=Thresholds).steps
    return panel.field_config.defaults.thresholds.steps


@pytest.mark.parametrize(
    ("limit", "factor", "place"),
    [
        ("disk_percent", 1, ("host", "File systems", "Used")),
        ("inodes_percent", 1, ("host", "File systems", "Inodes")),
        ("clock_skew_seconds", 1, ("host", "Clock off by")),
        ("timer_late_hours", 3600, ("units", "Timers", "Last run")),
        ("certificate_days", 1, ("fleet", "Probes", "Certificate")),
        ("disk_percent", 1, ("storage", "ZFS pools", "Used")),
    ],
)
def test_colours_change_at_the_limit_of_the_alert(limit: str, factor: int, place: tuple[str, str]) -> None:
    """So that what is red on a board is what fires."""
    limits = json.loads((ROOT / "clan_discovery/data/limits.json").read_text())
    assert steps_of(*place)[-1].value == limits[limit]["default"] * factor


@pytest.mark.parametrize(
    ("limit", "place"),
    [
        ("cpu_percent", ("host", "CPU in use")),
        ("memory_percent", ("host", "Memory in use")),
        ("disk_percent", ("host", "File systems in use")),
        ("unit_restarts", ("units", "Restarts within an hour")),
        ("disk_percent", ("storage", "Fullest file systems")),
    ],
)
def test_dashed_line_is_the_limit_of_the_alert(limit: str, place: tuple[str, str]) -> None:
    """Of the machine, where the inventory sets one, on its own board."""
    limits = json.loads((ROOT / "clan_discovery/data/limits.json").read_text())
    [line] = [a.target.expr for a in queries() if (a.board, a.panel) == place and a.target.legend_format == "limit"]
    assert line.endswith(f"vector({limits[limit]['default']})")
    assert (f'name="{limit}"' in line) == (place[0] == "host")
