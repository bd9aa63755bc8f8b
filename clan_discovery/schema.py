"""The JSON Schemas of what goes in and what comes out, generated from the types. JSON Schema 2020-12."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import ConfigDict, TypeAdapter, with_config

from clan_discovery.config.models import Config
from clan_discovery.emit import documents

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.model import Json

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_DESCRIBED: Final = ConfigDict(use_attribute_docstrings=True, extra="forbid")
_CLANS: Final = ConfigDict(use_attribute_docstrings=True, extra="allow")


def _described() -> None:
    """Let pydantic read the strings below the attributes of every document type.

    An inventory is clan's, and clan's other keys may stand in it; the other documents are ours, and whole.
    """
    for name, value in vars(documents).items():
        if isinstance(value, type) and value.__module__ == documents.__name__:
            with_config(_CLANS if name.startswith("Inventory") else _DESCRIBED)(value)


def _config() -> dict[str, Json]:
    return Config.model_json_schema()


def _inventory() -> dict[str, Json]:
    _described()
    return TypeAdapter(documents.InventoryDocument).json_schema()


def _file_sd() -> dict[str, Json]:
    _described()
    return {
        "title": "Target file",
        "description": "A Prometheus file_sd target file: one group for each target.",
        **TypeAdapter(list[documents.TargetGroup]).json_schema(),
    }


def _resolution() -> dict[str, Json]:
    _described()
    return TypeAdapter(documents.ResolutionDocument).json_schema()


SCHEMAS: Final[dict[str, Callable[[], dict[str, Json]]]] = {
    "config": _config,
    "file_sd": _file_sd,
    "inventory": _inventory,
    "resolution": _resolution,
}
"""Each schema by the name that `clan-discovery schema` takes."""


def schema(name: str) -> dict[str, Json]:
    """Return the schema of this name.

    Raises:
        KeyError: there is none.
    """
    return {"$schema": _DIALECT, **SCHEMAS[name]()}
