"""The static backend: addresses and endpoints that somebody wrote down. Never an outage, asks nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clan_discovery.model import Endpoint, Node, Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clan_discovery.backends.base import Ask


@dataclass(frozen=True, slots=True, kw_only=True)
class Static:
    """A list: `machines` tells where machines are (name -> addresses), `endpoints` are targets by themselves."""

    name: str
    machines: Mapping[str, tuple[str, ...]]
    endpoints: tuple[Endpoint, ...]

    @property
    def fingerprint(self) -> None:
        """Nothing is remembered: what is written down is always there."""
        return

    def ask(self, _: Ask, /) -> Snapshot:
        """Return what is written down."""
        nodes = tuple(Node(name, addresses) for name, addresses in sorted(self.machines.items()))
        return Snapshot(backend=self.name, nodes=nodes, endpoints=self.endpoints)
