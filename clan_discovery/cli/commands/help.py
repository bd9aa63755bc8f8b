"""Print the help of a command, or of the program.

for example:
  clan-discovery help
  clan-discovery help refresh
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clan_discovery.cli.command import Args, Command, Parser, Streams
from clan_discovery.errors import Exit

if TYPE_CHECKING:
    from clan_discovery.cli.parser import CommandParser


def _add(parser: Parser) -> None:
    parser.add_argument("command", metavar="COMMAND", nargs="?", help="a command; without it, the whole program")


def _run(args: Args, streams: Streams) -> Exit:
    streams.out.write(_parser(args.command).format_help())
    return Exit.OK


def _parser(name: str | None) -> CommandParser:
    """Return the parser of a command, or of the program."""
    from clan_discovery.cli.parser import command_parser, load_command, program_parser  # noqa: PLC0415 - it loads this

    if name is None:
        return program_parser()
    return command_parser(name, load_command(name))


COMMAND: Final = Command(__doc__, _add, _run)
