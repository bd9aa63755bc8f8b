"""Say what needs attention: of the inputs, the backends, the machines, and what `verify` found. Pure."""

from __future__ import annotations

import shlex
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.emit.alias import alias_line, suggested_aliases
from clan_discovery.model import WORST_FIRST, Attention, BeliefState, Item, Verdict, one_line, span
from clan_discovery.syntax.counting import first_names
from clan_discovery.syntax.yaml_text import yaml_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from clan_discovery.model import (
        Belief,
        InputStatus,
        MachineStatus,
        Report,
        Resolution,
        State,
        Stray,
        TargetStatus,
        Urgency,
        Verification,
    )

_ITEMS_MOST: Final = 5
_NAMES_MOST: Final = 3
_WHAT_MOST: Final = 500
"""The longest text of an item: a backend's error may quote a whole page."""

_FINDINGS: Final[Mapping[Verdict, str]] = {
    Verdict.WRONG_MACHINE: "answered by another machine",
    Verdict.DOWN: "down",
    Verdict.NOT_READ: "not read by the scraper",
    Verdict.DROPPED: "dropped by a relabel rule",
    Verdict.ELSEWHERE: "scraped at another address",
    Verdict.DUPLICATE: "scraped more than once",
    Verdict.EMPTY: "up, but without samples",
    Verdict.UNKNOWN: "not verified",
}
"""What each finding of `verify` is called."""
_UNREACHABLE: Final[frozenset[State]] = frozenset({"missing", "refused", "expired"})
"""States that explain why a target is down, and that are listed by themselves."""


def attention(
    report: Report, verification: Verification | None, machines: Sequence[MachineStatus], config: str = ""
) -> tuple[Attention, ...]:
    """Return what needs attention, the worst first; of each kind, the first items and how many there are.

    `config` is the path of the config, for the commands that are shown.
    """
    resolution = report.resolution
    strays = suggested_aliases(resolution)
    option = f" --config {shlex.quote(config)}" if config else ""
    return (
        *_inputs(report, option),
        *_backends(resolution, option),
        *_of_machines(machines, strays, option),
        *_verified(verification, machines),
        *_nodes(resolution, {stray: machine for machine, stray in strays.items()}, option),
        *_problems(resolution),
    )


def _kind(
    kind: str,
    level: Urgency,
    title: tuple[str, str],
    items: Iterable[Item],
    total: int,
    *,
    where: tuple[str, str] | None = None,
) -> Iterator[Attention]:
    """Yield the attention that some things of one kind need; nothing if there is none.

    `title` is for one thing and for several. Only the first items are made.
    """
    if total == 0:
        return
    one, several = title
    text = f"1 {one}"
    if total > 1:
        text = f"{total:,} {several}"
    first = tuple(islice(items, _ITEMS_MOST))
    yield Attention(kind=kind, level=level, title=text, items=first, total=total, filter=where)


def _item(about: str, what: str, fix: str = "", machine: str = "") -> Item:
    text = one_line(what)
    if len(text) > _WHAT_MOST:
        text = f"{text[:_WHAT_MOST]}..."
    return Item(about=one_line(about), what=text, fix=one_line(fix), machine=one_line(machine))


def _inputs(report: Report, option: str) -> Iterator[Attention]:
    """Yield the config, the inventory and the flake, if the newest could not be used."""
    inputs: tuple[tuple[str, InputStatus | None], ...] = (
        ("config", report.config),
        ("inventory", report.inventory),
        ("flake", report.flake),
    )
    items: list[Item] = []
    for name, status in inputs:
        if status is not None and not status.ok:
            age = ""
            if status.succeeded_at is not None:
                age = f", {span(max(report.now - status.succeeded_at, 0))} old,"
            what = f"the newest {name} cannot be used; the last good one{age} is used"
            items.append(_item(name, what, f"clan-discovery check{option}"))
    yield from _kind("input", "error", ("input cannot be used", "inputs cannot be used"), items, len(items))


def _backends(resolution: Resolution, option: str) -> Iterator[Attention]:
    """Yield held losses, failing backends, and jobs that keep their present file."""
    accept = f"clan-discovery refresh --accept-shrink{option}"
    held = [
        _item(b.backend, f"{b.why}; the answer before that, {span(b.age)} old, is used", accept)
        for b in resolution.beliefs
        if b.state is BeliefState.HELD
    ]
    yield from _kind("held", "error", ("loss is held", "losses are held"), held, len(held))
    failing = [_failing(belief, option) for belief in resolution.beliefs if belief.state.degraded]
    yield from _kind("backend", "error", ("backend failed", "backends failed"), failing, len(failing))
    frozen = [
        _item(f.job, f"{f.why}; its present file is kept{f.limit}", f"clan-discovery doctor{option}")
        for f in resolution.frozen
    ]
    yield from _kind(
        "frozen", "error", ("job keeps its present file", "jobs keep their present files"), frozen, len(frozen)
    )


def _failing(belief: Belief, option: str) -> Item:
    used = {
        BeliefState.PARTIAL: "their last good answers are used",
        BeliefState.KEPT: f"its last good answer, {span(belief.age)} old, is used",
        BeliefState.EXPIRED: f"its last good answer is {span(belief.age)} old, too old to be used",
    }.get(belief.state, "there is no last good answer")
    return _item(belief.backend, f"{belief.why}; {used}", belief.hint or f"clan-discovery doctor{option}")


