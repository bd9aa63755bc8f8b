"""Limit the time of a whole exchange on a socket, from connecting to the last byte.

Timeouts of sockets restart with each read, so a server that sends a byte every second would never time out (ADR 0003).
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

from typing_extensions import override

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class Deadline:
    """The end of all waiting.

    It is `budget` seconds from now, never (`at` is None), or immediate (`abort`).
    """

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self.at: float | None = time.monotonic() + budget
        self.sock: socket.socket | None = None
        self.aborted = False

    def remaining(self) -> float | None:
        """Return the remaining seconds; None if unlimited.

        Raises:
            TimeoutError: none remain.
            ConnectionAbortedError: `abort` was called.
        """
        if self.aborted:
            raise ConnectionAbortedError("aborted")
        if self.at is None:
            return None
        remaining = self.at - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        return remaining

    def is_left(self) -> bool:
        """Tell whether time remains."""
        return self.at is None or time.monotonic() < self.at

    def abort(self) -> None:
        """End every wait at once, from any thread."""
        self.aborted = True
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)  # unlike closing, this wakes a reader


class BoundedSocket(socket.socket):
    """A stream socket on which every wait ends at the deadline."""

    def __init__(self, deadline: Deadline, family: int) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._deadline = deadline

    @override
    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        self.settimeout(self._deadline.remaining())
        return super().recv_into(buffer, nbytes, flags)

    @override
    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        self.settimeout(self._deadline.remaining())
        super().sendall(data, flags)
