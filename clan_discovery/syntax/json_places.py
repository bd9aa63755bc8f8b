"""Find the line and the column of values in a JSON text. Pure.

`syntax/tree.py` does so for YAML, and takes five times as long.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from typing import Final

_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_DEEPEST: Final = 8
"""Positions are kept for this many levels; a value below them has the position of its nearest parent."""


class JsonPlaces:
    """The positions of the values of a JSON text: of a key in an object, and of an item in a list."""

    def __init__(self, text: str) -> None:
        """Read the text, which must be valid JSON."""
        self._lines: Final = [0, *(found.end() for found in re.finditer("\n", text))]
        self._starts: Final = _starts(text)

    def of(self, path: tuple[str | int, ...]) -> str:
        """Return `line:column` of the value at a path; if it is missing, that of its nearest parent."""
        for length in range(len(path), -1, -1):
            start = self._starts.get(path[:length])
            if start is not None:
                line = bisect_right(self._lines, start)
                return f"{line}:{start - self._lines[line - 1] + 1}"
        return "1:1"


def _starts(text: str) -> dict[tuple[str | int, ...], int]:
    """Return where each key and item starts, by its path."""
    found: dict[tuple[str | int, ...], int] = {}
    path: list[str | int | None] = []  # the key or index in each open collection; None: a key comes next
    for token in _TOKEN.finditer(text):
        word = token[0]
        if word in "}]":
            path.pop()
        elif word == ",":
            path[-1] = path[-1] + 1 if isinstance(path[-1], int) else None
        elif path and path[-1] is None:
            path[-1] = str(json.loads(word))
            _keep(found, path, token.start())
        elif word != ":":
            if path and isinstance(path[-1], int):
                _keep(found, path, token.start())
            if word in "{[":
                path.append(None if word == "{" else 0)
    return found


def _keep(found: dict[tuple[str | int, ...], int], path: list[str | int | None], start: int) -> None:
    if len(path) <= _DEEPEST:
        found[tuple(part for part in path if part is not None)] = start
