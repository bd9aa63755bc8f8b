"""The committed boards, decoded, and their queries with values for the variables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from tests.conftest import ROOT
from tools.boards import BOARDS

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY: Final = ROOT / "clan_discovery/data/dashboards"
NAMES: Final = tuple(board.name for board in BOARDS)


class Grid(msgspec.Struct, frozen=True):
    """Where a panel is."""

    x: int
    y: int
    w: int
    h: int


class Source(msgspec.Struct, frozen=True):
    """The datasource of a query."""

    type: str
    uid: str


class Target(msgspec.Struct, frozen=True, rename="camel"):
    """A query of a panel."""

    expr: str
    ref_id: str
    datasource: Source
    legend_format: str
    query_type: str = ""


class Step(msgspec.Struct, frozen=True):
    """A colour, from a value on."""

    color: str
    value: float | None


class Thresholds(msgspec.Struct, frozen=True):
    """The colours of values."""

    steps: list[Step]


class Defaults(msgspec.Struct, frozen=True):
    """How the values of a panel are shown."""

    thresholds: Thresholds


class Matcher(msgspec.Struct, frozen=True):
    """Which field an override is for."""

    options: str


class Property(msgspec.Struct, frozen=True):
    """One part of an override."""

    id: str
    value: msgspec.Raw


class Override(msgspec.Struct, frozen=True):
    """How one field is shown."""

    matcher: Matcher
    properties: list[Property]


class Config(msgspec.Struct, frozen=True):
    """How a panel shows its fields."""

    defaults: Defaults
    overrides: list[Override]


class PanelFile(msgspec.Struct, frozen=True, rename="camel"):
    """A panel, or a row."""

    id: int
    type: str
    title: str
    grid_pos: Grid
    description: str = ""
    targets: list[Target] = []
    panels: list[PanelFile] = []
    field_config: Config | None = None


class VariableQuery(msgspec.Struct, frozen=True):
    """The query of a variable."""

    query: str


class VariableFile(msgspec.Struct, frozen=True):
    """A variable."""

    name: str
    type: str
    query: str | VariableQuery
    regex: str = ""


class Templating(msgspec.Struct, frozen=True):
    """The variables of a board."""

    variables: list[VariableFile] = msgspec.field(name="list")


class LinkFile(msgspec.Struct, frozen=True):
    """A link of a board."""

    title: str
    url: str
    type: str


class BoardFile(msgspec.Struct, frozen=True, rename="camel"):
    """A board."""

    uid: str
    title: str
    schema_version: int
    panels: list[PanelFile]
    templating: Templating
    links: list[LinkFile]

    def all_panels(self) -> Iterator[PanelFile]:
        """Yield rows and panels, also those of closed rows."""
        for panel in self.panels:
            yield panel
            yield from panel.panels


class Asked(NamedTuple):
    """A query, and where it is."""

    board: str
    panel: str
    kind: str
    target: Target

    @property
    def place(self) -> str:
        """The board, the panel and the letter of the query."""
        return f"{self.board}/{self.panel}/{self.target.ref_id}"


def board(name: str) -> BoardFile:
    """Return a committed board."""
    return msgspec.json.decode((DIRECTORY / f"{name}.json").read_bytes(), type=BoardFile)


def queries(store: str = "prometheus") -> list[Asked]:
    """Return every query that is for a kind of datasource."""
    return [
        Asked(name, panel.title, panel.type, target)
        for name in NAMES
        for panel in board(name).all_panels()
        for target in panel.targets
        if target.datasource.type == store
    ]


def filled(text: str, machine: str, search: str = "") -> str:
    """Return a query as Grafana sends it: with the values of variables."""
    given = {"$__rate_interval": "1h", "$__interval": "1m", "$machine": machine, "$search": search}
    return re.sub(r"\$[a-z_]+", lambda found: given[found[0]], text)
