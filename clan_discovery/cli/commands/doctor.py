"""Check what a refresh cycle depends on, and say how to fix what is wrong.

It asks each backend once and checks the clock, tailscaled, keys that expire within 14 days, MagicDNS, each DNS server,
names, the output directory, the file of the reverse proxy, the store that agents write to, and the state. A failed
backend is reported with its effect on the targets. It changes nothing. With --live it also connects to the targets and
gets their metrics: 2 s for each, 30 s in all.

`verify` asks the running scrapers whether they scrape the targets.

The exit code is that of the worst finding: 1 for a target that does not answer (--live), a name that several nodes
claim or a store that agents can deceive, 3 for a backend, 4 for a held loss, 5 for the output directory. Warnings exit
with 0.

for example:
  sudo -u clan-discovery clan-discovery doctor --config /etc/clan-discovery/config.yaml
  clan-discovery doctor --live db web
"""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING, Final

from clan_discovery.assemble import make_plan
from clan_discovery.assemble.tags import unused_acl_tags
from clan_discovery.cli.command import Args, Command, Parser, Streams, add_config, config_of
from clan_discovery.cli.cycle import now
from clan_discovery.cli.progress import flake_of, progress
from clan_discovery.doctor.examine import examine, recording
from clan_discovery.doctor.finding import Finding
from clan_discovery.emit.json import pretty
from clan_discovery.errors import Exit, InputError, first_problems
from clan_discovery.model import Problem, one_line
from clan_discovery.publish.state import State
from clan_discovery.round import run_round
from clan_discovery.syntax.counting import plural
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from clan_discovery.model import Target
    from clan_discovery.syntax.terminal import Style

_MARKS: Final[dict[str, tuple[str, Style]]] = {
    "ok": ("ok  ", "plain"),
    "warning": ("WARN", "yellow"),
    "error": ("FAIL", "red"),
}
_INDENT: Final = " " * 6


def _add(parser: Parser) -> None:
    add_config(parser)
    help_ = "also probe whether the ports of the targets answer with metrics; of these machines, or of all"
    parser.add_argument("--live", metavar="MACHINE", nargs="*", help=help_)
    help_ = "output format (default: table)"
    parser.add_argument("-f", "--format", choices=("table", "json"), default="table", help=help_)


def _run(args: Args, streams: Streams) -> Exit:
    """Run a refresh cycle without writing, examine everything around it, and print the findings."""
    loaded = config_of(args)
    responses: dict[Path, bytes] = {}
    with progress(streams.err) as waits:
        with waits.evaluating(flake_of(loaded)):
            plan = recording(make_plan(loaded), responses)
        waits.asking(plan.backends)
        round_ = run_round(plan, State(plan.state_directory, read_only=True), now(), answered=waits.end)
    streams.warn(plan.declared.problems)
    targets = round_.resolution.targets
    if args.live:
        targets = _of_machines(args.live, targets, plan.declared.agents)
    runtime = os.environ.get("RUNTIME_DIRECTORY", "")
    findings = list(examine(plan, round_.resolution, responses, now(), runtime))
    if args.live is not None:
        findings += _live(targets, streams)
    unused = first_problems(list(unused_acl_tags(loaded, round_.resolution.beliefs)))
    findings += [Finding("warning", problem.where, problem.what, problem.hint or "") for problem in unused]
    if args.format == "json":
        streams.out.write(pretty(findings))
    else:
        streams.print_styled(_table(findings, streams.width()))
    return max((finding.code for finding in findings), default=Exit.OK)


def _of_machines(machines: Sequence[str], targets: Sequence[Target], agents: Sequence[str]) -> tuple[Target, ...]:
    """Return the targets of these machines, or raise InputError for a machine without one.

    The exporters of `agents` are not reached over the network.
    """
    known = {target.machine for target in targets}
    problems = [
        Problem(where="", what=f"machine {machine!r} has no target", hint=_no_target_hint(machine, known, agents))
        for machine in machines
        if machine not in known
    ]
    if problems:
        raise InputError(problems)
    return tuple(target for target in targets if target.machine in machines)


def _no_target_hint(machine: str, known: Iterable[str], agents: Sequence[str]) -> str:
    if machine in agents:
        return "it is an agent, which scrapes itself: clan-discovery verify"
    return did_you_mean(machine, known) or f"see: clan-discovery explain {machine}"


def _live(targets: Sequence[Target], streams: Streams) -> Iterator[Finding]:
    """Probe the targets and report what was found."""
    from clan_discovery.doctor.live import WHOLE_S, live_findings, probe_all  # noqa: PLC0415 - ssl, only for --live

    with progress(streams.err) as waits, waits.during(f"probing {plural(len(targets), 'target')}", WHOLE_S):
        found = probe_all(targets)
    return live_findings(targets, found)


def _table(findings: Iterable[Finding], width: int | None) -> Iterator[tuple[str, Style]]:
    for finding in findings:
        mark, style = _MARKS[finding.level]
        for line in _wrapped(f"{mark}  {finding.about}: {finding.what}", width):
            yield line, style
        if finding.fix:
            for line in _wrapped(f"      to fix: {finding.fix}", width):
                yield line, style
    yield "to check the running scrapers: clan-discovery verify", "dim"


def _wrapped(text: str, width: int | None) -> Sequence[str]:
    """Break a line at spaces; words that are longer (paths) stay whole. Without a width it is one line."""
    if width is None or len(text) <= width:
        return [text]
    return textwrap.wrap(
        one_line(text), width, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False
    )


COMMAND: Final = Command(__doc__, _add, _run)
