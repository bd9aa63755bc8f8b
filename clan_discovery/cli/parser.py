"""The commands, their parsers, and the help of the program."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import TYPE_CHECKING, Final, NoReturn

from typing_extensions import override

from clan_discovery import __version__
from clan_discovery.cli.command import add_config
from clan_discovery.errors import Exit, refuse
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.cli.command import Command

DESCRIPTION: Final = """\
Write Prometheus target files for the machines that sources declare: a clan
inventory, a service manifest, Compose files, exposed services. The sources
decide which targets exist. Tailscale, DNS and static lists decide where they
are."""
COMMAND_GROUPS: Final = {
    "start": {
        "init": "look around, and write a first config",
        "check": "check the config and its sources; needs no network",
        "doctor": "check tailscaled, DNS and the output directory, and name fixes",
    },
    "publish": {
        "refresh": "ask the backends once, and write the target files that changed",
        "run": "keep the target files up to date until stopped",
        "token": "make tokens for agents, and write the receiver's config",
    },
    "inspect (nothing is written)": {
        "show": "print the targets, and what is missing or excluded",
        "history": "list what changed: targets that came, went or moved",
        "explain": "say why a machine or a service has its targets, or none",
        "diff": "print what `refresh` would change",
        "verify": "ask the running scrapers whether they scrape each target",
        "gates": "compare the boxes of a checklist with evidence",
        "machines": "list the machines that have targets; needs no network",
        "inventory": "print what the sources declare as JSON",
    },
    "builds and repositories": {
        "dump": "write a clan's inventory, settings and exports as JSON",
        "render": "write the declared targets; needs no network and no state",
        "snapshot": "write the targets to a file to commit",
    },
    "reference": {
        "help": "print the help of a command, or the man page",
        "completion": "print a completion script for bash, zsh or fish",
        "schema": "print a JSON Schema",
    },
}
"""The commands by task, each with its summary. A parser for each would cost several milliseconds at every start."""
COMMANDS: Final = {name: summary for group in COMMAND_GROUPS.values() for name, summary in group.items()}
EXIT_CODES: Final = {
    Exit.OK: "ok: published, or nothing to do",
    Exit.FINDINGS: "findings: of `diff --exit-code`, `doctor`, `verify`, or open boxes of `gates --require`",
    Exit.WRONG_INPUT: "the config, a source or the command line is wrong",
    Exit.DEGRADED: "degraded: a backend failed; its last good answer or names are used",
    Exit.HELD: "held: a large loss of machines waits for `refresh --accept-shrink`",
    Exit.NOT_WRITTEN: "could not write, out of memory, or a bug; the old files are kept",
}
_EXIT_NAMES: Final = {
    Exit.OK: "ok",
    Exit.FINDINGS: "findings",
    Exit.WRONG_INPUT: "wrong input",
    Exit.DEGRADED: "degraded",
    Exit.HELD: "held",
    Exit.NOT_WRITTEN: "not written",
}
_COMMAND_EXITS: Final = {
    "doctor": (Exit.FINDINGS, Exit.DEGRADED, Exit.HELD, Exit.NOT_WRITTEN),
    "refresh": (Exit.DEGRADED, Exit.HELD, Exit.NOT_WRITTEN),
    "run": (Exit.NOT_WRITTEN,),
    "show": (Exit.DEGRADED, Exit.HELD),
    "explain": (Exit.DEGRADED, Exit.HELD),
    "diff": (Exit.FINDINGS, Exit.DEGRADED, Exit.HELD),
    "verify": (Exit.FINDINGS, Exit.DEGRADED),
    "gates": (Exit.FINDINGS, Exit.DEGRADED, Exit.NOT_WRITTEN),
    "dump": (Exit.DEGRADED, Exit.NOT_WRITTEN),
    "render": (Exit.NOT_WRITTEN,),
    "token": (Exit.NOT_WRITTEN,),
    "snapshot": (Exit.DEGRADED, Exit.HELD, Exit.NOT_WRITTEN),
    "init": (Exit.NOT_WRITTEN,),
}
"""Which exit codes a command has, besides those that all have: 0 and 2."""
CONFIG_SEARCH: Final = """\
  1. -c FILE, --config FILE, before or after the command
  2. $CLAN_DISCOVERY_CONFIG
  3. ./clan-discovery.yaml, if it belongs to you or to root
  4. /etc/clan-discovery/config.yaml, then /etc/clan-discovery/config.json"""
EXAMPLES: Final = """\
  clan-discovery init
  clan-discovery check
  clan-discovery show
  clan-discovery explain db
  clan-discovery help refresh"""
_WIDEST: Final = 100
"""Longer lines are hard to read."""


class CommandParser(argparse.ArgumentParser):
    """An argument parser that raises InputError instead of exiting."""

    def __init__(self, prog: str, description: str, epilog: str, usage: str | None = None) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            epilog=epilog,
            formatter_class=_formatter,
            allow_abbrev=False,
        )
        self._positionals.title = "arguments"
        self.unknown_option_hint: str | None = None

    @property
    def arguments(self) -> Sequence[argparse.Action]:
        """The options and operands, in the order of the help."""
        return self._actions

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse words; options and operands may be mixed.

        Raises:
            InputError: a word is wrong; it suggests the nearest option and names the help.
        """
        for word in words:
            if word == "--":
                break
            option = word.partition("=")[0]
            if option.startswith("--") and " " not in option and option not in self._option_string_actions:
                hint = did_you_mean(option, self._option_string_actions) or self.unknown_option_hint
                self.error(f"there is no option {option}", hint)
        args, rest = self.parse_known_intermixed_args(words)
        if rest:
            self.error(f"unexpected argument {rest[0]!r}")
        return args

    @override
    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        name = "/".join(action.option_strings) or action.metavar or action.dest
        hint = did_you_mean(str(value), choices) or f"choose from: {', '.join(choices)}"
        self.error(f"argument {name}: invalid value {value!r}", hint)

    @override
    def format_help(self) -> str:
        from clan_discovery.cli.help_text import wrap  # noqa: PLC0415 - only for help

        width = _width()
        self.description = wrap(self.description or "", width)
        self.epilog = wrap(self.epilog or "", width)
        return super().format_help()

    @override
    def error(self, message: str, hint: str | None = None) -> NoReturn:
        refuse("", message, _with_help(hint, self.prog))


