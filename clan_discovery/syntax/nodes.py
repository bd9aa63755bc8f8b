"""Read YAML as nodes: text, lists and mappings, each with its position. For large files of other programs.

Every scalar stays text. Aliases are not expanded: they share a node. Reading a file takes a fifth of the time that
`tree` takes, which reports more.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec
import yaml

from clan_discovery.errors import refuse
from clan_discovery.syntax.keys import LONGEST_KEY, long_key
from clan_discovery.syntax.tree import TreeError, check_text, parse_yaml, position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_MAX_DEPTH: Final = 100
_MAX_BRACKETS: Final = 4000
"""libyaml's own composer is recursive: 20,000 levels are safe, 40,000 end the process."""
_DEEP_BLOCK: Final = re.compile(r"(?m)^[ \t?:-]{400}")
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_PLAIN: Final = (None, "")
_QUOTES: Final = "if it is text, put it in quotes"
_loader: Callable[[str], _Composer] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Composer(Protocol):
    """The methods that PyYAML's two parsers share."""

    def get_single_node(self) -> yaml.Node | None: ...
    def get_event(self) -> yaml.Event | None: ...
    def dispose(self) -> None: ...


class YamlPart(msgspec.Struct, frozen=True, gc=False):
    """A value in a YAML file; `key` is its key, if it is in a mapping."""

    node: yaml.Node
    file: str
    key: yaml.Node | None = None

    @property
    def where(self) -> str:
        """The position of the value, as `file:line:column`."""
        return _where(self.file, self.node)

    @property
    def where_key(self) -> str:
        """The position of the key; of the value if there is none."""
        return _where(self.file, self.key or self.node)

    @property
    def tag(self) -> str:
        """The tag that is written before the value; empty if there is none."""
        return self.node.tag or ""

    @property
    def is_null(self) -> bool:
        """Tell whether this is null or empty."""
        node = self.node
        return isinstance(node, yaml.ScalarNode) and node.style in _PLAIN and node.value in _NULLS

    @property
    def is_list(self) -> bool:
        """Tell whether this is a list."""
        return isinstance(self.node, yaml.SequenceNode)

    @property
    def is_mapping(self) -> bool:
        """Tell whether this is a mapping."""
        return isinstance(self.node, yaml.MappingNode)

    @property
    def text(self) -> str | None:
        """The text of a scalar as it is written, without quotes; None for null, a list or a mapping."""
        node = self.node
        if isinstance(node, yaml.ScalarNode) and not (node.style in _PLAIN and node.value in _NULLS):
            return str(node.value)
        return None

    def items(self) -> Iterator[YamlPart]:
        """Yield the items of a list."""
        if isinstance(self.node, yaml.SequenceNode):
            for item in self.node.value:
                yield YamlPart(item, self.file)

    def pairs(self) -> Mapping[str, YamlPart]:
        """Return the values of a mapping by key, with those of its merge keys; its own win.

        Raises:
            InputError: a key is no text or is given twice, or something else than a mapping is merged.
        """
        found: dict[str, YamlPart] = {}
        merged: list[yaml.Node] = []
        file = self.file
        if not isinstance(self.node, yaml.MappingNode):
            return found
        for key, value in self.node.value:
            if not isinstance(key, yaml.ScalarNode):
                refuse(_where(file, key), "a key must be text, not a list or a mapping", _QUOTES)
            name = key.value
            if name == "<<" and key.style in _PLAIN:
                merged.append(value)
            elif name in found:
                self._refuse_second(name, key, found[name])
            else:
                found[name] = YamlPart(value, file, key)
        for source in merged:
            for name, part in self._sources(source):
                found.setdefault(name, part)
        return found

    def _refuse_second(self, name: str, key: yaml.Node, first: YamlPart) -> None:
        if len(name) > LONGEST_KEY:
            refuse(_where(self.file, key), long_key(name))
        line = (first.key or first.node).start_mark.line + 1
        refuse(_where(self.file, key), f"the key {name!r} is given twice, first on line {line}", "keep one of them")

    def _sources(self, merged: yaml.Node) -> Iterator[tuple[str, YamlPart]]:
        """Yield what a merge key adds: the pairs of a mapping, or of each mapping of a list."""
        sources: list[yaml.Node] = [merged]
        if isinstance(merged, yaml.SequenceNode):
            sources = merged.value
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                what = "only a mapping or a list of mappings can be merged"
                refuse(_where(self.file, source), what, "name one with an alias: `<<: *name`")
            yield from YamlPart(source, self.file).pairs().items()


