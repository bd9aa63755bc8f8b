"""The program: finds the command, parses its arguments, runs it, and turns errors into exit codes."""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final, NoReturn, TextIO

from typing_extensions import override

from clan_discovery import __version__
from clan_discovery.cli.command import Streams, add_config
from clan_discovery.errors import ClanDiscoveryError, Exit, InputError
from clan_discovery.model import Problem, one_line
from clan_discovery.syntax.secret import hide_in_urls
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.cli.command import Command

_DESCRIPTION: Final = """\
Write Prometheus target files for the machines that a clan inventory declares.
The inventory decides which targets exist; Tailscale, DNS and static lists decide where they are."""
_EXAMPLE: Final = """\
Each command has its own help: clan-discovery COMMAND --help

for example:
  clan-discovery show --config examples/homelab/config.yaml
"""
COMMANDS: Final = {
    "refresh": "run one refresh cycle and write the target files that changed",
    "run": "run forever: refresh on an interval, and at once when the tailnet changes",
    "show": "print the targets, and what is not a target; nothing is written",
    "explain": "say why a machine has its targets, or none",
    "diff": "print what `refresh` would change, target by target",
    "render": "write the declared targets as files; no network, no state",
    "snapshot": "write the targets to a file to commit, for an evaluation without a network",
    "doctor": "check tailscaled, DNS and the output directory; say how to fix them",
    "check": "check the config and the inventory; no network, nothing written",
    "inventory": "print the clan inventory as JSON, tags resolved and settings merged",
    "machines": "print the machines that the inventory declares targets on; no network",
    "dump": "write what nix evaluates of a clan: inventory, settings, exports",
    "schema": "print a JSON Schema",
}
_MEANINGS: Final = {
    Exit.OK: "ok: published, or nothing to do",
    Exit.FINDINGS: "findings: `diff --exit-code` found a difference",
    Exit.WRONG_INPUT: "the config, the inventory or the command line is wrong",
    Exit.DEGRADED: "degraded: a backend failed; its last good answer is kept, or names are used as addresses",
    Exit.HELD: "held: a large loss of machines waits for `refresh --accept-shrink` or policy.shrink_after",
    Exit.NOT_WRITTEN: "could not write, out of memory, or a bug; the old files are kept",
}


def main(argv: Sequence[str], out: TextIO, err: TextIO) -> int:
    """Run one command line and return its exit code. Only a bug escapes as an exception."""
    streams = Streams(out, err)
    try:
        code = _run(argv, streams)
        with contextlib.suppress(BrokenPipeError):  # the reader has what it wanted; the result keeps its exit code
            out.flush()
    except InputError as error:
        streams.report(error.problems, error.more)
        return error.exit_code
    except ClanDiscoveryError as error:
        streams.log(str(Problem(where="", what=str(error), hint=error.hint)))
        return error.exit_code
    except BrokenPipeError:  # the reader (head, less) closed the pipe, which is not an error
        return Exit.OK
    except _LIMITS as error:
        code, what = _limit(error)
    else:
        return code
    # Only here are the frames gone that held the memory.
    streams.log(what)
    return code


_LIMITS: Final = (OSError, ImportError, MemoryError, OverflowError, RecursionError, UnicodeEncodeError)
"""What the machine or an input can cause anywhere."""


def _limit(error: BaseException) -> tuple[Exit, str]:
    """Return the exit code for an error that the machine or an input causes, and what to say of it."""
    match error:
        case OSError(filename=None):
            return Exit.NOT_WRITTEN, f"cannot write the result: {error.strerror or error}"
        case OSError():
            return Exit.NOT_WRITTEN, f"cannot read or write {error.filename!s}: {error.strerror}"
        case ImportError():  # a library cannot be mapped where memory or file descriptors are limited
            return Exit.NOT_WRITTEN, f"cannot load a part of the program: {error}"
        case MemoryError():
            return Exit.NOT_WRITTEN, "out of memory; the old files are kept"
        case OverflowError():  # the clock is before 1678 or after 2262, which a library asks while it is imported
            return Exit.NOT_WRITTEN, f"a number is out of range: is the system clock right? ({error})"
        case RecursionError():
            return Exit.WRONG_INPUT, "an input is nested too deeply"
        case _:
            return Exit.WRONG_INPUT, f"an input or a path holds text that is no Unicode: {error}"


