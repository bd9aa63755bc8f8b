"""Counts with their nouns, and lists that are cut after a few items."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: `1 target`, `2 targets`."""
    if count != 1:
        noun += "s"
    return f"{count} {noun}"


def and_more(total: int, shown: int) -> str:
    """Return `and 3 more` for what a list leaves out; empty if it shows everything."""
    if total <= shown:
        return ""
    return f"and {total - shown} more"


def first_names(names: Sequence[str], most: int) -> str:
    """Join up to `most` names with commas and count the rest: `a, b and 3 more`."""
    return f"{', '.join(names[:most])} {and_more(len(names), most)}".rstrip()
