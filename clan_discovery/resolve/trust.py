"""What to believe of a backend: its answer, or the last good one. Pure; the time is an argument.

Law: an outage never removes a machine, and a large loss is not believed at once. What a backend proves gone, one or
two machines at a time, is gone at once. Losses are counted within each group of a backend, and no label is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from clan_discovery.model import Belief, BeliefState, Group, Outage, Snapshot
from clan_discovery.resolve.memory import Absence, Held, Memory, Remembered
from clan_discovery.syntax.text import and_more

if TYPE_CHECKING:
    from collections.abc import Mapping, Set as AbstractSet

    from clan_discovery.model import Answer, Failure

GUARDED_FROM: Final = 4
"""A group that knew fewer machines than this may lose them all: one of two says nothing about a bad answer."""

_TOLD_MOST: Final = 3


class Trust(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How far memory is trusted.

    `max_age` in seconds (None: for ever); `max_shrink` as a fraction (1: any loss is believed at once). A loss that was
    seen in so many cycles, or for so many seconds, is believed (None: that does not count).
    """

    max_age: float | None = 86400.0
    max_shrink: float = 0.5
    shrink_rounds: int | None = 10
    shrink_seconds: float | None = 600.0
    accept_shrink: bool = False

    def is_too_old(self, age: float) -> bool:
        """Tell whether an answer of this age (seconds) may not be used any more."""
        return self.max_age is not None and age > self.max_age

    def is_large_loss(self, before: int, lost: int) -> bool:
        """Tell whether losing so many of so many is too much to be believed at once."""
        return before >= GUARDED_FROM and lost > self.max_shrink * before

    def is_seen_enough(self, held: Held, now: float) -> bool:
        """Tell whether a loss was seen for long enough to be believed."""
        if self.shrink_rounds is not None and held.rounds >= self.shrink_rounds:
            return True
        if self.shrink_seconds is None or held.rounds < 2:
            return False
        return now - held.since >= self.shrink_seconds


def believe(
    answer: Answer,
    memory: Memory,
    trust: Trust,
    *,
    fingerprint: str,
    now: float,
    counts: bool = True,
) -> tuple[Belief, Memory]:
    """Decide what is believed after one answer, and what is remembered for the next cycle.

    `counts` says whether this cycle is one of those after which a loss is believed.
    """
    if isinstance(answer, Outage):
        return _without_answer(answer, memory, trust, fingerprint, now), _paused(memory)
    offline = _offline(answer, memory.offline, now)
    last = memory.last
    losses: dict[str, _Loss] = {}
    if last is not None and last.fingerprint == fingerprint and not trust.accept_shrink:
        losses = _large_losses(last.snapshot, answer, trust)
    held = {name: _counted(loss, memory.held.get(name), trust, now, counts=counts) for name, loss in losses.items()}
    waiting = {name: loss for name, loss in held.items() if not trust.is_seen_enough(loss, now)}
    if last is not None and waiting:
        used = _mixed(last.snapshot, answer, waiting.keys())
        belief = Belief(
            backend=answer.backend,
            state=BeliefState.HELD,
            snapshot=used,
            why="; ".join(losses[name].text for name in sorted(waiting)),
            hint="if that is right: clan-discovery refresh --accept-shrink",
            age=max(now - last.taken_at, 0.0),
            offline=_durations(memory.offline),
        )
        kept = Remembered(snapshot=used, taken_at=last.taken_at, fingerprint=last.fingerprint)
        return belief, Memory(last=kept, held=waiting, offline=memory.offline)
    why = ""
    if held:
        why = f"the loss is believed after {max(loss.rounds for loss in held.values())} rounds"
    taken = Remembered(snapshot=answer, taken_at=now, fingerprint=fingerprint)
    return _answered(answer, why, _durations(offline)), Memory(last=taken, offline=offline)


def _answered(answer: Snapshot, why: str, offline: Mapping[str, float]) -> Belief:
    """Believe an answer: `fresh`, or `partial` where lookups failed."""
    failures = answer.failures
    state, age = BeliefState.FRESH, 0.0
    if failures:
        state = BeliefState.PARTIAL
        why = "; ".join(filter(None, (why, failures_text(failures))))
        age = max((f.age for f in failures if f.age is not None), default=0.0)
    return Belief(backend=answer.backend, state=state, snapshot=answer, why=why, offline=offline, age=age)


def failures_text(failures: tuple[Failure, ...]) -> str:
    """Say which lookups failed, and why."""
    return f"lookup failed: {and_more([f'{f.name} ({f.reason})' for f in failures], _TOLD_MOST)}"


def _without_answer(outage: Outage, memory: Memory, trust: Trust, fingerprint: str, now: float) -> Belief:
    """Use what the backend itself still knows, else its last good answer, also one under other settings."""
    why = outage.reason
    if outage.last is not None:
        snapshot, age = outage.last, outage.age
    elif memory.last is not None:
        snapshot = memory.last.snapshot
        age = max(now - memory.last.taken_at, 0.0)  # a clock that was set back makes nothing older
        if memory.last.fingerprint != fingerprint:
            why += "; the last good answer was given under other settings"
    else:
        return Belief(
            backend=outage.backend, state=BeliefState.UNKNOWN, snapshot=None, why=outage.reason, hint=outage.hint
        )
    expired = trust.is_too_old(age)
    return Belief(
        backend=outage.backend,
        state=BeliefState.EXPIRED if expired else BeliefState.KEPT,
        snapshot=None if expired else snapshot,
        why=why,
        hint=outage.hint,
        age=age,
        offline=_durations(memory.offline),
    )


