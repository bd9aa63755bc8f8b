"""Read a saved `tailscale status --json`: for machines without tailscaled, and for tests."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clan_discovery.backends.base import Asked
from clan_discovery.backends.tailscale_wire import MAX_BYTES, TailscaleOptions, parse_status
from clan_discovery.errors import BackendError
from clan_discovery.model import one_line

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TailscaleFile:
    """Reads what `tailscale status --json` printed into a file."""

    name: str
    file: Path
    options: TailscaleOptions
    max_bytes: int = MAX_BYTES

    jobs: frozenset[str] = frozenset()
    locates: bool = True

    @property
    def fingerprint(self) -> str:
        """What decides which nodes there are: the file, the family and the tags."""
        return f"file {one_line(str(self.file))} {self.options.fingerprint}"

    def ask(self, _now: datetime, _memory: bytes, /) -> Asked:
        """Read the file; see `Backend.ask`."""
        return Asked(parse_status(self._read(), self.options))

    def _read(self) -> bytes:
        try:
            # Opening a FIFO must not block; Path.open has no opener.
            with open(self.file, "rb", opener=_nonblocking) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise BackendError(f"status file {self.file}: not a regular file")
                body = file.read(self.max_bytes + 1)
        except OSError as error:
            raise BackendError(f"status file {self.file}: {error.strerror}") from error
        if len(body) > self.max_bytes:
            raise BackendError(f"status file {self.file}: larger than {self.max_bytes >> 20} MiB")
        return body


def _nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
