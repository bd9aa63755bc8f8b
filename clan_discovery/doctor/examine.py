"""Runs all checks, in the order in which a refresh cycle depends on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clan_discovery.backends.base import Examinable
from clan_discovery.doctor.files import check_directory, check_state
from clan_discovery.doctor.finding import Finding
from clan_discovery.doctor.machines import check_beliefs, check_machines
from clan_discovery.doctor.tailscaled import check_tailscaled
from clan_discovery.errors import Exit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from clan_discovery.backends.base import Backend
    from clan_discovery.model import Resolution
    from clan_discovery.round import Plan

_OLDEST_YEAR: Final = 2025
"""A machine whose clock battery is empty reports 1970, or the year in which its image was built."""


def examine(
    plan: Plan, resolution: Resolution, sockets: Sequence[Path], now: datetime, runtime_directories: str
) -> list[Finding]:
    """Check everything that a round depends on, after one was run (`resolution`). Writes nothing."""
    findings = [_check_clock(now)]
    machines = frozenset(machine.name.casefold() for machine in plan.declared.machines)
    expired: set[str] = set()
    for socket in sockets:
        findings += check_tailscaled(socket, machines, now, expired)
    findings += _check_backends(plan.backends)
    findings += check_beliefs(resolution.beliefs)
    findings += check_machines(resolution, expired)
    findings += check_directory(plan.directory, runtime_directories)
    findings += check_state(plan)
    return findings


def _check_clock(now: datetime) -> Finding:
    if now.year < _OLDEST_YEAR:
        fix = "set the clock: ages, expiry and certificates depend on it"
        return Finding("error", "clock", f"it says {now:%Y-%m-%d}", fix, Exit.DEGRADED)
    return Finding("ok", "clock", f"{now:%Y-%m-%d %H:%M} UTC")


def _check_backends(backends: Sequence[Backend]) -> Iterator[Finding]:
    for backend in backends:
        if not isinstance(backend, Examinable):
            continue
        for health in backend.examine():
            if health.well:
                yield Finding("ok", health.about, health.what, health.mend)
            else:
                yield Finding("error", health.about, health.what, health.mend, Exit.DEGRADED)
