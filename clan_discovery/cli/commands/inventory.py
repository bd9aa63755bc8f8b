"""Print the inventory as JSON, with tags resolved and settings merged.

Without --file and --flake, the inventory of the config is printed. The output
lists each exporter with its port, and can be read as an inventory again.

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
