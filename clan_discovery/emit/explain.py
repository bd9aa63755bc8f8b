"""Say why a machine has its targets, or none, as the resolution has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clan_discovery.emit.alias import alias_advice, suggested_aliases
from clan_discovery.model import one_line
from clan_discovery.syntax.suggest import similar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clan_discovery.model import Declared, Resolution, Stray


def explain(machine: str, declared: Declared, resolution: Resolution) -> list[str] | None:
    """Return the lines about one machine, or None if the name is unknown. Case does not count."""
    fold = machine.casefold()
    if fold in resolution.aliases:
        of = explain(resolution.aliases[fold], declared, resolution) or []
        return [one_line(f"{machine}: an alias (config: aliases)"), *of]
    targets = list(_targets(fold, resolution))
    excluded = list(_excluded(fold, resolution))
    lines = [*_declared(machine, declared), *_seen(fold, resolution), *targets, *excluded]
    if not lines:
        return None
    if not targets and any(m.name.casefold() == fold for m in declared.machines):
        why = "see above" if excluded else "it has no role `exporter` in an instance, and no rule picks it"
        lines.append(f"no target: {why}")
    return [one_line(machine), *(f"  {one_line(line)}" for line in lines)]


def _declared(machine: str, declared: Declared) -> Iterator[str]:
    for own in declared.machines:
        if own.name.casefold() == machine.casefold():
            tags = ", ".join(own.tags) or "(none)"
            yield f"declared: a {own.machine_class} machine with the tags {tags}"
    for problem in declared.problems:
        if problem.what.startswith(f"{machine!r} is no machine"):
            yield f"{problem.severity}: {problem}"


def _seen(fold: str, resolution: Resolution) -> Iterator[str]:
    for stray in resolution.stray:
        if stray.name.casefold() == fold:
            yield f"stray: {stray.backend} sees it, but no inventory declares it and no rule picks it"
            if stray.alias:
                yield f"  it calls itself {stray.alias}, which is declared"
                yield f"  {_renamed(stray, resolution)}"
        elif stray.alias and stray.alias.casefold() == fold:
            yield f"namesake: {stray.backend} sees {stray.name}, which calls itself {stray.alias}"
            yield f"  {_renamed(stray, resolution)}"
    for unselected in resolution.unselected:
        if fold in map(str.casefold, unselected.machines):
            yield f"not selected: {unselected.problem}"
    for missing in resolution.missing:
        if missing.machine.casefold() == fold:
            similar_names = f"; similar names seen: {', '.join(missing.similar)}" if missing.similar else ""
            yield f"missing: every backend was asked, and none sees it{similar_names}"
    yield from _same_machine(fold, resolution)


def _same_machine(fold: str, resolution: Resolution) -> Iterator[str]:
    """Suggest an alias where this machine is missing, or this stray may be a missing machine."""
    missing = {missing.machine.casefold() for missing in resolution.missing}
    strays = {stray.name.casefold() for stray in resolution.stray}
    if fold not in missing | strays:
        return
    for machine, stray in suggested_aliases(resolution).items():
        if fold in (machine.casefold(), stray.casefold()):
            yield f"to fix: {alias_advice(stray, machine)}"


def _renamed(stray: Stray, resolution: Resolution) -> str:
    if any(missing.machine == stray.alias for missing in resolution.missing):
        return f"if it is that machine, renamed or registered again: rename {stray.name} to {stray.alias}"
    fix = f"remove the old node {stray.alias}, then rename {stray.name} to {stray.alias}"
    return f"if it is that machine, registered again: {fix}"


def _targets(fold: str, resolution: Resolution) -> Iterator[str]:
    for target in resolution.targets:
        if target.machine.casefold() == fold:
            yield f"target: {target.address} in job {target.job}, as instance {target.labels['instance']}"
            yield f"  because: {target.because}"
            yield f"  address: {target.located}"
            for frozen in resolution.frozen:
                if frozen.job == target.job:
                    yield f"  not written: job {frozen.job} keeps its present file: {frozen.why}"


def _excluded(fold: str, resolution: Resolution) -> Iterator[str]:
    for exclusion in resolution.excluded:
        if exclusion.name.casefold() == fold:
            job = f" ({exclusion.job})" if exclusion.job else ""
            yield f"excluded{job}: {exclusion.reason}: {exclusion.detail} [{exclusion.by}]"


def unknown_machine(machine: str, declared: Declared, resolution: Resolution) -> str:
    """Return a hint for a name that is unknown: the similar names, or where to look."""
    known = {m.name for m in declared.machines} | {t.machine for t in resolution.targets}
    known |= {s.name for s in resolution.stray} | {e.name for e in resolution.excluded}
    close = similar(machine, known, 3)
    if not close:
        return "see: clan-discovery show"
    return f"did you mean {' or '.join(map(repr, close))}?"
