"""Decide which answer of a backend is used: a new or the last good one. Pure.

An outage never removes a machine, and a large loss is not believed at once. One or two machines that a backend proves
absent are removed at once. Losses are counted within each group of a backend; labels are not compared.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import msgspec

from clan_discovery.elapsed import LATEST
from clan_discovery.model import Belief, BeliefState, Endpoint, Exclusion, Node, Outage, Snapshot
from clan_discovery.resolve.memory import Absence, Held, Memory, Remembered
from clan_discovery.syntax.counting import first_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from clan_discovery.model import Answer, Failure

GUARDED_FROM: Final = 4
"""A smaller group may lose all its machines at once: with so few, a loss does not show that the answer is bad."""

ACCEPT: Final = "if that is right: clan-discovery refresh --accept-shrink"
_TOLD_MOST: Final = 3


class Trust(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How long memory is used, and when a large loss is believed.

    `max_age` is in seconds (None: no limit), `max_shrink` is a fraction (1: any loss is believed at once). A loss is
    believed after `shrink_rounds` cycles or after `shrink_seconds` (None: that limit is not used).
    """

    max_age: float | None = 86400.0
    max_shrink: float = 0.5
    shrink_rounds: int | None = 10
    shrink_seconds: float | None = 600.0
    accept_shrink: bool = False

    def is_too_old(self, age: float) -> bool:
        """Tell whether an answer of this age (seconds) is too old to be used."""
        return self.max_age is not None and age > self.max_age

    def last_use(self, age: float, now: float) -> float | None:
        """Return until when an answer of this age may be used, or None without a limit."""
        if self.max_age is None:
            return None
        return min(now - age + self.max_age, LATEST)

    def comparable(self, last: Remembered | None, fingerprint: str, now: float) -> Remembered | None:
        """Return the last good answer if the new one can be compared with it.

        It must have the same fingerprint and not be too old.
        """
        if last is None or last.fingerprint != fingerprint or self.is_too_old(last.age(now)):
            return None
        return last

    def recent(self, unanswered: Mapping[str, Absence]) -> set[str]:
        """Return the groups that have failed for at most `max_age`."""
        return {name for name, absence in unanswered.items() if not self.is_too_old(absence.seconds)}

    def is_large_loss(self, before: int, lost: int) -> bool:
        """Tell whether losing `lost` of `before` is too much to be believed at once."""
        return not self.accept_shrink and before >= GUARDED_FROM and lost > self.max_shrink * before

    @property
    def most_step(self) -> float | None:
        """Return how many seconds a jump of the clock counts as, at most.

        It is half of the limit, so a single jump does not make a loss believed.
        """
        if self.shrink_seconds is None:
            return None
        return self.shrink_seconds / 2

    def is_seen_enough(self, held: Held) -> bool:
        """Tell whether a loss has lasted long enough to be believed."""
        if self.shrink_rounds is not None and held.rounds >= self.shrink_rounds:
            return True
        if self.shrink_seconds is None or held.rounds < 2:
            return False
        return held.seconds >= self.shrink_seconds

    def waiting(self, held: Mapping[str, Held]) -> dict[str, Held]:
        """Return the losses that are not believed yet."""
        return {name: loss for name, loss in held.items() if not self.is_seen_enough(loss)}


def believe(
    answer: Answer,
    memory: Memory,
    trust: Trust,
    *,
    fingerprint: str,
    now: float,
    counts: bool = True,
) -> tuple[Belief, Memory]:
    """Decide which answer is used, and what is remembered for the next cycle.

    `counts`: this cycle counts towards the cycles after which a loss is believed.
    """
    memory = memory.noted(now)
    if isinstance(answer, Outage):
        return _without_answer(answer, memory, trust, fingerprint, now), _paused(memory)
    offline = _offline(answer, memory, now)
    unanswered = _unanswered(answer, memory, now)
    losses: dict[str, _Loss] = {}
    last = trust.comparable(memory.last, fingerprint, now)
    if last is not None:
        answer = _completed(answer, last.snapshot, trust.recent(unanswered))
        losses = _large_losses(last.snapshot, answer, trust)
    held = {name: _counted(loss, name, memory, trust, now, counts=counts) for name, loss in losses.items()}
    waiting = trust.waiting(held)
    if last is not None and waiting:
        groups = frozenset[str]().union(*(losses[name].groups for name in waiting))
        used = msgspec.structs.replace(last, snapshot=_mixed(last.snapshot, answer, groups))
        why = losses[min(waiting)].text  # `*` comes first
        after = Memory(last=used, held=waiting, offline=memory.offline, unanswered=unanswered)
        return _held(used, why, _durations(memory.offline), now), after
    why = ""
    if held:
        why = f"the loss is believed after {max(loss.rounds for loss in held.values())} rounds"
    taken = Remembered.taken(answer, fingerprint, now, memory.known)
    return _answered(answer, why, _durations(offline)), Memory(last=taken, offline=offline, unanswered=unanswered)


