"""Define the memory of each backend between refresh cycles, and encode it. Pure.

The index holds everything but the snapshots: an unchanged answer then writes a few bytes and not 10,000 machines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import msgspec

from clan_discovery.elapsed import Behind, Time, begun, elapsed, noted
from clan_discovery.model import Counters, Snapshot
from clan_discovery.resolve.sound import check_counters, check_snapshot
from clan_discovery.syntax.labels import JOB_PATTERN, is_job

if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION: Final = 2
"""Version 1 kept DNS answers in the snapshots."""

_JUMP_S: Final = 86400.0
"""The longest interval of `run`. A longer step of the clock is a jump, or a cycle that came very late."""
Job: TypeAlias = Annotated[str, msgspec.Meta(pattern=rf"\A{JOB_PATTERN}\Z")]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class Remembered(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The last good answer of one backend, with its time and the settings it is for.

    `behind` is the time that passed while the clock was before `taken_at` (`elapsed`).
    """

    snapshot: Snapshot
    taken_at: float
    fingerprint: str
    behind: Behind | None = None

    @classmethod
    def taken(cls, snapshot: Snapshot, fingerprint: str, now: float, known: float | None) -> Remembered:
        """Return an answer that was received now; `known` is a time in the past."""
        taken_at, behind = begun(now, known)
        return cls(snapshot=snapshot, taken_at=taken_at, fingerprint=fingerprint, behind=behind)

    def age(self, now: float) -> float:
        """Return how old the answer is, in seconds."""
        return elapsed(self.taken_at, now, self.behind)

    def noted(self, now: float) -> Remembered:
        """Return a copy that notes the time while the clock is before `taken_at`."""
        behind = noted(self.taken_at, now, self.behind)
        if behind == self.behind:
            return self
        return msgspec.structs.replace(self, behind=behind)


