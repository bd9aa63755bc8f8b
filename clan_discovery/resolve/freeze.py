"""Decide which jobs keep their present file after a memory is lost. Pure.

A backend that has neither an answer nor a memory would remove targets. So its jobs keep their present file until the
backend answers or `max_age` has passed. Published files are never read back as memory; after a loss, only the number of
observed targets is read from them, for the loss guard.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from clan_discovery.elapsed import elapsed, noted
from clan_discovery.model import BeliefState, Frozen
from clan_discovery.resolve.memory import Held, Lost, Memory
from clan_discovery.resolve.trust import ACCEPT
from clan_discovery.syntax.target_file import MARK, parse_target_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from clan_discovery.model import Belief, Declared, Resolution
    from clan_discovery.resolve.trust import Trust


def observed_machines(file: bytes) -> Counter[str]:
    """Count the observed targets in a target file by machine."""
    targets = parse_target_file(file) or ()
    return Counter(labels.get("machine", "") for _, labels in targets if labels[MARK] == "true")


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """Decide what is served after the memory of a backend is lost.

    `selected` are the backends from which the rule of each job selects. `listed` are the jobs that each backend lists
    targets for. `present` are the observed targets in the present file of each job, by machine. `before` is the memory
    of each backend. `lost` are the backends whose memory was found to be lost in this cycle. Without files
    (`has_files`), `present` has every job, and what was observed is unknown. With a file of the reverse proxy
    (`has_front`), that is kept, too.
    """

    declared: Declared
    selected: Mapping[str, frozenset[str]]
    listed: Mapping[str, frozenset[str]]
    present: Mapping[str, Counter[str]]
    trust: Trust
    before: Mapping[str, Memory]
    lost: AbstractSet[str]
    counts: bool
    has_files: bool = True
    has_front: bool = False

    def apply(self, resolution: Resolution, memories: Mapping[str, Memory]) -> tuple[Resolution, dict[str, Memory]]:
        """Return the resolution with its frozen jobs, and the updated memories."""
        now = resolution.taken_at.timestamp()
        beliefs = {belief.backend: belief for belief in resolution.beliefs}
        after = dict(memories)
        frozen: dict[str, Frozen] = {}
        whys: list[str] = []
        for name in memories:
            lost = self._unanswered(beliefs[name], resolution, now)
            after[name] = msgspec.structs.replace(after[name], lost=lost)
            if lost is not None:
                why = f"backend {name} has no answer, and its memory is lost"
                until = self.trust.last_use(elapsed(lost.since, now, lost.behind), now)
                _freeze(frozen, name, lost, until, why)
                whys.append(why)
        unanswered = frozenset(frozen)
        for name in memories:
            held = self._held(beliefs[name], resolution, unanswered, now)
            if held is not None:
                lost, why = held
                beliefs[name] = msgspec.structs.replace(beliefs[name], state=BeliefState.HELD, why=why, hint=ACCEPT)
                after[name] = Memory(lost=lost)
                _freeze(frozen, name, lost, None, why)
                whys.append(why)
        jobs = tuple(frozen[job] for job in sorted(frozen))
        resolution = msgspec.structs.replace(resolution, beliefs=tuple(beliefs.values()), frozen=jobs)
        if self.has_front and whys:
            resolution = msgspec.structs.replace(resolution, front_kept=whys[0])
        return resolution, after

    def _unanswered(self, belief: Belief, resolution: Resolution, now: float) -> Lost | None:
        """Return the jobs that keep their present file because a backend has no answer.

        A job whose file was written again is not frozen a second time.
        """
        before = self.before[belief.backend].lost
        if before is None and belief.backend not in self.lost:
            return None
        jobs = self._jobs_without_answer(belief, resolution) & self.present.keys()
        front = self.has_front and belief.locates and belief.state is BeliefState.UNKNOWN
        if before is None:
            return Lost(since=now, jobs=tuple(sorted(jobs))) if jobs or front else None
        jobs &= set(before.jobs)
        if not (jobs or front) or self.trust.is_too_old(elapsed(before.since, now, before.behind)):
            return None
        held = before.held
        if held is not None:
            held = msgspec.structs.replace(held, paused=True)
        behind = noted(before.since, now, before.behind)
        return Lost(since=before.since, jobs=tuple(sorted(jobs)), held=held, behind=behind)

    def _jobs_without_answer(self, belief: Belief, resolution: Resolution) -> set[str]:
        """Return the jobs that need an answer of this backend and have none.

        The backend lists targets for the job, or locates machines in it.
        """
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
        if machines:
            jobs |= self._jobs_without_address(belief.backend, machines, resolution)
        return jobs

    def _jobs_without_address(self, backend: str, machines: AbstractSet[str], resolution: Resolution) -> set[str]:
        """Return the jobs in which one of these machines is not observed.

        `*` means any machine. If another backend locates machines, only machines that are observed in the file count.
        Without files, any machine counts.
        """
        others = self.has_files and _is_located(resolution)
        jobs: set[str] = set()
        for target in resolution.published:
            if target.observed or machines.isdisjoint(("*", target.machine.casefold())):
                continue
            if not others or target.machine in self.present.get(target.job, ()):
                jobs.add(target.job)
        if "*" in machines:
            selected = self._selected_from(backend)
            jobs |= {job for job in selected if not others or self._other_loss(job, resolution)[1]}
        return jobs

    def _selected_from(self, backend: str) -> set[str]:
        """Return the jobs with a file whose rule selects from this backend."""
        return {job for job in self.present if backend in self.selected.get(job, ())}

    def _held(
        self, belief: Belief, resolution: Resolution, unanswered: AbstractSet[str], now: float
    ) -> tuple[Lost, str] | None:
        """Hold an answer that would remove most observed targets from the files.

        Returns None if the answer is believed. Jobs that lack the answer of another backend are not compared: they keep
        their files anyway.
        """
        memory = self.before[belief.backend]
        if not belief.state.answered or not self._has_lost(belief.backend, memory):
            return None
        listed = self.listed[belief.backend]
        jobs = (self.present.keys() if belief.locates else listed) & self.present.keys() - unanswered
        machines = _sum(self._declared_loss(job, resolution) for job in jobs)
        others = _sum(self._other_loss(job, resolution) for job in jobs & (self.selected.keys() | listed))
        if not self.trust.is_large_loss(*machines) and not self.trust.is_large_loss(*others):
            return None
        lost = memory.lost or Lost(since=now, jobs=())
        held = Held.begun(now)
        if lost.held is not None:
            held = lost.held.seen(now, counts=self.counts, most=self.trust.most_step)
        if self.trust.is_seen_enough(held):
            return None
        count, gone = _sum([machines, others])
        why = f"its memory is lost, and of {count} observed targets in the files {count - gone} would be left"
        return msgspec.structs.replace(lost, jobs=tuple(sorted(jobs)), held=held), why

    def _has_lost(self, backend: str, memory: Memory) -> bool:
        """Tell whether the memory is lost that the answer could be compared with."""
        return memory.last is None and (backend in self.lost or memory.lost is not None)

    def _declared_loss(self, job: str, resolution: Resolution) -> tuple[int, int]:
        """Count the declared machines observed in the file, and how many would be removed."""
        declared = {e.machine.name for e in self.declared.expected if e.exporter.type == job}
        observed = {target.machine for target in resolution.targets if target.job == job and target.observed}
        before = declared & self.present[job].keys()
        return len(before), len(before - observed)

    def _other_loss(self, job: str, resolution: Resolution) -> tuple[int, int]:
        """Count the selected or listed targets in the file, and how many would be removed.

        They are compared by number only, because a pool may have other hosts each time.
        """
        declared = {e.machine.name for e in self.declared.expected if e.exporter.type == job}
        before = sum(count for machine, count in self.present[job].items() if machine not in declared)
        left = sum(t.job == job and t.observed and t.machine not in declared for t in resolution.published)
        return before, max(before - left, 0)


def _is_located(resolution: Resolution) -> bool:
    """Tell whether a backend that says where machines are has answered."""
    return any(belief.locates and belief.state.answered for belief in resolution.beliefs)


def _sum(losses: Iterable[tuple[int, int]]) -> tuple[int, int]:
    count = gone = 0
    for before, lost in losses:
        count, gone = count + before, gone + lost
    return count, gone


def _freeze(frozen: dict[str, Frozen], backend: str, lost: Lost, until: float | None, why: str) -> None:
    for job in lost.jobs:
        frozen.setdefault(job, Frozen(job, backend, lost.since, until, why))
