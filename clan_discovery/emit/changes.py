"""Write changes of targets and machines as lines for people, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clan_discovery.emit.columns import aligned
from clan_discovery.model import one_line
from clan_discovery.syntax.instant import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clan_discovery.model import ChangeRecord, Json


def changed(change: ChangeRecord) -> str:
    """Describe a change: `100.64.0.2:9100 -> 100.64.0.9:9100`, `was offline`; empty if its kind says enough."""
    if change.what == "back":
        return f"was {change.old}"
    if change.is_of_machine:
        return f"node {change.new}" if change.new else ""
    return " -> ".join(filter(None, (change.old, change.new)))


def change_lines(changes: Sequence[ChangeRecord]) -> Iterator[str]:
    """Yield a line for each change of one refresh cycle: `~ db  node  moved  old -> new  tailnet`."""
    for line, change in zip(aligned([_cells(change) for change in changes]), changes, strict=True):
        yield f"{change.sign} {line}"


def history_lines(changes: Sequence[ChangeRecord]) -> Iterator[str]:
    """Yield a line for each change, with its time first."""
    yield from aligned([[rfc3339(change.at), *_cells(change)] for change in changes])


def changes_json(changes: Sequence[ChangeRecord]) -> list[Json]:
    """Return the changes as `history --format json` prints them."""
    return [
        {
            "at": rfc3339(change.at),
            "machine": change.machine,
            "job": change.job or None,
            "instance": change.instance or None,
            "what": change.what,
            "old": change.old or None,
            "new": change.new or None,
            "backend": change.backend or None,
        }
        for change in changes
    ]


def _cells(change: ChangeRecord) -> list[str]:
    """Return the cells of a change. They are escaped first: an escaped name is longer."""
    cells = (change.instance or change.machine, change.job or "-", change.what, changed(change), change.backend)
    return [one_line(cell) for cell in cells]
