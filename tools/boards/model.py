"""What a board is made of: rows of panels, their queries and columns, and where each panel is on the grid. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH: Final = 24
"""The columns of Grafana's grid."""
ROW_HEIGHT: Final = 1
"""The height of a row's title."""

Kind: TypeAlias = Literal["stat", "table", "timeseries", "logs"]
Color: TypeAlias = Literal["green", "orange", "red", "blue", "text"]
Store: TypeAlias = Literal["prometheus", "victorialogs", "loki"]


class LayoutError(Exception):
    """A row is not as wide as the grid."""


class Step(msgspec.Struct, frozen=True):
    """From this value on, this colour."""

    value: float
    color: Color


class Word(msgspec.Struct, frozen=True):
    """How a value is shown."""

    value: int
    text: str
    color: Color


class Link(msgspec.Struct, frozen=True):
    """A link of a value, a panel or a board."""

    title: str
    url: str


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """How values are shown. `base` is the colour below the first step."""

    unit: str = ""
    base: Color = "green"
    steps: tuple[Step, ...] = ()
    words: tuple[Word, ...] = ()
    lowest: float | None = None
    highest: float | None = None
    decimals: int | None = None


class Query(msgspec.Struct, frozen=True):
    """A query, and what its series are called: `{{label}}` is the value of a label."""

    text: str
    name: str = ""
    is_limit: bool = False


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A column of a table: `field` is a label, or the number of the query whose values it has."""

    field: str | int
    title: str
    look: Look | None = None
    links: tuple[Link, ...] = ()


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """A panel. `empty` is shown where a query has no rows."""

    title: str
    about: str
    kind: Kind
    queries: tuple[Query, ...]
    width: int = 0
    store: Store = "prometheus"
    look: Look = Look()
    columns: tuple[Column, ...] = ()
    empty: str = "no data"
    links: tuple[Link, ...] = ()


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Panels of one height. Panels without a width share what the others leave. A closed row asks nothing."""

    title: str
    height: int
    panels: tuple[Panel, ...]
    is_open: bool = True


class Variable(msgspec.Struct, frozen=True, kw_only=True):
    """A variable. `text` is the plugin, the query, the constant or the default, by its kind."""

    name: str
    title: str
    kind: Literal["datasource", "query", "constant", "textbox"]
    text: str
    several: bool = False


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """A board; its file is `<name>.json` and its uid `clan-<name>`."""

    name: str
    title: str
    about: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]
    links: tuple[Link, ...] = ()

    @property
    def uid(self) -> str:
        """What links name it by."""
        return f"clan-{self.name}"


class Place(NamedTuple):
    """Where a panel is on the grid, in columns and lines of it."""

    x: int
    y: int
    width: int
    height: int


def widths(row: Row) -> list[int]:
    """Return the widths of a row's panels, which fill the grid.

    Raises:
        LayoutError: they do not.
    """
    left = WIDTH - sum(panel.width for panel in row.panels)
    sharing = sum(1 for panel in row.panels if not panel.width)
    if left < sharing or (left and not sharing) or (sharing and left % sharing):
        raise LayoutError(f"row {row.title!r}: {sharing} panels cannot share {left} columns")
    return [panel.width or left // sharing for panel in row.panels]


def laid_out(board: Board) -> Iterator[tuple[Row, Place, list[tuple[Panel, Place]]]]:
    """Yield each row with its place, and its panels with theirs. Those of a closed row are where they open."""
    y = 0
    for row in board.rows:
        place = Place(0, y, WIDTH, ROW_HEIGHT)
        y += ROW_HEIGHT
        x = 0
        panels: list[tuple[Panel, Place]] = []
        for panel, width in zip(row.panels, widths(row), strict=True):
            panels.append((panel, Place(x, y, width, row.height)))
            x += width
        y += row.height * row.is_open
        yield row, place, panels
