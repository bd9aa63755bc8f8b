"""How a command is defined, and the arguments that several commands share."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clan_discovery.errors import InputError
from clan_discovery.model import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.cli.streams import Streams
    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.errors import Exit
    from clan_discovery.model import Declared

CONFIG_VARIABLE = "CLAN_DISCOVERY_CONFIG"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command: its `--help` text, its arguments, and what it does.

    `epilog` comes after the list of arguments and ends with an example. `run` returns the exit code. The command's
    name and its line in the list of commands are in `main.COMMANDS`, so that the list needs no import.
    """

    description: str
    epilog: str
    add: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Streams], Exit]


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add `--config`."""
    help_ = f"config file, YAML or JSON (default: ${CONFIG_VARIABLE})"
    parser.add_argument("-c", "--config", metavar="FILE", type=Path, help=help_)


def config_file_of(args: argparse.Namespace) -> Path:
    """Return the config file that the command line or the environment names.

    Raises:
        InputError: neither names one.
    """
    file: Path | None = args.config
    if file is not None:
        return file
    if named := os.environ.get(CONFIG_VARIABLE):
        return Path(named)
    what = f"no config: give --config FILE, or set {CONFIG_VARIABLE}"
    hint = "see `clan-discovery schema config`, or the example examples/homelab/config.yaml"
    raise InputError([Problem(where="", what=what, hint=hint)])


def config_of(args: argparse.Namespace) -> LoadedConfig:
    """Load the config file that the command line or the environment names.

    Raises:
        InputError: none is named, or it is wrong.
    """
    from clan_discovery.config.load import load_config  # noqa: PLC0415 - pydantic is a third of the start-up time

    return load_config(config_file_of(args))


def add_inventory(parser: argparse.ArgumentParser) -> None:
    """Add `--flake`, `--file`, `--settings` and `--config`."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--flake", metavar="REF", help="evaluate the inventory of this flake with nix")
    source.add_argument("--file", metavar="FILE", type=Path, help="read the inventory from this JSON file")
    help_ = "merged settings from `dump`; they replace the settings of the inventory"
    parser.add_argument("--settings", metavar="FILE", type=Path, help=help_)
    add_config(parser)


def declared_of(args: argparse.Namespace) -> Declared:
    """Read the inventory of `--flake` or `--file`, else that of the config.

    Raises:
        InputError: none is named, or it is wrong.
    """
    from clan_discovery.assemble import source  # noqa: PLC0415 - the parsers are imported only where they are used
    from clan_discovery.inventory.clan.declare import Options, declare  # noqa: PLC0415

    file: Path | None = args.file
    flake: str | None = args.flake
    settings: Path | None = args.settings
    loaded: LoadedConfig | None = None
    options = Options()
    # With --file or --flake a config is optional, and $CLAN_DISCOVERY_CONFIG does not count.
    if args.config is not None or (file is None and flake is None):
        loaded = config_of(args)
        options = source.options_of(loaded)
    if settings is not None:
        options = source.with_dump(options, settings)
    if flake is not None:
        return declare(source.inventory_at(flake), options)
    if file is not None:
        return declare(source.inventory_at(file), options)
    return declare(source.read_inventory(loaded or config_of(args)), options)


def directory(text: str) -> Path:
    """Parse a directory. An empty word is a shell variable that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("expected a directory, got an empty string")
    return Path(text)


def metrics_file(text: str) -> Path:
    """Parse the name of a metrics file. An existing file is overwritten, so only `.prom` files are accepted."""
    file = Path(text).absolute()
    if file.suffix != ".prom":
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .prom, as the textfile collector requires")
    if os.path.lexists(file) and (file.is_symlink() or not file.is_file()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular file")
    return file
