"""Find the command, parse its arguments, run it, and convert errors into exit codes."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
from typing import TYPE_CHECKING, Final, NoReturn, TextIO

from clan_discovery.cli.command import Streams
from clan_discovery.cli.parser import command_parser, load_command, program_parser, short_help
from clan_discovery.errors import ClanDiscoveryError, Exit, InputError
from clan_discovery.model import Problem, one_line
from clan_discovery.syntax.secret import hide_in_urls

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str], out: TextIO, err: TextIO) -> int:
    """Run one command line and return its exit code. Only a bug escapes as an exception."""
    streams = Streams(out, err)
    try:
        code = _run(argv, streams)
        with contextlib.suppress(
            BrokenPipeError
        ):  # the reader closed the pipe; the exit code is still that of the command
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
    # Here the stack frames that held the memory are gone.
    streams.log(what)
    return code


_LIMITS: Final = (OSError, ImportError, MemoryError, OverflowError, RecursionError, UnicodeEncodeError)
"""Exceptions that the machine or an input can cause anywhere."""


def _limit(error: BaseException) -> tuple[Exit, str]:
    """Return the exit code and the message for an error that the machine or an input caused."""
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
            return Exit.WRONG_INPUT, f"an input or a path holds text that is not Unicode: {error}"


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
        for line in (
            traceback.format_exc().rstrip("\n").split("\n")
        ):  # the message may contain a name that an untrusted node chose
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
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):  # argparse itself ignores a full disk
            program_parser().parse(before)
            if name is None:
                return _without_command(streams)
            command = load_command(name)
            args = command_parser(name, command).parse([*before, *after])
    except SystemExit:  # --help or --version; whatever is wrong is an InputError
        streams.out.write(printed.getvalue())
        return Exit.OK
    return command.run(args, streams)


def _without_command(streams: Streams) -> Exit:
    """Print the short help as an error: a script that names no command has a mistake."""
    with contextlib.suppress(OSError):
        streams.err.write(short_help())
        streams.err.flush()
    return Exit.WRONG_INPUT


def _split(argv: Sequence[str]) -> tuple[Sequence[str], str | None, Sequence[str]]:
    """Split at the command: the first word that is neither an option nor the value of `--config`."""
    previous = ""
    for index, word in enumerate(argv):
        if not word.startswith("-") and previous not in ("-c", "--config"):
            return argv[:index], word, argv[index + 1 :]
        previous = word
    return argv, None, ()
