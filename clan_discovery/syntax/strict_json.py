"""Decode JSON strictly: no NaN or Infinity, no huge numbers and, if wanted, no duplicate keys. Pure."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clan_discovery.model import Json

_LONGEST: Final = 400
"""The longest number, in characters; Python refuses to convert one of more than 4,300 digits."""
_LONGEST_KEY: Final = 1000
"""The longest key, in characters. Messages repeat the keys of the path, so long ones would make them huge."""


def decode_json(text: str, *, unique: Callable[[list[tuple[str, Json]]], Mapping[str, Json]] | None = None) -> Json:
    """Decode JSON text. `unique` makes an object from its pairs, such as `unique_keys`.

    Raises:
        json.JSONDecodeError: it is not JSON; the error has the line and the column.
        ValueError: a number is too large or not finite, a key has more than 1,000 characters, or `unique` raised it.
        RecursionError: it is nested too deeply.
    """
    if unique is None and _may_have_long_key(text):
        unique = short_keys
    try:
        value: Json = json.loads(
            text, object_pairs_hook=unique, parse_constant=_no_constant, parse_float=_finite, parse_int=_bounded
        )
    except json.JSONDecodeError as error:
        raise _placed(error) from None
    return value


def _placed(error: json.JSONDecodeError) -> json.JSONDecodeError:
    """Place the error of a trailing comma at the comma, as Python 3.13 does."""
    before = error.doc[: error.pos].rstrip()
    if before.endswith(",") and error.doc[error.pos : error.pos + 1] in ("}", "]"):
        return json.JSONDecodeError("Illegal trailing comma", error.doc, len(before) - 1)
    return error


def _may_have_long_key(text: str) -> bool:
    """Tell whether the text may have a key that is too long. Takes a tenth of the time of decoding."""
    return '\\"' in text or max(map(len, text.split('"'))) > _LONGEST_KEY


def short_keys(pairs: list[tuple[str, Json]]) -> Mapping[str, Json]:
    """Make an object of its pairs.

    Raises:
        ValueError: a key has more than 1,000 characters.
    """
    for key, _ in pairs:
        if len(key) > _LONGEST_KEY:
            raise ValueError(f"the key {_cut(key)!r} has more than {_LONGEST_KEY:,} characters")
    return dict(pairs)


def unique_keys(pairs: list[tuple[str, Json]]) -> Mapping[str, Json]:
    """Make an object of its pairs.

    Raises:
        ValueError: a key is given twice, or has more than 1,000 characters.
    """
    found = short_keys(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"the key {_first_twice(pairs)!r} is given twice in one object")
    return found


def _first_twice(pairs: list[tuple[str, Json]]) -> str:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            return key
        seen.add(key)
    return ""


def _bounded(text: str) -> int:
    if len(text) > _LONGEST:
        raise ValueError(f"{_cut(text)} is too large a number")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{_cut(text)} is too large a number")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _cut(text: str) -> str:
    if len(text) > 30:
        return f"{text[:27]}..."
    return text