def _of_machines(machines: Iterable[MachineStatus], strays: Mapping[str, str], option: str) -> Iterator[Attention]:
    """Yield the machines that no scrape can reach. `strays` may be such a machine, by machine."""
    bad: dict[str, list[MachineStatus]] = {state: [] for state in _UNREACHABLE}
    for machine in machines:
        if machine.state in bad:
            bad[machine.state].append(machine)

    def item(machine: MachineStatus) -> Item:
        fix = _explain(machine.name, option)
        if machine.name in strays:
            fix = alias_line(strays[machine.name], machine.name)
        return _item(machine.name, machine.reason, fix, machine.name)

    for state, title in (
        ("missing", ("machine is missing", "machines are missing")),
        ("refused", ("machine is refused", "machines are refused")),
        ("expired", ("machine has an expired key", "machines have expired keys")),
    ):
        yield from _kind(state, "error", title, map(item, bad[state]), len(bad[state]), where=("state", state))


def _verified(verification: Verification | None, machines: Iterable[MachineStatus]) -> Iterator[Attention]:
    """Yield the programs that could not be asked, the findings of `verify`, and ghosts."""
    if verification is None:
        return
    silent = [
        _item(p.name, f"{p.url}: {p.reason}" if p.url else p.reason, p.fix) for p in verification.asked if not p.ok
    ]
    yield from _kind("program", "error", ("program is not ready", "programs are not ready"), silent, len(silent))
    for verdict, found in _findings(machines).items():
        level: Urgency = "error"
        if not verdict.is_finding:
            level = "warning"
        title = f"target is {_FINDINGS[verdict]}", f"targets are {_FINDINGS[verdict]}"
        items = map(_finding, _by_cause(found))
        yield from _kind(verdict, level, title, items, len(found), where=("verdict", verdict))
    ghosts = (
        _item(f"{g.job}/{g.instance}", f"{g.scraper} at {g.address}: {g.reason}", g.fix) for g in verification.ghosts
    )
    title = "target is not declared", "targets are not declared"
    yield from _kind("ghost", "warning", title, ghosts, len(verification.ghosts))


def _findings(machines: Iterable[MachineStatus]) -> Mapping[Verdict, list[tuple[str, TargetStatus]]]:
    """Return the targets that need attention, each with its machine, by verdict; the worst verdict first."""
    found: dict[Verdict, list[tuple[str, TargetStatus]]] = {
        verdict: [] for verdict in WORST_FIRST if verdict in _FINDINGS
    }
    for machine in machines:
        for target in machine.targets:
            if target.verdict is not None and target.verdict in found and not _is_explained(target):
                found[target.verdict].append((machine.name, target))
    return found


def _by_cause(found: Iterable[tuple[str, TargetStatus]]) -> Iterable[list[tuple[str, TargetStatus]]]:
    """Return the targets of each cause: those of a job with the same reason."""
    causes: dict[tuple[str, str], list[tuple[str, TargetStatus]]] = {}
    for machine, target in found:
        job = target.job
        if target.verdict is Verdict.UNKNOWN:
            job = ""
        causes.setdefault((job, target.reason), []).append((machine, target))
    return causes.values()


def _finding(alike: Sequence[tuple[str, TargetStatus]]) -> Item:
    """Return one item for the targets of one cause. The fix of `unknown` is that of the program, which is listed."""
    machine, target = alike[0]
    fix = target.fix
    if target.verdict is Verdict.UNKNOWN:
        fix = ""
    if len(alike) == 1:
        return _item(f"{target.job}/{target.instance}", target.reason, fix, machine)
    names = first_names([f"{target.job}/{target.instance}" for _, target in alike], _NAMES_MOST)
    return msgspec.structs.replace(_item(names, target.reason, fix), count=len(alike))


def _explain(name: str, option: str) -> str:
    return f"clan-discovery explain {shlex.quote(name)}{option}"


def _is_explained(target: TargetStatus) -> bool:
    """Tell whether a target is down because its machine is unreachable, which is listed by itself."""
    return target.verdict is Verdict.DOWN and target.state in _UNREACHABLE


def _nodes(resolution: Resolution, machines: Mapping[str, str], option: str) -> Iterator[Attention]:
    """Yield names that several nodes claim, and nodes that are not declared; some may be one of `machines`."""
    claimed = (
        _item(
            a.name,
            f"claimed by several nodes of {a.backend}: {', '.join(a.claims)}; none of them gets it",
            _explain(a.name, option),
            a.name,
        )
        for a in resolution.ambiguous
    )
    title = "name is claimed twice", "names are claimed twice"
    yield from _kind("ambiguous", "error", title, claimed, len(resolution.ambiguous))

    def item(stray: Stray) -> Item:
        what = f"{stray.backend} sees it, but it is neither declared nor selected"
        fix = f"ignore: {{names: [{yaml_text(one_line(stray.name))}]}}"
        if stray.name in machines:
            what = f"{what}; it may be {machines[stray.name]}, which is missing"
            fix = alias_line(stray.name, machines[stray.name])
        return _item(stray.name, what, fix, stray.name)

    strays = map(item, resolution.stray)
    title = "node is not declared", "nodes are not declared"
    yield from _kind("stray", "warning", title, strays, len(resolution.stray), where=("state", "stray"))


def _problems(resolution: Resolution) -> Iterator[Attention]:
    items = (_item(p.where, f"{p.what} ({p.hint})" if p.hint else p.what) for p in resolution.problems)
    title = "problem of the config", "problems of the config"
    yield from _kind("problem", "warning", title, items, len(resolution.problems))
