"""Convert YAML into plain values, each with its position, in one pass. Depth and number of values are limited.

Only what a config or an inventory needs is converted: strings, numbers, booleans, null, lists, mappings with strings
as keys, aliases and merge keys. Anything else is reported with its position.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import msgspec
import yaml

from clan_discovery.syntax.keys import LONGEST_KEY, long_key
from clan_discovery.syntax.secret import HIDDEN, holds_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clan_discovery.model import Json

KeyPath: TypeAlias = "tuple[str | int, ...]"
Position: TypeAlias = tuple[int, int]
"""Line and column, counted from 1."""

_MAX_DEPTH: Final = 100
_MAX_DIRECTIVES: Final = 100
_LONGEST_NUMBER: Final = 40
_SHOWN: Final = 60
_MAX_COMPLAINTS: Final = 1000
_LONGEST_DIRECTIVE: Final = 200
_TAG_LINES: Final = re.compile(r"(?m)^%TAG.*")
_NO_YAML: Final = "the YAML does not parse"
_QUOTES: Final = "if it is text, put it in quotes"

# The C parser, if PyYAML was built with it: ten times as fast, with the same events.
_loader: Final[Callable[[str], _YamlParser]] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAGS: Final = "tag:yaml.org,2002:"
_MERGE: Final = f"{_TAGS}merge"
_STRING: Final = f"{_TAGS}str"
_LIST_TAGS: Final = (None, "!", f"{_TAGS}seq")
_MAPPING_TAGS: Final = (None, "!", f"{_TAGS}map")


class _Mark(Protocol):
    line: int
    column: int


class _YamlParser(Protocol):
    """The methods that PyYAML's two parsers share."""

    def get_event(self) -> yaml.Event | None: ...
    def resolve(self, kind: type[yaml.ScalarNode], value: str, implicit: tuple[bool, bool], /) -> str: ...
    def dispose(self) -> None: ...


