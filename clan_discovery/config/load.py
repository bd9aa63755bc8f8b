"""Read a config file. All problems are reported at once, each with file:line:column."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

import msgspec
from pydantic import ValidationError

from clan_discovery.config.models import Backends, Config, config_with
from clan_discovery.errors import PROBLEMS_MOST, InputError, refuse
from clan_discovery.model import Json, Problem, one_line
from clan_discovery.reading import UnreadableError, UnusableFileError, read_input
from clan_discovery.syntax.keys import LONGEST_KEY, long_key
from clan_discovery.syntax.strict_json import decode_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clan_discovery.config.kinds import FoundKind
    from clan_discovery.model import Severity
    from clan_discovery.syntax.tree import KeyPath, Spot, Tree

_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_OPENING_QUOTES: Final = ("\u201c", "\u201d", "\u201e", "\u2018", "\u201a", "\u00ab")
_INVISIBLE: Final = "\u00a0\u200b\u202f\u2060\ufeff"
_TYPOGRAPHIC: Final = re.compile(f"[{''.join(_OPENING_QUOTES)}{_INVISIBLE}]")
_TYPE_AGAIN: Final = "delete the space and type the text again"
_PATHS: Final = (("state",), ("output", "directory"), ("inventory", "file"), ("inventory", "flake"))
_MAX_BYTES: Final = 4 * 1024 * 1024
"""The largest config; a static list of 10,000 machines has about 400 KB."""
_MAX_VALUES: Final = 100_000


class LoadedConfig(msgspec.Struct, frozen=True):
    """A config, and the position of each value in its file; `kinds` are its kinds of backends that are not built in."""

    config: Config
    file: Path
    source: Source
    kinds: Mapping[str, FoundKind] = {}

    def problem(self, path: KeyPath, what: str, hint: str | None = None, *, severity: Severity = "error") -> Problem:
        """Return a problem with the value at this path, with its position in the file."""
        return Problem(where=self.source.place(path), what=f"{_dotted(path)}: {what}", hint=hint, severity=severity)


class Source:
    """The text of a config file: its value (None if empty), and the positions of its parts."""

    def __init__(self, file: Path, text: str) -> None:
        """Parse the text.

        Raises:
            InputError: it does not parse, or holds more than 100,000 values.
        """
        self._name = one_line(str(file))
        self._text = text
        self._is_json = file.suffix == ".json"
        self._has_duplicates = False
        self.value: Json = self._json() if self._is_json else self._tree.value

    @property
    def complaints(self) -> list[Problem]:
        """Problems of the text. Its values may have more."""
        if self._is_json and not self._has_duplicates:
            return []
        tree = self._places
        if tree is None:
            return [Problem(where=self._name, what="a key is given twice in one object", hint="keep one of them")]
        return [
            Problem(
                where=self._at(found.at),
                what=_after(() if found.is_syntax else found.path, found.what),
                hint=found.hint,
            )
            for found in tree.complaints
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
            Problem(where=self.place(path), what=_after(path, "holds half of a surrogate pair"), hint="remove it")
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
                found.append(Problem(where=self.place(path), what=_after(path, what), hint="write ' or \""))
            elif text.strip(_INVISIBLE) != text:
                what = "the text begins or ends with an invisible space"
                found.append(Problem(where=self.place(path), what=_after(path, what), hint=_TYPE_AGAIN))
        return found

    def empty_paths(self) -> list[Problem]:
        """Return a problem for each path that YAML reads as null: `state:` or `state: ~`.

        JSON is not checked: Nix writes null for an option that is not set.
        """
        if self._is_json or not isinstance(self.value, Mapping):
            return []
        found: list[Problem] = []
        for path in _PATHS:
            value: Json = self.value
            for key in path[:-1]:
                value = value.get(key) if isinstance(value, Mapping) else None
            if isinstance(value, Mapping) and value.get(path[-1], "") is None:
                hint = "write a path, or remove the key; `~` is null in YAML, not the home directory"
                found.append(Problem(where=self.place(path), what=_after(path, "is empty"), hint=hint))
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
        from clan_discovery.syntax import tree  # noqa: PLC0415 - a config of JSON starts 11 ms sooner without yaml

        try:
            return tree.parse_yaml(self._text, most=_MAX_VALUES)
        except tree.TreeError as error:
            where = self._name if error.at is None else self._at(error.at)
            refuse(where, error.what, error.hint)

    @cached_property
    def _places(self) -> Tree | None:
        """The positions of all parts; None if they are unknown."""
        if not self._is_json:
            return self._tree
        from clan_discovery.syntax import tree  # noqa: PLC0415 - as above

        try:
            # JSON is YAML except for tabs between tokens and surrogate pairs. Only the positions are read here.
            return tree.parse_yaml(_SURROGATE.sub(r"\\u003f", self._text.replace("\t", " ")), most=_MAX_VALUES)
        except tree.TreeError:
            return None

    def _json(self) -> Json:
        text = self._text
        if not text.strip():
            return None
        if sum(map(text.count, ",[{")) > _MAX_VALUES:
            refuse(self._name, f"holds more than {_MAX_VALUES:,} values: no config needs so many")
        try:
            return decode_json(text, unique=self._object)
        except json.JSONDecodeError as error:
            from clan_discovery.syntax.json_words import json_words  # noqa: PLC0415 - only where something is wrong

            what, hint = json_words(text, error)
            refuse(f"{self._name}:{error.lineno}:{error.colno}", f"is not valid JSON: {what}", hint)
        except ValueError as error:
            refuse(self._name, f"is not valid JSON: {error}")
        except RecursionError:
            refuse(self._name, "is nested too deeply for a config")

    def _object(self, pairs: list[tuple[str, Json]]) -> Mapping[str, Json]:
        for key, _ in pairs:
            if len(key) > LONGEST_KEY:
                raise ValueError(long_key(key))
        found = dict(pairs)
        if len(found) < len(pairs):
            self._has_duplicates = True
        return found


def load_config(file: Path) -> LoadedConfig:
    """Read and check a config file; every path in the config is absolute afterwards.

    Raises:
        InputError: the file cannot be read, does not parse, or is not a valid config.
    """
    source = _read_source(file, "config", "give the config with --config FILE")
    if source.value is None:
        refuse(str(file), "the config is empty", "see: clan-discovery check --help")
    kinds, problems = _added_kinds(source)
    model = config_with(tuple((kind, found.model) for kind, found in kinds.items()))
    complaints, more = [*source.complaints, *problems], 0
    try:
        config = model.model_validate(source.value, context=file.parent.absolute())
    except ValidationError as error:
        found, more = _complaints(file, source, error, complaints, model)
        complaints += found
    else:
        complaints += [*source.half_characters(), *source.typographic(), *source.empty_paths()]
        if not complaints:
            return LoadedConfig(config, file, source, kinds)
    raise InputError(complaints, more)


def read_yaml(file: Path, what: str, hint: str) -> Json:
    """Read a YAML file that the user named, with the bounds and checks of a config.

    Raises:
        InputError: it cannot be read, does not parse, or holds a value that is not allowed.
    """
    source = _read_source(file, what, hint)
    if complaints := [*source.complaints, *source.half_characters(), *source.typographic()]:
        raise InputError(complaints)
    return source.value


def place_in(file: Path, path: KeyPath) -> str:
    """Return the position of a key in a file of JSON or YAML; the file's name if it has too many values."""
    try:
        return _read_source(file, "file", "").place(path, key=True)
    except InputError:
        return str(file)


