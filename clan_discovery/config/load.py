"""Reads a config file. Every problem has file:line:column, and all of them come at once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import yaml
from pydantic import ValidationError

from clan_discovery.config.models import Config
from clan_discovery.errors import InputError, refuse
from clan_discovery.model import Json, Problem
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

KeyPath: TypeAlias = "tuple[str | int, ...]"

# The C parser where PyYAML was built with it: ten times as fast, the same nodes.
_Loader: Final[type[yaml.SafeLoader | yaml.CSafeLoader]] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH: Final = 100
_MAX_VALUES: Final = 100_000
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_MAX_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A config, with the place of every value in its file."""

    config: Config
    file: Path
    root: yaml.Node | None

    def problem(self, path: KeyPath, what: str, hint: str | None = None) -> Problem:
        """Return a complaint about the value at this path, with its place in the file."""
        return Problem(where=_place(self.file, self.root, path), what=f"{_dotted(path)}: {what}", hint=hint)


def load_config(file: Path) -> LoadedConfig:
    """Read and check a config file; every path in the config is absolute afterwards.

    Raises:
        InputError: the file cannot be read, does not parse, or is not a valid config.
    """
    try:
        text = read_file(file, "config", most=_MAX_BYTES, hint="give the config with --config FILE").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        refuse(str(file), f"is not UTF-8 (byte {error.start})")
    root, data, complaints = _parse_json(file, text) if file.suffix == ".json" else _parse_yaml(file, text)
    if data is None:
        refuse(str(file), "the config is empty", "see: clan-discovery check --help")
    try:
        config = Config.model_validate(data, context=file.parent.absolute())
    except ValidationError as error:
        complaints += _complaints(file, root, error)
    else:
        if not complaints:
            return LoadedConfig(config, file, root)
    raise InputError(complaints)


def read_file(file: Path, what: str, *, most: int, hint: str) -> bytes:
    """Read a file that the user named.

    Raises:
        InputError: it cannot be read, is no regular file, or is larger than `most` bytes.
    """
    try:
        if file.exists() and not file.is_file():
            refuse(str(file), f"the {what} is {'a directory' if file.is_dir() else 'no regular file'}")
        with file.open("rb") as opened:
            body = opened.read(most + 1)
    except OSError as error:
        refuse(str(file), f"cannot read the {what}: {error.strerror}", hint)
    if len(body) > most:
        refuse(str(file), f"the {what} is larger than {most >> 20} MiB")
    return body


_Parsed: TypeAlias = "tuple[yaml.Node | None, Json, list[Problem]]"
"""The nodes with their places, the value, and problems that need not be the only ones."""


def _parse_yaml(file: Path, text: str) -> _Parsed:
    loader: yaml.SafeLoader | yaml.CSafeLoader | None = None
    try:
        _check_depth(text)
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None, None, []
        if _expanded(root, {}) > _MAX_VALUES:
            refuse(str(file), "its aliases unfold to more values than any config has")
        data: Json = yaml.load(text, _Loader)  # noqa: S506 - the safe loader, in C
    except yaml.MarkedYAMLError as error:
        what = " ".join(part for part in (error.context, error.problem) if part)
        refuse(_at(file, error.problem_mark or error.context_mark), f"the YAML does not parse: {what}")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        refuse(str(file), f"is no YAML: {str(error) or 'nested too deeply'}")
    finally:
        if loader is not None:
            loader.dispose()
    return root, data, list(_duplicates(file, root, (), set()))


def _check_depth(text: str) -> None:
    """Refuse what is nested so deeply that libyaml would run out of stack, which crashes the process."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ValueError("it is nested too deeply for a config")


def _expanded(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Count the values below a node with its aliases expanded; each node is visited once."""
    if id(node) not in sizes:
        sizes[id(node)] = _MAX_VALUES + 1  # the size of an alias to a node above it, which never ends
        below: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            below = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            below = list(node.value)
        sizes[id(node)] = 1 + sum(_expanded(part, sizes) for part in below)
    return sizes[id(node)]


def _parse_json(file: Path, text: str) -> _Parsed:
    if not text.strip():
        return None, None, []
    try:
        data: Json = json.loads(text)
    except json.JSONDecodeError as error:
        refuse(f"{file}:{error.lineno}:{error.colno}", f"is no JSON: {error.msg}")
    except (ValueError, RecursionError) as error:
        refuse(str(file), f"is no JSON: {error}")
    try:
        # JSON is YAML except for tabs between tokens and surrogate pairs. Only the places are taken from this reading.
        root, _, complaints = _parse_yaml(file, _SURROGATE.sub(r"\\u003f", text.replace("\t", " ")))
    except InputError:
        root, complaints = None, []
    return root, data, complaints


