"""Which jobs keep their present file: a backend has no answer, and its memory is lost. Pure.

The published files are never read back as memory: they stay as they are, until the backend answers or `max_age` has
passed. Where memory is lost, one number is read from them: how many targets are observed, for the loss guard.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from clan_discovery.model import BeliefState, Frozen
from clan_discovery.resolve.memory import Held, Lost, Memory
from clan_discovery.resolve.trust import ACCEPT
from clan_discovery.syntax.target_file import MARK, parse_target_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from clan_discovery.model import Belief, Declared, Resolution
    from clan_discovery.resolve.trust import Trust


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """Decides what is served where memory is lost.

    `selected` are the jobs of select rules, `listed` the jobs that each backend lists targets for, `files` the present
    target files by job. `before` is what was remembered of each backend, `lost` are the backends whose memory was found
    to be lost in this cycle.
    """

    declared: Declared
    selected: frozenset[str]
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
        after = dict(memories)
        frozen: dict[str, Frozen] = {}
        for name in memories:
            lost = self._unanswered(beliefs[name], resolution, now)
            after[name] = msgspec.structs.replace(after[name], lost=lost)
            _freeze(frozen, name, lost, f"backend {name} has no answer, and its memory is lost")
        unanswered = frozenset(frozen)
        for name in memories:
            held = self._held(beliefs[name], resolution, unanswered, now)
            if held is not None:
                lost, why = held
                beliefs[name] = msgspec.structs.replace(beliefs[name], state=BeliefState.HELD, why=why, hint=ACCEPT)
                after[name] = Memory(lost=lost)
                _freeze(frozen, name, lost, why)
        jobs = tuple(frozen[job] for job in sorted(frozen))
        return msgspec.structs.replace(resolution, beliefs=tuple(beliefs.values()), frozen=jobs), after

    def _unanswered(self, belief: Belief, resolution: Resolution, now: float) -> Lost | None:
        """Return the jobs that keep their present file because the answer for them is missing.

        A job that is written again does not come back to this state.
        """
        before = self.before[belief.backend].lost
        if before is not None and self.trust.is_too_old(max(now - before.since, 0.0)):
            return None
        if before is None and belief.backend not in self.lost:
            return None
        jobs = self._jobs_without_answer(belief, resolution) & self.files.keys()
        if before is not None:
            jobs &= set(before.jobs)
        if not jobs:
            return None
        return Lost(since=before.since if before is not None else now, jobs=tuple(sorted(jobs)))

    def _jobs_without_answer(self, belief: Belief, resolution: Resolution) -> set[str]:
        """Return the jobs for which a backend lists targets, or locates machines, and does not answer."""
        jobs: set[str] = set()
        machines: set[str] = set()
        if belief.state is BeliefState.UNKNOWN:
            jobs |= self.listed[belief.backend]
            if belief.locates:
                machines.add("*")
        elif belief.snapshot is not None:
            for group in belief.snapshot.groups.values():
                if group.state == "failed":
                    jobs.add(group.job)
                    machines |= group.unknown_machines
        return jobs | self._jobs_without_address(machines, self.listed[belief.backend], resolution)

    def _jobs_without_address(
        self, machines: AbstractSet[str], listed: AbstractSet[str], resolution: Resolution
    ) -> set[str]:
        """Return the jobs in which one of these machines is not observed; `*` means any machine.

        Where another backend answers, and as many targets are observed as in the file, none of them waits.
        """
        jobs = set(self.selected) if "*" in machines else set[str]()
        observed: Counter[str] = Counter()
        for target in resolution.targets:
            if target.observed:
                observed[target.job] += 1
            elif not machines.isdisjoint(("*", target.machine.casefold())):
                jobs.add(target.job)
        if not any(belief.locates and belief.state.answered for belief in resolution.beliefs):
            return jobs
        return {job for job in jobs if observed[job] < self._observed(job, listed)}

    def _held(
        self, belief: Belief, resolution: Resolution, unanswered: AbstractSet[str], now: float
    ) -> tuple[Lost, str] | None:
        """Hold an answer under which most of the observed targets in the files would go; None: believe it.

        Jobs that lack the answer of some backend are not compared: their files stay in any case.
        """
        memory = self.before[belief.backend]
        if not belief.state.answered or not self._has_lost(belief.backend, memory):
            return None
        listed = self.listed[belief.backend]
        jobs = (self.files.keys() if belief.locates else listed) - unanswered
        count = sum(self._observed(job, listed) for job in jobs)
        left = sum(target.observed for target in resolution.targets if target.job in jobs)
        if not self.trust.is_large_loss(count, count - left):
            return None
        lost = memory.lost or Lost(since=now, jobs=())
        held = Held(names=frozenset(), since=now, rounds=1)
        if lost.held is not None:
            held = Held(names=frozenset(), since=min(lost.held.since, now), rounds=lost.held.rounds + self.counts)
        if self.trust.is_seen_enough(held, now):
            return None
        why = f"its memory is lost, and of {count} observed targets in the files {left} would be left"
        return Lost(since=lost.since, jobs=tuple(sorted(jobs & self.files.keys())), held=held), why

    def _has_lost(self, backend: str, memory: Memory) -> bool:
        """Tell whether a memory that an answer could be compared with is lost."""
        return memory.last is None and (backend in self.lost or memory.lost is not None)

    def _observed(self, job: str, listed: AbstractSet[str]) -> int:
        """Count the observed targets in the file of a job that are still declared, selected or listed."""
        known = {e.machine.name for e in self.declared.expected if e.exporter.type == job}
        is_open = job in self.selected or job in listed
        count = 0
        for _, labels in parse_target_file(self.files.get(job, b"")) or ():
            if labels[MARK] == "true" and (is_open or labels.get("machine") in known):
                count += 1
        return count


def _freeze(frozen: dict[str, Frozen], backend: str, lost: Lost | None, why: str) -> None:
    if lost is not None:
        for job in lost.jobs:
            frozen.setdefault(job, Frozen(job, backend, lost.since, why))
