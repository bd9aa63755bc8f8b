"""Say why a machine has its targets, or none.

For each target, print the rule that asks for it and where its address comes from.

for example:
  clan-discovery explain laptop --config config.yaml
"""

from __future__ import annotations

from typing import Final

from clan_discovery.cli.command import Args, Command, Parser, Streams, add_config, config_of
from clan_discovery.cli.cycle import dry_run
from clan_discovery.emit.explain import explain, unknown_machine
from clan_discovery.errors import Exit, InputError
from clan_discovery.model import Problem


def _add(parser: Parser) -> None:
    add_config(parser)
    parser.add_argument("machine", metavar="MACHINE", help="a machine of the inventory or of the network")


def _run(args: Args, streams: Streams) -> Exit:
    plan, round_ = dry_run(config_of(args), streams)
    lines = explain(args.machine, plan.declared, round_.resolution)
    if lines is None:
        hint = unknown_machine(args.machine, plan.declared, round_.resolution)
        what = f"{args.machine!r} is neither declared nor seen"
        raise InputError([Problem(where="", what=what, hint=hint)])
    for line in lines:
        streams.print(line)
    return round_.exit_code


COMMAND: Final = Command(__doc__, _add, _run)
