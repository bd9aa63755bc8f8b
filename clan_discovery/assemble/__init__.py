"""Build the objects of a refresh cycle from a config.

`source` reads the inventory, and `plan` builds the rest.
"""

from __future__ import annotations

from clan_discovery.assemble.plan import directories, make_plan, sockets_of
from clan_discovery.assemble.source import evaluate_flake, watched_files

__all__ = ["directories", "evaluate_flake", "make_plan", "sockets_of", "watched_files"]
