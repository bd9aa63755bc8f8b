"""Write a checklist for each component in use. Pure. All boxes are empty: a person ticks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clan_discovery.gates.components import of_component
from clan_discovery.gates.evidence import PREFIX, EvidenceError, read_evidence
from clan_discovery.model import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clan_discovery.gates.components import ComponentName, ProgramInUse

_TITLES: Final[dict[ComponentName, str]] = {
    "metrics": "Metrics",
    "dashboards": "Dashboards",
    "alerting": "Alerting",
    "logs": "Logs",
    "agents": "Agents",
}
_LEFT_OUT: Final = 20
"""After so many agents, the rest share one item."""


def proposals(programs: Sequence[ProgramInUse], *, has_clan: bool) -> dict[str, str]:
    """Return the text of each checklist by its file name, in the order in which they are worked through."""
    return {
        f"{number}-{name}.md": "".join(f"{line}\n" for line in _checklist(name, own, has_clan=has_clan))
        for number, (name, own) in enumerate(of_component(programs), 1)
    }


def _checklist(name: ComponentName, programs: Sequence[ProgramInUse], *, has_clan: bool) -> Iterator[str]:
    yield f"# {_TITLES[name]}"
    yield ""
    yield "Look yourself, then tick: `[x]`. No program ticks a box. To compare the boxes with what is found:"
    yield "`clan-discovery gates FILE`; before the next step, `clan-discovery gates --require FILE`."
    for program in programs[:_LEFT_OUT]:
        where = f" on {_plain(program.machine)}" if program.machine else ""
        yield ""
        yield f"## {program.program.capitalize()}{where}"
        yield ""
        yield from _health(program)
        yield from _operation(program, has_clan=has_clan)
    if len(programs) > _LEFT_OUT:
        yield ""
        yield f"- [ ] The same holds for {len(programs) - _LEFT_OUT} more machines: {_gate('verify')}"
    yield ""
    yield "## Together"
    yield ""
    yield from _together(name)


def _health(program: ProgramInUse) -> Iterator[str]:
    """Yield the items that say whether the program runs."""
    if program.component == "agents":
        yield f"- [ ] Its targets are in the store: {_gate('verify', program.machine)}"
    elif program.url:
        yield f"- [ ] It is ready: {_gate('http', program.url)}"
    if program.is_here and program.units:
        yield from (f"- [ ] Its unit is active: {_gate('unit', unit)}" for unit in program.units)
    elif program.units:
        command = f"systemctl is-active {' '.join(program.units)}"
        yield f"- [ ] Its unit is active: on {_plain(program.machine)}, `{_plain(command)}`"
    elif program.compose:
        yield f"- [ ] Its container runs: on {_plain(program.machine)}, `docker compose ps {_plain(program.compose)}`"


def _operation(program: ProgramInUse, *, has_clan: bool) -> Iterator[str]:
    """Yield the items for a bad day: the log, and the way back."""
    machine = _plain(program.machine)
    if program.compose:
        service = _plain(program.compose)
        yield f"- [ ] Its log shows no error: on {machine}, `docker compose logs --tail 50 {service}`"
        yield (
            f"- [ ] The way back was tried: on {machine}, check out the compose file of before, then "
            f"`docker compose up -d {service}`"
        )
    elif program.units:
        units = " ".join(f"-u {_plain(unit)}" for unit in program.units)
        yield f"- [ ] Its log shows no error: on {machine}, `journalctl {units} -n 50 --no-pager`"
        if has_clan and program.role:
            yield (
                f"- [ ] The way back was tried: take {machine} out of the role `{program.role}`, then "
                f"`clan machines update {machine}`"
            )
        else:
            yield f"- [ ] The way back was tried: on {machine}, `nixos-rebuild switch --rollback`"
    else:
        yield "- [ ] You know where its log is, and it shows no error"
        yield "- [ ] The way back was tried: the version of before runs again"


def _together(name: ComponentName) -> Iterator[str]:
    """Yield the items about the whole component."""
    match name:
        case "metrics":
            yield f"- [ ] Every expected target is scraped: {_gate('verify')}"
            yield f"- [ ] No port with metrics is open to others: {_gate('unpublished')}"
            yield "- [ ] The data is on a disk that is large enough for the retention, and is in the backup"
        case "dashboards":
            yield "- [ ] You can log in, and others cannot: try it in a private window"
            yield "- [ ] Each board shows rows for a machine that you know"
        case "alerting":
            yield f"- [ ] The rules are loaded: {_gate('rule', 'TargetDown')}, {_gate('rule', 'Watchdog')}"
            yield "- [ ] Stop an exporter: one message arrives, names the machine, and another says that it is over"
            yield "- [ ] The dead man's switch reports when Alertmanager is stopped"
        case "logs":
            yield "- [ ] A line of `logger gate-test` on another machine is found within a minute"
            yield "- [ ] The data is on a disk that is large enough for the retention"
        case "agents":
            yield "- [ ] Unplug an agent for 10 minutes: its samples and log lines of that time arrive later"
            yield "- [ ] A wrong token is refused: `clan-discovery token list` names no agent twice"


def _gate(*words: str) -> str:
    """Write evidence as a code span; words that evidence cannot hold are left out."""
    span = f"{PREFIX} {' '.join(words)}"
    try:
        if "`" not in span and read_evidence(span).text == " ".join(words):
            return f"`{span}`"
    except EvidenceError:
        pass
    return "look yourself"


def _plain(text: str) -> str:
    """Write a name so that it is only text in Markdown."""
    return one_line(text).replace("`", "'").replace("\\", "/").replace("[", "(").replace("]", ")")
