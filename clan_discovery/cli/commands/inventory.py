"""Print what the sources declare as JSON, with tags resolved and settings merged.

These are machines, addresses, exporters, services and fronts of all sources of
the config; with --file or --flake, of this clan inventory alone. The values of
headers are left out. The part of a clan can be read as an inventory again.

for example:
  clan-discovery inventory
  clan-discovery inventory --flake . | jq -c '.exporters[] | [.machine, .port]'
"""

from __future__ import annotations

from typing import Final

from clan_discovery.cli.command import (
    Args,
    Command,
    Streams,
    add_inventory,
    closed_inputs_of,
    declared_of,
    inventory_config_of,
)
from clan_discovery.cli.progress import flake_of, progress
from clan_discovery.emit.json import inventory_document, pretty
from clan_discovery.errors import Exit


def _run(args: Args, streams: Streams) -> Exit:
    loaded = inventory_config_of(args)
    with progress(streams.err) as waits, waits.evaluating(args.flake or flake_of(loaded)):
        declared = declared_of(args, loaded)
    streams.warn(declared.problems)
    streams.warn_of_closed(closed_inputs_of(args, loaded))
    streams.out.write(pretty(inventory_document(declared)))
    return Exit.OK


COMMAND: Final = Command(__doc__, add_inventory, _run)
