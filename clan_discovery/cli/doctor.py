"""`doctor`: the live checks, each with the mend."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from clan_discovery.assemble import make_plan, sockets_of
from clan_discovery.cli.common import RED, YELLOW, Streams, add_config, config_of, now, warn
from clan_discovery.doctor import Finding, examine
from clan_discovery.emit.json import pretty
from clan_discovery.model import one_line
from clan_discovery.publish.state import State
from clan_discovery.round import run_round

if TYPE_CHECKING:
    import argparse

_MARKS = {"ok": "ok", "warning": "WARN", "error": "FAIL"}
_STYLES = {"ok": "", "warning": YELLOW, "error": RED}
_EPILOG = """\
It looks at the clock, tailscaled's socket and state, keys that expire within 14 days, MagicDNS, each DNS server, names,
the output directory and the state. It changes nothing. The exit code is the one that the worst finding is worth: 3 a
backend, 4 a held loss, 5 the output directory; warnings are 0.

example:
  sudo -u clan-discovery clan-discovery doctor --config /etc/clan-discovery/config.yaml
"""


class Doctor:
    """Looks at everything that a round stands on."""

    def add(self, parser: argparse.ArgumentParser, /) -> None:
        """Add the arguments."""
        parser.description = "Check what a round stands on, and say how to mend what is wrong."
        parser.epilog = _EPILOG
        add_config(parser)
        parser.add_argument("-f", "--format", choices=("table", "json"), default="table", help="how (default: table)")

    def run(self, args: argparse.Namespace, streams: Streams, /) -> int:
        """Do a round without writing, look, and print."""
        loaded = config_of(args)
        plan = make_plan(loaded)
        warn(streams, plan.declared.problems)
        round_ = run_round(plan, State(plan.state_directory, read_only=True), now())
        asked = {backend.name for backend in plan.backends}
        sockets = sockets_of(loaded) if loaded.config.backends.tailscale or "tailscale" in asked else ()
        runtime = os.environ.get("RUNTIME_DIRECTORY", "")
        findings = examine(plan, round_.resolution, sockets, now(), runtime)
        if args.format == "json":
            streams.out.write(pretty([asdict(finding) for finding in findings]))
        else:
            for finding in findings:
                for line in _lines(finding):
                    streams.print(line, style=_STYLES[finding.level])
        return max((finding.code for finding in findings), default=0)


def _lines(finding: Finding) -> list[str]:
    lines = [f"{_MARKS[finding.level]:<4}  {finding.about}: {finding.what}"]
    if finding.mend:
        lines.append(f"      mend: {finding.mend}")
    return [one_line(line) for line in lines]


COMMAND = Doctor()
