"""Start threads with a time limit, in case memory runs out.

`threading.Thread.start` waits until the new thread runs. If memory runs out, the thread may die before that, and the
caller waits forever (seen with RLIMIT_AS on CPython 3.11). Here the start gives up after a second.
"""

from __future__ import annotations

import _thread
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE_S: Final = 1.0
_LONGEST_WAIT_S: Final = 0.5
"""A signal that arrives just before a system call waits does not end the call, so each call must be short."""


class Worker:
    """A thread that does not delay the end of the process. It calls `work`, or the `run` of a subclass."""

    def __init__(self, work: Callable[[], None] | None = None) -> None:
        self._work = work
        self._ended: _thread.LockType | None = None

    @property
    def is_started(self) -> bool:
        """Tell whether the thread was started and began to run."""
        return self._ended is not None

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: no thread can be created, or there is no memory for it; it does not run.
        """
        claim, begun, ended = _thread.allocate_lock(), _thread.allocate_lock(), _thread.allocate_lock()
        begun.acquire()
        ended.acquire()
        _thread.start_new_thread(self._begin, (claim.acquire, begun.release, ended.release))
        # Only one side gets `claim`: the new thread, which then runs, or this one, which then gives up.
        if not begun.acquire(timeout=_PATIENCE_S) and claim.acquire(blocking=False):
            raise RuntimeError("a new thread did not begin: there is not enough memory")
        self._ended = ended

    def run(self) -> None:
        """Do the work, in the thread."""
        if self._work is not None:
            self._work()

    def is_alive(self) -> bool:
        """Tell whether the thread runs."""
        return self._ended is not None and self._ended.locked()

    def join(self, timeout: float = -1) -> None:
        """Wait until the thread has ended, or for `timeout` seconds if that is not negative; answer signals."""
        if self._ended is None:
            return
        left = timeout if timeout >= 0 else float("inf")
        end = time.monotonic() + left
        while not self._ended.acquire(timeout=min(left, _LONGEST_WAIT_S)):
            left = max(end - time.monotonic(), 0.0)
            if not left:
                return
        self._ended.release()

    def _begin(self, claim: Callable[[bool], bool], begin: Callable[[], None], end: Callable[[], None]) -> None:
        # The arguments are bound methods, made before: only `run` needs memory here, so `join` always ends.
        if claim(False):  # noqa: FBT003 - a keyword would need memory
            try:
                begin()
                self.run()
            except MemoryError:
                pass  # the caller of `join` finds no result and reports it
            finally:
                end()
