"""Advance the history of changes by one refresh cycle, and read it. Pure.

An unchanged cycle only encodes the targets and compares bytes. The 10,000 old targets are decoded only after a change.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple, TypeAlias, TypeVar

import msgspec

from clan_discovery.elapsed import LATEST
from clan_discovery.model import LEAST_WEIGHT, MOST_WEIGHT, ChangeRecord, Shard, Since, one_line
from clan_discovery.resolve.changes import (
    Changes,
    MachineState,
    Row,
    ShareChange,
    compare,
    compare_states,
    differing,
    rows_of,
    sharing,
    states_of,
)
from clan_discovery.resolve.shard import is_same, moved
from clan_discovery.syntax.labels import is_job

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clan_discovery.model import Resolution
    from clan_discovery.resolve.decoded import DecodedFile

CHANGES_MOST: Final = 1000
_VERSION: Final = 1
_SECONDS_MOST: Final = int(LATEST)
_Seconds: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=_SECONDS_MOST)]
_T = TypeVar("_T")


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the file; its long parts are decoded only if they are needed.

    `since` has one time for each target.
    """

    version: int
    began: _Seconds
    waiting: tuple[str, ...]
    states: dict[str, MachineState]
    targets: msgspec.Raw
    since: msgspec.Raw
    changes: msgspec.Raw
    shard: Shard | None = None


class History(msgspec.Struct, frozen=True, kw_only=True):
    """The changes, oldest first, and since when each target has its address.

    `began` is when the history was created. `waiting` are the jobs that kept their present file at that time; their
    first targets are not changes. Times are in seconds since the epoch, as the clock gave them. `shard` is that of the
    last cycle.
    """

    began: int
    waiting: tuple[str, ...]
    rows: tuple[Row, ...]
    times: tuple[_Seconds, ...]
    states: dict[str, MachineState]
    changes: tuple[ChangeRecord, ...]
    shard: Shard | None = None

    def taken_over(self, resolution: Resolution) -> set[tuple[str, str]]:
        """Return the known targets, by job and instance, that this server publishes since its shard changed."""
        shard = resolution.shard
        if shard is None or is_same(self.shard, shard):
            return set()
        known = {row[:2] for row in self.rows}
        found = moved(self.shard, shard, resolution.targets)
        return known & {(target.job, target.labels["instance"]) for target, is_published in found if is_published}

    def since(self) -> dict[tuple[str, str, str], Since]:
        """Return since when each target has its address, by job, instance and address."""
        times = {at: Since(at, is_exact=at > self.began) for at in set(self.times)}
        return {
            (job, instance, address): times[at]
            for (job, instance, _, address, _), at in zip(self.rows, self.times, strict=True)
        }

    def machines(self) -> set[str]:
        """Return every machine that has a target now or is in a change."""
        return {row[2] for row in self.rows} | {change.machine for change in self.changes}


class Advanced(NamedTuple):
    """The changes of one cycle, and the new content of the file; None if unchanged."""

    changes: Changes
    body: bytes | None


_encode: Final = msgspec.json.encode
_STORED: Final = msgspec.json.Decoder(_Stored)


def advance(body: bytes | None, resolution: Resolution, cache: DecodedFile[History] | None = None) -> Advanced:
    """Add the changes of a cycle to the history in `body`; create it if it is None.

    If the `cache` has the history in `body`, it is not decoded again. The cache then has the new one.

    Raises:
        ValueError: `body` is not a history.
    """
    at = min(max(int(resolution.taken_at.timestamp()), 0), _SECONDS_MOST)
    if body is None:
        rows, encoded = _encoded(rows_of(resolution, ()))
        begun = History(
            began=at,
            waiting=tuple(frozen.job for frozen in resolution.frozen),
            rows=rows,
            times=(at,) * len(rows),
            states=states_of(resolution, {}),
            changes=(),
            shard=resolution.shard,
        )
        return _advanced(Changes(is_first=True), begun, encoded, cache)
    known = cache.of(body) if cache is not None else None
    old = known
    if old is None:
        stored = _stored(body)
        if _is_unchanged(stored, resolution):
            return Advanced(Changes(), None)
        old = _history(stored)
    found_rows = rows_of(resolution, old.rows)
    states = states_of(resolution, old.states)
    if known is not None and tuple(found_rows) == old.rows and _is_settled(resolution, old, states):
        return Advanced(Changes(), None)
    rows, encoded = _encoded(found_rows)
    rows = sharing(old.rows, rows)
    old = _with_awaited(old, rows)
    found = (
        *compare_states(old.states, states, {row[2] for row in rows}, at),
        *compare(old.rows, rows, at),
    )
    new = History(
        began=old.began,
        waiting=tuple(frozen.job for frozen in resolution.frozen if frozen.job in old.waiting),
        rows=rows,
        times=_times(old, rows, at),
        states=states,
        changes=(*old.changes, *found)[-CHANGES_MOST:],
        shard=resolution.shard,
    )
    return _advanced(Changes(found, share=_share_change(old.shard, resolution)), new, encoded, cache)