def _read_source(file: Path, what: str, hint: str) -> Source:
    body = read_file(file, what, most=_MAX_BYTES, hint=hint)
    try:
        return Source(file, body.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line, before = body.count(b"\n", 0, error.start) + 1, body.rfind(b"\n", 0, error.start)
        refuse(f"{file}:{line}:{error.start - before}", "is not UTF-8", "save the file as UTF-8")


def _added_kinds(source: Source) -> tuple[dict[str, FoundKind], list[Problem]]:
    """Load the kinds of backends that the config names and that are not built in; one that fails is a problem."""
    named: Json = None
    if isinstance(source.value, Mapping):
        named = source.value.get("backends")
    found: dict[str, FoundKind] = {}
    problems: list[Problem] = []
    if not isinstance(named, Mapping) or named.keys() <= Backends.model_fields.keys():
        return found, problems
    from clan_discovery.config import kinds  # noqa: PLC0415 - it reads every installed distribution

    for kind, points in kinds.added_kinds(Backends.model_fields).items():
        if kind not in named:
            continue
        try:
            found[kind] = kinds.load_kind(points)
        except kinds.KindError as error:
            where = source.place(("backends", kind), key=True)
            problems.append(Problem(where=where, what=f"backends.{kind}: {error}", hint=error.hint))
    return found, problems


def read_file(file: Path, what: str, *, most: int, hint: str) -> bytes:
    """Read a file that the user named.

    Raises:
        InputError: it cannot be read, is no regular file, or is larger than `most` bytes.
    """
    try:
        return read_input(file, most)
    except UnreadableError as error:
        if isinstance(error.cause, UnusableFileError):  # a sentence of its own: it is a pipe, or too large
            refuse(str(file), f"the {what} {error.why}")
        refuse(str(file), f"cannot read the {what}: {error.why}", hint)


def _complaints(
    file: Path, source: Source, error: ValidationError, known: Sequence[Problem], model: type[Config]
) -> tuple[list[Problem], int]:
    """Return problems for pydantic's errors, at most a few of each type, and how many are left out."""
    from clan_discovery.config.words import in_words  # noqa: PLC0415 - only where something is wrong

    told = {problem.where for problem in known}
    found: list[Problem] = []
    counts: Counter[str] = Counter()
    for detail in error.errors(include_url=False):
        # pydantic marks a wrong key with a last element of its own
        path = source.as_written(tuple(part for part in detail["loc"] if part != "[key]"))
        place = source.place(path, key=detail["type"] == "extra_forbidden" or "[key]" in detail["loc"])
        is_alternative = path != detail["loc"]
        if is_alternative and isinstance(detail["input"], list):  # another alternative says which element is wrong
            continue
        if place in told and place != str(file):
            continue
        if is_alternative:
            told.add(place)
        counts[detail["type"]] += 1
        if counts[detail["type"]] <= PROBLEMS_MOST:
            what, hint = in_words(detail, path, model)
            found.append(Problem(where=place, what=_after(path, what), hint=hint))
    return found, counts.total() - len(found)


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


def _after(path: KeyPath, what: str) -> str:
    """Put a path in front of a message about its value."""
    if not path:
        return what
    return f"{_dotted(path)}: {what}"


def _dotted(path: KeyPath) -> str:
    return ".".join(str(part) for part in path)
