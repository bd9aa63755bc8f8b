"""What to believe of a backend: its answer, or the last good one. Pure; the time is an argument.

Law: an outage never removes a machine, and a large loss is not believed at once. What a backend proves gone, one
or two machines at a time, is gone at once.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from clan_discovery.model import Belief, Outage, Outcome, Snapshot, list_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clan_discovery.model import DnsList, Unanswered

_GUARDED_FROM: Final = 4
"""A backend that knew fewer machines than this may lose them all: nothing tells one of two from a bad answer."""


_TOLD_MOST: Final = 3


class Remembered(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The last good answer of one backend: when (seconds since the epoch), and under which settings."""

    snapshot: Snapshot
    taken_at: float
    fingerprint: str


class Held(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A shrink that waits: the names that are lost, since when and in how many rounds.

    `last` is when it was seen last; `paused`: there was no answer since, and that time does not count.
    """

    names: frozenset[str]
    since: float
    rounds: int
    last: float = 0.0
    paused: bool = False


class Absence(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A node that was seen offline `since` a time and last at `last`, and never online between."""

    since: float
    last: float


class Memory(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is remembered of one backend."""

    last: Remembered | None = None
    held: Held | None = None
    offline: dict[str, Absence] = {}


class Trust(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How far memory is trusted.

    `max_age` in seconds (None: for ever); `max_shrink` as a fraction (1: any). A shrink that was seen unchanged for
    so many rounds, or so many seconds, is believed (None: that does not count).
    """

    max_age: float | None = 86400.0
    max_shrink: float = 0.5
    shrink_rounds: int | None = 10
    shrink_seconds: float | None = 600.0
    accept_shrink: bool = False


def believe(
    outcome: Outcome, memory: Memory, trust: Trust, *, fingerprint: str, now: float, counts: bool = True
) -> tuple[Belief, Memory]:
    """Decide what is believed after one answer, and what is remembered for the next round.

    `counts` says whether this round is one of those after which a loss is believed.
    """
    last = memory.last if memory.last is not None and memory.last.fingerprint == fingerprint else None
    if isinstance(outcome, Outage):
        return _without_answer(outcome, last, memory, trust, now), _paused(memory)
    offline = _offline(outcome, memory.offline, now)
    if outcome.silent:
        return _silent(outcome, _paused(memory), trust, fingerprint, now)
    held = _held(outcome, last, memory.held, trust, now, counts=counts)
    believed = held is not None and _is_enough(held, trust, now)
    if held is not None and last is not None and not believed:
        belief = _hold(outcome, last, memory, now)
        return belief, Memory(last=last, held=held, offline=memory.offline)
    taken = Remembered(snapshot=outcome, taken_at=now, fingerprint=fingerprint)
    why = ""
    if held is not None and believed:
        why = f"the loss is believed after {held.rounds} rounds"
    belief = Belief(backend=outcome.backend, state="fresh", snapshot=outcome, why=why, offline=_durations(offline))
    return _partly(belief, outcome.unanswered), Memory(last=taken, offline=offline)


def _paused(memory: Memory) -> Memory:
    """Stop the clock of a loss that waits: it is not seen now."""
    if memory.held is None:
        return memory
    return msgspec.structs.replace(memory, held=msgspec.structs.replace(memory.held, paused=True))


def _silent(outcome: Snapshot, memory: Memory, trust: Trust, fingerprint: str, now: float) -> tuple[Belief, Memory]:
    """Keep what a backend remembers by itself, name by name, while nobody answers it: since its newest answer."""
    said = [answer.at for answer in outcome.answers if answer.records or answer.absent]
    newest = max(said, default=memory.last.taken_at if memory.last else now)
    kept = Remembered(snapshot=outcome, taken_at=min(newest, now), fingerprint=fingerprint)
    age = now - kept.taken_at
    state: Literal["kept", "expired"] = "expired" if trust.max_age is not None and age > trust.max_age else "kept"
    belief = _partly(Belief(backend=outcome.backend, state=state, snapshot=outcome), outcome.unanswered)
    return msgspec.structs.replace(belief, state=state, age=age), msgspec.structs.replace(memory, last=kept)


def _partly(belief: Belief, unanswered: Sequence[Unanswered]) -> Belief:
    """Say of an answer that lacks names which they are: what stands for each is the backend's to know."""
    if not unanswered:
        return belief
    told = ", ".join(f"{u.name} ({u.reason})" for u in unanswered[:_TOLD_MOST])
    more = f" and {len(unanswered) - _TOLD_MOST} more" if len(unanswered) > _TOLD_MOST else ""
    why = f"could not find out of {told}{more}"
    age = max((u.age for u in unanswered if u.age is not None), default=0.0)
    return msgspec.structs.replace(belief, state="partial", why=f"{belief.why}; {why}" if belief.why else why, age=age)


def _offline(answer: Snapshot, before: Mapping[str, Absence], now: float) -> dict[str, Absence]:
    """Follow who is offline: from the first time until somebody is seen online; a flag unknown stops the clock."""
    found: dict[str, Absence] = {}
    for node in answer.nodes:
        if node.online:
            continue
        known = before.get(node.name)
        if node.online is None:
            if known is not None:
                found[node.name] = known
        else:
            # A clock that was set back starts the count anew: a machine is never dropped before its time.
            since = known.since if known is not None and known.since <= now else now
            found[node.name] = Absence(since=since, last=now)
    return found


def _durations(offline: Mapping[str, Absence]) -> dict[str, float]:
    return {name: absence.last - absence.since for name, absence in offline.items()}


def _without_answer(outage: Outage, last: Remembered | None, memory: Memory, trust: Trust, now: float) -> Belief:
    if last is None:
        return Belief(backend=outage.backend, state="unknown", snapshot=None, why=outage.reason, hint=outage.hint)
    age = max(now - last.taken_at, 0.0)  # a clock that was set back makes nothing older
    expired = trust.max_age is not None and age > trust.max_age
    return Belief(
        backend=outage.backend,
        state="expired" if expired else "kept",
        snapshot=None if expired else last.snapshot,
        why=outage.reason,
        hint=outage.hint,
        age=age,
        offline=_durations(memory.offline),
    )


def _held(
    answer: Snapshot, last: Remembered | None, held: Held | None, trust: Trust, now: float, *, counts: bool
) -> Held | None:
    """Tell whether this answer loses so much that it is held, what it loses, and since when that is missed.

    What is lost all the while counts: that something beside it comes and goes begins nothing anew.
    """
    if last is None or trust.accept_shrink or last.snapshot is answer:
        return None
    kinds = list(zip(_standing(last.snapshot, answer.found), _standing(answer), strict=True))
    lost = frozenset[str]().union(*(before - after for before, after in kinds))
    counted = [before for before, _ in kinds]
    if not _is_large(lost, counted, trust):
        return None
    lasting = lost & held.names if held is not None else lost
    if held is None or not _is_large(lasting, counted, trust):
        return Held(names=lost, since=now, rounds=1, last=now)
    gap = max(now - held.last, 0.0) if held.paused else 0.0
    return Held(names=lasting, since=min(held.since + gap, now), rounds=held.rounds + counts, last=now)


def _is_large(lost: frozenset[str], kinds: Sequence[frozenset[str]], trust: Trust) -> bool:
    return any(len(k) >= _GUARDED_FROM and len(lost & k) > trust.max_shrink * len(k) for k in kinds)


def _is_enough(held: Held, trust: Trust, now: float) -> bool:
    """Tell whether a loss was seen for long enough to be believed."""
    enough = trust.shrink_rounds is not None and held.rounds >= trust.shrink_rounds
    return enough or (trust.shrink_seconds is not None and held.rounds > 1 and now - held.since >= trust.shrink_seconds)


def _hold(answer: Snapshot, last: Remembered, memory: Memory, now: float) -> Belief:
    known = [
        (len(b), len(b - a)) for b, a in zip(_standing(last.snapshot, answer.found), _standing(answer), strict=True)
    ]
    most = max(range(len(known)), key=lambda i: known[i][1] / max(known[i][0], 1))
    count, left = known[most][0], known[most][0] - known[most][1]
    why = (
        f"{count} machines would become {left}",
        f"of {count} machines with tags, {left} would still have any",
        f"of {count} targets that it lists, {left} would be left",
    )[most]
    return Belief(
        backend=answer.backend,
        state="held",
        snapshot=_mixed(last.snapshot, answer),
        why=why,
        hint="if that is right: clan-discovery refresh --accept-shrink",
        age=max(now - last.taken_at, 0.0),
        offline=_durations(memory.offline),
    )


def _mixed(old: Snapshot, new: Snapshot) -> Snapshot:
    """Return the old answer while a loss is held: of the lists that are still asked, with those that are new."""
    if new.asked is None:
        return old
    lists = {list_of(e.exporter.type, e.labels) for e in old.endpoints} | {list_of("", n.labels) for n in old.nodes}
    machines = _machines(new.asked)
    nodes = [n for n in old.nodes if list_of("", n.labels) in machines]
    nodes += [n for n in new.nodes if list_of("", n.labels) not in lists]
    endpoints = [e for e in old.endpoints if list_of(e.exporter.type, e.labels) in new.asked]
    endpoints += [e for e in new.endpoints if list_of(e.exporter.type, e.labels) not in lists]
    return msgspec.structs.replace(
        old, nodes=tuple(nodes), endpoints=tuple(endpoints), unanswered=new.unanswered, jobs=new.jobs
    )


def _machines(lists: frozenset[DnsList]) -> frozenset[DnsList]:
    """Return the lists as machines are of them: whichever job they are for."""
    return frozenset(found._replace(job="") for found in lists)


def _standing(
    snapshot: Snapshot, found: frozenset[DnsList] | None = None
) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Return the machines that can be reached, those that bear tags, and the listed targets: each is guarded.

    Of names in DNS those alone that were `found` again, be it to be absent: one that is not asked for any more, or of
    which nobody could find out, is no loss.

    A control plane that forgets every tag takes as many targets away as one that forgets the machines.
    """
    machines = _machines(found) if found is not None else None
    nodes = [node for node in snapshot.nodes if machines is None or list_of("", node.labels) in machines]
    reachable = frozenset(node.name for node in nodes if node.addresses)
    tagged = frozenset(f"{node.name} tagged" for node in nodes if node.tags)
    return reachable, tagged, _listed(snapshot, found)


def _listed(snapshot: Snapshot, found: frozenset[DnsList] | None) -> frozenset[str]:
    """Return the targets of each list by their number: a list whose targets are others now has lost none."""
    lists = Counter(list_of(e.exporter.type, e.labels) for e in snapshot.endpoints)
    kept = {name: count for name, count in lists.items() if found is None or name in found}
    return frozenset(f"{' '.join(map(str, name))} {i} listed" for name, count in kept.items() for i in range(count))
