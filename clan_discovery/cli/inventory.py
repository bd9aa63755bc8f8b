"""`inventory`: the clan inventory, normalised, as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clan_discovery.cli.common import Streams, add_config, config_of, warn
from clan_discovery.emit.json import inventory_document, pretty
from clan_discovery.inventory.declare import Options, declare

if TYPE_CHECKING:
    import argparse

    from clan_discovery.model import Declared

_EPILOG = """\
Tags are resolved, settings merged, exporters listed with their ports. What it prints can be given as an inventory
again. Without --file and --flake it reads the inventory of the config.

example:
  clan-discovery inventory --flake . | jq '.exporters[] | "\\(.machine) \\(.type) \\(.port)"'
"""


class Inventory:
    """Prints what an inventory declares."""

    def add(self, parser: argparse.ArgumentParser, /) -> None:
        """Add the arguments."""
        parser.description = "Print the clan inventory with tags resolved and settings merged."
        parser.epilog = _EPILOG
        source = parser.add_mutually_exclusive_group()
        source.add_argument("--flake", metavar="REF", help="evaluate this flake with nix")
        source.add_argument("--file", metavar="FILE", type=Path, help="read this JSON")
        parser.add_argument("--settings", metavar="FILE", type=Path, help="merged settings, which then win")
        add_config(parser)

    def run(self, args: argparse.Namespace, streams: Streams, /) -> int:
        """Read and print."""
        declared = _declared(args)
        warn(streams, declared.problems)
        streams.out.write(pretty(inventory_document(declared)))
        return 0


def _declared(args: argparse.Namespace) -> Declared:
    from clan_discovery.assemble.source import (  # noqa: PLC0415
        Lookup,
        flake_inventory,
        options_of,
        read_input,
        read_inventory,
        with_dump,
    )
    from clan_discovery.inventory.wire import NIX_COMMAND, parse_inventory  # noqa: PLC0415

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
        body = read_input(file, "inventory", f"write it with: {NIX_COMMAND}")
        return declare(parse_inventory(body, str(file)), options)
    return declare(read_inventory(loaded or config_of(args)), options)


COMMAND = Inventory()