def _held(used: Remembered, why: str, offline: Mapping[str, float], now: float) -> Belief:
    return Belief(
        backend=used.snapshot.backend,
        state=BeliefState.HELD,
        snapshot=used.snapshot,
        why=why,
        hint=ACCEPT,
        age=used.age(now),
        offline=offline,
    )


def _unanswered(answer: Snapshot, memory: Memory, now: float) -> dict[str, Absence]:
    """Return since when each failing group has not been answered."""
    begun = Absence(since=now, last=now)
    if memory.last is not None:
        begun = Absence(since=memory.last.taken_at, last=now, behind=memory.last.behind)
    failing = [name for name, group in answer.groups.items() if group.failures]
    return {name: memory.unanswered.get(name, begun).seen(now) for name in failing}


def _completed(new: Snapshot, old: Snapshot, groups: AbstractSet[str]) -> Snapshot:
    """Keep the known machines of these groups whose lookup failed.

    If a failed lookup may be for any machine and the group now knows nothing, everything that it knew is kept. All
    other results of the group are proven.
    """
    unknown = {name: new.groups[name].unknown_machines for name in groups}
    if not any(unknown.values()):
        return new
    silent = {name for name, machines in unknown.items() if "*" in machines} & _empty_groups(new)
    there = {node.name for node in new.nodes}
    nodes: list[Node] = []
    for node in old.nodes:
        is_unknown = node.group in silent or node.name in unknown.get(node.group, ())
        if is_unknown and node.name not in there:
            nodes.append(node)
    return _with(new, nodes, [endpoint for endpoint in old.endpoints if endpoint.group in silent])


def _empty_groups(snapshot: Snapshot) -> set[str]:
    """Return the groups without nodes and endpoints."""
    known = {node.group for node in snapshot.nodes} | {endpoint.group for endpoint in snapshot.endpoints}
    return snapshot.groups.keys() - known


def _with(snapshot: Snapshot, nodes: Sequence[Node], endpoints: Sequence[Endpoint]) -> Snapshot:
    if not nodes and not endpoints:
        return snapshot
    nodes, endpoints = (*snapshot.nodes, *nodes), (*snapshot.endpoints, *endpoints)
    return msgspec.structs.replace(snapshot, nodes=nodes, endpoints=endpoints)


def _answered(answer: Snapshot, why: str, offline: Mapping[str, float]) -> Belief:
    """Use a new answer: `fresh`, or `partial` if lookups failed."""
    failures = answer.failures
    state, age = BeliefState.FRESH, 0.0
    if failures:
        state = BeliefState.PARTIAL
        why = "; ".join(filter(None, (why, failures_text(failures))))
        age = max((f.age for f in failures if f.age is not None), default=0.0)
    return Belief(backend=answer.backend, state=state, snapshot=answer, why=why, offline=offline, age=age)


def failures_text(failures: tuple[Failure, ...]) -> str:
    """Say which lookups failed, and why."""
    return f"lookup failed: {first_names([f'{f.name} ({f.reason})' for f in failures], _TOLD_MOST)}"


