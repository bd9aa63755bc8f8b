"""A document of JSON or YAML: its value, and the position of each part.

Limits keep hostile text from taking much memory or time: the number of values, the depth, the length of keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.errors import refuse
from clan_discovery.model import Problem
from clan_discovery.syntax.keys import LONGEST_KEY, long_key
from clan_discovery.syntax.strict_json import decode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clan_discovery.model import Json
    from clan_discovery.syntax.tree import KeyPath, Spot, Tree

_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_OPENING_QUOTES: Final = ("\u201c", "\u201d", "\u201e", "\u2018", "\u201a", "\u00ab")
_INVISIBLE: Final = "\u00a0\u200b\u202f\u2060\ufeff"
_TYPOGRAPHIC: Final = re.compile(f"[{''.join(_OPENING_QUOTES)}{_INVISIBLE}]")
_TYPE_AGAIN: Final = "delete the space and type the text again"


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What a document is: its name and its kind in messages, its format, and its limit.

    If it is `confidential`, no message quotes a value or a key of it that is too long.
    """

    name: str
    kind: str
    is_json: bool
    most: int
    confidential: bool = False


class Document:
    """A text of JSON or YAML: its value (None if empty), and the positions of its parts."""

    def __init__(self, text: str, origin: Origin) -> None:
        """Parse the text.

        Raises:
            InputError: it does not parse, or holds too many values.
        """
        self._name = origin.name
        self._origin = origin
        self._text = text
        self.is_json = origin.is_json
        self._has_duplicates = False
        self.value: Json = self._json() if self.is_json else self._tree.value

    @property
    def complaints(self) -> list[Problem]:
        """Problems of the text. Its values may have more."""
        return self.complaints_of(lambda _: True)

    def complaints_of(self, wanted: Callable[[KeyPath], bool]) -> list[Problem]:
        """Return the problems of the text at the paths that are wanted."""
        if self.is_json and not self._has_duplicates:
            return []
        tree = self._places
        if tree is None:
            return [Problem(where=self._name, what="a key is given twice in one object", hint="keep one of them")]
        return [
            Problem(
                where=self._at(found.at),
                what=after(() if found.is_syntax else found.path, found.what),
                hint=found.hint,
            )
            for found in tree.complaints
            if wanted(found.path)
        ]

    def place(self, path: KeyPath, *, key: bool = False) -> str:
        """Return the position of a value or key in the file; if it is missing, that of its nearest parent."""
        tree = self._places
        if tree is None or tree.root is None:
            return self._name
        spot = tree.root
        at = spot.at
        for index, part in enumerate(path):
            below = spot.below.get(part)
            if below is None:
                break
            at = below.at
            if key and index == len(path) - 1:
                at = spot.keys.get(str(part), at)
            spot = below
        return self._at(at)

    def half_characters(self) -> list[Problem]:
        """Return a problem for each string with half of a surrogate pair, which is valid in JSON but not in UTF-8."""
        if "\\ud" not in self._text.lower():
            return []
        return [
            Problem(where=self.place(path), what=after(path, "holds half of a surrogate pair"), hint="remove it")
            for path, text in _texts(self.value, ())
            if _SURROGATES.search(text)
        ]

    def typographic(self) -> list[Problem]:
        """Return a problem for each string with typographic quotes, or with an invisible space at an end."""
        if not _TYPOGRAPHIC.search(self._text):
            return []
        found: list[Problem] = []
        for path, text in _texts(self.value, ()):
            if text[:1] in _OPENING_QUOTES and len(text) > 1:
                what = f"the text begins with {text[:1]!r}, which is not a quote in YAML"
                found.append(Problem(where=self.place(path), what=after(path, what), hint="write ' or \""))
            elif text.strip(_INVISIBLE) != text:
                what = "the text begins or ends with an invisible space"
                found.append(Problem(where=self.place(path), what=after(path, what), hint=_TYPE_AGAIN))
        return found

    def as_written(self, path: KeyPath) -> KeyPath:
        """Return a path without the parts that only the models have, such as `any` of `tags: [x]`."""
        tree = self._places
        spot = None if tree is None else tree.root
        written: list[str | int] = []
        for part in path:
            below = None if spot is None else spot.below.get(part)
            if below is None and spot is not None and _is_short(spot, part):
                continue
            written.append(part)
            spot = below
        return tuple(written)

    def _at(self, at: tuple[int, int]) -> str:
        return f"{self._name}:{at[0]}:{at[1]}"

    @cached_property
    def _tree(self) -> Tree:
        from clan_discovery.syntax import tree  # noqa: PLC0415 - yaml takes 11 ms, and JSON mostly does without

        try:
            return tree.parse_yaml(self._text, most=self._origin.most, confidential=self._origin.confidential)
        except tree.TreeError as error:
            where = self._name if error.at is None else self._at(error.at)
            refuse(where, error.what, error.hint)

    @cached_property
    def _places(self) -> Tree | None:
        """The positions of all parts; None if they are unknown."""
        if not self.is_json:
            return self._tree
        from clan_discovery.syntax import tree  # noqa: PLC0415 - as above

        try:
            # JSON is YAML except for tabs between tokens and surrogate pairs. Only the positions are read here.
            return tree.parse_yaml(_SURROGATE.sub(r"\\u003f", self._text.replace("\t", " ")), most=self._origin.most)
        except tree.TreeError:
            return None

    def _json(self) -> Json:
        text = self._text
        if not text.strip():
            return None
        if sum(map(text.count, ",[{")) > self._origin.most:
            refuse(self._name, f"holds more than {self._origin.most:,} values: no {self._origin.kind} needs so many")
        try:
            return decode_json(text, unique=self._object)
        except json.JSONDecodeError as error:
            from clan_discovery.syntax.json_words import json_words  # noqa: PLC0415 - only where something is wrong

            what, hint = json_words(text, error)
            refuse(f"{self._name}:{error.lineno}:{error.colno}", f"is not valid JSON: {what}", hint)
        except ValueError as error:
            why = "a number or a key is too long" if self._origin.confidential else str(error)
            refuse(self._name, f"is not valid JSON: {why}")
        except RecursionError:
            refuse(self._name, f"is nested too deeply for a {self._origin.kind}")

    def _object(self, pairs: list[tuple[str, Json]]) -> Mapping[str, Json]:
        for key, _ in pairs:
            if len(key) > LONGEST_KEY:
                raise ValueError(long_key(key))
        found = dict(pairs)
        if len(found) < len(pairs):
            self._has_duplicates = True
        return found


def decoded(body: bytes, name: str) -> str:
    """Return the text of a file, which has this name in messages.

    Raises:
        InputError: it is not UTF-8.
    """
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, before = body.count(b"\n", 0, error.start) + 1, body.rfind(b"\n", 0, error.start)
        refuse(f"{name}:{line}:{error.start - before}", "is not UTF-8", "save the file as UTF-8")


def _texts(value: Json, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yield every text of a value with its path, keys included."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield path, key
            yield from _texts(part, (*path, key))
    elif isinstance(value, Sequence):
        for index, part in enumerate(value):
            yield from _texts(part, (*path, index))


def _is_short(spot: Spot, part: str | int) -> bool:
    """Tell whether the part below this value is only in the models: `any` of a list, or the name of an alternative."""
    if spot.kind == "list":
        return isinstance(part, str)
    return not spot.kind


def after(path: KeyPath, what: str) -> str:
    """Put a path in front of a message about its value."""
    if not path:
        return what
    return f"{dotted(path)}: {what}"


def dotted(path: KeyPath) -> str:
    """Write a path as messages do: `backends.dns.lan`."""
    return ".".join(str(part) for part in path)
