"""Words that several packages write alike. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def and_more(items: Sequence[str], most: int, separator: str = ", ") -> str:
    """Join the first `most` items, and say how many more there are."""
    shown = separator.join(items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"