def _without_answer(outage: Outage, memory: Memory, trust: Trust, fingerprint: str, now: float) -> Belief:
    """Use the backend's own memory and the last good answer, whatever its settings."""
    why, snapshot, age = outage.reason, outage.last, outage.age
    last = memory.last
    if last is not None:
        since = last.age(now)
        if snapshot is None:
            snapshot, age = last.snapshot, since
        elif not trust.is_too_old(since):
            own, snapshot = snapshot, _filled(snapshot, last.snapshot)
            if own is not snapshot:
                age = max(age, since)
        if last.fingerprint != fingerprint:
            why += "; the last good answer was given under other settings"
    belief = Belief(
        backend=outage.backend,
        state=BeliefState.KEPT,
        snapshot=snapshot,
        why=why,
        hint=outage.hint,
        age=age,
        offline=_durations(memory.offline),
    )
    if snapshot is None or (last is None and not snapshot.nodes and not snapshot.endpoints):
        return msgspec.structs.replace(belief, state=BeliefState.UNKNOWN, snapshot=None)
    if trust.is_too_old(age):
        return msgspec.structs.replace(belief, state=BeliefState.EXPIRED, snapshot=None)
    return belief


def _filled(own: Snapshot, last: Snapshot) -> Snapshot:
    """Fill groups that the backend's own memory lacks from the last good answer.

    Groups that are not asked any more are left out.
    """
    empty = _empty_groups(own)
    there = {node.name for node in own.nodes}
    nodes = [node for node in last.nodes if node.group in empty and node.name not in there]
    return _with(own, nodes, [endpoint for endpoint in last.endpoints if endpoint.group in empty])


def _paused(memory: Memory) -> Memory:
    """Pause the time of held losses during an outage."""
    if not memory.held:
        return memory
    held = {name: msgspec.structs.replace(loss, paused=True) for name, loss in memory.held.items()}
    return msgspec.structs.replace(memory, held=held)


def _offline(answer: Snapshot, memory: Memory, now: float) -> dict[str, Absence]:
    """Return since when each node has been offline, until it is seen online.

    While the flag of a node is unknown, its time does not advance.
    """
    found: dict[str, Absence] = {}
    for node in answer.nodes:
        if node.online:
            continue
        known = memory.offline.get(node.name)
        if node.online is None:
            if known is not None:
                found[node.name] = known
            continue
        if known is None:
            found[node.name] = Absence.begun(now, memory.known)
        else:
            found[node.name] = known.seen(now)
    return found


def _durations(offline: Mapping[str, Absence]) -> dict[str, float]:
    return {name: absence.seconds for name, absence in offline.items()}


class _Content(NamedTuple):
    """The content of a group: reachable machines, tagged machines, listed targets.

    Tags count because a control plane that loses all tags removes as many targets as one that loses the machines.
    """

    reachable: frozenset[str] = frozenset()
    tagged: frozenset[str] = frozenset()
    listed: int = 0


class _Loss(NamedTuple):
    """The loss of one or more groups, for each kind of `_Content`.

    `before` are the numbers before the loss, `gone` the names that are missing now.
    """

    groups: frozenset[str]
    before: tuple[int, ...]
    gone: tuple[frozenset[str], ...]

    @property
    def names(self) -> frozenset[str]:
        """Return the missing names of all kinds."""
        return self.gone[0].union(*self.gone[1:])

    def is_large(self, trust: Trust) -> bool:
        """Tell whether the loss of any kind is too large to be believed at once."""
        return any(trust.is_large_loss(before, len(gone)) for before, gone in zip(self.before, self.gone, strict=True))

    def lasting(self, names: AbstractSet[str]) -> _Loss:
        """Return the part of the loss that is among these names."""
        return self._replace(gone=tuple(gone & names for gone in self.gone))

    @property
    def text(self) -> str:
        """Describe the loss by the kind with the largest lost share."""
        kinds = range(len(self.before))
        most = max(kinds, key=lambda kind: len(self.gone[kind]) / max(self.before[kind], 1))
        count, left = self.before[most], self.before[most] - len(self.gone[most])
        return (
            f"{count} machines would become {left}",
            f"of {count} machines with tags, {left} would still have any",
            f"of {count} targets that it lists, {left} would be left",
        )[most]