def _share_change(old: Shard | None, resolution: Resolution) -> ShareChange | None:
    """Count the targets that another list of servers moves; None if it is the same."""
    shard = resolution.shard
    if is_same(old, shard):
        return None
    if shard is None:
        return ShareChange(len(resolution.targets), 0)
    counts = Counter(is_published for _, is_published in moved(old, shard, resolution.targets))
    return ShareChange(counts[True], counts[False])


def _is_unchanged(stored: _Stored, resolution: Resolution) -> bool:
    """Tell whether a cycle changes nothing, without decoding the targets."""
    if not _is_settled(resolution, stored, states_of(resolution, stored.states)):
        return False
    _, encoded = _encoded(rows_of(resolution, ()))
    return encoded == bytes(stored.targets)


def _is_settled(resolution: Resolution, old: _Stored | History, states: Mapping[str, MachineState]) -> bool:
    """Tell whether no machine changed its state, no job waits for its first targets, and the shard is the same."""
    return not old.waiting and states == old.states and is_same(old.shard, resolution.shard)


def _advanced(changes: Changes, history: History, rows: bytes, cache: DecodedFile[History] | None) -> Advanced:
    """Return a new history; `rows` are its rows as JSON."""
    body = _written(history, rows)
    if cache is not None:
        cache.keep(body, history)
    return Advanced(changes, body)


def decode_history(body: bytes) -> History:
    """Read a history.

    Raises:
        ValueError: the bytes are not a history of this version.
    """
    return _history(_stored(body))


def _with_awaited(old: History, rows: tuple[Row, ...]) -> History:
    """Add the first targets of jobs that kept their file when the history was created."""
    awaited = tuple(row for row in rows if row[0] in old.waiting)
    if not awaited:
        return old
    return msgspec.structs.replace(old, rows=(*old.rows, *awaited), times=(*old.times, *(old.began for _ in awaited)))


def _encoded(rows: list[Row]) -> tuple[tuple[Row, ...], bytes]:
    """Return the rows and their JSON, with machine names that UTF-8 can hold.

    The name of a machine may contain surrogates; labels never do.
    """
    try:
        return tuple(rows), _encode(rows)
    except UnicodeEncodeError:
        clean = tuple((a, b, one_line(machine), c, d) for a, b, machine, c, d in rows)
        return clean, _encode(clean)


def _times(old: History, rows: tuple[Row, ...], at: int) -> tuple[int, ...]:
    """Return since when each target has its address."""
    gone, added = differing(old.rows, rows)
    # At the same address, another machine or backend may give the target now.
    known = {(*old.rows[number][:2], old.rows[number][3]): old.times[number] for number in gone}
    is_gone = set(gone)
    kept = [since for number, since in enumerate(old.times) if number not in is_gone]
    times: list[int] = []
    taken = 0
    for number in added:
        before = number - len(times)
        times += kept[taken : taken + before]
        taken += before
        job, instance, _, address, _ = rows[number]
        times.append(known.get((job, instance, address), at))
    return (*times, *kept[taken:])


def _written(history: History, rows: bytes) -> bytes:
    """Encode a history; `rows` are its rows as JSON."""
    return _encode(
        {
            "version": _VERSION,
            "began": history.began,
            "waiting": history.waiting,
            "states": history.states,
            "targets": msgspec.Raw(rows),
            "since": history.times,
            "changes": history.changes,
            "shard": history.shard,
        }
    )


def _stored(body: bytes) -> _Stored:
    stored = _decoded(_STORED, body)
    if stored.version != _VERSION:
        raise ValueError(f"it has version {stored.version}, not {_VERSION}")
    return stored


def _history(stored: _Stored) -> History:
    """Decode the long parts, and check them as any foreign input."""
    rows = _decoded(msgspec.json.Decoder(tuple[Row, ...]), stored.targets)
    times = _decoded(msgspec.json.Decoder(tuple[_Seconds, ...]), stored.since)
    changes = _decoded(msgspec.json.Decoder(tuple[ChangeRecord, ...]), stored.changes)
    if len(times) != len(rows):
        raise ValueError(f"it has {len(times)} times for {len(rows)} targets")
    if len(changes) > CHANGES_MOST:
        raise ValueError(f"it has {len(changes)} changes, more than {CHANGES_MOST}")
    for job in {row[0] for row in rows} | {change.job for change in changes if change.job}:
        if not is_job(job):
            raise ValueError(f"{job[:60]!r} is not a valid job name")
    for at in {change.at for change in changes}:
        if not 0 <= at <= _SECONDS_MOST:
            raise ValueError(f"{at} is not a valid time")
    return History(
        began=stored.began,
        waiting=stored.waiting,
        rows=rows,
        times=times,
        states=stored.states,
        changes=changes,
        shard=_checked(stored.shard),
    )


def _checked(shard: Shard | None) -> Shard | None:
    """Return a shard whose shares can be computed, or raise ValueError."""
    if shard is None:
        return None
    active = sum(member.state == "active" for member in shard.members)
    if not 1 <= shard.replicas <= active:
        raise ValueError(f"it has {shard.replicas} replicas for {active} active members")
    for member in shard.members:
        if not LEAST_WEIGHT <= member.weight <= MOST_WEIGHT:
            raise ValueError(f"{member.weight} is not a valid weight")
    return shard


def _decoded(decoder: msgspec.json.Decoder[_T], body: bytes | msgspec.Raw) -> _T:
    try:
        return decoder.decode(body)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
