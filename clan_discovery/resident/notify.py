"""Tells systemd how a service is: sd_notify(3), a datagram to the socket that it names."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notify:
    """The socket of NOTIFY_SOCKET; None where nobody listens, and then nothing is sent."""

    address: str | None

    def send(self, *lines: str) -> None:
        """Send one message (`READY=1`, `STATUS=...`). A failure changes nothing."""
        if not self.address:
            return
        # An address that starts with @ is in the abstract namespace.
        path = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
        ):
            sock.sendto("\n".join(lines).encode(), path)


def watchdog_seconds(variable: str | None) -> float | None:
    """Return how often systemd wants to hear from the service at the least: half of WATCHDOG_USEC."""
    if not variable or not variable.isdigit() or int(variable) == 0:
        return None
    return int(variable) / 2_000_000
