"""Compute when the next refresh cycle begins."""

from __future__ import annotations

import random
from typing import Final

_MAX_PAUSE_S: Final = 300.0
"""The longest pause if no backend is polled; a cycle also restores files that somebody deleted."""
_AFTER_DUE_S: Final = 0.2
"""The delay after the first cached answer expires, so that answers that expire together are asked for together."""
_MIN_PAUSE_S: Final = 0.5
_JITTER: Final = 0.1


class Schedule:
    """The time between refresh cycles: `interval` seconds, up to a tenth more or less."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._due: float | None = None
        self._polls = True
        self._counted: float | None = None

    def set_due(self, due: float | None, *, polls: bool) -> None:
        """Remember what the backends want: a time (seconds since the epoch), and whether any needs to be polled."""
        self._due, self._polls = due, polls

    def pause(self, now: float) -> float:
        """Return the seconds until the next cycle; `now` is in seconds since the epoch."""
        pause = _MAX_PAUSE_S
        if self._polls:
            pause = self._interval * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - not a secret
        if self._due is not None:
            pause = min(pause, max(self._due + _AFTER_DUE_S - now, _MIN_PAUSE_S))
        return pause

    def counts(self, now: float) -> bool:
        """Tell whether a cycle counts for the loss guard: at most one for each interval (`now` is monotonic)."""
        earliest = 1 - _JITTER
        if self._counted is not None and now - self._counted < self._interval * earliest:
            return False
        self._counted = now
        return True
