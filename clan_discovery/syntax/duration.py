"""Durations as Prometheus writes them: `30s`, `1h30m`, `2w`, `250ms`. Pure."""

from __future__ import annotations

import re
from typing import Final

# prometheus/common, model.ParseDuration: a year has 365 days, and units come in this order, each at most once.
_UNITS_MS: Final = {
    "y": 365 * 86_400_000,
    "w": 7 * 86_400_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1000,
    "ms": 1,
}
PATTERN: Final = "^" + "".join(f"([0-9]{{1,18}}{unit})?" for unit in _UNITS_MS) + "$"
"""The syntax as a regular expression, for schemas. It also matches the empty text, which is not a duration."""

_NUMBERS: Final = re.compile("".join(f"(?:([0-9]{{1,18}}){unit})?" for unit in _UNITS_MS))
LONGEST: Final = "292y"
"""The longest duration: Prometheus counts nanoseconds in 64 bits."""


def duration(value: object, *, least: str = "0s", most: str = LONGEST) -> float:
    """Read a duration between two bounds, and return it in seconds.

    Raises:
        ValueError: it is not a duration, or out of bounds; the message gives the value and what is allowed.
    """
    milliseconds = _milliseconds(value)
    if milliseconds is None:
        form = "must be like 10s, 5m, 1h30m or 2w"
        if isinstance(value, int | float) and not isinstance(value, bool):
            form = f"must have a unit, such as {value}s or {value}m"
        raise ValueError(f"invalid duration {value!r}: {form}")
    if not (_milliseconds(least) or 0) <= milliseconds <= (_milliseconds(most) or 0):
        raise ValueError(f"invalid duration {value!r}: must be between {least} and {most}")
    return milliseconds / 1000


def _milliseconds(value: object) -> int | None:
    if not isinstance(value, str) or not value:
        return None
    found = _NUMBERS.fullmatch(value)
    if found is None:
        return None
    numbers = zip(found.groups("0"), _UNITS_MS.values(), strict=True)
    return sum(int(number) * unit for number, unit in numbers)
