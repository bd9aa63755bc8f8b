"""The inventory that a command line names, read, as `inventory` and `machines` do it. No network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clan_discovery.cli.common import add_config, config_of
from clan_discovery.inventory.clan.declare import Options, declare

if TYPE_CHECKING:
    import argparse

    from clan_discovery.model import Declared


def add_inventory(parser: argparse.ArgumentParser) -> None:
    """Add `--flake`, `--file`, `--settings` and `--config`."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--flake", metavar="REF", help="evaluate this flake with nix")
    source.add_argument("--file", metavar="FILE", type=Path, help="read this JSON")
    parser.add_argument("--settings", metavar="FILE", type=Path, help="merged settings, which then win")
    add_config(parser)


def declared_of(args: argparse.Namespace) -> Declared:
    """Read what the inventory declares: of --flake or --file, else of the config.

    Raises:
        InputError: none is named, or it is wrong.
    """
    from clan_discovery.assemble.source import (  # noqa: PLC0415
        Lookup,
        file_inventory,
        flake_inventory,
        options_of,
        read_inventory,
        with_dump,
    )

    file: Path | None = args.file
    flake: str | None = args.flake
    settings: Path | None = args.settings
    loaded = config_of(args) if args.config is not None or (file is None and flake is None) else None
    options = Options() if loaded is None else options_of(loaded, Lookup(loaded))
    if settings is not None:
        options = with_dump(options, settings)
    if flake is not None:
        return declare(flake_inventory(flake), options)
    if file is not None:
        return declare(file_inventory(file), options)
    return declare(read_inventory(loaded or config_of(args)), options)
