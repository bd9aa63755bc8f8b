"""Count how much time has passed, by a clock that may be set forward or back at any moment. Pure.

A remembered moment may be ahead of the clock: it was written while the clock was ahead, or the clock is behind now.
Which of both cannot be told. So the moment is kept, and the time that passes before it is counted beside it: a clock
that was ahead keeps nothing longer, and one that is set back for a while makes nothing old.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

LATEST: Final = 253402300799.0
"""The end of the calendar, 9999-12-31 23:59:59 UTC."""
_STEP_S: Final = 3600.0
"""How much one step counts at most while the clock is behind: a longer one may be the clock that is set right."""

Time: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=LATEST)]
"""Seconds since the epoch."""


class Behind(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What passed while the clock was before a moment, in seconds, and the newest reading of the clock there."""

    seconds: Time
    last: Time


def begun(now: float, known: float | None) -> tuple[float, Behind | None]:
    """Return a moment that is now, and what is noted beside it; `known` is a moment that had passed before."""
    if known is None or known <= now:
        return now, None
    return known, Behind(0.0, now)


def noted(since: float, now: float, behind: Behind | None) -> Behind | None:
    """Return what is noted beside a moment after the clock was read once more."""
    if now >= since:
        return behind
    if behind is None:
        return Behind(0.0, now)
    step = min(max(now - behind.last, 0.0), _STEP_S)
    return Behind(min(behind.seconds + step, LATEST), now)


def elapsed(since: float, now: float, behind: Behind | None) -> float:
    """Return how many seconds have passed since a moment; `behind` is what was noted beside it. Never negative."""
    behind = noted(since, now, behind)
    passed = max(now - since, 0.0)
    if behind is not None:
        passed += behind.seconds
    return passed
