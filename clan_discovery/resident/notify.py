"""Tell systemd the state of the service: sd_notify(3), a datagram to its socket."""

from __future__ import annotations

import contextlib
import re
import socket
from typing import Final

import msgspec

from clan_discovery.model import one_line

_PATIENCE_S: Final = 0.2


class Notify(msgspec.Struct, frozen=True):
    """Sends to the socket of NOTIFY_SOCKET; without one, nothing is sent."""

    address: str | None

    def send(self, *lines: str) -> bool:
        """Send one message (`READY=1`, `STATUS=...`); False if there was an error, or the receiver did not receive."""
        if not self.address:
            return True
        path = re.sub("^@", "\0", self.address)  # the abstract namespace
        with (
            contextlib.suppress(OSError, ValueError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
        ):
            sock.settimeout(_PATIENCE_S)
            sock.sendto("\n".join(map(one_line, lines)).encode("utf-8", "backslashreplace"), path)
            return True
        return False


def watchdog_seconds(variable: str | None) -> float | None:
    """Return the longest time between two messages to systemd's watchdog: half of WATCHDOG_USEC."""
    if not variable or not variable.isdigit() or int(variable) == 0:
        return None
    return int(variable) / 2_000_000
