"""What a command is: its help, its arguments, what it does, and where it prints."""

from __future__ import annotations

import argparse
import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO, TypeAlias

from clan_discovery.model import one_line
from clan_discovery.syntax.counting import and_more
from clan_discovery.syntax.terminal import styled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from clan_discovery.errors import Exit
    from clan_discovery.model import Exclusion, Problem
    from clan_discovery.syntax.terminal import Style

Parser: TypeAlias = argparse.ArgumentParser
Args: TypeAlias = argparse.Namespace

_EXCLUSIONS_MOST = 20


@dataclass(frozen=True, slots=True)
class Streams:
    """Where results go (`out`), and where everything else goes (`err`)."""

    out: TextIO
    err: TextIO

    def print(self, text: str) -> None:
        """Print a line of the result."""
        self.out.write(f"{text}\n")

    def print_styled(self, lines: Iterable[tuple[str, Style]]) -> None:
        """Print lines, each with its style, until they end or the reader (head, less) goes away."""
        coloured = self._coloured()
        with contextlib.suppress(BrokenPipeError):
            for text, style in lines:
                self.print(styled(text, style) if coloured else text)
            self.out.flush()

    def _coloured(self) -> bool:
        """Return whether to print colour. NO_COLOR counts if it is set and not empty (no-color.org)."""
        if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
            return False
        return self.out.isatty()

    def log(self, text: str) -> None:
        """Print a line that is not part of the result. A full or closed stderr changes no exit code."""
        with contextlib.suppress(OSError):
            self.err.write(f"clan-discovery: {text}\n")
            self.err.flush()

    def report(self, problems: Iterable[Problem]) -> None:
        """Print problems of the inventory or the config, one line each. Warnings are marked as such."""
        for problem in problems:
            self.log(f"warning: {problem}" if problem.severity == "warning" else str(problem))

    def warn(self, problems: Iterable[Problem]) -> None:
        """Print problems that do not stop this command."""
        for problem in problems:
            self.log(f"warning: {problem}")

    def report_exclusions(self, excluded: Sequence[Exclusion], *, level: str, command: str) -> None:
        """Print the first exclusions with their reasons; `command` is the one that prints all of them."""
        for exclusion in excluded[:_EXCLUSIONS_MOST]:
            job = f" ({exclusion.job})" if exclusion.job else ""
            self.log(one_line(f"{level}: {exclusion.name}{job}: {exclusion.reason}: {exclusion.detail}"))
        if more := and_more(len(excluded), _EXCLUSIONS_MOST):
            self.log(f"{level}: {more}: see clan-discovery {command}")


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its help, its arguments, and what it does.

    `help` is the docstring of its module (None with `python -OO`): the first paragraph comes before the list of
    arguments, the rest after it.
    `main.COMMANDS` has the name and the line in the list of commands, so that the list needs no import.
    """

    help: str | None
    add: Callable[[Parser], None]
    run: Callable[[Args, Streams], Exit]
