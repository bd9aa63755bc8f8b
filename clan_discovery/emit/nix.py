"""A resolution as a Nix expression: the jobs' target groups, and the additional scrape configs.

The value is the same as the JSON's, number for number and text for text. The text is sorted, and it is what nixfmt (the
official formatter, RFC 166) leaves as it is, so that it can be committed beside the flake and a hook changes nothing:
one attribute a line, a list of one plain value on one line, and nothing else that could be formatted in two ways.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NoReturn

from clan_discovery.errors import InputError
from clan_discovery.model import Json, Problem

if TYPE_CHECKING:
    from clan_discovery.model import Resolution

# nixfmt's default, in characters. It does not count the indentation (Nixfmt/Predoc.hs: "not including indentation").
_WIDTH: Final = 100
# Lists and sets in one another. Nix's parser gives up at some 2500 ("memory exhausted"), the recursion here before.
# A value that goes below its name, for the name is long, counts as one more.
_DEPTH: Final = 128
_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_'-]*")  # Nix, libexpr/lexer.l: ID
# The keywords of the same file. `or` may stand bare as a name by a special rule; quoted it needs none.
_KEYWORDS: Final = frozenset({"assert", "else", "if", "in", "inherit", "let", "or", "rec", "then", "with"})
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_UNSAYABLE: Final = re.compile("[\0\ud800-\udfff]")
_SHIFT: Final = 2**52  # takes the smallest float of all to the smallest that is normal


def render_nix(resolution: Resolution) -> str:
    """Return `{ jobs.<job> = [ { targets; labels; } ]; additionalScrapeConfigs = [ ... ]; }`.

    Raises:
        InputError: an additional scrape config holds what Nix cannot say.
    """
    return to_nix(evaluable(resolution)) + "\n"


def evaluable(resolution: Resolution) -> Json:
    """Return what an evaluation needs of a resolution, as a value; nothing of it says when it was found."""
    jobs: dict[str, list[Json]] = {job: [] for job in resolution.jobs}
    for target in resolution.targets:
        # A stranger's HostName may hold what Nix cannot say: the label goes, the target stays.
        labels = {name: value for name, value in target.labels.items() if not _UNSAYABLE.search(value)}
        jobs.setdefault(target.job, []).append({"labels": labels, "targets": [target.address]})
    return {"additionalScrapeConfigs": list(resolution.additional_scrape_configs), "jobs": jobs}


def to_nix(value: Json) -> str:
    """Write a JSON value as a Nix expression; with a newline at its end, nixfmt changes nothing about it.

    Raises:
        InputError: a text holds NUL or half of a surrogate pair, an integer has more than 64 bit, a float is not
            finite, or the value is nested more than 128 deep.
    """
    return _write(value, 0, _WIDTH)


def _write(value: Json, depth: int, room: int) -> str:
    # `depth` indents the lines after the first; `room` is what the first may take, where there is a choice.
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
    # nixfmt takes `[ { a = 1; } ]` as well: the newline after the brace is the author's choice, and makes better diffs.
    if not value:
        return "{ }"
    lines = [f"{_indent(depth + 1)}{_assignment(*pair, depth + 1)};\n" for pair in sorted(value.items())]
    return f"{{\n{''.join(lines)}{_indent(depth)}}}"


def _assignment(name: str, value: Json, depth: int) -> str:
    bare = _NAME.fullmatch(name) is not None and name not in _KEYWORDS
    head = f"{name if bare else _string(name)} ="
    room = _WIDTH - len(f"{head} ;")
    if _is_nested(value):
        # Its first line is one bracket, in the place of the semicolon: that has to fit, after a quoted name.
        if bare or room >= 0:
            return f"{head} {_write(value, depth, room)}"
    else:
        text = _write(value, depth, room)
        # A text that is too long is so on a line of its own too: after a bare name it stays where it is.
        if len(text) <= room or (bare and isinstance(value, str)):
            return f"{head} {text}"
    return f"{head}\n{_indent(depth + 1)}{_write(value, depth + 1, _WIDTH - len(';'))}"


def _list(value: Sequence[Json], depth: int, room: int) -> str:
    if not value:
        return "[ ]"
    items = [_item(item, depth + 1) for item in value]
    if len(items) == 1 and not _is_nested(value[0]) and len(line := f"[ {items[0]} ]") <= room:
        return line
    lines = [f"{_indent(depth + 1)}{item}\n" for item in items]
    return f"[\n{''.join(lines)}{_indent(depth)}]"


def _item(value: Json, depth: int) -> str:
    text = _write(value, depth, _WIDTH)
    # Nix reads -1 as a negation and a / b as a division: in a list each would be more than one element.
    compound = isinstance(value, int | float) and (text.startswith("-") or " " in text)
    return f"({text})" if compound else text


def _is_nested(value: Json) -> bool:
    """Return whether a value holds others: a list or a set that is not empty."""
    return isinstance(value, Mapping | Sequence) and not isinstance(value, str) and len(value) > 0


def _indent(depth: int) -> str:
    return "  " * depth


def _integer(value: int) -> str:
    if not -(2**63) <= value < 2**63:
        _refuse(f"Nix has no integer of more than 64 bit: {value}")
    # Nix reads a negative number as the negation of one that the smallest of all does not have.
    return str(value) if value > -(2**63) else f"{value + 1} - 1"


def _float(value: float) -> str:
    if not math.isfinite(value):
        _refuse(f"Nix has no number {value}")
    if value == 0:
        # Nix negates by subtracting from 0, which gives 0.0 for 0.0.
        return "0.0" if math.copysign(1, value) > 0 else "-1 * 0.0"
    if abs(value) < sys.float_info.min:
        # strtod calls what is smaller than normal out of range, and Nix then calls it an invalid float.
        return f"{_float(value * _SHIFT)} / {_SHIFT}"
    # Nix wants a point before the exponent.
    digits, e, exponent = repr(value).partition("e")
    return f"{digits}{'' if '.' in digits else '.0'}{e}{exponent}"


def _string(text: str) -> str:
    if _UNSAYABLE.search(text):
        _refuse(f"Nix has no text with NUL or half of a surrogate pair: {text!r}")
    # A dollar is one as it stands, which `$1` of a relabelling is glad of; only `${` would be read as something else.
    escaped = text.translate(_ESCAPES).replace("${", "\\${")
    return f'"{escaped}"'


def _refuse(what: str) -> NoReturn:
    raise InputError([Problem(where="", what=what)])
