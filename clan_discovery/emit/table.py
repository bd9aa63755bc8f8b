"""A resolution as a person reads it: a table of targets, then what is not a target and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from clan_discovery.emit.json import count_reasons
from clan_discovery.model import BeliefState, Missing, Resolution, Stray, Target, one_line
from clan_discovery.syntax.counting import first_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from clan_discovery.syntax.terminal import Style

Line: TypeAlias = "tuple[str, Style]"
"""A line of output and its style on a terminal."""

_COLUMNS: Final = ("JOB", "INSTANCE", "TARGET", "STATE", "SEEN BY")
_NAMES_MOST: Final = 8
_WIDEST: Final = 256
"""Cells are padded to at most this width. A longer cell shifts its own row, so one hostile name costs one row."""
_REFUSED: Final = frozenset({"ambiguous", "missing_tag", "mullvad_exit", "refused_address", "sharee"})
_STYLES: Final[Mapping[str, Style]] = {
    "online": "plain",
    "seen": "plain",
    "missing": "yellow",
    "unknown": "yellow",
    "kept": "yellow",
    "held": "yellow",
    "refused": "red",
    "expired": "red",
    "offline": "dim",
}
_REASONS: Final = {
    "absent": "declared, seen by nobody, and policy.absent is drop",
    "ambiguous": "a name that several nodes claim",
    "auto_discovery_off": "enableAutoDiscovery is false",
    "darwin": "darwin, and a NixOS exporter",
    "disabled": "disabled by enable = false",
    "foreign_tailnet": "of another tailnet",
    "funnel_ingress": "relay of Tailscale Funnel",
    "ignored": "ignored by the config",
    "inexpressible": "cannot be written as a target",
    "missing_tag": "without the demanded ACL tag",
    "mullvad_exit": "Mullvad exit node",
    "no_address": "without an address",
    "no_dns_name": "without a DNS name",
    "no_port": "without a port",
    "no_such_name": "proven not to be in DNS",
    "offline": "offline for longer than policy.offline allows",
    "phone_or_tv": "phone or TV",
    "probe_without_target": "probe exporter without a target",
    "refused_address": "at an address that no target may have",
    "sharee": "another user's device",
    "untrusted_name": "in no domain whose names are machines",
    "withdrawn": "withdrawn by its SRV record",
}


def render_table(resolution: Resolution) -> Iterator[Line]:
    """Yield the table of targets, then the notes about everything else."""
    if resolution.targets:
        yield from _table(resolution)
    else:
        yield "no targets", "yellow"
    for note in notes(resolution):
        yield note, "plain"


def _table(resolution: Resolution) -> Iterator[Line]:
    missing = {m.machine for m in resolution.missing}
    refused = {e.name for e in resolution.excluded if e.reason in _REFUSED}
    old = {b.backend: b.state for b in resolution.beliefs if b.state in (BeliefState.KEPT, BeliefState.HELD)}
    rows: list[tuple[str, ...]] = [_COLUMNS]
    styles: list[Style] = ["bold"]
    for target in resolution.targets:
        backend = target.backend or ""
        state = old.get(backend) or _state(target, missing, refused)
        cells = (target.job, target.labels["instance"], target.address, state, backend or "-")
        rows.append(tuple(map(one_line, cells)))
        styles.append(_STYLES[state])
    yield from zip(_aligned(rows), styles, strict=True)


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Pad the cells of each column to one width, two spaces apart."""
    widths = [min(max(map(len, column)), _WIDEST) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(map(str.ljust, row, widths)).rstrip(" ")


def _state(target: Target, missing: AbstractSet[str], refused: AbstractSet[str]) -> str:
    """Return one word for what is known of a target's machine; `seen` if the backend does not report online."""
    if target.expired:
        return "expired"
    # DNS lists it, but without an address that a target may have: its host is a name under .invalid (RFC 6761).
    host = target.address.rpartition(":")[0]
    if target.backend is not None and host.endswith(".invalid"):
        return "refused" if target.machine in refused else "missing"
    if target.observed:
        return {True: "online", False: "offline", None: "seen"}[target.online]
    if target.machine.casefold() in refused:
        return "refused"
    if target.machine in missing:
        return "missing"
    return "unknown"


def notes(resolution: Resolution) -> list[str]:
    """Return a line for each kind of thing that the table does not show."""
    frozen = [job.job for job in resolution.frozen]
    kinds: tuple[tuple[str, Sequence[str], str], ...] = (
        ("missing", list(map(_missing, resolution.missing)), "declared, seen by no backend"),
        ("unknown", resolution.unknown, "declared, but a backend could not be asked"),
        ("stray", list(map(_stray, resolution.stray)), "seen, but neither declared nor picked by a rule"),
        ("frozen", frozen, "keeps its present file; these targets are not written"),
    )
    lines = [f"{kind}: {first_names(names, _NAMES_MOST)}: {what}" for kind, names, what in kinds if names]
    excluded: dict[str, set[str]] = {}
    for exclusion in resolution.excluded:
        excluded.setdefault(exclusion.reason, set()).add(exclusion.name)
    for reason, count in count_reasons(resolution.excluded).items():
        names = first_names(sorted(excluded[reason]), _NAMES_MOST)
        lines.append(f"excluded: {count} {_REASONS[reason]}: {names}")
    return list(map(one_line, lines))


def _missing(missing: Missing) -> str:
    return f"{missing.machine} (is {missing.similar[0]} it?)" if missing.similar else missing.machine


def _stray(stray: Stray) -> str:
    return f"{stray.name} (calls itself {stray.alias})" if stray.alias else stray.name
