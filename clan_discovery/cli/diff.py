"""`diff`: what a refresh would change."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from clan_discovery.cli.common import BOLD, CYAN, GREEN, RED, Streams, add_config
from clan_discovery.cli.look import look
from clan_discovery.emit.diff import diff
from clan_discovery.errors import PublishError
from clan_discovery.publish.files import read_jobs
from clan_discovery.syntax.target_file import parse_target_file

if TYPE_CHECKING:
    import argparse

_EPILOG = """\
A target that would go has a minus, one that would come a plus; beneath one that stays are the labels that differ.
With --exit-code the exit code is 1 where something would change; a failure's own code goes before.

example:
  clan-discovery diff --config config.yaml --exit-code || echo "refresh would change something"
"""


class Diff:
    """One round without writing, against the files that stand."""

    def add(self, parser: argparse.ArgumentParser, /) -> None:
        """Add the arguments."""
        parser.description = "Say what `refresh` would change, target by target; nothing is written."
        parser.epilog = _EPILOG
        add_config(parser)
        parser.add_argument("--exit-code", action="store_true", help="exit with 1 where something would change")

    def run(self, args: argparse.Namespace, streams: Streams, /) -> int:
        """Do the round and compare."""
        plan, round_ = look(args, streams)
        if plan.directory.is_dir() and not os.access(plan.directory, os.R_OK | os.X_OK):
            raise PublishError(f"cannot read the output directory {plan.directory}", hint="run as the unit's user")
        wanted: dict[str, list[tuple[str, dict[str, str]]]] = {job: [] for job in round_.resolution.jobs}
        for target in round_.resolution.targets:
            wanted.setdefault(target.job, []).append((target.address, dict(target.labels)))
        present = {job: parse_target_file(body) or [] for job, body in read_jobs(plan.directory).items()}
        lines = diff(present, wanted)
        streams.print_all((line, style_of(line)) for line in lines)
        return round_.exit_code or int(bool(lines) and args.exit_code)


def style_of(line: str) -> str:
    """Return the style of a line of a diff."""
    if line.startswith(("--- ", "+++ ")):
        return BOLD
    return {"-": RED, "+": GREEN, "@": CYAN}.get(line[:1], "")


COMMAND = Diff()
