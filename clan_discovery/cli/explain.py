"""`explain`: why a machine has these targets, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clan_discovery.cli.common import Streams, add_config
from clan_discovery.cli.look import look
from clan_discovery.emit.explain import explain, names, unknown_machine
from clan_discovery.errors import InputError
from clan_discovery.model import Problem

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
        plan, round_ = look(args, streams)
        lines = explain(args.machine, plan.declared, round_.resolution)
        if lines is None:
            hint = unknown_machine(args.machine, names(plan.declared, round_.resolution))
            what = f"{args.machine!r} is neither declared nor seen"
            raise InputError([Problem(where="", what=what, hint=hint)])
        for line in lines:
            streams.print(line)
        return round_.exit_code


COMMAND = Explain()
