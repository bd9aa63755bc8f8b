"""How much time has passed, by a clock that may be set forward or back at any moment. Pure.

A moment that is remembered may be ahead of the clock: it was written while the clock was ahead, or the clock is behind
now. Which of both cannot be told, so the moment is kept, and the readings of the clock before it are noted beside it.
The time that passes there counts at once; when the clock is past the moment again, both count. So a clock that was
ahead makes nothing last for ever, and one that is set back for a while makes nothing old.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

LATEST: Final = 253402300799.0
"""The end of the calendar, 9999-12-31 23:59:59 UTC."""
_MOST: Final = 4
_STEP_S: Final = 3600.0
"""How much a step of a clock that is behind counts at most: a longer one may be the clock that is set right."""

Time: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=LATEST)]
"""Seconds since the epoch."""


class ClockReading(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Readings of a clock that was behind: the first one, and the newest that was not before it."""

    since: Time
    last: Time

    def read(self, now: float) -> ClockReading:
        """Return it after one more reading, which is not before `since`."""
        jump = max(now - self.last - _STEP_S, 0.0)
        return ClockReading(self.since + jump, now)


Readings: TypeAlias = Annotated[tuple[ClockReading, ...], msgspec.Meta(max_length=_MOST)]
"""Each before the one that precedes it, and before the moment beside which they are noted."""


def begun(now: float, known: float | None) -> tuple[float, Readings]:
    """Return a moment that is now, and what is noted beside it; `known` is a moment that had passed before."""
    if known is None or known <= now:
        return now, ()
    return known, (ClockReading(now, now),)


def elapsed(since: float, now: float, earlier: Readings = ()) -> float:
    """Return how many seconds have passed since a moment; `earlier` is what was noted beside it. Never negative."""
    if now >= since:
        return now - since + _total(earlier)
    for index, reading in enumerate(earlier):
        if now >= reading.since:
            return now - reading.since + _total(earlier[index + 1 :])
    return 0.0


def noted(since: float, now: float, earlier: Readings = ()) -> Readings:
    """Return what is noted beside a moment after the clock was read once more."""
    if now >= since:
        return earlier
    for index, reading in enumerate(earlier):
        if now >= reading.since:
            return (*earlier[:index], reading.read(now), *earlier[index + 1 :])
    return (*earlier[: _MOST - 1], ClockReading(now, now))


def _total(readings: Readings) -> float:
    return sum([max(reading.last - reading.since, 0.0) for reading in readings])