def _duplicates(file: Path, node: yaml.Node, path: KeyPath, seen: set[int]) -> Iterator[Problem]:
    """Find keys that are given twice in one mapping: YAML silently takes the last."""
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            name = str(key.value)
            below = (*path, name)
            if name in first and name != "<<":
                what = f"{_dotted(below)}: stands here twice (first on line {first[name]})"
                yield Problem(where=_at(file, key.start_mark), what=what, hint="keep one of them")
            first.setdefault(name, key.start_mark.line + 1)
            yield from _duplicates(file, value, below, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _duplicates(file, item, (*path, index), seen)


def _complaints(file: Path, root: yaml.Node | None, error: ValidationError) -> list[Problem]:
    found: list[Problem] = []
    for detail in error.errors(include_url=False):
        # pydantic marks a wrong key with a last element of its own
        path = _as_written(root, tuple(part for part in detail["loc"] if part != "[key]"))
        what, hint = _in_words(detail, path)
        place = _place(file, root, path, key=detail["type"] == "extra_forbidden" or "[key]" in detail["loc"])
        found.append(Problem(where=place, what=f"{_dotted(path)}: {what}" if path else what, hint=hint))
    return found


def _as_written(root: yaml.Node | None, path: KeyPath) -> KeyPath:
    """Remove what only the models have from a path: `tags: [x]` is `any`, a single address is a list of one."""
    node, written = root, list[str | int]()
    for part in path:
        found = None if node is None else _below(node, part)
        short = isinstance(node, yaml.SequenceNode) and part == "any"
        if found is None and (short or (isinstance(node, yaml.ScalarNode) and isinstance(part, int))):
            continue
        written.append(part)
        node = found[1] if found is not None else None
    return tuple(written)


_MUST_BE: Final = {
    "dict_type": "must be a mapping",
    "list_type": "must be a list",
    "model_attributes_type": "must be a mapping",
    "model_type": "must be a mapping",
    "path_type": "must be a path",
}
_NUMBER_ERRORS: Final = frozenset({"int_type", "int_parsing", "greater_than_equal", "less_than_equal"})


def _in_words(detail: ErrorDetails, path: KeyPath) -> tuple[str, str | None]:
    """Return what is wrong and how to fix it, for one of pydantic's errors."""
    given: Json = detail["input"]
    type_ = detail["type"]
    if type_ in _NUMBER_ERRORS and path[-1:] == ("port",):
        return f"{_given(given)} is no port", "a port is a number from 1 to 65535, without quotes"
    match type_:
        case "extra_forbidden":
            known = _keys_at(path[:-1])
            return "unknown key", did_you_mean(str(path[-1]), known) or f"known here: {', '.join(known)}"
        case "missing":
            return "is missing", None
        case "value_error":
            return detail["msg"].removeprefix("Value error, "), None
        case "literal_error":
            return f"{_given(given)} is not one of {detail.get('ctx', {}).get('expected', '')}", None
        case "string_type":
            quotes = None if isinstance(given, list | dict | None) else "put it in quotes"
            return f"must be a string, not {_given(given)}", quotes
        case _:
            message = _MUST_BE.get(type_) or f"{detail['msg'][:1].lower()}{detail['msg'][1:]}"
            return f"{message}, not {_given(given)}", None


def _given(value: Json) -> str:
    """Write a wrong value as the file has it, not as Python does."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "...")
        case _:
            return str(value)[:60]


def _keys_at(path: Sequence[str | int]) -> list[str]:
    """Return the keys that may stand at this path, from the schema: it knows every shape a config can have."""
    schema: Json = Config.model_json_schema()
    definitions = _mapping(_mapping(schema).get("$defs"))
    nodes = [_mapping(schema)]
    for part in path:
        nodes = [shape for node in nodes for shape in _shapes(_child(node, str(part)), definitions)]
    return sorted({key for node in nodes for key in _mapping(node.get("properties"))})


def _child(node: Mapping[str, Json], part: str) -> Json:
    """Return the schema of a property, of any other key, or of an item."""
    return _mapping(node.get("properties")).get(part) or node.get("additionalProperties") or node.get("items")


def _shapes(schema: Json, definitions: Mapping[str, Json]) -> Iterator[Mapping[str, Json]]:
    """Yield a schema with each of its alternatives, references resolved."""
    node = _mapping(schema)
    yield node
    reference, alternatives = node.get("$ref"), node.get("anyOf")
    if isinstance(reference, str):
        yield from _shapes(definitions[reference.rpartition("/")[2]], definitions)
    if isinstance(alternatives, list):
        for alternative in alternatives:
            yield from _shapes(alternative, definitions)


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}


def _dotted(path: KeyPath) -> str:
    return ".".join(str(part) for part in path)


def _place(file: Path, root: yaml.Node | None, path: KeyPath, *, key: bool = False) -> str:
    """Return the place of a path's value or key in the file; of what is missing, that of the nearest parent."""
    if root is None:
        return str(file)
    node, mark = root, root.start_mark
    for index, part in enumerate(path):
        found = _below(node, part)
        if found is None:
            break
        key_node, node = found
        mark = key_node.start_mark if key and index == len(path) - 1 else node.start_mark
    return _at(file, mark)


def _at(file: Path, mark: yaml.Mark | None) -> str:
    return f"{file}:{mark.line + 1}:{mark.column + 1}" if mark is not None else str(file)


def _below(node: yaml.Node, part: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((k, v) for k, v in node.value if str(k.value) == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None
