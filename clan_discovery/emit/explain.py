"""Why a machine has these targets, or none: prints what the resolution already says, and thinks nothing of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clan_discovery.model import Declared, Resolution, Stray, Target, one_line
from clan_discovery.syntax.suggest import similar

if TYPE_CHECKING:
    from collections.abc import Iterator


def explain(machine: str, declared: Declared, resolution: Resolution) -> list[str] | None:
    """Return the lines about one machine, or None where nobody knows the name."""
    lines = [one_line(line) for line in _lines(machine, declared, resolution)]
    if not lines:
        return None
    return [one_line(machine), *(f"  {line}" for line in lines)]


def _lines(machine: str, declared: Declared, resolution: Resolution) -> Iterator[str]:
    fold = machine.casefold()
    own = next((m for m in declared.machines if m.name.casefold() == fold), None)
    targets = [t for t in resolution.targets if t.machine.casefold() == fold]
    excluded = [e for e in resolution.excluded if e.name.casefold() == fold]
    if own is not None:
        yield f"declared: a {own.machine_class} machine with the tags {', '.join(own.tags) or '(none)'}"
    yield from (f"{p.severity}: {p}" for p in declared.problems if p.what.startswith(f"{machine!r} is no machine"))
    yield from _seen(fold, resolution)
    for target in targets:
        yield from _target(target)
    for e in excluded:
        yield f"excluded{f' ({e.job})' if e.job else ''}: {e.reason}: {e.detail} [{e.by}]"
    if own is not None and not targets:
        why = "see above" if excluded else "it has no role `exporter` in an instance, and no rule picks it"
        yield f"no target: {why}"


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
    for missing in resolution.missing:
        if missing.machine.casefold() == fold:
            like = f"; seen are {', '.join(missing.similar)}" if missing.similar else ""
            yield f"missing: every backend was asked, and none sees it{like}"


def _renamed(stray: Stray, resolution: Resolution) -> str:
    if any(missing.machine == stray.alias for missing in resolution.missing):
        return f"if it is that machine, renamed or registered anew: rename {stray.name} to {stray.alias}"
    old = f"remove the old node {stray.alias}, then rename {stray.name} to {stray.alias}"
    return f"if it is that machine, registered anew: {old}"


def _target(target: Target) -> Iterator[str]:
    yield f"target: {target.address} in job {target.job}, as instance {target.labels['instance']}"
    yield f"  because: {target.because}"
    yield f"  address: {target.located}"


def names(declared: Declared, resolution: Resolution) -> set[str]:
    """Return every name that `explain` knows."""
    found = {m.name for m in declared.machines} | {t.machine for t in resolution.targets}
    return found | {s.name for s in resolution.stray} | {e.name for e in resolution.excluded}


def unknown_machine(machine: str, known: set[str]) -> str:
    """Say that nobody knows this name, and which one was perhaps meant."""
    close = similar(machine, known, 3)
    return f"did you mean {' or '.join(repr(name) for name in close)}?" if close else "see: clan-discovery show"
