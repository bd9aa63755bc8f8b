"""Checks of what the backends answered: outages, names claimed twice, machines that are missing or renamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clan_discovery.doctor.finding import Finding
from clan_discovery.doctor.tailscaled import RENEW
from clan_discovery.errors import Exit
from clan_discovery.model import BeliefState
from clan_discovery.syntax.counting import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from clan_discovery.model import Belief, Resolution, Stray


def check_beliefs(beliefs: Iterable[Belief]) -> Iterator[Finding]:
    """Report what is believed of each backend."""
    for belief in beliefs:
        about = f"backend {belief.backend}"
        if belief.state is BeliefState.FRESH and belief.snapshot is not None:
            endpoints = len(belief.snapshot.endpoints)
            listed = f"; targets listed: {endpoints}" if endpoints else ""
            yield Finding("ok", about, f"it answers; {plural(len(belief.snapshot.nodes), 'machine')}{listed}")
        elif belief.state is BeliefState.HELD:
            yield Finding("warning", about, belief.why, "clan-discovery refresh --accept-shrink", Exit.HELD)
        else:
            yield Finding("error", about, f"{belief.why} ({belief.state.value})", belief.hint or "", Exit.DEGRADED)


def check_machines(resolution: Resolution, expired: AbstractSet[str]) -> Iterator[Finding]:
    """Report names claimed twice, expired keys, and machines that are missing, renamed or registered again.

    `expired` are machines whose expired key is reported already, case-folded.
    """
    for ambiguous in resolution.ambiguous:
        what = f"{len(ambiguous.claims)} nodes claim the name: {', '.join(ambiguous.claims)}"
        fix = "rename or remove all but one in the admin console"
        yield Finding("error", f"name {ambiguous.name}", what, fix)
    for machine in resolution.expired:
        if machine.casefold() not in expired:
            yield Finding("warning", f"machine {machine}", "its key has expired: it is unreachable", RENEW)
    missing = {m.machine for m in resolution.missing}
    explained: set[str] = set()
    for stray in resolution.stray:
        if machine := stray.alias or _original_name(stray.name, missing):
            explained.add(machine)
            yield _registered_again(stray, machine, is_missing=machine in missing)
    for machine in sorted(missing - explained):
        fix = f"clan-discovery explain {machine}"
        yield Finding("warning", f"machine {machine}", "declared, but no backend sees it", fix)


def _registered_again(stray: Stray, machine: str, *, is_missing: bool) -> Finding:
    """Report a stray that is probably a declared machine under another name."""
    if stray.alias:
        other = f"{stray.name}, which calls itself {machine}, is seen"
    else:
        other = f"{stray.name} is seen, a name that the control plane gives if {machine} is taken"
    if is_missing:
        what = f"it is not seen, but {other}: renamed, or registered again"
        fix = f"if it is that machine, rename {stray.name} to {machine} in the admin console"
    else:
        what = f"it is offline, but {other}: registered again while its old node still exists"
        fix = f"if it is that machine, remove the old node {machine}, then rename {stray.name} to {machine}"
    return Finding("warning", f"machine {machine}", what, fix)


def _original_name(name: str, missing: AbstractSet[str]) -> str:
    """Return the missing machine whose name the control plane numbered: `db` for `db-1`; empty if there is none."""
    prefix, _, number = name.rpartition("-")
    if not number.isdigit():
        return ""
    return next((machine for machine in missing if machine.casefold() == prefix.casefold()), "")
