"""Write a resolution as text: a table of targets, then what is not a target, with the reason."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from clan_discovery.emit.columns import Column, fitted
from clan_discovery.emit.json import count_reasons
from clan_discovery.emit.publishers import EVERY_SERVER
from clan_discovery.emit.states import STATES, TargetStates
from clan_discovery.model import Missing, Resolution, Stray, Target, one_line
from clan_discovery.syntax.counting import first_names, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from clan_discovery.emit.states import AddressTimes
    from clan_discovery.model import Since, State
    from clan_discovery.syntax.terminal import Style

Line: TypeAlias = "tuple[str, Style]"
"""A line of output and its style on a terminal."""
Grouping: TypeAlias = Literal["target", "machine"]
"""What has a row of its own."""

_NAMES_MOST: Final = 8
_BY_TARGET: Final = (
    Column("JOB", least=8),
    Column("INSTANCE", least=16, tail=6),
    Column("TARGET", least=21, tail=6, drop=3),
    Column("STATE", least=8),
    Column("SEEN BY", least=7, drop=2),
)
_BY_MACHINE: Final = (
    Column("MACHINE", least=16, tail=6),
    Column("JOBS", least=12),
    Column("ADDRESS", least=15, drop=2),
    Column("STATE", least=8),
    Column("SEEN BY", least=7, drop=1),
)
_NO_TARGET: Final = (
    Column("NAME", least=16, tail=6),
    Column("STATE", least=8),
    Column("JOB", least=8, drop=1),
    Column("BY", least=8, drop=2),
    Column("REASON", least=20),
)
_FRONTS: Final = (
    Column("DOMAIN", least=16, tail=6),
    Column("PATH", least=6),
    Column("SERVICE", least=8),
    Column("MACHINE", least=8, drop=2),
    Column("ADDRESS", least=15, tail=6),
    Column("AUTH", least=7),
    Column("SOURCE", least=12, drop=1),
)
_SINCE: Final = Column("SINCE", least=10, drop=1)
_SERVERS: Final = Column("SERVERS", least=8, drop=1)
_STYLES: Final[Mapping[str, Style]] = {
    "missing": "yellow",
    "unknown": "yellow",
    "kept": "yellow",
    "held": "yellow",
    "refused": "red",
    "expired": "red",
    "offline": "dim",
}
_REASONS: Final = {
    "absent": "declared, seen by no backend, and policy.absent is drop",
    "ambiguous": "a name that several nodes claim",
    "auto_discovery_off": "enableAutoDiscovery is false",
    "darwin": "darwin, and a NixOS exporter",
    "disabled": "disabled by enable = false",
    "foreign_tailnet": "of another tailnet",
    "funnel_ingress": "relay of Tailscale Funnel",
    "ignored": "ignored by the config",
    "inexpressible": "cannot be written as a target",
    "loopback": "listens on loopback only",
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
    "unreachable_network": "in a network that the scraper does not share",
    "untrusted_name": "in no domain whose names are machines",
    "withdrawn": "withdrawn by its SRV record",
}


def render_table(
    resolution: Resolution,
    *,
    by: Grouping = "target",
    width: int | None = None,
    since: AddressTimes | None = None,
    empty: str = "no targets",
) -> Iterator[Line]:
    """Yield the table of targets, their total, then the notes about everything else.

    The table fits a terminal of `width` columns; None: nothing is cut. With `since`, each target has its date. `empty`
    is printed where there is no target.
    """
    targets = resolution.all_targets
    if targets:
        state_of = TargetStates(resolution).of
        states: list[State] = [state_of(target) for target in targets]
        is_shared = resolution.shard is not None
        if by == "machine":
            yield from _by_machine(targets, states, width, is_shared=is_shared)
        else:
            yield from _by_target(targets, states, width, since, is_shared=is_shared)
        yield total(targets, states), "plain"
    else:
        yield empty, "yellow"
    for note in notes(resolution):
        yield note, "plain"


def _by_target(
    targets: Sequence[Target],
    states: Sequence[State],
    width: int | None,
    since: AddressTimes | None,
    *,
    is_shared: bool,
) -> Iterator[Line]:
    rows: list[list[str]] = []
    for target, state in zip(targets, states, strict=True):
        cells = (target.job, target.labels["instance"], target.address, state, target.backend or "-")
        rows.append([one_line(cell) for cell in cells])
    columns = list(_BY_TARGET)
    if is_shared:
        columns.append(_SERVERS)
        for row, target in zip(rows, targets, strict=True):
            row.append(_servers(target))
    if since is not None:
        columns.append(_SINCE)
        for row, target in zip(rows, targets, strict=True):
            row.append(_date(since.get((target.job, target.labels["instance"], target.address))))
    return _styled(columns, rows, states, width)


def _servers(target: Target) -> str:
    """Name the servers that publish a target; none does it for an agent."""
    if target.delivery == "push":
        return "-"
    return ", ".join(target.servers) or EVERY_SERVER


def _servers_of(targets: Sequence[Target]) -> list[str]:
    """Name the servers that publish some of these targets, sorted."""
    return sorted(name for target in targets for name in target.servers or (_servers(target),))


def _by_machine(
    targets: Sequence[Target], states: Sequence[State], width: int | None, *, is_shared: bool
) -> Iterator[Line]:
    """Yield a row for each machine; a cell lists each distinct value of its targets once."""
    machines: dict[str, list[tuple[Target, State]]] = {}
    for target, state in zip(targets, states, strict=True):
        machines.setdefault(target.machine, []).append((target, state))
    rows: list[list[str]] = []
    worst: list[str] = []
    for machine, found in sorted(machines.items()):
        its, in_states = zip(*found, strict=True)
        columns: list[Sequence[str]] = [
            [target.job for target in its],
            [target.address.rpartition(":")[0] for target in its],
            in_states,
            [target.backend or "-" for target in its],
        ]
        if is_shared:
            columns.append(_servers_of(its))
        rows.append([one_line(machine), *(one_line(", ".join(dict.fromkeys(cells))) for cells in columns)])
        worst.append(max(in_states, key=STATES.index))
    titles = (*_BY_MACHINE, _SERVERS) if is_shared else _BY_MACHINE
    return _styled(titles, rows, worst, width)


def render_no_targets(resolution: Resolution, width: int | None = None) -> Iterator[Line]:
    """Yield a table of what is not a target: exclusions and strays, each with its reason."""
    rows = [[e.name, "excluded", e.job or "-", e.by, f"{e.reason}: {e.detail}"] for e in resolution.excluded]
    rows += [[_stray(s), "stray", "-", s.backend, "neither declared nor selected"] for s in resolution.stray]
    rows = [[one_line(cell) for cell in row] for row in rows]
    return _styled(_NO_TARGET, rows, [row[1] for row in rows], width)


def render_fronts_table(resolution: Resolution, width: int | None = None) -> Iterator[Line]:
    """Yield a table of the fronts, sorted by domain and path, then their number."""
    if not resolution.fronts:
        yield "no fronts", "yellow"
        return
    rows: list[list[str]] = []
    for f in sorted(resolution.fronts, key=lambda front: (front.domain, front.path)):
        source = f.where or f.because
        rows.append([one_line(cell) for cell in (f.domain, f.path, f.service, f.machine, f.address, f.auth, source)])
    yield from _styled(_FRONTS, rows, ["plain"] * len(rows), width)
    yield _front_total(resolution), "plain"


def _front_total(resolution: Resolution) -> str:
    domains = len({front.domain for front in resolution.fronts})
    return f"{plural(len(resolution.fronts), 'front')} of {plural(domains, 'domain')}"


def _styled(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], states: Sequence[str], width: int | None
) -> Iterator[Line]:
    """Yield the titles, and the rows in the styles of their states."""
    styles: list[Style] = [_STYLES.get(state, "plain") for state in states]
    return zip(fitted(columns, rows, width), ["bold", *styles], strict=True)


def _date(since: Since | None) -> str:
    if since is None:
        return "-"
    date = f"{datetime.fromtimestamp(since.at, UTC):%Y-%m-%d %H:%M}"
    if not since.is_exact:  # when the history began
        return f"before {date}"
    return date


def total(targets: Sequence[Target], states: Iterable[State]) -> str:
    """Sum up the targets in one line: `127 targets of 41 machines: 120 seen, 5 kept, 2 missing`."""
    counts = Counter(states)
    machines = len({target.machine for target in targets})
    parts = ", ".join(f"{counts[state]} {state}" for state in STATES if state in counts)
    return f"{plural(len(targets), 'target')} of {plural(machines, 'machine')}: {parts}"


def notes(resolution: Resolution) -> list[str]:
    """Return a line for services, fronts, and each kind of what is not a target: what the table does not show."""
    frozen = [job.job for job in resolution.frozen]
    kinds: tuple[tuple[str, Sequence[str], str], ...] = (
        ("missing", list(map(_missing, resolution.missing)), "declared, seen by no backend"),
        ("unknown", resolution.unknown, "declared, but a backend could not be asked"),
        ("stray", list(map(_stray, resolution.stray)), "seen, but neither declared nor picked by a rule"),
        ("frozen", frozen, "keeps its present file; these targets are not written"),
    )
    lines = [f"{kind}: {first_names(names, _NAMES_MOST)}: {what}" for kind, names, what in kinds if names]
    if resolution.services:
        machines = len({service.machine for service in resolution.services})
        lines.append(f"services: {len(resolution.services)} declared on {plural(machines, 'machine')}")
    if resolution.fronts:
        lines.append(f"fronts: {_front_total(resolution)} (--by front lists them)")
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
