"""Write rows as aligned columns, in full or cut to the width of a terminal. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_GAP: Final = 2
_WIDEST: Final = 256
"""Cells are padded to at most this width. A longer cell shifts its own row, so one hostile name costs one row."""
_CUT: Final = "…"


class Column(msgspec.Struct, frozen=True):
    """A column, and how it is shortened if the terminal is too narrow.

    It is cut to at least `least` characters, and its last `tail` characters are kept (the port of an address). If
    cutting is not enough, columns with a number in `drop` are left out, in this order.
    """

    title: str
    least: int
    tail: int = 0
    drop: int = 0


def aligned(rows: Sequence[Sequence[str]], widest: int = _WIDEST) -> Iterator[str]:
    """Yield the rows as lines; the cells of a column are padded to one width, at most to `widest`."""
    widths = [min(max(map(len, column)), widest) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(map(str.ljust, row, widths)).rstrip(" ")


def fitted(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
    """Yield the titles and the rows as lines that fit a terminal of `width` columns; None: cut nothing."""
    rows = [[column.title for column in columns], *rows]
    natural = [min(max(map(len, cells)), _WIDEST) for cells in zip(*rows, strict=True)]
    if width is None or _total(natural) <= width:
        yield from aligned(rows)
        return
    layout = _layout(columns, natural, width)
    for row in rows:
        cells = [_cut(row[index], most, columns[index].tail).ljust(most) for index, most in layout.items()]
        yield "  ".join(cells).rstrip(" ")


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _layout(columns: Sequence[Column], natural: Sequence[int], width: int) -> dict[int, int]:
    """Return the width of each column that is printed, by its index."""
    layout = {index: min(natural[index], column.least) for index, column in enumerate(columns)}
    droppable = sorted((column.drop, index) for index, column in enumerate(columns) if column.drop)
    for _, index in droppable:
        if _total(list(layout.values())) > width:
            del layout[index]
    spare = max(width - _total(list(layout.values())), 0)
    for index, least in layout.items():
        more = min(natural[index] - least, spare)
        layout[index] = least + more
        spare -= more
    return layout


def _cut(text: str, most: int, tail: int) -> str:
    if len(text) <= most:
        return text
    return text[: most - tail - 1] + _CUT + text[len(text) - tail :]
