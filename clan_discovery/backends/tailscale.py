"""Ask a running tailscaled for its status; `tailscale_wire` interprets it."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING

import msgspec

from clan_discovery.backends.base import Asked
from clan_discovery.backends.tailscale_wire import PeerCache, TailscaleOptions, parse_status
from clan_discovery.localapi.client import LocalAPI
from clan_discovery.model import one_line
from clan_discovery.reading import MAX_BYTES

if TYPE_CHECKING:
    from datetime import datetime


class TailscaleSocket(msgspec.Struct, frozen=True, kw_only=True):
    """Asks a running tailscaled.

    `budget` is in seconds, for the whole response of at most `max_bytes`. `responses` keeps the last response by
    socket, for a caller that needs more than the nodes.
    """

    name: str
    socket: Path
    options: TailscaleOptions
    budget: float = 10.0
    max_bytes: int = MAX_BYTES
    responses: dict[Path, bytes] | None = None

    jobs: frozenset[str] = frozenset()
    locates: bool = True
    any_address: bool = False

    @property
    def fingerprint(self) -> str:
        """Return the settings that decide which nodes there are."""
        return f"socket {one_line(str(self.socket))} {self.options.fingerprint}"

    @property
    def asks(self) -> str:
        """Name the daemon; see `Timed`."""
        return f"tailscaled ({self.socket})"

    def ask(self, _now: datetime, _memory: bytes, /) -> Asked:
        """Ask over the socket; see `Backend.ask`."""
        return Asked(parse_status(self._read(), self.options))

    def ask_reusing(self, _now: datetime, _memory: bytes, last: object, /) -> tuple[Asked, object]:
        """Ask over the socket; convert only the peers that have changed. See `Reusing`."""
        cache = last if isinstance(last, PeerCache) else PeerCache()
        return Asked(parse_status(self._read(), self.options, cache)), cache

    def _read(self) -> bytes:
        api = LocalAPI(self.socket, budget=self.budget, max_bytes=self.max_bytes)
        body = api.get("status")
        if self.responses is not None:
            self.responses[self.socket] = body
        return body
