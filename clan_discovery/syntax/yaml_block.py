"""Write JSON values as YAML in block style. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from clan_discovery.syntax.yaml_text import yaml_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clan_discovery.model import Json


def yaml_block(value: Json) -> str:
    """Return a value as YAML, in the order of its keys. The same value gives the same text."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Json) -> Iterator[str]:
    """Yield the lines of a value in YAML's block style; a scalar or an empty collection is one line."""
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from _entry(yaml_text(key), part)
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        for part in value:
            first, *others = _lines(part)
            yield f"- {first}"
            yield from (f"  {line}" for line in others)
    else:
        yield _scalar(value)


def _entry(key: str, value: Json) -> Iterator[str]:
    if isinstance(value, Mapping | list | tuple) and value:
        yield f"{key}:"
        yield from (f"  {line}" for line in _lines(value))
    else:
        yield f"{key}: {_scalar(value)}"


def _scalar(value: Json) -> str:
    if isinstance(value, str):
        return yaml_text(value)
    return json.dumps(value)
