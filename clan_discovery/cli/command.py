"""The parts that commands share: output streams, common arguments, and reading of config and inventory."""

from __future__ import annotations

import argparse
import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeAlias

import msgspec

from clan_discovery.cli.config_file import default_config
from clan_discovery.errors import first_problems, refuse
from clan_discovery.model import Problem, one_line
from clan_discovery.syntax.counting import and_more, first_names
from clan_discovery.syntax.terminal import styled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.errors import Exit
    from clan_discovery.model import Declared, Exclusion
    from clan_discovery.syntax.terminal import Style

Parser: TypeAlias = argparse.ArgumentParser
Args: TypeAlias = argparse.Namespace

_EXCLUSIONS_MOST = 20
_WIDTH = 80


class Streams(msgspec.Struct, frozen=True):
    """The streams for results (`out`) and for everything else (`err`).

    Each line is made safe for a terminal here: names in it come from untrusted nodes.
    """

    out: TextIO
    err: TextIO

    def print(self, text: str, style: Style = "plain") -> None:
        """Print a line of the result."""
        self.out.write(f"{styled(one_line(text), style)}\n")

    def print_styled(self, lines: Iterable[tuple[str, Style]]) -> None:
        """Print lines, each with its style, until they end or the reader (head, less) closes the pipe."""
        coloured = self._coloured()
        with contextlib.suppress(BrokenPipeError):
            for text, style in lines:
                self.print(text, style if coloured else "plain")
            self.out.flush()

    def _coloured(self) -> bool:
        """Return whether to print colour. NO_COLOR counts if it is set and not empty (no-color.org)."""
        if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
            return False
        return self.out.isatty()

    def width(self) -> int | None:
        """Return how many columns the terminal has; None where the result goes to a pipe or a file."""
        if not self.out.isatty():
            return None
        columns = os.environ.get("COLUMNS", "")
        if columns.isdecimal() and int(columns) > 0:
            return int(columns)
        try:
            return os.get_terminal_size(self.out.fileno()).columns or _WIDTH
        except (OSError, ValueError):  # a stream without a file
            return _WIDTH

    def log(self, text: str) -> None:
        """Print a line that is not part of the result. A full or closed stderr changes no exit code."""
        with contextlib.suppress(OSError):
            self.err.write(f"clan-discovery: {one_line(text)}\n")
            self.err.flush()

    def report(self, problems: Sequence[Problem], more: int = 0) -> None:
        """Print the first problems of the inventory or the config, one line each. Warnings are marked as such.

        `more` counts those that are not in `problems`.
        """
        for problem in first_problems(problems, more):
            self.log(f"warning: {problem}" if problem.severity == "warning" else str(problem))

    def warn(self, problems: Sequence[Problem]) -> None:
        """Print the first problems that do not stop this command."""
        for problem in first_problems(problems):
            self.log(f"warning: {problem}")

    def warn_of_closed(self, inputs: Sequence[Path], result: Path | None = None) -> None:
        """Warn that the result is made from files that other users may not read.

        `result` is the file that this program has closed to them; without it, the result goes to stdout, which is
        only a risk where a shell has made it a file that others can read.
        """
        if not inputs:
            return
        from_ = f"{first_names([str(file) for file in inputs], 2)}, which other users may not read"
        if result is not None:
            what = f"is closed to other users (mode 0600): it is made from {from_}"
            self.warn([Problem(where=str(result), what=what, hint="it may hold secrets: look before you commit it")])
        elif self._out_is_public():
            what = f"the output goes to a file that other users can read, and is made from {from_}"
            self.warn([Problem(where="", what=what, hint="set `umask 077` before, or close the file")])

    def _out_is_public(self) -> bool:
        try:
            mode = os.fstat(self.out.fileno()).st_mode
        except (OSError, ValueError):  # a stream without a file
            return False
        return stat.S_ISREG(mode) and bool(mode & stat.S_IROTH)

    def report_exclusions(self, excluded: Sequence[Exclusion], *, level: str, command: str) -> None:
        """Print the first exclusions with their reasons; `command` is the one that prints all of them."""
        for exclusion in excluded[:_EXCLUSIONS_MOST]:
            job = f" ({exclusion.job})" if exclusion.job else ""
            self.log(f"{level}: {exclusion.name}{job}: {exclusion.reason}: {exclusion.detail}")
        if more := and_more(len(excluded), _EXCLUSIONS_MOST):
            self.log(f"{level}: {more}: see clan-discovery {command}")


