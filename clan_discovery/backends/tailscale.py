"""Ask a running tailscaled for its status; `tailscale_wire` interprets it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from clan_discovery.backends.base import Asked
from clan_discovery.backends.tailscale_wire import TailscaleOptions, parse_status
from clan_discovery.localapi.client import LocalAPI
from clan_discovery.model import one_line
from clan_discovery.reading import MAX_BYTES

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path


class TailscaleSocket(msgspec.Struct, frozen=True, kw_only=True):
    """Asks a running tailscaled. `budget` is in seconds, for the whole response of at most `max_bytes`."""

    name: str
    socket: Path
    options: TailscaleOptions
    budget: float = 10.0
    max_bytes: int = MAX_BYTES

    jobs: frozenset[str] = frozenset()
    locates: bool = True
    any_address: bool = False

    @property
    def fingerprint(self) -> str:
        """What decides which nodes there are: the socket, the family and the tags."""
        return f"socket {one_line(str(self.socket))} {self.options.fingerprint}"

    def ask(self, _now: datetime, _memory: bytes, /) -> Asked:
        """Ask over the socket; see `Backend.ask`."""
        api = LocalAPI(self.socket, budget=self.budget, max_bytes=self.max_bytes)
        return Asked(parse_status(api.get("status"), self.options))
