"""Write a JSON value as a Nix expression.

The text is sorted and formatted as by nixfmt (the official formatter, RFC 166), so that it can be committed beside the
flake. There is one attribute per line, and a list of one plain value is on one line.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from clan_discovery.errors import InputError
from clan_discovery.model import Json, Problem
from clan_discovery.syntax.terminal import escape_json

# nixfmt's default, in characters. It does not count the indentation (Nixfmt/Predoc.hs: "not including indentation").
_WIDTH: Final = 100
# Nested lists and sets. Nix's parser fails at about 2500 ("memory exhausted"), the recursion here earlier. A value on
# its own line, because its name is long, counts as one level more.
_DEPTH: Final = 128
_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_'-]*")  # Nix, libexpr/lexer.l: ID
# The keywords in the same file. `or` may be an unquoted name by a special rule; quoted, it needs no rule.
_KEYWORDS: Final = frozenset({"assert", "else", "if", "in", "inherit", "let", "or", "rec", "then", "with"})
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_SPACES: Final = str.maketrans("", "", "\n\r\t")
# Nix strings contain neither NUL nor half of a surrogate pair.
INEXPRESSIBLE: Final = re.compile("[\0\ud800-\udfff]")
_FROM_JSON: Final = "builtins.fromJSON "
_SHIFT: Final = 2**52  # makes the smallest float a normal one


def to_nix(value: Json) -> str:
    """Write a JSON value as a Nix expression. With a final newline, nixfmt leaves it unchanged.

    Raises:
        InputError: a string contains NUL or half of a surrogate pair, an integer has more than 64 bits, a float is not
            finite, or the value is nested more than 128 levels deep.
    """
    return _write(value, 0, _WIDTH)


def _write(value: Json, depth: int, room: int) -> str:
    # `depth` indents the lines after the first; `room` is the width left for the first line.
    if depth > _DEPTH:
        _refuse(f"nested more than {_DEPTH} deep, which is too deep for a Nix expression")
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return _integer(value)
        case float():
            return _float(value)
        case str():
            return _string(value)
        case Mapping():
            return _set(value, depth)
        case Sequence():
            return _list(value, depth, room)


def _set(value: Mapping[str, Json], depth: int) -> str:
    # nixfmt also accepts `[ { a = 1; } ]`. The newline after the brace is optional, and gives better diffs.
    if not value:
        return "{ }"
    lines = [f"{_indent(depth + 1)}{_assignment(*pair, depth + 1)};\n" for pair in sorted(value.items())]
    return f"{{\n{''.join(lines)}{_indent(depth)}}}"


def _assignment(name: str, value: Json, depth: int) -> str:
    """Write `name = value`, with the value on its own line if nixfmt puts it there."""
    unquoted = _NAME.fullmatch(name) is not None and name not in _KEYWORDS
    text = name if unquoted else _string(name)
    if text.startswith(_FROM_JSON):
        text = f"${{{text}}}"
    head = f"{text} ="
    room = _WIDTH - len(f"{head} ;")
    if _is_nested(value):
        # The first line is only a bracket, in the place of the semicolon. After a quoted name it has to fit.
        if unquoted or room >= 0:
            return f"{head} {_write(value, depth, room)}"
    else:
        text = _write(value, depth, room)
        # A string that is too long stays behind an unquoted name: on its own line it would be too long as well.
        stays = unquoted and isinstance(value, str)
        if stays or len(text) <= room:
            return f"{head} {text}"
    return f"{head}\n{_indent(depth + 1)}{_write(value, depth + 1, _WIDTH - len(';'))}"


def _list(value: Sequence[Json], depth: int, room: int) -> str:
    if not value:
        return "[ ]"
    items = [_item(item, depth + 1) for item in value]
    if len(items) == 1 and not _is_nested(value[0]):
        line = f"[ {items[0]} ]"
        if len(line) <= room:
            return line
    lines = [f"{_indent(depth + 1)}{item}\n" for item in items]
    return f"[\n{''.join(lines)}{_indent(depth)}]"


def _item(value: Json, depth: int) -> str:
    text = _write(value, depth, _WIDTH)
    # Nix reads -1 as a negation, a / b as a division and f x as a function and its argument: without parentheses, each
    # is several elements of a list.
    is_number = isinstance(value, int | float) and (text.startswith("-") or " " in text)
    compound = is_number or text.startswith(_FROM_JSON)
    return f"({text})" if compound else text


def _is_nested(value: Json) -> bool:
    """Return whether a value is a list or a set that is not empty."""
    return isinstance(value, Mapping | Sequence) and not isinstance(value, str) and len(value) > 0


def _indent(depth: int) -> str:
    return "  " * depth


def _integer(value: int) -> str:
    if not -(2**63) <= value < 2**63:
        _refuse(f"Nix has no integers of more than 64 bits: {value}")
    if value == -(2**63):  # Nix reads a negative number as the negation of a positive one, which this does not have
        return f"{value + 1} - 1"
    return str(value)


def _float(value: float) -> str:
    if not math.isfinite(value):
        _refuse(f"Nix has no number {value}")
    if value == 0 and math.copysign(1, value) < 0:
        return "-1 * 0.0"  # Nix negates by subtracting from 0, and 0 - 0.0 is 0.0
    if value == 0:
        return "0.0"
    if abs(value) < sys.float_info.min:
        # strtod reports a subnormal number as out of range, and Nix then rejects it.
        return f"{_float(value * _SHIFT)} / {_SHIFT}"
    digits, e, exponent = repr(value).partition("e")
    if "." not in digits:  # Nix requires a point before the exponent
        digits += ".0"
    return f"{digits}{e}{exponent}"


def _string(text: str) -> str:
    """Write a string. Nix has no escape for control characters, so a string with one is written as JSON."""
    if INEXPRESSIBLE.search(text):
        _refuse(f"Nix has no strings with NUL or half of a surrogate pair: {text!r}")
    if not text.isprintable() and not text.translate(_SPACES).isprintable():
        return f"{_FROM_JSON}{_quoted(escape_json(json.dumps(text, ensure_ascii=False)))}"
    return _quoted(text)


def _quoted(text: str) -> str:
    # A plain dollar needs no escape, so `$1` in a relabel config stays readable. Only `${` starts an interpolation.
    escaped = text.translate(_ESCAPES).replace("${", "\\${")
    return f'"{escaped}"'


def _refuse(what: str) -> NoReturn:
    raise InputError([Problem(where="", what=what)])
