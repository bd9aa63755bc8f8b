"""Return addresses and endpoints from the config; this backend never fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from clan_discovery.backends.base import Asked
from clan_discovery.model import Endpoint, Node, Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class Static(msgspec.Struct, frozen=True, kw_only=True):
    """The addresses of `machines` by name, and `endpoints`, which are targets."""

    name: str
    machines: Mapping[str, tuple[str, ...]]
    endpoints: tuple[Endpoint, ...]

    any_address: bool = True

    @property
    def fingerprint(self) -> None:
        """Return None: nothing needs to be remembered, because the config is always there."""
        return

    @property
    def jobs(self) -> frozenset[str]:
        """Return the jobs of the endpoints."""
        return frozenset(endpoint.exporter.type for endpoint in self.endpoints)

    @property
    def locates(self) -> bool:
        """Tell whether it locates machines."""
        return bool(self.machines)

    def ask(self, _now: datetime, _memory: bytes, /) -> Asked:
        """Return what the config says."""
        nodes = tuple(Node(name, addresses) for name, addresses in sorted(self.machines.items()))
        return Asked(Snapshot(backend=self.name, nodes=nodes, endpoints=self.endpoints))
