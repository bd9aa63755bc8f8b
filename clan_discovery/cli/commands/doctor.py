"""Check what a refresh cycle depends on, and say how to fix what is wrong.

It checks the clock, the socket and state of tailscaled, keys that expire within 14 days, MagicDNS, each DNS server,
names, the output directory and the state. It changes nothing. The exit code is that of the worst finding: 3 for a
backend, 4 for a held loss, 5 for the output directory. Warnings exit with 0.

for example:
  sudo -u clan-discovery clan-discovery doctor --config /etc/clan-discovery/config.yaml
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from clan_discovery.assemble import make_plan, sockets_of
from clan_discovery.assemble.tags import unused_acl_tags
from clan_discovery.cli.command import Args, Command, Parser, Streams, add_config, config_of
from clan_discovery.cli.cycle import now
from clan_discovery.doctor import Finding, examine
from clan_discovery.emit.json import pretty
from clan_discovery.errors import Exit, first_problems
from clan_discovery.publish.state import State
from clan_discovery.round import run_round

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from clan_discovery.syntax.terminal import Style

_MARKS: Final[dict[str, tuple[str, Style]]] = {
    "ok": ("ok  ", "plain"),
    "warning": ("WARN", "yellow"),
    "error": ("FAIL", "red"),
}


def _add(parser: Parser) -> None:
    add_config(parser)
    help_ = "output format (default: table)"
    parser.add_argument("-f", "--format", choices=("table", "json"), default="table", help=help_)


def _run(args: Args, streams: Streams) -> Exit:
    """Run a refresh cycle without writing, examine everything around it, and print the findings."""
    loaded = config_of(args)
    plan = make_plan(loaded)
    streams.warn(plan.declared.problems)
    round_ = run_round(plan, State(plan.state_directory, read_only=True), now())
    asked = {backend.name for backend in plan.backends}
    uses_tailscale = bool(loaded.config.backends.tailscale) or "tailscale" in asked
    sockets = sockets_of(loaded) if uses_tailscale else ()
    runtime = os.environ.get("RUNTIME_DIRECTORY", "")
    findings = list(examine(plan, round_.resolution, sockets, now(), runtime))
    unused = first_problems(list(unused_acl_tags(loaded, round_.resolution.beliefs)))
    findings += [Finding("warning", problem.where, problem.what, problem.hint or "") for problem in unused]
    if args.format == "json":
        streams.out.write(pretty(findings))
    else:
        streams.print_styled(_table(findings))
    return max((finding.code for finding in findings), default=Exit.OK)


def _table(findings: Iterable[Finding]) -> Iterator[tuple[str, Style]]:
    for finding in findings:
        mark, style = _MARKS[finding.level]
        yield f"{mark}  {finding.about}: {finding.what}", style
        if finding.fix:
            yield f"      to fix: {finding.fix}", style


COMMAND: Final = Command(__doc__, _add, _run)
