"""The states of targets and machines, as `show`, `explain` and the documentation name them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias, get_args

from clan_discovery.model import BeliefState, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clan_discovery.model import Belief, Resolution, Since, Target

STATES: Final[tuple[State, ...]] = get_args(State)
NO_TARGET: Final = ("excluded", "stray")
"""The states of what is not a target."""

MEANINGS: Final[Mapping[str, str]] = {
    "seen": "a backend sees it now",
    "pushed": "the agent on its machine scrapes it there and sends the samples",
    "declared": "at its declared address or name: no backend is asked where it is",
    "kept": "its backend, or the lookup of its name, failed: the last good answer is used",
    "held": "its backend lost too many machines at once: the answer before that is used",
    "offline": "its backend says that it is offline",
    "expired": "the key of its node has expired: it is unreachable",
    "missing": "declared, but seen by no backend",
    "refused": "declared, and a node has its name, but the node or its address is not trusted",
    "unknown": "declared, but a backend has no answer",
    "excluded": "not a target, for the reason shown",
    "stray": "not a target: a backend sees it, but it is neither declared nor selected",
}

REFUSALS: Final = frozenset({"ambiguous", "missing_tag", "mullvad_exit", "refused_address", "sharee"})
"""Reasons why a node with the name of a machine is not that machine."""

NO_EXPORTER: Final = "no source declares an exporter on it, and no rule picks it"
"""Why a declared machine is not a target."""

AddressTimes: TypeAlias = "Mapping[tuple[str, str, str], Since]"
"""Since when each target is where it is, by job, instance and address."""


class TargetStates:
    """Tells the states of the targets of one resolution."""

    def __init__(self, resolution: Resolution) -> None:
        self._missing = {missing.machine for missing in resolution.missing}
        self._refused = {e.name.casefold() for e in resolution.excluded if e.reason in REFUSALS}
        self._whole: dict[str, State] = {}
        self._kept: set[tuple[str, str]] = set()
        for belief in resolution.beliefs:
            if belief.state is BeliefState.KEPT:
                self._whole[belief.backend] = "kept"
            elif belief.state is BeliefState.HELD:
                self._whole[belief.backend] = "held"
            elif belief.state is BeliefState.PARTIAL:
                self._kept.update((belief.backend, machine) for machine in failed_machines(belief))

    def of(self, target: Target) -> State:
        """Return the state of a target of this resolution."""
        if target.delivery == "push":
            return "pushed"
        if target.backend is None:
            return self._unseen(target)
        if target.backend in self._whole:
            return self._whole[target.backend]
        if target.expired:
            return "expired"
        # DNS lists it, but without an address that a target may have: its host is a name under .invalid (RFC 6761).
        if target.address.rpartition(":")[0].endswith(".invalid"):
            return "refused" if target.machine.casefold() in self._refused else "missing"
        if not target.observed:
            return self._unseen(target)
        if self._kept and (target.backend, target.machine.casefold()) in self._kept:
            return "kept"
        if target.online is False:
            return "offline"
        return "seen"

    def _unseen(self, target: Target) -> State:
        if not target.asked:
            return "declared"
        if target.machine.casefold() in self._refused:
            return "refused"
        if target.machine in self._missing:
            return "missing"
        return "unknown"


def failed_machines(belief: Belief) -> dict[str, float | None]:
    """Return the machines whose lookup failed, case-folded, with the age of the answer that is used (seconds)."""
    failures = belief.snapshot.failures if belief.snapshot is not None else ()
    return {failure.machine.casefold(): failure.age for failure in failures if failure.machine}
