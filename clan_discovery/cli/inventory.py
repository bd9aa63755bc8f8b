"""`inventory`: the clan inventory, normalised, as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clan_discovery.cli.common import Streams, warn
from clan_discovery.cli.declared import add_inventory, declared_of
from clan_discovery.emit.json import inventory_document, pretty

if TYPE_CHECKING:
    import argparse

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
        add_inventory(parser)

    def run(self, args: argparse.Namespace, streams: Streams, /) -> int:
        """Read and print."""
        declared = declared_of(args)
        warn(streams, declared.problems)
        streams.out.write(pretty(inventory_document(declared)))
        return 0


COMMAND = Inventory()
