"""Print a JSON Schema (2020-12), generated from the types.

With the YAML language server, an editor completes a config that starts with this line:
  # yaml-language-server: $schema=config.schema.json

for example:
  clan-discovery schema config > config.schema.json
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import ConfigDict, TypeAdapter, with_config

from clan_discovery.cli.command import Args, Command, Parser, Streams
from clan_discovery.config.models import Config
from clan_discovery.emit import documents
from clan_discovery.emit.json import pretty
from clan_discovery.errors import Exit, InputError
from clan_discovery.model import Problem
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.model import Json

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_OUR_DOCUMENTS: Final = ConfigDict(use_attribute_docstrings=True, extra="forbid")
_CLAN_DOCUMENTS: Final = ConfigDict(use_attribute_docstrings=True, extra="allow")


def _configure() -> None:
    """Let pydantic read attribute docstrings; only clan's inventory has other keys."""
    for name, value in vars(documents).items():
        if isinstance(value, type) and value.__module__ == documents.__name__:
            with_config(_CLAN_DOCUMENTS if name.startswith("Inventory") else _OUR_DOCUMENTS)(value)


def _file_sd() -> dict[str, Json]:
    return {
        "title": "Target file",
        "description": "A Prometheus file_sd target file: one group for each target.",
        **TypeAdapter(list[documents.TargetGroup]).json_schema(),
    }


SCHEMAS: Final[dict[str, Callable[[], dict[str, Json]]]] = {
    "config": Config.model_json_schema,
    "file_sd": _file_sd,
    "inventory": lambda: TypeAdapter(documents.InventoryDocument).json_schema(),
    "resolution": lambda: TypeAdapter(documents.ResolutionDocument).json_schema(),
}


def schema(name: str) -> dict[str, Json]:
    """Return the schema of this name."""
    _configure()
    return {"$schema": _DIALECT, **SCHEMAS[name]()}


def _add(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help=", ".join(SCHEMAS))


def _run(args: Args, streams: Streams) -> Exit:
    name = str(args.name).replace("-", "_")
    if name not in SCHEMAS:
        hint = did_you_mean(name, SCHEMAS) or f"there are: {', '.join(SCHEMAS)}"
        raise InputError([Problem(where="", what=f"there is no schema {args.name!r}", hint=hint)])
    streams.out.write(pretty(schema(name)))
    return Exit.OK


COMMAND: Final = Command(__doc__, _add, _run)
