"""Print the help of a command, or of the program.

for example:
  clan-discovery help
  clan-discovery help refresh
  clan-discovery help --man | man -l -
"""

from __future__ import annotations

from typing import Final

from clan_discovery import __version__
from clan_discovery.cli.command import Args, Command, Parser, Streams
from clan_discovery.errors import Exit


def _add(parser: Parser) -> None:
    parser.add_argument("command", metavar="COMMAND", nargs="?", help="a command; without it, the whole program")
    parser.add_argument("--man", action="store_true", help="print the man page of the program, in roff")


def _run(args: Args, streams: Streams) -> Exit:
    if args.man:
        streams.out.write(_man_page())
    else:
        streams.out.write(_help(args.command))
    return Exit.OK


def _help(name: str | None) -> str:
    """Return the help of a command, or of the program."""
    from clan_discovery.cli.parser import command_parser, load_command, program_parser  # noqa: PLC0415 - it loads this

    if name is None:
        return program_parser().format_help()
    return command_parser(name, load_command(name)).format_help()


def _man_page() -> str:
    from clan_discovery.cli.man import man_page  # noqa: PLC0415 - only for this
    from clan_discovery.cli.words import all_commands, program_words  # noqa: PLC0415 - as above

    return man_page(__version__, program_words(), all_commands())


COMMAND: Final = Command(__doc__, _add, _run)
