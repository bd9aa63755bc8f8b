"""Reads a saved `tailscale status --json`: for a machine without tailscaled, for tests and for a look back."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from clan_discovery.backends.base import Asked
from clan_discovery.backends.tailscale_wire import MAX_BYTES, Reading, parse_status
from clan_discovery.errors import BackendError

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TailscaleFile:
    """Reads what `tailscale status --json` printed into a file."""

    name: str
    file: Path
    reading: Reading
    max_bytes: int = MAX_BYTES

    jobs: ClassVar[frozenset[str]] = frozenset()
    locates: ClassVar[bool] = True

    @property
    def fingerprint(self) -> str:
        """What decides the answer: the file, the family, the tags."""
        return f"file {self.file} {self.reading.fingerprint}"

    def ask(self, _now: datetime, _memory: bytes, /) -> Asked:
        """Read the file; see `Backend.ask`."""
        return Asked(parse_status(self._read(), self.reading))

    def _read(self) -> bytes:
        try:
            # A FIFO must not hang the round; Path.open has no opener.
            with open(self.file, "rb", opener=_nonblocking) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise BackendError(f"status file {self.file}: is no regular file")
                body = file.read(self.max_bytes + 1)
        except OSError as error:
            raise BackendError(f"status file {self.file}: {error.strerror}") from error
        if len(body) > self.max_bytes:
            raise BackendError(f"status file {self.file}: is larger than {self.max_bytes >> 20} MiB")
        return body


def _nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