class TreeError(Exception):
    """The text is not YAML, or too large. `at` is None if this concerns the whole text."""

    def __init__(self, what: str, at: Position | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.at = at
        self.hint = hint


class Spot(msgspec.Struct):
    """The position of a value; of a collection also those of its items and of a mapping's keys."""

    at: Position
    kind: str = ""
    below: dict[str | int, Spot] = {}
    keys: dict[str, Position] = {}


class TreeComplaint(msgspec.Struct, frozen=True):
    """A value that is not allowed. `is_syntax`: the YAML is wrong, not the value at this path."""

    at: Position
    path: KeyPath
    what: str
    hint: str
    is_syntax: bool = False


class Tree(msgspec.Struct, frozen=True):
    """A value with the positions of its parts, and the problems found. `root` is None for an empty text."""

    value: Json
    root: Spot | None
    complaints: tuple[TreeComplaint, ...] = ()


class _Open(msgspec.Struct):
    """A collection that has not ended yet. `size` counts the values in it, with aliases expanded."""

    spot: Spot
    anchor: str | None
    items: list[Json] | None = None
    pairs: dict[str, Json] = {}
    merged: list[tuple[Mapping[str, Json], Spot]] = msgspec.field(
        default_factory=list["tuple[Mapping[str, Json], Spot]"]
    )
    key: str | None = None
    merging: bool = False
    size: int = 1

    @property
    def wants_key(self) -> bool:
        """Tell whether a key of a mapping comes next."""
        return self.items is None and self.key is None and not self.merging


class _Done(msgspec.Struct, frozen=True):
    value: Json
    spot: Spot
    size: int


def check_text(text: str) -> None:
    """Check a text before PyYAML reads it.

    Raises:
        TreeError: it holds a character that YAML forbids, or directives that take too long.
    """
    if found := _UNPRINTABLE.search(text):
        what = f"{_NO_YAML}: the character U+{ord(found[0]):04X} is not allowed"
        raise TreeError(what, _position_at(text, found.start()))
    if any(len(line) > _LONGEST_DIRECTIVE for line in _TAG_LINES.findall(text)):  # each tag repeats its prefix
        raise TreeError(f"{_NO_YAML}: a %TAG directive is too long")
    if text.count("%TAG") > _MAX_DIRECTIVES:  # libyaml compares each with all others
        raise TreeError(f"{_NO_YAML}: it has too many %TAG directives")


def parse_yaml(text: str, *, most: int, confidential: bool = False) -> Tree:
    """Convert the only YAML document of a text. If it is confidential, messages quote none of its values.

    Raises:
        TreeError: it does not parse, is nested too deeply, or holds more than `most` values.
    """
    check_text(text)
    parser = _loader(text)
    builder = _Builder(parser, most, confidential=confidential)
    try:
        return builder.build()
    except yaml.MarkedYAMLError as error:
        from clan_discovery.syntax.yaml_words import syntax_words  # noqa: PLC0415 - only where something is wrong

        at, began = (position(mark) for mark in (error.problem_mark, error.context_mark or error.problem_mark))
        words = syntax_words(text, error.problem or "", error.context or "", at, began)
        what = words.what
        if builder.hides():
            what = re.sub("'[^']*'", HIDDEN, what)
        raise TreeError(f"{_NO_YAML}: {what}", words.at, words.hint) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise TreeError(f"is not valid YAML: {builder.shown(str(error))}") from None
    finally:
        parser.dispose()


class _Builder:
    """Builds the value from events."""

    def __init__(self, parser: _YamlParser, most: int, *, confidential: bool) -> None:
        self._parser = parser
        self._most = most
        self._confidential = confidential
        self._open: list[_Open] = []
        self._anchors: dict[str, _Done] = {}
        self._complaints: list[TreeComplaint] = []
        self._root: _Done | None = None
        self._values = 0
        self._documents = 0

    def build(self) -> Tree:
        while (event := self._parser.get_event()) is not None:
            self._take(event)
        if self._root is None:
            return Tree(None, None)
        return Tree(self._root.value, self._root.spot, tuple(self._complaints))

    def _take(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.CollectionStartEvent():
                self._begin(event)
            case yaml.CollectionEndEvent():
                self._end()
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    what = f"{_NO_YAML}: it has more than one document"
                    raise TreeError(what, position(event.start_mark), "remove the line `---`")
            case _:
                pass

    def _count(self, size: int, at: Position) -> None:
        self._values += size
        if self._values > self._most:
            raise TreeError(f"holds more than {self._most:,} values, aliases expanded", at)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        at = position(event.start_mark)
        self._count(1, at)
        text: str = event.value
        tag: str | None = event.tag
        if tag is None or tag == "!":
            tag = _STRING
            if event.implicit[0]:
                tag = self._parser.resolve(yaml.ScalarNode, text, (True, False))
        parent = self._open[-1] if self._open else None
        if parent is not None and parent.wants_key:
            self._key(parent, text, tag, at)
            self._keep(event.anchor, _Done(text, Spot(at), 1))
            return
        done = _Done(self._converted(text, tag, at), Spot(at), 1)
        self._keep(event.anchor, done)
        self._add(done)

    def _key(self, parent: _Open, text: str, tag: str, at: Position) -> None:
        if len(text) > LONGEST_KEY:
            raise TreeError(long_key(self.shown(text)), at)
        if tag == _MERGE:
            parent.merging = True
            return
        if tag != _STRING:
            self._complain(at, text, f"the key {self._shown(text)} is not text in YAML", "put it in quotes")
        first = parent.spot.keys.get(text)
        if first is not None:
            self._complain(at, text, f"is given twice, first on line {first[0]}", "keep one of them")
        else:
            parent.spot.keys[text] = at
        parent.key = text

    def _converted(self, text: str, tag: str, at: Position) -> Json:
        """Return the value of a scalar; what is not allowed is a complaint, and the value its text."""
        if tag == _STRING:
            return text
        kind = tag.removeprefix(_TAGS)
        try:
            match kind:
                case "int":
                    return _integer(text)
                case "float":
                    return _decimal(text)
                case "bool":
                    return yaml.SafeLoader.bool_values[text.lower()]
                case "null":
                    return None
                case _:
                    pass
        except (ValueError, KeyError):
            self._complain(at, None, f"{self._shown(text)} is not a number or boolean", _QUOTES)
            return text
        match kind:
            case "timestamp":
                self._complain(at, None, f"{self._shown(text)} is a date in YAML", _QUOTES)
            case "merge" | "value":
                self._complain(at, None, f"{self._shown(text)} has a meaning of its own in YAML", _QUOTES)
            case _:
                self._complain_of_tag(at, tag, _QUOTES)
        return text

    def _shown(self, text: str) -> str:
        """Quote and cut a text of the next value; hide it below the key of a secret."""
        if self._is_full or self.hides():
            return HIDDEN
        return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...")

    @property
    def _is_full(self) -> bool:
        """Tell whether there are so many complaints that no more are kept."""
        return len(self._complaints) >= _MAX_COMPLAINTS

    def shown(self, text: str) -> str:
        """Return a text that may hold any part of the input, or stars if the input is confidential."""
        if self._confidential:
            return HIDDEN
        return text

    def hides(self) -> bool:
        """Tell whether messages hide the value that comes next: it is below a secret's key, or all are hidden."""
        return self._confidential or holds_secret(self._path())

    def _complain_of_tag(self, at: Position, tag: str, hint: str) -> None:
        what = f"{_NO_YAML}: values with the tag {self._shown(tag.removeprefix(_TAGS))} are not supported"
        if not self._is_full:
            self._complaints.append(TreeComplaint(at, self._path(), what, hint, is_syntax=True))

    def _complain(self, at: Position, key: str | None, what: str, hint: str) -> None:
        if self._is_full:
            return
        path = self._path()
        if key is not None:
            path = (*path, key)
        self._complaints.append(TreeComplaint(at, path, what, hint))

    def _path(self) -> KeyPath:
        """Return the path of the value that comes next."""
        path: list[str | int] = []
        for collection in self._open:
            if collection.items is not None:
                path.append(len(collection.items))
            elif collection.merging:
                path.append("<<")
            elif collection.key is not None:
                path.append(collection.key)
        return tuple(path)

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        at = position(event.start_mark)
        self._count(1, at)
        if len(self._open) >= _MAX_DEPTH:
            raise TreeError("is nested too deeply", at)
        if self._open and self._open[-1].wants_key:
            raise TreeError(f"{_NO_YAML}: a key must be text, not a list or a mapping", at, _QUOTES)
        tags, spot = _MAPPING_TAGS, Spot(at, "mapping")
        items: list[Json] | None = None
        if isinstance(event, yaml.SequenceStartEvent):
            items, tags, spot.kind = [], _LIST_TAGS, "list"
        if event.tag not in tags:
            self._complain_of_tag(at, str(event.tag), "remove the tag")
        self._open.append(_Open(spot, event.anchor, items))

    def _end(self) -> None:
        collection = self._open.pop()
        value: Json = collection.items
        if collection.items is None:
            value = _with_merged(collection)
        done = _Done(value, collection.spot, collection.size)
        self._keep(collection.anchor, done)
        self._add(done)

    def _alias(self, event: yaml.AliasEvent) -> None:
        at = position(event.start_mark)
        name = str(event.anchor)
        done = self._anchors.get(name)
        if done is None:
            what = f"found undefined alias {self._shown(name)}"
            if any(collection.anchor == name for collection in self._open):
                what = f"alias {self._shown(name)} is inside the value that it names"
            raise TreeError(f"{_NO_YAML}: {what}", at)
        self._count(done.size, at)
        if self._open and self._open[-1].wants_key:
            raise TreeError(f"{_NO_YAML}: a key must be text, not an alias", at)
        self._add(_Done(done.value, Spot(at, done.spot.kind, done.spot.below, done.spot.keys), done.size))

    def _keep(self, anchor: str | None, done: _Done) -> None:
        if anchor is not None:
            self._anchors[anchor] = done

    def _add(self, done: _Done) -> None:
        """Add a value to the collection that is open, or make it the root."""
        if not self._open:
            self._root = done
            return
        parent = self._open[-1]
        parent.size += done.size
        if parent.items is not None:
            parent.spot.below[len(parent.items)] = done.spot
            parent.items.append(done.value)
        elif parent.merging:
            self._merge(parent, done)
            parent.merging = False
        elif parent.key is not None:
            parent.spot.below[parent.key] = done.spot
            parent.pairs[parent.key] = done.value
            parent.key = None

    def _merge(self, parent: _Open, done: _Done) -> None:
        """Keep what a merge key names: a mapping, or a list of mappings; the first one wins."""
        sources = [done]
        if isinstance(done.value, list):
            sources = [_Done(value, done.spot.below[index], 0) for index, value in enumerate(done.value)]
        for source in sources:
            if not isinstance(source.value, dict):
                what = "only a mapping or a list of mappings can be merged"
                self._complain(source.spot.at, None, what, "name one with an alias: `<<: *name`")
                return
            parent.merged.append((source.value, source.spot))


def _with_merged(collection: _Open) -> Mapping[str, Json]:
    """Return the mapping with what its merge keys add; its own keys win."""
    if not collection.merged:
        return collection.pairs
    value: dict[str, Json] = {}
    for merged, spot in reversed(collection.merged):
        value |= merged
        for key in merged.keys() - collection.pairs.keys():
            collection.spot.below[key] = spot.below[key]
            collection.spot.keys[key] = spot.keys[key]
    return value | collection.pairs


def _integer(text: str) -> int:
    """Convert an integer of YAML 1.1 without its numbers to the base 60, or raise ValueError."""
    if len(text) > _LONGEST_NUMBER:
        raise ValueError
    digits = text.replace("_", "")
    if digits.lstrip("+-").startswith("0") and digits.lstrip("+-0"):
        unsigned = digits.lstrip("+-")
        base = {"0b": 2, "0x": 16}.get(unsigned[:2].lower(), 8)
        value = int(unsigned, base)
        return -value if digits.startswith("-") else value
    return int(digits)


def _decimal(text: str) -> float:
    """Convert a finite number, or raise ValueError."""
    if len(text) > 10 * _LONGEST_NUMBER:
        raise ValueError
    value = float(text.replace("_", ""))
    if not math.isfinite(value):
        raise ValueError
    return value


def position(mark: _Mark | None) -> Position:
    """Return line and column of a mark, counted from 1."""
    if mark is None:
        return 1, 1
    return mark.line + 1, mark.column + 1


def _position_at(text: str, index: int) -> Position:
    line = text.count("\n", 0, index)
    return line + 1, index - (text.rfind("\n", 0, index) + 1) + 1
