"""`explain`: why a machine has these targets, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clan_discovery.assemble import make_plan
from clan_discovery.cli.common import Streams, add_config, config_of, now, tell
from clan_discovery.emit.explain import explain, names, unknown_machine
from clan_discovery.errors import InputError
from clan_discovery.model import Problem
from clan_discovery.round import run_round
from clan_discovery.state import State

if TYPE_CHECKING:
    import argparse

_EPILOG = """\
example:
  clan-discovery explain laptop --config config.yaml
"""


class Explain:
    """Prints what the resolution says of one machine."""

    def add(self, parser: argparse.ArgumentParser, /) -> None:
        """Add the arguments."""
        parser.description = (
            "Say which rule asks for a machine's targets, where their addresses come from, or why none."
        )
        parser.epilog = _EPILOG
        add_config(parser)
        parser.add_argument("machine", metavar="MACHINE", help="a machine of the inventory or of the network")

    def run(self, args: argparse.Namespace, streams: Streams, /) -> int:
        """Do a round and print one machine of it."""
        plan = make_plan(config_of(args))
        round_ = run_round(plan, State(plan.state_directory, read_only=True), now())
        tell(streams, round_.resolution.beliefs)
        lines = explain(args.machine, plan.declared, round_.resolution)
        if lines is None:
            hint = unknown_machine(args.machine, names(plan.declared, round_.resolution))
            what = f"{args.machine!r} is neither declared nor seen"
            raise InputError([Problem(where="", what=what, hint=hint)])
        for line in lines:
            streams.print(line)
        return round_.exit_code


COMMAND = Explain()