def _where(file: str, node: yaml.Node) -> str:
    line, column = position(node.start_mark)
    return f"{file}:{line}:{column}"


def parse_parts(text: str, file: str, *, most: int) -> YamlPart | None:
    """Read the only YAML document of a text; `file` is its name in positions. None: it is empty.

    Raises:
        InputError: it does not parse, is nested too deeply, or holds more than `most` values, aliases expanded.
    """
    try:
        check_text(text)
        brackets = text.count("[") + text.count("{") - text.count("${")
        if brackets > _MAX_BRACKETS or _DEEP_BLOCK.search(text) is not None:
            _check_depth(text)
        root = _composed(text, most)
        if root is not None and "&" in text:
            _check_aliases(root, most)
    except TreeError as error:
        where = file
        if error.at is not None:
            where = f"{file}:{error.at[0]}:{error.at[1]}"
        refuse(where, error.what, error.hint)
    if root is None:
        return None
    return YamlPart(root, file)


def _composed(text: str, most: int) -> yaml.Node | None:
    parser: _Composer = _loader(text)
    # The composer asks these for the tag of each value, which takes half of its time.
    vars(parser).update(resolve=_no_tag, descend_resolver=_nothing, ascend_resolver=_nothing)
    try:
        return parser.get_single_node()
    except yaml.MarkedYAMLError as error:
        parse_yaml(text, most=most, confidential=True)  # its message is better
        at = position(error.problem_mark or error.context_mark)
        raise TreeError(f"the YAML does not parse: {error.problem or error.context}", at) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise TreeError(f"is not valid YAML: {error}") from None
    finally:
        parser.dispose()


def _no_tag(*_: object) -> str:
    return ""


def _nothing(*_: object) -> None:
    return None


def _check_depth(text: str) -> None:
    """Refuse a text that is nested too deeply; where it does not parse, the composer says why."""
    parser: _Composer = _loader(text)
    depth = 0
    try:
        while (event := parser.get_event()) is not None:
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > _MAX_DEPTH:
                    raise TreeError("is nested too deeply", position(event.start_mark))
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except (yaml.YAMLError, ValueError, RecursionError):
        return
    finally:
        parser.dispose()


class _Measure(NamedTuple):
    """How many values a node has and how deep it is, with aliases expanded."""

    size: int
    depth: int


def _check_aliases(root: yaml.Node, most: int) -> None:
    """Refuse aliases that lead to themselves, or that expand to too many values or levels."""
    measures: dict[int, _Measure] = {}
    entered: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting[-1]
        if id(node) in measures:
            waiting.pop()
            continue
        below = list(_below(node))
        missing = [child for child in below if id(child) not in measures]
        if missing:
            entered.add(id(node))
            if any(id(child) in entered for child in missing):
                raise TreeError("an alias is inside the value that it names", position(node.start_mark))
            waiting += missing
            continue
        measures[id(node)] = _measured(node, [measures[id(child)] for child in below], most)
        waiting.pop()


def _measured(node: yaml.Node, below: list[_Measure], most: int) -> _Measure:
    size = 1 + sum(measure.size for measure in below)
    depth = 1 + max((measure.depth for measure in below), default=0)
    at = position(node.start_mark)
    if size > most:
        raise TreeError(f"holds more than {most:,} values, aliases expanded", at)
    if depth > _MAX_DEPTH:
        raise TreeError("is nested too deeply, aliases expanded", at)
    return _Measure(size, depth)


def _below(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
