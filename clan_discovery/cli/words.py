"""Describe commands, options and operands from the parsers, for completion scripts and the man page."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from clan_discovery.cli.parser import COMMANDS, command_parser, load_command, program_parser

if TYPE_CHECKING:
    from clan_discovery.cli.parser import CommandParser

Kind: TypeAlias = Literal["choices", "file", "directory", "machines", "jobs", "names", "other"]
_KINDS: Final[dict[str, Kind]] = {
    "FILE": "file",
    "FILE.nix": "file",
    "DIR": "directory",
    "REF": "directory",
    "MACHINE": "machines",
    "WHAT": "names",
    "JOB": "jobs",
    "COMMAND": "choices",
}
"""What completes a value, by its name in the help. A flake reference is mostly a directory."""


class Value(msgspec.Struct, frozen=True):
    """The value of an option or an operand: its name in the help, and what completes it."""

    name: str
    kind: Kind
    choices: tuple[str, ...] = ()


class Word(msgspec.Struct, frozen=True):
    """An option, or an operand (without `names`). An option without `value` is a flag."""

    names: tuple[str, ...]
    value: Value | None
    help: str
    repeats: bool = False

    @property
    def summary(self) -> str:
        """The first part of the help, for a list of options."""
        return re.split(r"[;(]", self.help, maxsplit=1)[0].strip()


class CommandWords(msgspec.Struct, frozen=True):
    """A command with its summary, its full help and its words. The program itself has the name ``."""

    name: str
    summary: str
    usage: str
    description: str
    epilog: str
    words: tuple[Word, ...]

    @property
    def options(self) -> list[Word]:
        """The options, in the order of the help."""
        return [word for word in self.words if word.names]

    @property
    def operands(self) -> list[Word]:
        """The operands, in their order."""
        return [word for word in self.words if not word.names]


def program_words() -> CommandWords:
    """Return the options that may be written before the command."""
    return _command_words("", "", program_parser())


def all_commands() -> list[CommandWords]:
    """Return every command, in the order of the help."""
    return [
        _command_words(name, summary, command_parser(name, load_command(name))) for name, summary in COMMANDS.items()
    ]


def _command_words(name: str, summary: str, parser: CommandParser) -> CommandWords:
    return CommandWords(
        name,
        summary,
        parser.format_usage().removeprefix("usage: ").strip(),
        parser.description or "",
        parser.epilog or "",
        tuple(_word(action) for action in parser.arguments if action.help != argparse.SUPPRESS),
    )


def _word(action: argparse.Action) -> Word:
    names = tuple(action.option_strings)
    repeats = action.nargs in ("*", "+") or type(action).__name__ == "_AppendAction"
    value = None
    if action.nargs != 0:
        value = _value(action)
    return Word(names, value, action.help or "", repeats)


def _value(action: argparse.Action) -> Value:
    choices = tuple(str(choice) for choice in action.choices or ())
    name = action.metavar
    if not isinstance(name, str):
        name = action.dest.upper()
    if choices:
        return Value(name, "choices", choices)
    kind = _KINDS.get(name, "other")
    if kind == "choices":
        choices = tuple(COMMANDS)
    return Value(name, kind, choices)
