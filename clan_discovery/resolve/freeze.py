"""Which jobs keep their present file: a backend has no answer, and its memory is lost. Pure.

The published files are never read back as memory: they stay as they are, until the backend answers or `max_age` has
passed. Where memory is lost, one number is read from them: how many targets are observed, for the loss guard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from clan_discovery.model import BeliefState, Frozen
from clan_discovery.resolve.memory import Held, Lost, Memory
from clan_discovery.resolve.trust import ACCEPT
from clan_discovery.syntax.target_file import MARK, parse_target_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from clan_discovery.model import Belief, Declared, Resolution, SelectRule
    from clan_discovery.resolve.trust import Trust


class Demand(msgspec.Struct, frozen=True, gc=False):
    """What wants addresses: the targets that are declared, and the rules that select machines."""

    declared: Declared
    rules: Sequence[SelectRule]

    def jobs(self, machines: AbstractSet[str]) -> frozenset[str]:
        """Return the jobs that need the addresses of these machines (case-folded); `*` means any machine."""
        if not machines:
            return frozenset()
        if "*" in machines:
            selected = {rule.exporter.type for rule in self.rules}
            return frozenset({e.exporter.type for e in self.declared.expected} | selected)
        return frozenset(e.exporter.type for e in self.declared.expected if e.machine.name.casefold() in machines)


def unanswered_jobs(belief: Belief, listed: AbstractSet[str], demand: Demand) -> frozenset[str]:
    """Return the jobs that lack an answer of this backend: targets that it lists, or machines that it locates.

    `listed` are the jobs that the backend lists targets for.
    """
    if belief.state is BeliefState.UNKNOWN:
        located = demand.jobs({"*"}) if belief.locates else frozenset[str]()
        return located | listed
    jobs: set[str] = set()
    groups = belief.snapshot.groups if belief.snapshot is not None else {}
    for group in groups.values():
        if group.state == "failed":
            jobs |= demand.jobs(group.unknown_machines)
            if group.job:
                jobs.add(group.job)
    return frozenset(jobs)


def frozen(
    before: Lost | None,
    unanswered: AbstractSet[str],
    present: AbstractSet[str],
    trust: Trust,
    now: float,
    *,
    lost_now: bool,
) -> Lost | None:
    """Return which jobs keep their present file because of one backend; None where none do.

    `before` is what was remembered of it, `present` are the jobs that have a file. `lost_now`: the memory was lost just
    now. A job that left this state does not come back to it.
    """
    if lost_now:
        lost = Lost(since=now, jobs=tuple(sorted(unanswered & present)))
    elif before is not None and not trust.is_too_old(max(now - before.since, 0.0)):
        lost = Lost(since=before.since, jobs=tuple(job for job in before.jobs if job in unanswered & present))
    else:
        return None
    return lost if lost.jobs else None


def published_observed(files: Mapping[str, bytes], demand: Demand, open_jobs: AbstractSet[str]) -> int:
    """Count the observed targets in the files that are still declared, selected or listed.

    `open_jobs` are the jobs whose machines the inventory does not name: rules select them, or a backend lists them.
    """
    declared = {(e.exporter.type, e.machine.name) for e in demand.declared.expected}
    count = 0
    for job, body in files.items():
        for _, labels in parse_target_file(body) or ():
            is_ours = job in open_jobs or (job, labels.get("machine")) in declared
            if labels[MARK] == "true" and is_ours:
                count += 1
    return count


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """Decides what is served where memory is lost.

    `listed` are the jobs that each backend lists targets for, `files` the present target files by job, `before` what
    was remembered of each backend, `lost` the backends whose memory was found to be lost in this cycle.
    """

    demand: Demand
    listed: Mapping[str, frozenset[str]]
    files: Mapping[str, bytes]
    trust: Trust
    before: Mapping[str, Memory]
    lost: AbstractSet[str]
    counts: bool

    def apply(self, resolution: Resolution, memories: Mapping[str, Memory]) -> tuple[Resolution, dict[str, Memory]]:
        """Return the resolution with its frozen jobs, and the memories with what is remembered of that."""
        now = resolution.taken_at.timestamp()
        beliefs = {belief.backend: belief for belief in resolution.beliefs}
        kept = dict(memories)
        served: dict[str, Frozen] = {}
        for name in memories:
            lost = self._unanswered(beliefs[name], now)
            kept[name] = msgspec.structs.replace(kept[name], lost=lost)
            _add(served, name, lost, f"backend {name} has no answer, and its memory is lost")
        unanswered = frozenset(served)
        for name in memories:
            held = self._held(beliefs[name], resolution, unanswered, now)
            if held is not None:
                lost, why = held
                beliefs[name] = msgspec.structs.replace(beliefs[name], state=BeliefState.HELD, why=why, hint=ACCEPT)
                kept[name] = Memory(lost=lost)
                _add(served, name, lost, why)
        jobs = tuple(served[job] for job in sorted(served))
        return msgspec.structs.replace(resolution, beliefs=tuple(beliefs.values()), frozen=jobs), kept

    def _unanswered(self, belief: Belief, now: float) -> Lost | None:
        """Return the jobs that keep their present file because there is no answer for them."""
        before = self.before[belief.backend].lost
        return frozen(
            before,
            unanswered_jobs(belief, self.listed[belief.backend], self.demand),
            self.files.keys(),
            self.trust,
            now,
            lost_now=belief.backend in self.lost and before is None,
        )

    def _is_unguarded(self, belief: Belief) -> bool:
        """Tell whether there is an answer, and no memory that it could be compared with."""
        before = self.before[belief.backend]
        if not belief.state.answered or before.last is not None:
            return False
        return belief.backend in self.lost or before.lost is not None

    def _held(
        self, belief: Belief, resolution: Resolution, unanswered: AbstractSet[str], now: float
    ) -> tuple[Lost, str] | None:
        """Hold an answer under which most of the observed targets in the files would go; None: believe it.

        Jobs that lack the answer of some backend are not compared: their files stay in any case.
        """
        if not self._is_unguarded(belief):
            return None
        listed = self.listed[belief.backend]
        jobs = set(listed)
        if belief.locates:
            jobs |= self.demand.jobs({"*"})
        jobs -= unanswered
        files = {job: body for job, body in self.files.items() if job in jobs}
        selected = {rule.exporter.type for rule in self.demand.rules}
        count = published_observed(files, self.demand, selected | listed)
        left = sum(target.observed for target in resolution.targets if target.job in files)
        if not self.trust.is_large_loss(count, count - left):
            return None
        before = self.before[belief.backend].lost
        loss = Held(names=frozenset(), since=now, rounds=1, last=now)
        if before is not None and before.held is not None:
            rounds = before.held.rounds + self.counts
            loss = Held(names=frozenset(), since=min(before.held.since, now), rounds=rounds, last=now)
        if self.trust.is_seen_enough(loss, now):
            return None
        since = before.since if before is not None else now
        why = f"its memory is lost, and of {count} observed targets in the files {left} would be left"
        return Lost(since=since, jobs=tuple(sorted(files)), held=loss), why


def _add(served: dict[str, Frozen], backend: str, lost: Lost | None, why: str) -> None:
    if lost is not None:
        for job in lost.jobs:
            served.setdefault(job, Frozen(job, backend, lost.since, why))
