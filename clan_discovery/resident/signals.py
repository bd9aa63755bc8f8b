"""End the process on SIGTERM and SIGINT, and reload on SIGHUP."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

    from clan_discovery.resident.triggers import Wake


class Stopped(BaseException):
    """SIGTERM or SIGINT arrived while the main thread waits for backends; nothing is being written then."""


class Signals:
    """The signals of the process. `stopped`: it should end after the current refresh cycle, because of `reason`."""

    def __init__(self, wake: Wake) -> None:
        self.stopped = False
        self.reason = ""
        self._wake = wake
        self._interruptible = False

    @contextmanager
    def handled(self) -> Generator[None]:
        """Handle the signals in the block, which runs in the main thread."""
        handlers = {signal.SIGTERM: self._on_stop, signal.SIGINT: self._on_stop, signal.SIGHUP: self._on_hangup}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def interruptible(self) -> Generator[None]:
        """Let a signal raise `Stopped` in the block, until `uninterruptible` is called.

        Raises:
            Stopped: a signal arrived before the block, or in it.
        """
        self._interruptible = True
        try:
            if self.stopped:
                raise Stopped
            yield
        finally:
            self._interruptible = False

    def uninterruptible(self) -> None:
        """Do not interrupt the rest of the block, which writes files."""
        self._interruptible = False

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.stopped = True
        self.reason = signal.Signals(number).name
        self._wake.call("stop")
        if self._interruptible:
            self._interruptible = False
            raise Stopped

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._wake.call("hangup")
