"""A backend with scripted answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clan_discovery.backends.base import Asked
from clan_discovery.errors import BackendError
from clan_discovery.model import Node, Snapshot

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True)
class Scripted:
    """A backend that answers with these machines; None is an outage."""

    answer: frozenset[str] | None
    name: str = "tailnet"
    fingerprint: str | None = "scripted"
    jobs: frozenset[str] = frozenset()
    locates: bool = True
    any_address: bool = False

    def ask(self, _now: datetime, _memory: bytes, /) -> Asked:
        """Return the next answer, or raise for an outage."""
        if self.answer is None:
            raise BackendError("scripted outage")
        nodes = tuple(Node(name, (f"100.64.0.{ord(name[0])}",)) for name in sorted(self.answer))
        return Asked(Snapshot(backend=self.name, nodes=nodes, suffix="ts.net"))
