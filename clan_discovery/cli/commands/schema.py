"""Print the JSON Schema (2020-12) of the config or of a document.

The schema of the config also has the kinds of backends that other
distributions add.

An editor with the YAML language server completes and checks a config that
starts with this line, as `init` writes it:
  # yaml-language-server: $schema=config.schema.json

for example:
  clan-discovery schema config > config.schema.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clan_discovery.cli.command import Args, Command, Parser, Streams
from clan_discovery.config.kinds import KindError, added_kinds, load_kind
from clan_discovery.config.models import BackendModel, Backends, Config, config_schema, config_with
from clan_discovery.emit.json import pretty
from clan_discovery.errors import Exit, refuse
from clan_discovery.inventory.exporters import known_exporters
from clan_discovery.model import Problem
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from clan_discovery.model import Json

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_DATA: Final = Path(__file__).parents[2] / "data"
SCHEMAS: Final = ("config", "explain", "file_sd", "gates", "inventory", "machine", "machines", "resolution", "verify")


def schema(name: str, model: type[Config] = Config) -> dict[str, Json]:
    """Return the schema of this name: of the config from its model, of other documents from `data/`."""
    head: dict[str, Json] = {"$schema": _DIALECT, "$id": f"urn:clan-discovery:schema:{name}"}
    if name == "config":
        return {**head, **config_schema(model, sorted(known_exporters()))}
    document: dict[str, Json] = json.loads((_DATA / f"{name}.schema.json").read_bytes())
    return {**head, **document}


def _installed(streams: Streams) -> type[Config]:
    """Return the config's model with the kinds of backends that are installed; warn of those that cannot be loaded."""
    kinds: list[tuple[str, type[BackendModel]]] = []
    for kind, points in added_kinds(Backends.model_fields).items():
        try:
            kinds.append((kind, load_kind(points).model))
        except KindError as error:
            streams.warn([Problem(where=f"backends.{kind}", what=str(error), hint=error.hint, severity="warning")])
    return config_with(tuple(kinds))


def _add(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help=", ".join(SCHEMAS))


def _run(args: Args, streams: Streams) -> Exit:
    name = str(args.name).replace("-", "_")
    if name not in SCHEMAS:
        hint = did_you_mean(name, SCHEMAS) or f"there are: {', '.join(SCHEMAS)}"
        refuse("", f"there is no schema {args.name!r}", hint)
    model = Config
    if name == "config":
        model = _installed(streams)
    streams.out.write(pretty(schema(name, model)))
    return Exit.OK


COMMAND: Final = Command(__doc__, _add, _run)
