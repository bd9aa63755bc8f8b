"""Read a config file. All problems are reported at once, each with file:line:column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
from pydantic import ValidationError

from clan_discovery.config.models import Backends, Config, config_with
from clan_discovery.errors import PROBLEMS_MOST, InputError, refuse
from clan_discovery.model import Json, Problem, one_line
from clan_discovery.reading import UnreadableError, UnusableFileError, read_input
from clan_discovery.syntax.document import Document, Origin, after, decoded, dotted

if TYPE_CHECKING:
    from pathlib import Path

    from clan_discovery.config.kinds import FoundKind
    from clan_discovery.model import Severity
    from clan_discovery.syntax.tree import KeyPath

_PATHS: Final = (("state",), ("output", "directory"), ("inventory", "file"), ("inventory", "flake"))
_MAX_BYTES: Final = 4 * 1024 * 1024
"""The largest config; a static list of 10,000 machines has about 400 KB."""
_MAX_VALUES: Final = 100_000


class LoadedConfig(msgspec.Struct, frozen=True):
    """A config, and the position of each value in its file; `kinds` are its kinds of backends that are not built in.

    `found` are files that the config does not name, but the files of its sources do, each with its name in the log.
    They are known when the sources have been read.
    """

    config: Config
    file: Path
    source: Document
    kinds: Mapping[str, FoundKind] = {}
    found: dict[Path, str] = {}

    def problem(self, path: KeyPath, what: str, hint: str | None = None, *, severity: Severity = "error") -> Problem:
        """Return a problem with the value at this path, with its position in the file."""
        return Problem(where=self.source.place(path), what=f"{dotted(path)}: {what}", hint=hint, severity=severity)


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
        complaints += [*source.half_characters(), *source.typographic(), *_empty_paths(source)]
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


def _read_source(file: Path, what: str, hint: str) -> Document:
    body = read_file(file, what, most=_MAX_BYTES, hint=hint)
    text = decoded(body, str(file))
    origin = Origin(name=one_line(str(file)), kind="config", is_json=file.suffix == ".json", most=_MAX_VALUES)
    return Document(text, origin)


def _empty_paths(source: Document) -> list[Problem]:
    """Return a problem for each path that YAML reads as null: `state:` or `state: ~`.

    JSON is not checked: Nix writes null for an option that is not set.
    """
    if source.is_json or not isinstance(source.value, Mapping):
        return []
    found: list[Problem] = []
    for path in _PATHS:
        value: Json = source.value
        for key in path[:-1]:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, Mapping) and value.get(path[-1], "") is None:
            hint = "write a path, or remove the key; `~` is null in YAML, not the home directory"
            found.append(Problem(where=source.place(path), what=after(path, "is empty"), hint=hint))
    return found


def _added_kinds(source: Document) -> tuple[dict[str, FoundKind], list[Problem]]:
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
    file: Path, source: Document, error: ValidationError, known: Sequence[Problem], model: type[Config]
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
            found.append(Problem(where=place, what=after(path, what), hint=hint))
    return found, counts.total() - len(found)
