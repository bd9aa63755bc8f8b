"""A resolution as a person reads it: a table of targets, and beneath it what is no target and why."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TextIO

from clan_discovery.emit.json import count_reasons
from clan_discovery.model import Resolution, Target, one_line

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from rich.console import Console

_NAMES_MOST = 8
_WIDTH = 100_000
_REFUSED = frozenset({"ambiguous", "missing_tag", "refused_address", "sharee"})
# rich fills every cell; blanks at the end of a line, before a reset of the colour or not, help nobody.
_TRAILING = re.compile(r" +((?:\x1b\[[0-9;]*m)*)$", re.MULTILINE)
_STYLES = {
    **dict.fromkeys(("online", "seen"), ""),
    **dict.fromkeys(("missing", "unknown", "kept", "held"), "yellow"),
    **dict.fromkeys(("refused", "expired"), "red"),
    "offline": "dim",
}
_REASONS = {
    "absent": "declared, seen by nobody, and policy.absent is drop",
    "ambiguous": "a name that several nodes claim",
    "auto_discovery_off": "enableAutoDiscovery is false",
    "darwin": "darwin, and a NixOS exporter",
    "disabled": "disabled by enable = false",
    "foreign_tailnet": "of another tailnet",
    "funnel_ingress": "relay of Tailscale Funnel",
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
    "sharee": "somebody else's device",
    "withdrawn": "withdrawn by its SRV record",
}


def write_table(resolution: Resolution, out: TextIO) -> None:
    """Draw the targets and what is beside them; colour only on a terminal, and never with NO_COLOR."""
    from rich.console import Console  # noqa: PLC0415 - 50 ms that only a table is worth

    # A pipe has no width: nothing is cut there, and a terminal wraps rather than lose an address. What is drawn is
    # captured, for rich ends the program by itself where a reader has gone away.
    console = Console(file=out, highlight=False, width=_WIDTH)
    with console.capture() as drawn:
        if resolution.targets:
            _draw(resolution, console)
        else:
            console.print("no targets", style="yellow")
    out.write(_TRAILING.sub(r"\1", drawn.get()))
    out.writelines(f"{line}\n" for line in notes(resolution))


def _draw(resolution: Resolution, console: Console) -> None:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("JOB", "INSTANCE", "TARGET", "STATE", "SEEN BY"):
        table.add_column(column, no_wrap=True, overflow="ignore")
    missing = {m.machine for m in resolution.missing}
    refused = {e.name for e in resolution.excluded if e.reason in _REFUSED}
    old = {b.backend: b.state for b in resolution.beliefs if b.state in ("kept", "held")}
    for target in resolution.targets:
        state = old.get(target.backend or "") or _state(target, missing, refused)
        cells = (target.job, target.labels["instance"], target.address, state, target.backend or "-")
        table.add_row(*(Text(one_line(cell), style=_STYLES[state]) for cell in cells))
    console.print(table)


def _state(target: Target, missing: AbstractSet[str], refused: AbstractSet[str]) -> str:
    """Say in a word what is known of a target's machine; `seen` where the backend has no opinion about online."""
    if target.expired:
        return "expired"
    if target.backend is not None and target.address.rpartition(":")[0].endswith(".invalid"):
        return "refused" if target.machine in refused else "missing"
    if target.observed:
        return {True: "online", False: "offline", None: "seen"}[target.online]
    if target.machine.casefold() in refused:
        return "refused"
    return "missing" if target.machine in missing else "unknown"


def notes(resolution: Resolution) -> list[str]:
    """Write what the table does not show: machines not seen, strays, exclusions by reason.

    Backends in trouble are told by whoever asked them.
    """
    lines: list[str] = []
    if resolution.missing:
        names = [m.machine + (f" (is {m.similar[0]} it?)" if m.similar else "") for m in resolution.missing]
        lines.append(f"missing: {_names(names)}: declared, seen by no backend")
    if resolution.unknown:
        lines.append(f"unknown: {_names(resolution.unknown)}: declared, but a backend could not be asked")
    if resolution.stray:
        names = [s.name + (f" (calls itself {s.alias})" if s.alias else "") for s in resolution.stray]
        lines.append(f"stray: {_names(names)}: seen, but neither declared nor picked by a rule")
    for reason, count in count_reasons(resolution.excluded).items():
        names = sorted({e.name for e in resolution.excluded if e.reason == reason})
        lines.append(f"excluded: {count} {_REASONS[reason]}: {_names(names)}")
    return [one_line(line) for line in lines]


def _names(names: list[str] | tuple[str, ...]) -> str:
    shown = ", ".join(names[:_NAMES_MOST])
    return shown if len(names) <= _NAMES_MOST else f"{shown} and {len(names) - _NAMES_MOST} more"
