"""Decode JSON that a person or Nix wrote, and name its values in messages. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NoReturn, TypeGuard

from clan_discovery.errors import refuse
from clan_discovery.syntax.secret import HIDDEN, hide, holds_secret
from clan_discovery.syntax.strict_json import decode_json, unique_keys

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clan_discovery.model import Json

# Smaller files may be written by hand, and are checked for duplicate keys, which takes time.
_BY_HAND: Final = 1 << 17
_MAX_VALUES: Final = 10_000_000
"""The most values in a file, each of about 100 bytes; 100,000 machines have two million."""
_SHOWN_MOST: Final = 80
_NOTHING: Final[Mapping[str, Json]] = {}
_TRUNCATED: Final = "Nix prints part of its answer before it fails; look at its exit status and run it again"


def parse_json(body: bytes, where: str, *, what: str, hint: str) -> Json:
    """Decode JSON; messages name it by `where` and `what`.

    `hint` says how to create it.

    Raises:
        InputError: it is not JSON. It has one problem, with line and column if they are known.
    """
    if not body.strip():
        refuse(where, f"the {what} is empty", hint)
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        refuse(where, f"the {what} is not UTF-8 (byte {error.start})", hint)
    if len(text) > _MAX_VALUES and sum(map(text.count, ",[{")) > _MAX_VALUES:
        refuse(where, f"the {what} holds more than {_MAX_VALUES:,} values")
    try:
        value = decode_json(text, unique=unique_keys if len(body) < _BY_HAND else None)
    except json.JSONDecodeError as error:
        _refuse_json(text, error, where, what)
    except ValueError as error:
        refuse(where, f"the {what} is no JSON: {error}", hint)
    except RecursionError:
        refuse(where, f"the {what} is nested too deeply", hint)
    if "\\ud" in text.lower() and not _is_unicode(value):
        refuse(where, f"the {what} contains half of a surrogate pair, which is not valid Unicode", hint)
    return value


def _refuse_json(text: str, error: json.JSONDecodeError, where: str, what: str) -> NoReturn:
    """Raise an InputError with the position of the first syntax error."""
    where = f"{where}:{error.lineno}:{error.colno}"
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        refuse(where, f"the {what} ends in the middle: it is truncated", _TRUNCATED)
    from clan_discovery.syntax.json_words import json_words  # noqa: PLC0415 - only where something is wrong

    wrong, hint = json_words(text, error)
    refuse(where, f"the {what} is no JSON: {wrong}", hint)


def _is_unicode(value: Json) -> bool:
    """Tell whether a value can be written as UTF-8.

    A lone surrogate is valid in JSON, and cannot be written.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def is_list(value: Json) -> TypeGuard[Sequence[Json]]:
    """Tell whether a JSON value is a list; a string is not."""
    return isinstance(value, list | tuple)


def attributes(value: Json) -> Mapping[str, Json]:
    """Return an object; empty if the value is not an object."""
    return value if isinstance(value, Mapping) else _NOTHING


def shown(value: Json, path: Iterable[str] = ()) -> str:
    """Format a value for a message: JSON on one line, shortened, without secrets.

    `path` is the position of the value: below a key like `password`, nothing is shown.
    """
    if holds_secret(path):
        return HIDDEN
    if isinstance(value, Mapping | list):
        value = hide(value)
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    if len(text) > _SHOWN_MOST:
        return text[: _SHOWN_MOST - 3] + "..."
    return text


def kind(value: Json) -> str:
    """Name a JSON value's type in a message."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case Mapping():
            return "an object"
        case _:
            return "a list"