class Command(msgspec.Struct, frozen=True):
    """A command: its help, its arguments, and what it does.

    `help` is the docstring of its module (None with `python -OO`): the first paragraph comes before the list of
    arguments, the rest after it. `parser.COMMANDS` has its name, so that the list of commands needs no import.
    """

    help: str | None
    add: Callable[[Parser], None]
    run: Callable[[Args, Streams], Exit]


def add_config(parser: Parser) -> None:
    """Add `--config`."""
    help_ = "config file (defaults: see `clan-discovery help`)"
    parser.add_argument("-c", "--config", metavar="FILE", type=Path, help=help_)


def config_file_of(args: Args) -> Path:
    """Return the config file that is named, or the default one.

    Raises:
        InputError: none is named, and there is no default one.
    """
    if args.config is not None:
        return Path(args.config)
    return default_config()


def config_of(args: Args) -> LoadedConfig:
    """Load the config; raise InputError if none is named, or it is wrong."""
    from clan_discovery.config.load import load_config  # noqa: PLC0415 - pydantic is a third of the start-up time

    return load_config(config_file_of(args))


def add_inventory(parser: Parser) -> None:
    """Add `--flake`, `--file`, `--settings` and `--config`."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--flake", metavar="REF", help="evaluate the clan inventory of this flake with nix")
    source.add_argument("--file", metavar="FILE", type=Path, help="read the clan inventory from this JSON file")
    help_ = "merged settings from `dump`; they replace the settings of the inventory"
    parser.add_argument("--settings", metavar="FILE", type=Path, help=help_)
    add_config(parser)


def inventory_config_of(args: Args) -> LoadedConfig | None:
    """Load the config that an inventory is read with; None where there is none, or raise InputError.

    With --file or --flake a config is optional, and default configs do not count.
    """
    if args.config is not None or (args.file is None and args.flake is None):
        return config_of(args)
    return None


def declared_of(args: Args, loaded: LoadedConfig | None) -> Declared:
    """Read the inventory that the arguments name, or the sources of the config, or raise InputError."""
    from clan_discovery.assemble import source  # noqa: PLC0415 - the parsers are imported only where they are used
    from clan_discovery.assemble.sources import read_declared  # noqa: PLC0415
    from clan_discovery.inventory.clan.declare import Options, declare  # noqa: PLC0415

    reference = args.flake or args.file
    if reference is None:
        loaded = loaded or config_of(args)
        if loaded.config.inventory is None:
            refuse(str(loaded.file), "the config has no `inventory`")
        return read_declared(loaded, settings=args.settings)
    options = Options()
    if loaded is not None:
        options = source.options_of(loaded)
    if args.settings is not None:
        options = source.with_dump(options, args.settings)
    return declare(source.inventory_at(reference), options)


def closed_inputs_of(args: Args, loaded: LoadedConfig | None) -> Sequence[Path]:
    """Return the input files of `inventory` that other users may not read."""
    from clan_discovery.assemble import source  # noqa: PLC0415 - see declared_of
    from clan_discovery.reading import is_closed  # noqa: PLC0415

    named = [file for file in (args.file, args.settings) if file is not None and is_closed(file)]
    if loaded is not None:
        named += source.closed_inputs(loaded)
    return named


def directory(text: str) -> Path:
    """Parse a directory. An empty word is a shell variable that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("expected a directory, got an empty string")
    return Path(text)


def interval(text: str, least: str = "1s") -> float:
    """Parse the time between two refresh cycles or checks, in seconds."""
    from clan_discovery.syntax.duration import duration  # noqa: PLC0415 - most commands have no interval

    try:
        return duration(text, least=least, most="1d")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def metrics_file(text: str) -> Path:
    """Parse the name of a metrics file. An existing file is overwritten, so only `.prom` files are accepted."""
    file = Path(text).absolute()
    if file.suffix != ".prom":
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .prom, as the textfile collector requires")
    if os.path.lexists(file) and (file.is_symlink() or not file.is_file()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular file")
    return file
