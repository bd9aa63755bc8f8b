"""Say what needs attention: of the inputs, the backends, the machines, and what `verify` found. Pure."""

from __future__ import annotations

import shlex
from collections import Counter
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
        StateOfMachine,
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


class Tally(msgspec.Struct, frozen=True):
    """What is known of all machines before their rows are made.

    `states` and `verdicts` count the machines that have one. `unreachable` has the indices of machines, by state, and
    `findings` the index of the machine and that of its target for each target that needs attention, by verdict.
    """

    states: Counter[str] = msgspec.field(default_factory=Counter[str])
    verdicts: Counter[str] = msgspec.field(default_factory=Counter[str])
    unreachable: dict[str, list[int]] = msgspec.field(default_factory=dict[str, list[int]])
    findings: dict[Verdict, list[tuple[int, int]]] = msgspec.field(default_factory=dict[Verdict, list[tuple[int, int]]])

    def add(self, index: int, states: Sequence[StateOfMachine], worst: StateOfMachine) -> None:
        """Count a machine; `states` are those of its targets."""
        for state in {worst, *states}:
            self.states[state] += 1
        if worst in _UNREACHABLE:
            self.unreachable.setdefault(worst, []).append(index)

    def add_verdicts(self, index: int, states: Sequence[StateOfMachine], verdicts: Sequence[Verdict | None]) -> None:
        """Count the verdicts on the targets of a machine, and note those that need attention.

        A target that is down because its machine is unreachable is not noted: the machine is listed by itself.
        """
        for number, (state, verdict) in enumerate(zip(states, verdicts, strict=True)):
            if verdict is None or verdict not in _FINDINGS:
                continue
            if verdict is not Verdict.DOWN or state not in _UNREACHABLE:
                self.findings.setdefault(verdict, []).append((index, number))
        for found in set(verdicts) - {None}:
            self.verdicts[str(found)] += 1


def attention(
    report: Report,
    verification: Verification | None,
    tally: Tally,
    machines: Sequence[MachineStatus],
    config: str = "",
) -> tuple[Attention, ...]:
    """Return what needs attention, the worst first; of each kind, the first items and how many there are.

    Only the machines of these items are read. `config` is the path of the config, for the commands that are shown.
    """
    resolution = report.resolution
    strays = suggested_aliases(resolution)
    option = f" --config {shlex.quote(config)}" if config else ""
    return (
        *_inputs(report, option),
        *_backends(resolution, option),
        *_of_machines(tally, machines, strays, option),
        *_verified(verification, tally, machines),
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


def _of_machines(
    tally: Tally, machines: Sequence[MachineStatus], strays: Mapping[str, str], option: str
) -> Iterator[Attention]:
    """Yield the machines that no scrape can reach. `strays` may be such a machine, by machine."""

    def item(index: int) -> Item:
        machine = machines[index]
        fix = _explain(machine.name, option)
        if machine.name in strays:
            fix = alias_line(strays[machine.name], machine.name)
        return _item(machine.name, machine.reason, fix, machine.name)

    for state, title in (
        ("missing", ("machine is missing", "machines are missing")),
        ("refused", ("machine is refused", "machines are refused")),
        ("expired", ("machine has an expired key", "machines have expired keys")),
    ):
        found = tally.unreachable.get(state, ())
        yield from _kind(state, "error", title, map(item, found), len(found), where=("state", state))


def _verified(
    verification: Verification | None, tally: Tally, machines: Sequence[MachineStatus]
) -> Iterator[Attention]:
    """Yield the programs that could not be asked, the findings of `verify`, and ghosts."""
    if verification is None:
        return
    silent = [
        _item(p.name, f"{p.url}: {p.reason}" if p.url else p.reason, p.fix) for p in verification.asked if not p.ok
    ]
    yield from _kind("program", "error", ("program is not ready", "programs are not ready"), silent, len(silent))
    for verdict in WORST_FIRST:
        found = tally.findings.get(verdict)
        if not found:
            continue
        title = f"target is {_FINDINGS[verdict]}", f"targets are {_FINDINGS[verdict]}"
        rows = ((machines[index].name, machines[index].targets[at]) for index, at in found)
        items = map(_finding, _by_cause(rows))
        yield from _kind(verdict, _urgency(verdict), title, items, len(found), where=("verdict", verdict))
    ghosts = (
        _item(f"{g.job}/{g.instance}", f"{g.scraper} at {g.address}: {g.reason}", g.fix) for g in verification.ghosts
    )
    title = "target is not declared", "targets are not declared"
    yield from _kind("ghost", "warning", title, ghosts, len(verification.ghosts))


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


def _urgency(verdict: Verdict) -> Urgency:
    if verdict.is_finding:
        return "error"
    return "warning"


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
