"""Filter a resolution by machine, job and state. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from clan_discovery.emit.states import TargetStates
from clan_discovery.syntax.suggest import similar

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from clan_discovery.model import (
        Declared,
        DeclaredService,
        Exclusion,
        Front,
        MachineLimit,
        MachineNeed,
        MachineUnit,
        Missing,
        Resolution,
        State,
        Stray,
        Target,
    )


class Filter(msgspec.Struct, frozen=True):
    """The filter. An empty field accepts everything; `machines` are case-folded.

    `servers` are members of the shard, as the config spells them. A target is asked for if one of them publishes it.
    """

    machines: frozenset[str] = frozenset()
    jobs: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset()
    servers: frozenset[str] = frozenset()

    def _has(self, state: str, name: str) -> bool:
        """Tell whether this machine or node is asked for, and this state of it."""
        if self.states and state not in self.states:
            return False
        return not self.machines or name.casefold() in self.machines

    def has_job(self, job: str) -> bool:
        """Tell whether this job is asked for."""
        return not self.jobs or job in self.jobs

    def has_target(self, target: Target, state: State) -> bool:
        """Tell whether a target is asked for."""
        return self.has_job(target.job) and self._has(state, target.machine) and self._has_server(target)

    def _has_server(self, target: Target) -> bool:
        """Tell whether one of the servers that are asked for publishes a target."""
        if not self.servers:
            return True
        return target.delivery == "pull" and (not target.servers or not self.servers.isdisjoint(target.servers))

    def has_missing(self, missing: Missing, machines: AbstractSet[str]) -> bool:
        """Tell whether a missing machine is asked for; `machines` have a target that is asked for."""
        if self.servers and missing.machine not in machines:
            return False
        return any(map(self.has_job, missing.jobs)) and self._has("missing", missing.machine)

    def has_stray(self, stray: Stray) -> bool:
        """Tell whether a stray is asked for, by its name or its alias. It has no job."""
        if self.jobs or self.servers:
            return False
        return self._has("stray", stray.name) or self._has("stray", stray.alias)

    def has_exclusion(self, exclusion: Exclusion) -> bool:
        """Tell whether an exclusion is asked for; the exclusion of a whole machine has no job."""
        if self.servers or (self.jobs and exclusion.job not in self.jobs):
            return False
        return self._has("excluded", exclusion.name)

    def has_part(self, part: DeclaredService | Front | MachineLimit | MachineUnit | MachineNeed) -> bool:
        """Tell whether a service, a front or a limit is asked for, by its machine. It has neither a job nor a state."""
        if self.jobs or self.states or self.servers:
            return False
        return not self.machines or part.machine.casefold() in self.machines


def filtered(resolution: Resolution, chosen: Filter) -> Resolution:
    """Return the part of a resolution that is asked for; the beliefs about backends are not filtered."""
    state_of = TargetStates(resolution).of
    targets = tuple(target for target in resolution.targets if chosen.has_target(target, state_of(target)))
    pushed = tuple(target for target in resolution.pushed if chosen.has_target(target, state_of(target)))
    machines = {target.machine for target in (*targets, *pushed)}
    return msgspec.structs.replace(
        resolution,
        jobs=tuple(filter(chosen.has_job, resolution.jobs)),
        targets=targets,
        pushed=pushed,
        missing=tuple(missing for missing in resolution.missing if chosen.has_missing(missing, machines)),
        unknown=tuple(filter(machines.__contains__, resolution.unknown)),
        stray=tuple(filter(chosen.has_stray, resolution.stray)),
        excluded=tuple(filter(chosen.has_exclusion, resolution.excluded)),
        expired=tuple(filter(machines.__contains__, resolution.expired)),
        frozen=tuple(frozen for frozen in resolution.frozen if chosen.has_job(frozen.job)),
        services=tuple(filter(chosen.has_part, resolution.services)),
        fronts=tuple(filter(chosen.has_part, resolution.fronts)),
        limits=tuple(filter(chosen.has_part, resolution.limits)),
        units=tuple(filter(chosen.has_part, resolution.units)),
        needs=tuple(filter(chosen.has_part, resolution.needs)),
    )


def machine_names(declared: Declared, resolution: Resolution) -> set[str]:
    """Return the names of all machines and nodes: declared, with targets, strays and excluded ones."""
    names = {machine.name for machine in declared.machines} | {target.machine for target in resolution.all_targets}
    names |= {stray.name for stray in resolution.stray} | {exclusion.name for exclusion in resolution.excluded}
    return names


def job_names(resolution: Resolution) -> set[str]:
    """Return the names of all jobs, including those without a target."""
    pushed = {target.job for target in resolution.pushed}
    return {*resolution.jobs, *pushed, *(exclusion.job for exclusion in resolution.excluded if exclusion.job)}


def did_you_mean_one_of(name: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown name: the similar names, or where to look."""
    close = similar(name, known, 3)
    if not close:
        return "see: clan-discovery show"
    return f"did you mean {' or '.join(map(repr, close))}?"