class Held(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A large loss that is not believed yet.

    `names` are lost since `since`, in so many `rounds` (refresh cycles). `last` is when the loss was last seen.
    `paused`: the backend has not answered since then, and that time does not count. `behind` is the time that passed
    while the clock was before `since` (`elapsed`).
    """

    names: frozenset[str]
    since: Time
    rounds: Count
    last: Time = 0.0
    paused: bool = False
    behind: Behind | None = None

    @classmethod
    def begun(cls, now: float, names: frozenset[str] = frozenset(), known: float | None = None) -> Held:
        """Return a loss that is seen for the first time; `known` is a time in the past."""
        since, behind = begun(now, known)
        return cls(names=names, since=since, rounds=1, last=now, behind=behind)

    @property
    def seconds(self) -> float:
        """Return the time between the first and the last cycle that saw the loss."""
        return elapsed(self.since, self.last, self.behind)

    def seen(self, now: float, names: frozenset[str] = frozenset(), *, counts: bool, most: float | None = None) -> Held:
        """Return the loss after another cycle that saw it.

        The time of an outage does not count. More than a day since the last cycle counts as `most` seconds, because the
        clock may have jumped.
        """
        since, behind = self.since, noted(self.since, now, self.behind)
        step = now - max(self.last, since)
        if self.paused:
            since, behind = max(now - self.seconds, 0.0), None
        elif step > _JUMP_S and most is not None:
            since += step - most
        rounds = self.rounds + counts
        return Held(names=names, since=since, rounds=rounds, last=now, behind=behind)


class Absence(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A node that is offline, or a group that fails, from `since` to `last`.

    It was never seen online, or answered, in between. `behind` is the time that passed while the clock was before
    `since` (`elapsed`).
    """

    since: Time
    last: Time
    behind: Behind | None = None

    @classmethod
    def begun(cls, now: float, known: float | None) -> Absence:
        """Return an absence that is seen for the first time; `known` is a past time."""
        since, behind = begun(now, known)
        return cls(since=since, last=now, behind=behind)

    @property
    def seconds(self) -> float:
        """Return how long it had lasted when it was last seen."""
        return elapsed(self.since, self.last, self.behind)

    def seen(self, now: float) -> Absence:
        """Return the absence after another cycle that saw it."""
        return Absence(since=self.since, last=now, behind=noted(self.since, now, self.behind))


class Lost(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The loss of a backend's memory, and the jobs that keep their present file.

    It was lost at `since`. `held` is set if the backend answers with much less than the files hold, so that its answer
    is not believed. `behind` is the time that passed while the clock was before `since` (`elapsed`).
    """

    since: Time
    jobs: tuple[Job, ...]
    held: Held | None = None
    behind: Behind | None = None


class Memory(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The memory of one backend.

    `held` and `unanswered` are by group, `offline` by node.
    """

    last: Remembered | None = None
    held: dict[str, Held] = {}
    offline: dict[str, Absence] = {}
    unanswered: dict[str, Absence] = {}
    lost: Lost | None = None

    @property
    def known(self) -> float | None:
        """Return the time of the last good answer."""
        return None if self.last is None else self.last.taken_at

    def noted(self, now: float) -> Memory:
        """Return a copy that notes the time; see `Remembered.noted`."""
        if self.last is None:
            return self
        last = self.last.noted(now)
        if last is self.last:
            return self
        return msgspec.structs.replace(self, last=last)


class IndexEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A backend's memory without its snapshot.

    `taken_at` is None if there is no snapshot. `own`: the backend has a memory of its own. `asked` is the fingerprint
    of the settings with which it was last asked. `jobs` are the jobs that it listed; a renamed backend is recognised by
    them.
    """

    taken_at: Time | None = None
    behind: Behind | None = None
    fingerprint: str = ""
    held: dict[str, Held] = {}
    offline: dict[str, Absence] = {}
    unanswered: dict[str, Absence] = {}
    lost: Lost | None = None
    own: bool = False
    asked: str = ""
    jobs: tuple[Job, ...] = ()

    @classmethod
    def of(cls, memory: Memory, asked: str, jobs: Iterable[str], *, own: bool) -> IndexEntry:
        """Return the entry of a memory."""
        entry = cls(
            held=memory.held,
            offline=memory.offline,
            unanswered=memory.unanswered,
            lost=memory.lost,
            own=own,
            asked=asked,
            jobs=tuple(sorted(jobs)),
        )
        if memory.last is None:
            return entry
        last = memory.last
        return msgspec.structs.replace(entry, taken_at=last.taken_at, behind=last.behind, fingerprint=last.fingerprint)

    def memory(self, snapshot: Snapshot | None) -> Memory:
        """Combine this entry and its snapshot to a memory."""
        last = None
        if snapshot is not None and self.taken_at is not None:
            last = Remembered(
                snapshot=snapshot, taken_at=self.taken_at, fingerprint=self.fingerprint, behind=self.behind
            )
        return Memory(last=last, held=self.held, offline=self.offline, unanswered=self.unanswered, lost=self.lost)


class Index(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All memory except the snapshots and the backends' own memories."""

    version: int = 0
    backends: dict[str, IndexEntry] = {}
    counters: Counters = msgspec.field(default_factory=Counters)


class _Version(msgspec.Struct, frozen=True):
    version: int = 0


_VERSION: Final = msgspec.json.Decoder(_Version)
_INDEX: Final = msgspec.json.Decoder(Index)
_SNAPSHOT: Final = msgspec.json.Decoder(Snapshot)
_encode: Final = msgspec.json.encode


def encode_index(index: Index) -> bytes:
    """Write an index."""
    return _encode(index)


def decode_index(body: bytes) -> Index:
    """Read an index.

    Raises:
        ValueError: the bytes are not an index of this version.
    """
    try:
        version = _VERSION.decode(body).version
        if version != VERSION:
            raise ValueError(f"it has version {version}, not {VERSION}")
        index = _INDEX.decode(body)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    for name in (*index.backends, *index.counters.outages, *index.counters.down):
        if not is_job(name):  # it becomes part of a file name, and a label
            raise ValueError(f"{name[:60]!r} is not the name of a backend")
    check_counters(index.counters)
    return index


def storable(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot without what is not stored: the online flags and the failed lookups."""
    nodes = tuple(msgspec.structs.replace(n, online=None) if n.online is not None else n for n in snapshot.nodes)
    groups = {
        name: msgspec.structs.replace(group, failures=()) if group.failures else group
        for name, group in snapshot.groups.items()
    }
    return msgspec.structs.replace(snapshot, nodes=nodes, groups=groups)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Encode a snapshot that is `storable`."""
    return _encode(snapshot)


def decode_snapshot(body: bytes, backend: str, *, any_address: bool = False) -> Snapshot:
    """Decode a snapshot of a backend with this name.

    `any_address`: the backend may have addresses that no target may have by default.

    Raises:
        ValueError: the bytes are not a snapshot, or hold an invalid value.
    """
    try:
        snapshot = _SNAPSHOT.decode(body)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    check_snapshot(snapshot, backend, any_address=any_address)
    if snapshot.failures:
        raise ValueError("it contains failed lookups, which are never stored")
    return snapshot


def renamed(snapshot: Snapshot, backend: str) -> Snapshot:
    """Return a snapshot with the new name of its backend."""
    endpoints = tuple(msgspec.structs.replace(e, backend=backend) for e in snapshot.endpoints)
    excluded = tuple(msgspec.structs.replace(e, by=backend) for e in snapshot.excluded)
    return msgspec.structs.replace(snapshot, backend=backend, endpoints=endpoints, excluded=excluded)