def entry() -> NoReturn:
    """Run as a program."""
    # One process runs one cycle and needs its memory to the end. The garbage collector would cost a quarter of the
    # time at ten thousand machines.
    gc.disable()
    try:
        code = main(sys.argv[1:], _stream(sys.stdout), _stream(sys.stderr))
    except KeyboardInterrupt:
        code = 130  # as shells report SIGINT
    except Exception:  # noqa: BLE001 - a bug: its report needs the traceback
        code = _report_bug()
    # Everything is flushed, written and synced. Skip the teardown of the interpreter, which only takes time.
    os._exit(code)


def _report_bug() -> int:
    """Print the traceback of a bug, and what to do with it."""
    import traceback  # noqa: PLC0415 - only for a bug

    with contextlib.suppress(OSError):
        err = _stream(sys.stderr)
        for line in traceback.format_exc().rstrip("\n").split("\n"):  # the message may hold what a stranger chose
            err.write(f"{one_line(hide_in_urls(line))}\n")
        err.write("clan-discovery: this is a bug; the old files are kept. Please report it with the lines above.\n")
        err.flush()
    return Exit.NOT_WRITTEN


def _stream(stream: TextIO | None) -> TextIO:
    """Return a stream that accepts any text: UTF-8 in every locale, and /dev/null if it is closed."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - it ends with the process
    wrapped: TextIO = stream
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    return wrapped


def _run(argv: Sequence[str], streams: Streams) -> int:
    """Run the command that the words name, or print the help that they ask for."""
    before, name, after = _split(argv)
    parser = _program_parser()
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):  # argparse itself ignores a full disk
            parser.parse(before)
            if name is None:
                streams.out.write(parser.format_help())
                return Exit.WRONG_INPUT
            command = _load(name)
            description, _, epilog = (command.help or "").partition("\n\n")
            parser = _Parser(f"clan-discovery {name}", description, epilog)
            command.add(parser)
            args = parser.parse([*before, *after])  # a --config before the command is an argument of the command
    except SystemExit:  # --help or --version; whatever is wrong is an InputError
        streams.out.write(printed.getvalue())
        return Exit.OK
    return command.run(args, streams)


def _split(argv: Sequence[str]) -> tuple[Sequence[str], str | None, Sequence[str]]:
    """Split at the command: the first word that is neither an option nor the value of `--config`."""
    previous = ""
    for index, word in enumerate(argv):
        if not word.startswith("-") and previous not in ("-c", "--config"):
            return argv[:index], word, argv[index + 1 :]
        previous = word
    return argv, None, ()


def _load(name: str) -> Command:
    """Import the module of a command, or raise InputError."""
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS) or "see: clan-discovery --help"
        raise InputError([Problem(where="", what=f"there is no command {name!r}", hint=hint)])
    command: Command = import_module(f"clan_discovery.cli.commands.{name}").COMMAND
    return command


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises InputError instead of exiting."""

    def __init__(self, prog: str, description: str, epilog: str, usage: str | None = None) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse words; raise InputError with the nearest option for an unknown one."""
        for word in words:
            if word == "--":
                break
            option = word.partition("=")[0]
            if option.startswith("--") and " " not in option and option not in self._option_string_actions:
                self.error(f"there is no option {option}", did_you_mean(option, self._option_string_actions))
        return self.parse_args(words)

    @override
    def error(self, message: str, hint: str | None = None) -> NoReturn:
        see = f"see: {self.prog} --help"
        raise InputError([Problem(where="", what=message, hint=f"{hint} {see}" if hint else see)])


def _program_parser() -> _Parser:
    """Return the parser of the words before the command."""
    # The list of commands is text: a parser for each command would cost several milliseconds at every start.
    commands = "\n".join(f"  {name:<10}  {help_}" for name, help_ in COMMANDS.items())
    exit_codes = "\n".join(f"  {code:d}  {_MEANINGS[code]}" for code in Exit)
    parser = _Parser(
        "clan-discovery",
        f"{_DESCRIPTION}\n\ncommands:\n{commands}",
        f"exit codes:\n{exit_codes}\n\n{_EXAMPLE}",
        usage="%(prog)s [-h] [--version] [-c FILE] COMMAND ...",
    )
    version = f"%(prog)s {__version__}"
    parser.add_argument("--version", action="version", version=version, help="print the version and exit")
    add_config(parser)
    return parser
