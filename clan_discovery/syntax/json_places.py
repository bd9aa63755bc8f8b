"""Find the line and the column of values in a JSON text. Pure.

`syntax/tree.py` does so for YAML, and takes five times as long.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from typing import Final, TypeAlias

_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_DEEPEST: Final = 8
"""Positions are kept for this many levels; a value below them has the position of its nearest parent."""


_Path: TypeAlias = tuple[str | int, ...]


class JsonPlaces:
    """The positions of the values of a JSON text: of a key in an object, and of an item in a list."""

    def __init__(self, text: str) -> None:
        """Read the text, which must be valid JSON."""
        self._lines: Final = [0, *(found.end() for found in re.finditer("\n", text))]
        self._starts: Final = _starts(text)

    def of(self, path: _Path) -> str:
        """Return `line:column` of the value at a path; if it is missing, that of its nearest parent."""
        for length in range(len(path), -1, -1):
            start = self._starts.get(path[:length])
            if start is not None:
                line = bisect_right(self._lines, start)
                return f"{line}:{start - self._lines[line - 1] + 1}"
        return "1:1"


def _starts(text: str) -> dict[_Path, int]:
    """Return where each key and item starts, by its path."""
    found: dict[_Path, int] = {}
    above: list[tuple[_Path, str | int | None]] = []
    path: _Path = ()  # that of the open collection
    last: str | int | None = None  # the key or index in it; None: a key comes next
    for token in _TOKEN.finditer(text):
        word = token[0]
        if word in "}]":
            path, last = above.pop()
        elif word == ",":
            last = last + 1 if isinstance(last, int) else None
        elif word != ":":
            is_key = bool(above) and last is None
            if is_key:
                last = _key(word)
            if is_key or isinstance(last, int):
                found.setdefault(_below(path, last), token.start())
            if word in "{[":
                above.append((path, last))
                path = _below(path, last)
                last = None if word == "{" else 0
    return found


def _key(word: str) -> str:
    return str(json.loads(word)) if "\\" in word else word[1:-1]


def _below(path: _Path, last: str | int | None) -> _Path:
    """Return the path of a part of a collection; that of the collection itself where it is deep."""
    return path if last is None or len(path) == _DEEPEST else (*path, last)