def _paused(memory: Memory) -> Memory:
    """Stop the clock of losses that wait: they are not seen now."""
    if not memory.held:
        return memory
    held = {name: msgspec.structs.replace(loss, paused=True) for name, loss in memory.held.items()}
    return msgspec.structs.replace(memory, held=held)


def _offline(answer: Snapshot, before: Mapping[str, Absence], now: float) -> dict[str, Absence]:
    """Follow who is offline, from the first time until seen online; an unknown flag stops the clock."""
    found: dict[str, Absence] = {}
    for node in answer.nodes:
        if node.online:
            continue
        known = before.get(node.name)
        if node.online is None:
            if known is not None:
                found[node.name] = known
            continue
        # A clock that was set back starts the count anew: a machine is never dropped before its time.
        since = known.since if known is not None and known.since <= now else now
        found[node.name] = Absence(since=since, last=now)
    return found


def _durations(offline: Mapping[str, Absence]) -> dict[str, float]:
    return {name: absence.last - absence.since for name, absence in offline.items()}


class _Loss(NamedTuple):
    """What an answer loses of a group: names, of how many, in words."""

    names: frozenset[str]
    kinds: tuple[frozenset[str], ...]
    text: str


class _Content(NamedTuple):
    """What a group knows: the machines that can be reached, those with tags, and how many targets it lists.

    A control plane that forgets every tag takes as many targets away as one that forgets the machines.
    """

    reachable: set[str]
    tagged: set[str]
    listed: list[str]


def _contents(snapshot: Snapshot) -> dict[str, _Content]:
    found = {name: _Content(set(), set(), []) for name in snapshot.groups}
    nothing = _Content(set(), set(), [])
    for node in snapshot.nodes:
        content = found.get(node.group, nothing)
        if node.addresses:
            content.reachable.add(node.name)
        if node.tags:
            content.tagged.add(f"{node.name} tagged")
    for endpoint in snapshot.endpoints:
        # By number: a list whose targets are others now has lost none.
        listed = found.get(endpoint.group, nothing).listed
        listed.append(f"{len(listed)} listed")
    return found


def _large_losses(old: Snapshot, new: Snapshot, trust: Trust) -> dict[str, _Loss]:
    """Return the groups that lost too much. A group that is not asked any more has lost nothing."""
    before, after = _contents(old), _contents(new)
    found: dict[str, _Loss] = {}
    for name, known in before.items():
        group = new.groups.get(name)
        if group is not None and (loss := _large_loss(known, after[name], group, trust)) is not None:
            found[name] = loss
    return found


def _large_loss(known: _Content, now: _Content, group: Group, trust: Trust) -> _Loss | None:
    """Compare a group with what it was. What is unknown because a lookup failed is not lost."""
    unknown = group.unknown_machines
    reachable, tagged = frozenset(known.reachable), frozenset(known.tagged)
    if "*" in unknown:
        reachable = tagged = frozenset[str]()
    elif unknown:
        reachable -= unknown
        tagged -= {f"{name} tagged" for name in unknown}
    listed = frozenset[str]() if group.state == "failed" else frozenset(known.listed)
    kinds = (reachable, tagged, listed)
    lost = (reachable - now.reachable, tagged - now.tagged, listed - frozenset(now.listed))
    if not any(trust.is_large_loss(len(kind), len(gone)) for kind, gone in zip(kinds, lost, strict=True)):
        return None
    most = max(range(3), key=lambda i: len(lost[i]) / max(len(kinds[i]), 1))
    count, left = len(kinds[most]), len(kinds[most]) - len(lost[most])
    text = (
        f"{count} machines would become {left}",
        f"of {count} machines with tags, {left} would still have any",
        f"of {count} targets that it lists, {left} would be left",
    )[most]
    return _Loss(lost[0] | lost[1] | lost[2], kinds, text)


def _counted(loss: _Loss, held: Held | None, trust: Trust, now: float, *, counts: bool) -> Held:
    """Count a loss: only names that are missing in every cycle since it began; other changes do not reset it."""
    lasting = loss.names & held.names if held is not None else loss.names
    still_large = any(trust.is_large_loss(len(kind), len(lasting & kind)) for kind in loss.kinds)
    if held is None or not still_large:
        return Held(names=loss.names, since=now, rounds=1, last=now)
    gap = max(now - held.last, 0.0) if held.paused else 0.0
    return Held(names=lasting, since=min(held.since + gap, now), rounds=held.rounds + counts, last=now)


def _mixed(old: Snapshot, new: Snapshot, held: AbstractSet[str]) -> Snapshot:
    """Return the old answer for groups whose loss is held, and the new one for all others."""
    if new.groups.keys() <= held:
        return msgspec.structs.replace(old, groups=new.groups) if old.groups != new.groups else old
    return msgspec.structs.replace(
        new,
        nodes=(*(n for n in old.nodes if n.group in held), *(n for n in new.nodes if n.group not in held)),
        endpoints=(*(e for e in old.endpoints if e.group in held), *(e for e in new.endpoints if e.group not in held)),
        excluded=(*(e for e in old.excluded if e.group in held), *(e for e in new.excluded if e.group not in held)),
        suffix=old.suffix or new.suffix,
    )
