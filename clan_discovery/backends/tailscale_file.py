"""Read a saved `tailscale status --json`, for machines without tailscaled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from clan_discovery.backends.base import Asked
from clan_discovery.backends.tailscale_wire import PeerCache, TailscaleOptions, parse_status
from clan_discovery.errors import BackendError
from clan_discovery.model import one_line
from clan_discovery.reading import MAX_BYTES, UnreadableError, read_input

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path


class TailscaleFile(msgspec.Struct, frozen=True, kw_only=True):
    """Reads a file with the output of `tailscale status --json`."""

    name: str
    file: Path
    options: TailscaleOptions
    max_bytes: int = MAX_BYTES

    jobs: frozenset[str] = frozenset()
    locates: bool = True
    any_address: bool = False

    @property
    def fingerprint(self) -> str:
        """Return the settings that decide which nodes there are."""
        return f"file {one_line(str(self.file))} {self.options.fingerprint}"

    def ask(self, _now: datetime, _memory: bytes, /) -> Asked:
        """Read the file; see `Backend.ask`."""
        return Asked(parse_status(self._read(), self.options))

    def ask_reusing(self, _now: datetime, _memory: bytes, last: object, /) -> tuple[Asked, object]:
        """Read the file; convert only the peers that have changed. See `Reusing`."""
        cache = last if isinstance(last, PeerCache) else PeerCache()
        return Asked(parse_status(self._read(), self.options, cache)), cache

    def _read(self) -> bytes:
        try:
            return read_input(self.file, self.max_bytes)
        except UnreadableError as error:
            raise BackendError(f"status file {self.file}: {error.why}") from None
