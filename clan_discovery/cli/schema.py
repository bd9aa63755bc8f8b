"""`schema`: prints a JSON Schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clan_discovery.emit.json import pretty
from clan_discovery.errors import InputError
from clan_discovery.model import Problem
from clan_discovery.schema import SCHEMAS, schema
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    import argparse

    from clan_discovery.cli.common import Streams

_EPILOG = """\
With the YAML language server, an editor completes the config below this line:
  # yaml-language-server: $schema=config.schema.json

example:
  clan-discovery schema config > config.schema.json
"""


class Schema:
    """Prints one of the schemas."""

    def add(self, parser: argparse.ArgumentParser, /) -> None:
        """Add the arguments."""
        parser.description = f"Print a JSON Schema (2020-12): {', '.join(SCHEMAS)}."
        parser.epilog = _EPILOG
        parser.add_argument("name", metavar="NAME", help=", ".join(SCHEMAS))

    def run(self, args: argparse.Namespace, streams: Streams, /) -> int:
        """Print it."""
        name = str(args.name).replace("-", "_")
        if name not in SCHEMAS:
            hint = did_you_mean(name, SCHEMAS) or f"there are: {', '.join(SCHEMAS)}"
            raise InputError([Problem(where="", what=f"there is no schema {args.name!r}", hint=hint)])
        streams.out.write(pretty(schema(name)))
        return 0


COMMAND = Schema()
