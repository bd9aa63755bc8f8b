"""Return addresses and endpoints from the config; this backend never fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clan_discovery.model import Endpoint, Node, Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clan_discovery.backends.base import Ask


@dataclass(frozen=True, slots=True, kw_only=True)
class Static:
    """Lists addresses of `machines` by name, and `endpoints`, which are targets themselves."""

    name: str
    machines: Mapping[str, tuple[str, ...]]
    endpoints: tuple[Endpoint, ...]

    @property
    def fingerprint(self) -> None:
        """None: nothing needs to be remembered."""
        return

    def ask(self, _: Ask, /) -> Snapshot:
        """Return the lists; see `Backend.ask`."""
        nodes = tuple(Node(name, addresses) for name, addresses in sorted(self.machines.items()))
        return Snapshot(backend=self.name, nodes=nodes, endpoints=self.endpoints)
