"""Decide which members of a shard publish a target: weighted rendezvous hashing. Pure.

Every member gives each target a score that depends on its own name, the job and the target's machine alone; the target
belongs to the members with the highest scores. A member that joins or leaves therefore moves only its own share (Thaler
and Ravishankar, "Using name-based mappings to increase hit rates", 1998; weights: Schindelhauer and Schomaker,
"Weighted distributed hash tables", 2005).

The machine, not `instance`: a second exporter of one type on a machine changes `db` to `db:9100`. While servers differ
in whether they know it, no target may be without a server.

A score is `(a * x + b) mod 2**128 // 2**64`: `x` is the 64-bit hash of the machine, `a` and `b` are 128 bits of the
hash of member and job. For random `a` and `b`, the scores of two targets are independent and uniform (Dietzfelbinger,
"Universal hashing and k-wise independent random variables via integer arithmetic without primes", 1996), so the sizes
of shares vary no more than those of truly random ones. The scores of all members come from one multiplication: each has
its own 192 bits of a large number.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from itertools import compress
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from clan_discovery.model import Shard, Target

_LANE: Final = 24
"""The bytes of one member's part: a product of 128 and 64 bits."""


class _Factors(NamedTuple):
    """The factor and the summand of a job, with a part for each member."""

    factor: int
    summand: int


class Assignment:
    """Says which members publish a target. It keeps what it computed for a job, so it belongs to one cycle.

    Members are in the order of their case-folded names.
    """

    def __init__(self, shard: Shard) -> None:
        members = sorted(shard.members, key=lambda member: member.name.casefold())
        self._names = tuple(member.name for member in members)
        self._folded = tuple(member.name.casefold() for member in members)
        self._weights = tuple(member.weight for member in members)
        self._is_weighted = len(set(self._weights)) > 1
        self._active = tuple(member.state == "active" for member in members)
        self._all_active = all(self._active)
        self._replicas = shard.replicas
        self._unshared = frozenset(shard.unshared)
        self._unpack: Callable[[bytes], tuple[int, ...]] = Struct("<" + "8xQ8x" * len(members)).unpack
        self._bytes = _LANE * len(members)
        self._machine: str | None = None
        self._hash = 0
        self._jobs: dict[str, _Factors] = {}
        self._known: dict[tuple[bool, ...], tuple[str, ...]] = {}

    def of(self, job: str, machine: str) -> tuple[str, ...]:
        """Return the names of the members that publish a target, sorted; empty: every one does.

        Of the active members, those with the `replicas` highest scores. A joining or leaving member publishes what it
        would publish if it were active, too.
        """
        if job in self._unshared:
            return ()
        scores = self.scores(job, machine)
        least = sorted(scores if self._all_active else compress(scores, self._active))[-self._replicas]
        if scores.count(least) == 1:
            chosen = tuple([score >= least for score in scores])
        else:
            chosen = self._without_tie(scores)
        found = self._known.get(chosen)
        if found is None:
            # Most targets share one of a few tuples.
            found = self._known[chosen] = tuple(compress(self._names, chosen))
        return found

    def scores(self, job: str, machine: str) -> Sequence[float]:
        """Return the score of each member for a target: the higher, the earlier it publishes the target."""
        known = self._jobs.get(job)
        if known is None:
            known = self._jobs[job] = self._job(job)
        if machine != self._machine:
            # The exporters of a machine come one after the other.
            self._machine = machine
            self._hash = _hash_of(machine)
        scores = self._unpack((known.factor * self._hash + known.summand).to_bytes(self._bytes, "little"))
        if not self._is_weighted:
            return scores
        # log(u) / weight: of exponentially distributed times, the earliest wins in proportion to its rate.
        return [math.log((score + 1) / 2**64) / weight for score, weight in zip(scores, self._weights, strict=True)]

    def _without_tie(self, scores: Sequence[float]) -> tuple[bool, ...]:
        """Say for each member whether it publishes the target. Of members with one score, the first name wins."""
        ranks = [(score, -index) for index, score in enumerate(scores)]
        least = sorted(compress(ranks, self._active))[-self._replicas]
        return tuple(rank >= least for rank in ranks)

    def _job(self, job: str) -> _Factors:
        factor = summand = 0
        for index, name in enumerate(self._folded):
            seed = blake2b(f"{name}\0{job}".encode(), digest_size=32).digest()
            shift = 8 * _LANE * index
            factor |= int.from_bytes(seed[:16], "little") << shift
            summand |= int.from_bytes(seed[16:], "little") << shift
        return _Factors(factor, summand)


def is_same(old: Shard | None, new: Shard | None) -> bool:
    """Tell whether a server publishes the same share with both settings."""
    if old is None or new is None:
        return old is new
    return old.fingerprint == new.fingerprint and old.member.casefold() == new.member.casefold()


def moved(old: Shard | None, new: Shard, targets: Iterable[Target]) -> Iterator[tuple[Target, bool]]:
    """Yield the targets that a server begins to publish (true) or ceases to publish (false) with new settings.

    `targets` have their servers by the `new` settings. Without `old` ones, the server published all targets.
    """
    before = None if old is None else Assignment(old)
    for target in targets:
        if not target.servers and target.job not in new.unshared:
            continue  # only a scraper beside this server reaches it, with any settings
        published = not target.servers or new.member in target.servers
        servers = before.of(target.job, target.machine) if before is not None else ()
        was_published = old is None or not servers or old.member in servers
        if published is not was_published:
            yield target, published


def targets_fingerprint(targets: Iterable[tuple[str, str]]) -> str:
    """Return eight hexadecimal digits that are the same for the same jobs and machines, in any order.

    The hashes of the machines of a job are added, so a difference of one target changes the result.
    """
    sums: dict[str, int] = {}
    last, value = None, 0
    for job, machine in targets:
        if machine != last:
            last, value = machine, _hash_of(machine)
        sums[job] = sums.get(job, 0) + value
    lines = "".join(f"{job}\0{total}\n" for job, total in sorted(sums.items()))
    return blake2b(lines.encode(), digest_size=4).hexdigest()


def _hash_of(machine: str) -> int:
    return int.from_bytes(blake2b(machine.encode(), digest_size=8).digest(), "little")
