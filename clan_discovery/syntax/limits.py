"""The limits of alert rules that a machine may have: their names, defaults and ranges (data/limits.json)."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

PERCENT: Final = "percent"
UNKNOWN_LIMIT: Final = "no alert rule reads a limit of this name"


class KnownLimit(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that one alert rule reads: its default there, its unit, the rule, and what it limits."""

    default: float
    unit: str
    alert: str
    description: str

    @property
    def most(self) -> float | None:
        """Return the largest value; None if there is none."""
        if self.unit == PERCENT:
            return 100
        return None


@cache
def known_limits() -> Mapping[str, KnownLimit]:
    """Return every limit by name."""
    file = Path(__file__).parent.parent / "data/limits.json"
    return msgspec.json.decode(file.read_bytes(), type=dict[str, KnownLimit])


def limit_complaint(limit: KnownLimit, value: float) -> str | None:
    """Say why a value cannot be the value of a limit; None if it can."""
    if not math.isfinite(value) or value < 0:
        return f"must be at least 0, not {value:g}"
    if limit.most is not None and value > limit.most:
        return f"must be at most {limit.most:g}, not {value:g}"
    return None