def _with_help(hint: str | None, program: str) -> str:
    """Return a hint that ends with the help to read."""
    see = f"see: {program} --help"
    if hint is None:
        return see
    if hint.endswith("?"):
        return f"{hint} {see}"
    return f"{hint}; {see}"


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=27, width=_width())


def _width() -> int:
    """Return how wide help may be on this terminal."""
    import shutil  # noqa: PLC0415 - only for help

    return min(shutil.get_terminal_size().columns - 2, _WIDEST)


def program_parser() -> CommandParser:
    """Return the parser of the words before the command; its help is that of the program."""
    exit_codes = "\n".join(f"  {code:d}  {meaning}" for code, meaning in EXIT_CODES.items())
    epilog = (
        f"config, the first of:\n{CONFIG_SEARCH}\n\n"
        f"exit codes (of several, the highest):\n{exit_codes}\n\n"
        f"examples:\n{EXAMPLES}\n\n"
        "Each command has its own help: clan-discovery help COMMAND"
    )
    usage = "%(prog)s [-h] [-V] [-c FILE] COMMAND ..."
    parser = CommandParser("clan-discovery", f"{DESCRIPTION}\n\n{_command_list()}", epilog, usage)
    parser.unknown_option_hint = "options of a command are written after it"
    version = f"%(prog)s {__version__}"
    parser.add_argument("-V", "--version", action="version", version=version, help="print the version and exit")
    add_config(parser)
    return parser


def short_help() -> str:
    """Return what is printed where no command is given."""
    parser = program_parser()
    return f"{parser.format_usage()}\n{_command_list()}\n\nsee: clan-discovery help COMMAND\n"


def _command_list() -> str:
    groups = [
        "\n".join([f"{title}:", *(f"  {name:<10}  {summary}" for name, summary in commands.items())])
        for title, commands in COMMAND_GROUPS.items()
    ]
    return "\n\n".join(groups)


def load_command(name: str) -> Command:
    """Import the module of a command.

    Raises:
        InputError: there is no such command.
    """
    if name not in COMMANDS:
        refuse("", f"there is no command {name!r}", _with_help(did_you_mean(name, COMMANDS), "clan-discovery"))
    command: Command = import_module(f"clan_discovery.cli.commands.{name}").COMMAND
    return command


def command_parser(name: str, command: Command) -> CommandParser:
    """Return the parser of a command."""
    description, _, epilog = (command.help or "").partition("\n\n")
    parser = CommandParser(f"clan-discovery {name}", description, f"{epilog.rstrip()}\n\n{_exit_line(name)}")
    command.add(parser)
    return parser


def _exit_line(name: str) -> str:
    """Return the exit codes of a command in one line."""
    codes = sorted({Exit.OK, Exit.WRONG_INPUT, *_COMMAND_EXITS.get(name, ())})
    listed = ", ".join(f"{code:d} {_EXIT_NAMES[code]}" for code in codes)
    return f"exit codes: {listed}"
