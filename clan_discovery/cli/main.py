"""Parses the command line, runs a command, and turns errors into lines and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final, NoReturn, TextIO

from typing_extensions import override

from clan_discovery import __version__
from clan_discovery.cli.common import Streams, warn
from clan_discovery.errors import BackendError, ClanDiscoveryError, InputError, PublishError
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.cli.common import Command

COMMANDS: Final = {
    "refresh": "one round: publish what changed",
    "run": "rounds for ever: on an interval, and at once when the tailnet changes",
    "show": "one round without writing: the targets, and what is none",
    "explain": "why a machine has these targets, or none",
    "diff": "what `refresh` would change, target by target",
    "render": "the declared targets as files; no network, no state",
    "snapshot": "the targets as a file to commit, for an evaluation without a network",
    "doctor": "the live checks: socket, daemon, output directory, each with the mend",
    "check": "config and inventory only; no network, nothing written",
    "inventory": "the clan inventory, normalised, as JSON",
    "machines": "which machines would be scraped, by the inventory alone; no network",
    "dump": "what nix says of a clan, as files: inventory, settings, exports",
    "schema": "print a JSON Schema",
}
_EPILOG: Final = """\
exit codes:
  0  published, or nothing to do
  2  the config, the inventory or the command line is wrong
  3  degraded: a backend failed; its last good answer was kept, or machines stand at their names
  4  held: a backend lost so many machines that it waits for `refresh --accept-shrink` or policy.shrink_after
  5  could not write; the old files stand

example:
  clan-discovery show --config examples/homelab/config.yaml
"""


def main(argv: Sequence[str], out: TextIO, err: TextIO) -> int:
    """Run one command line; return its exit code. Nothing but a bug escapes."""
    streams = Streams(out, err)
    try:
        args = _parse(argv, streams)
        code = args if isinstance(args, int) else _load(args.command).run(args, streams)
        with contextlib.suppress(BrokenPipeError):  # the reader has what it wanted; the code is what was found
            out.flush()
    except InputError as error:
        for problem in error.problems:
            streams.say(f"warning: {problem}" if problem.severity == "warning" else str(problem))
        return 2
    except ClanDiscoveryError as error:
        hint = f" ({error.hint})" if error.hint else ""
        streams.say(f"{error}{hint}")
        return 5 if isinstance(error, PublishError) else 3 if isinstance(error, BackendError) else 2
    except BrokenPipeError:  # the reader went away (head, less): nothing is wrong
        return 0
    except OSError as error:
        streams.say(f"cannot write the result: {error.strerror}")
        return 5
    else:
        return code


def entry() -> NoReturn:
    """Run as a program."""
    # One process is one round: what it allocates is needed to its end, and looking for garbage costs a quarter of
    # the time at ten thousand machines.
    gc.disable()
    try:
        code = main(sys.argv[1:], _stream(sys.stdout), _stream(sys.stderr))
    except KeyboardInterrupt:
        code = 130
    # Everything is flushed, written and synced: what is left of the interpreter's end is time.
    os._exit(code)


def _stream(stream: TextIO | None) -> TextIO:
    """Make a stream that takes every text: UTF-8 whatever the locale, and nowhere where it is closed."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - it ends with the process
    with contextlib.suppress(AttributeError):  # a stand-in that takes every text as it is
        getattr(stream, "reconfigure")(encoding="utf-8", errors="backslashreplace")  # noqa: B009 - TextIO has none
    return stream


def _load(name: str) -> Command:
    command: Command = import_module(f"clan_discovery.cli.{name}").COMMAND
    return command


class _Exit(Exception):  # noqa: N818 - no error: argparse is done
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Parser(argparse.ArgumentParser):
    """An argument parser that neither exits nor prints where it is not told to."""

    streams: Streams

    @override
    def error(self, message: str) -> NoReturn:
        if "invalid choice" in message and (wrong := _wrong_choice(message)):
            hint = did_you_mean(wrong, COMMANDS)
            message = f"there is no command {wrong!r}" + (f" ({hint})" if hint else "")
        self.streams.say(f"{message}; see: {self.prog} --help")
        raise _Exit(2)

    @override
    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        if message:
            self.streams.err.write(message)
        raise _Exit(status)

    @override
    def print_help(self, file: object = None) -> None:
        self.streams.out.write(self.format_help())


def _wrong_choice(message: str) -> str | None:
    return message.split("'")[1] if message.startswith("argument COMMAND") and message.count("'") > 1 else None


def _parse(argv: Sequence[str], streams: Streams) -> argparse.Namespace | int:
    """Parse; only the command that is named is imported."""
    _Parser.streams = streams
    parser = _Parser(
        prog="clan-discovery",
        description="The clan inventory is the list, the network is the address book: "
        "writes Prometheus target files for the machines that a clan declares.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    named = next((word for word in argv if not word.startswith("-")), None)
    for name, help_ in COMMANDS.items():
        sub = commands.add_parser(
            name, help=help_, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if name == named:
            _load(name).add(sub)
    try:
        args = parser.parse_args(argv)
    except _Exit as done:
        return done.code
    if args.version:
        streams.print(f"clan-discovery {__version__}")
        return 0
    if args.command is None:
        streams.out.write(parser.format_help())
        return 2
    return args


__all__ = ["COMMANDS", "entry", "main", "warn"]
