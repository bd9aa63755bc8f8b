"""What is counted over rounds, how a round changes it, and what the metrics are made of. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clan_discovery.model import Belief, Resolution
    from clan_discovery.publish.files import Published
    from clan_discovery.resolve.trust import Memory


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """Totals since the state was made; `down` are the backends whose outage has begun and not ended."""

    rounds: int = 0
    unchanged: int = 0
    writes: int = 0
    failures: int = 0
    outages: dict[str, int] = {}
    down: tuple[str, ...] = ()

    def after(self, beliefs: Sequence[Belief], published: Published | None) -> Counters:
        """Return the totals after one more round; `published` is None where the files could not be written."""
        down = tuple(sorted(b.backend for b in beliefs if b.state in ("kept", "expired", "unknown")))
        outages = dict(self.outages)
        for backend in set(down) - set(self.down):
            outages[backend] = outages.get(backend, 0) + 1
        if published is None:
            return msgspec.structs.replace(self, failures=self.failures + 1, outages=outages, down=down)
        writes = len(published.written) + len(published.emptied)
        return msgspec.structs.replace(
            self,
            rounds=self.rounds + 1,
            unchanged=self.unchanged + (writes == 0),
            writes=self.writes + writes,
            outages=outages,
            down=down,
        )


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the metrics are made of: the newest round, what is remembered after it, and what was counted so far."""

    resolution: Resolution
    memories: Mapping[str, Memory]
    durations: Mapping[str, float]
    counters: Counters
    declared: int
    version: str
    now: float
