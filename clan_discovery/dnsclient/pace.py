"""Limit how many questions per second are sent to one server."""

from __future__ import annotations

import threading
import time
from typing import Final

DEFAULT_RATE: Final = 5000
"""Questions per second: well below what a resolver on one core answers from its cache, and far above a home's needs."""
_BURST_S: Final = 0.05
"""How much unused time may be caught up with. Waiting is not precise: without it, the rate would not be reached."""


class Pace:
    """Spaces the questions to a server evenly. Threads may share one.

    In any time `t` in seconds it allows at most `rate * (t + 0.05) + 1` questions, and those of one reservation.
    """

    def __init__(self, rate: float = DEFAULT_RATE) -> None:
        self._interval = 1 / rate
        self._next = 0.0
        self._lock = threading.Lock()
        self.most_at_once = max(1, int(rate * _BURST_S))
        """The most questions to reserve at once."""

    def delay(self) -> float:
        """Return in how many seconds the next question may be sent; 0 if now."""
        return max(self._next - time.monotonic(), 0.0)

    def reserve(self, count: int = 1) -> float:
        """Reserve the time of some questions; return the seconds to wait before they are sent."""
        with self._lock:
            now = time.monotonic()
            begin = max(self._next, now - _BURST_S)
            self._next = begin + count * self._interval
        return max(begin - now, 0.0)