def _large_losses(old: Snapshot, new: Snapshot, trust: Trust) -> dict[str, _Loss]:
    """Return the large losses by group; `*` is the loss of all groups together.

    A group that is not asked any more has lost nothing, and a machine that another group knows is not lost.
    """
    now = _all_machines(new)
    listed = Counter(endpoint.group for endpoint in new.endpoints)
    losing: list[_Loss] = []
    before = [0, 0, 0]
    for name, known in _still_known(old, new):
        counts = (len(known.reachable), len(known.tagged), known.listed)
        before = [count + more for count, more in zip(before, counts, strict=True)]
        gone = (known.reachable - now.reachable, known.tagged - now.tagged, range(listed[name], known.listed))
        if any(gone):
            losing.append(_loss(name, counts, gone))
    found = {min(loss.groups): loss for loss in losing if loss.is_large(trust)}
    together = _together(losing, before)
    if len(new.groups) > 1 and together.is_large(trust):
        found["*"] = together
    return found


def _all_machines(snapshot: Snapshot) -> _Content:
    """Return the machines that any group knows."""
    reachable = frozenset(node.name for node in snapshot.nodes if node.addresses)
    return _Content(reachable, frozenset(node.name for node in snapshot.nodes if node.tags))


def _still_known(old: Snapshot, new: Snapshot) -> Iterator[tuple[str, _Content]]:
    """Yield the former content of each group that is still asked.

    Machines whose lookup failed are left out: they are unknown, not lost.
    """
    for name, content in _contents(old).items():
        group = new.groups.get(name)
        if group is None:
            continue
        if not group.failures:
            yield name, content
            continue
        listed = 0 if group.state == "failed" else content.listed
        unknown = group.unknown_machines
        if "*" in unknown:
            yield name, _Content(listed=listed)
        else:
            yield name, _Content(content.reachable - unknown, content.tagged - unknown, listed)


def _loss(group: str, before: tuple[int, ...], gone: tuple[AbstractSet[str], AbstractSet[str], range]) -> _Loss:
    """Name what a group loses.

    Listed targets are only numbered: a list with other targets but the same length has lost none.
    """
    reachable, tagged, listed = gone
    tags = frozenset(f"{machine} tagged" for machine in tagged)
    return _Loss(
        frozenset({group}), before, (frozenset(reachable), tags, frozenset(f"{group} {n} listed" for n in listed))
    )


def _together(losing: Sequence[_Loss], before: Sequence[int]) -> _Loss:
    """Add up the losses of groups; `before` are the numbers of all groups."""
    groups = frozenset[str]().union(*(loss.groups for loss in losing))
    gone = tuple(frozenset[str]().union(*(loss.gone[kind] for loss in losing)) for kind in range(len(before)))
    return _Loss(groups, tuple(before), gone)


def _contents(snapshot: Snapshot) -> dict[str, _Content]:
    """Return the content of each group that has any."""
    reachable: defaultdict[str, set[str]] = defaultdict(set)
    tagged: defaultdict[str, set[str]] = defaultdict(set)
    listed = Counter(endpoint.group for endpoint in snapshot.endpoints)
    for node in snapshot.nodes:
        if node.addresses:
            reachable[node.group].add(node.name)
        if node.tags:
            tagged[node.group].add(node.name)
    names = {**reachable, **tagged, **listed}
    return {name: _Content(frozenset(reachable[name]), frozenset(tagged[name]), listed[name]) for name in names}


def _counted(loss: _Loss, name: str, memory: Memory, trust: Trust, now: float, *, counts: bool) -> Held:
    """Count one more cycle for a loss.

    Only names that were missing in every cycle since the loss began count; other changes do not reset it.
    """
    held = memory.held.get(name)
    if held is None or not loss.lasting(held.names).is_large(trust):
        return Held.begun(now, loss.names, memory.known)
    return held.seen(now, loss.names & held.names, counts=counts, most=trust.most_step)


def _mixed(old: Snapshot, new: Snapshot, held: AbstractSet[str]) -> Snapshot:
    """Use the old answer for groups with a held loss, and the new one for the others."""
    return msgspec.structs.replace(
        new,
        nodes=_by_group(old.nodes, new.nodes, held),
        endpoints=_by_group(old.endpoints, new.endpoints, held),
        excluded=_by_group(old.excluded, new.excluded, held),
        suffix=old.suffix or new.suffix,
    )


_Grouped = TypeVar("_Grouped", Node, Endpoint, Exclusion)


def _by_group(old: Iterable[_Grouped], new: Iterable[_Grouped], held: AbstractSet[str]) -> tuple[_Grouped, ...]:
    mixed = [item for item in old if item.group in held]
    mixed += [item for item in new if item.group not in held]
    return tuple(mixed)
