"""Judge targets as evidence: those of all machines, or of some. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.gates.judge import Gathered
from clan_discovery.model import UnloadedRules, Verdict
from clan_discovery.syntax.counting import first_names, plural
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clan_discovery.model import Resolution, Verification

_NAMES_MOST: Final = 3


def judge_verification(found: Verification, resolution: Resolution, machines: Sequence[str]) -> Gathered:
    """Say whether every target is scraped: of these machines, or of all, without ghosts and unloaded rules."""
    command = " ".join(("clan-discovery verify", *machines))
    if machines:
        folded = {resolution.aliases.get(name.casefold(), name).casefold() for name in machines}
        known = {target.machine.casefold(): target.machine for target in found.targets}
        if unknown := sorted(folded - known.keys()):
            hint = did_you_mean(unknown[0], known.values()) or "clan-discovery machines"
            return Gathered("contradicts", f"no target is expected on {first_names(unknown, _NAMES_MOST)}", hint)
        targets = tuple(target for target in found.targets if target.machine.casefold() in folded)
        found = msgspec.structs.replace(found, targets=targets, ghosts=(), asked=())
    if not found.targets:
        return Gathered("contradicts", "no target is expected", "clan-discovery show")
    told = _told(found)
    if faults := list(_faults(found)):
        return Gathered("contradicts", f"{told}; {first_names(faults, _NAMES_MOST)}", command)
    if unknown := list(_unknown(found, resolution)):
        return Gathered("unknown", f"{told}; {unknown[0]}", command)
    return Gathered("holds", told)


def _told(found: Verification) -> str:
    """Count the targets: `3 targets: 1 down, 2 up`."""
    counts = Counter(str(target.verdict) for target in found.targets)
    told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    return f"{plural(len(found.targets), 'target')}: {told}"


def _faults(found: Verification) -> Iterator[str]:
    for target in found.targets:
        if target.verdict.is_finding:
            yield f"{target.job} of {target.instance} is {target.verdict}"
    for ghost in found.ghosts:
        yield f"{ghost.instance} is scraped and not declared"
    for program in found.asked:
        if isinstance(program, UnloadedRules):
            yield f"{program.name}: {program.reason}"


def _unknown(found: Verification, resolution: Resolution) -> Iterator[str]:
    """Yield why some targets have no verdict. A machine that comes and goes may be offline."""
    for program in found.asked:
        if not program.ok:
            yield f"{program.name}: {program.reason}"
    roaming = {(t.job, t.labels["instance"]) for t in resolution.pushed if t.patience == "roaming"}
    for target in found.targets:
        is_offline = target.verdict is Verdict.PENDING and (target.job, target.instance) in roaming
        if target.verdict in (Verdict.UNKNOWN, Verdict.PENDING) and not is_offline:
            yield target.reason or f"{target.job} of {target.instance} is {target.verdict}"
