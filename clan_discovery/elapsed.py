"""Measure elapsed time with a clock that may jump forward or back. Pure.

A stored timestamp may be later than the clock: either the clock was ahead when it was stored, or it is behind now.
These two cases cannot be told apart. So the timestamp is kept, and the time that passes until the clock reaches it is
counted separately (`Behind`). A clock that was ahead does not make an answer last longer, and a clock that is set back
for a while does not make an answer expire early.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

LATEST: Final = 253402300799.0
"""The end of the calendar, 9999-12-31 23:59:59 UTC."""
_STEP_S: Final = 3600.0
"""The longest step that counts in full while the clock is behind: a longer one may be a correction of the clock."""

Time: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=LATEST)]
"""Seconds since the epoch."""


class Behind(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Time that passed while the clock was behind a timestamp.

    `seconds` is the time counted so far, `last` the newest clock reading in that period.
    """

    seconds: Time
    last: Time


def begun(now: float, known: float | None) -> tuple[float, Behind | None]:
    """Return a timestamp for now, and its `Behind`.

    `known` is an earlier timestamp that had passed already; the result is never before it.
    """
    if known is None or known <= now:
        return now, None
    return known, Behind(0.0, now)


def noted(since: float, now: float, behind: Behind | None) -> Behind | None:
    """Return the updated `Behind` of a timestamp after another clock reading."""
    if now >= since:
        return behind
    if behind is None:
        return Behind(0.0, now)
    step = min(max(now - behind.last, 0.0), _STEP_S)
    return Behind(min(behind.seconds + step, LATEST), now)


def elapsed(since: float, now: float, behind: Behind | None) -> float:
    """Return the seconds since a timestamp, given its `Behind`. Never negative."""
    behind = noted(since, now, behind)
    passed = max(now - since, 0.0)
    if behind is not None:
        passed += behind.seconds
    return passed
