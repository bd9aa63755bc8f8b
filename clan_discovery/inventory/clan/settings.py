"""Merge settings as the NixOS module system does, without Nix. Pure.

The JSON of an inventory holds each `settings` as an unmerged module fragment: `{imports: [{_file, imports: [X]}]}`,
where X may hold `_type` nodes of mkOverride, mkIf, mkMerge and mkOrder. Settings of role, machine and tags have equal
priority (clan-core, lib/inventory/distributed-service/service-module.nix: evalMachineSettings).

This follows nixpkgs' lib/modules.nix (`mergeDefinitions`: discharge, filter overrides, sort, merge). For options that
the service leaves freeform it follows lib/types.nix (`attrsOf anything`): attribute sets merge, everything else must be
equal. Lists concatenate only if the service declares a list; `Lists` names those, and submodules.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import msgspec

from clan_discovery.inventory.clan.decode import is_list, kind

if TYPE_CHECKING:
    from clan_discovery.model import Json


class Submodule(msgspec.Struct, frozen=True):
    """An attribute set with an evaluation of its own (lib.types.submodule).

    `options` are the lists that are declared in it.
    """

    options: Mapping[str, Lists]


Lists: TypeAlias = "Literal[True] | Submodule | Mapping[str, Lists]"
"""Which options are declared lists: True for a list, a map for an attrset of such (`*`: any name), or a submodule."""

_NONE: Final[Mapping[str, Lists]] = {}
_DEFAULT_PRIORITY: Final = 100  # lib.modules.defaultOverridePriority
_DEFAULT_ORDER: Final = 1000  # lib.modules.defaultOrderPriority
# Keys that lib.modules.unifyModuleSyntax removes from a module; the rest is its config.
_MODULE_KEYS: Final = frozenset({"_class", "_file", "disabledModules", "freeformType", "imports", "key", "require"})


class Conflict(NamedTuple):
    """An option with definitions that do not merge, and two different values.

    `option` is the path within `settings`.
    """

    option: tuple[str, ...]
    values: tuple[Json, Json]


class Merged(NamedTuple):
    """Merged settings, and the options with conflicts, which `values` lacks."""

    values: Mapping[str, Json]
    conflicts: tuple[Conflict, ...] = ()


class MalformedSettingsError(ValueError):
    """A fragment that Nix cannot have written.

    For example, `imports` is not a list, or a `_type` node has no content.
    """


class _Merge(msgspec.Struct):
    conflicts: list[Conflict] = []

    def option(self, path: tuple[str, ...], definitions: Sequence[Json], lists: Lists) -> tuple[Json, ...]:
        """Merge the definitions of one option to a tuple of one value, or of none."""
        values = _ordered(_highest([value for d in definitions for value in _discharge(d)]))
        if not values:
            return ()
        if any(_is_node(value) for value in values):  # a property within a property: merge again
            return self.option(path, values, lists)
        if lists is True and all(is_list(value) for value in values):
            return (self._concatenate(path, values),)
        sets = [value for value in values if isinstance(value, Mapping)]
        if len(sets) == len(values):
            return (self._sets(path, sets, lists),)
        return self._equal(path, values)

    def _sets(self, path: tuple[str, ...], sets: Sequence[Mapping[str, Json]], lists: Lists) -> Json:
        if isinstance(lists, Submodule):
            # In a submodule each definition is a module. Their order is reversed again, so the role's come first.
            return self.attributes(path, _definitions(sets), lists.options)
        return self.attributes(path, sets, _NONE if lists is True else lists)

    def attributes(
        self, path: tuple[str, ...], sets: Sequence[Mapping[str, Json]], lists: Mapping[str, Lists]
    ) -> dict[str, Json]:
        by_name: dict[str, list[Json]] = {}
        for attributes in sets:
            for name, value in attributes.items():
                by_name.setdefault(name, []).append(value)
        merged: dict[str, Json] = {}
        for name, definitions in by_name.items():
            declared = lists.get(name, lists.get("*", _NONE))
            for value in self.option((*path, name), definitions, declared):
                merged[name] = value
        return merged

    def _concatenate(self, path: tuple[str, ...], values: Sequence[Json]) -> Json:
        # lib.types.listOf merges each element by itself, so properties inside the list are honoured there.
        joined: list[Json] = []
        for element in chain.from_iterable(filter(is_list, values)):
            joined.extend(self.option((*path, "*"), [element], {}))
        return joined

    def _equal(self, path: tuple[str, ...], values: Sequence[Json]) -> tuple[Json, ...]:
        first = values[0]
        for other in values[1:]:
            # Nix compares 1 and 1.0 as equal, but types.anything wants one type first.
            if isinstance(first, float) is not isinstance(other, float) or not same(first, other):
                self.conflicts.append(Conflict(path, (first, other)))
                return ()
        return (first,)


def merge_settings(fragments: Sequence[Json], lists: Mapping[str, Lists]) -> Merged:
    """Merge fragments: the role's first, then those of the machine and its tags.

    Raises:
        MalformedSettingsError: a fragment is not a module.
    """
    merge = _Merge()
    values = merge.attributes((), _definitions(fragments), lists)
    return Merged(values, tuple(merge.conflicts))


def same(left: Json, right: Json) -> bool:
    """Tell whether two values are equal in Nix: 1 equals 1.0, but not true."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, str) or isinstance(right, str):
        return left == right
    if isinstance(left, Sequence) and isinstance(right, Sequence):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def _definitions(modules: Sequence[Json]) -> list[Mapping[str, Json]]:
    return [pushed for config in _configs(modules) for pushed in _push_down(config)]


def _configs(modules: Sequence[Json]) -> list[Json]:
    """Flatten a module tree in the order in which evalModules reads definitions.

    collectModules walks breadth first (builtins.genericClosure), and mergeModules gets the reverse. So the last
    module's definitions come first: in a concatenated list, the machine's elements come before the role's.
    """
    found: list[Json] = []
    keys: set[str] = set()
    waiting: deque[Json] = deque(modules)
    while waiting:
        module = waiting.popleft()
        if not isinstance(module, Mapping):
            raise MalformedSettingsError(f"settings must be an attribute set, not {kind(module)}")
        key = module.get("key")
        if isinstance(key, str):
            if key in keys:  # the same module, imported twice
                continue
            keys.add(key)
        if _is_node(module):
            found.append(module)
            continue
        imports = module.get("imports", [])
        if not is_list(imports):
            raise MalformedSettingsError(f"`imports` must be a list, not {kind(imports)}")
        waiting.extend(imports)
        found.append(_config_of(module))
    found.reverse()
    return found


def _config_of(module: Mapping[str, Json]) -> Json:
    rest = {key: value for key, value in module.items() if key not in _MODULE_KEYS}
    # The long form is {config = ...; options = ...}; in the short form, all other keys are the config.
    return rest["config"] if "config" in rest and not rest.keys() - {"config", "meta", "options"} else rest


def _push_down(config: Json) -> list[Mapping[str, Json]]:
    """Move properties of a module onto its options (lib.modules.pushDownProperties)."""
    if not isinstance(config, Mapping):
        raise MalformedSettingsError(f"settings must be an attribute set, not {kind(config)}")
    match config.get("_type"):
        case "merge":
            return [pushed for part in _contents(config) for pushed in _push_down(part)]
        case "if":
            return _push_down(_content(config)) if _condition(config) else []
        case "override":
            priority = config.get("priority")
            return [
                {n: {"_type": "override", "priority": priority, "content": v} for n, v in pushed.items()}
                for pushed in _push_down(_content(config))
            ]
        case "order":
            return _push_down(_content(config))
        case _:
            return [config]


def _discharge(definition: Json) -> list[Json]:
    """Expand mkMerge and decide mkIf (lib.modules.dischargeProperties)."""
    if not isinstance(definition, Mapping):
        return [definition]
    match definition.get("_type"):
        case "merge":
            return [value for part in _contents(definition) for value in _discharge(part)]
        case "if":
            return _discharge(_content(definition)) if _condition(definition) else []
        case _:
            return [definition]


def _highest(definitions: Sequence[Json]) -> list[Json]:
    """Keep the definitions with the lowest priority number, unwrapped.

    Source: lib.modules.filterOverrides.
    """
    ranked = _ranked(definitions, "override", _DEFAULT_PRIORITY)
    best = min((priority for priority, _ in ranked), default=_DEFAULT_PRIORITY)
    return [value for priority, value in ranked if priority == best]


def _ordered(definitions: Sequence[Json]) -> list[Json]:
    """Sort by mkOrder, stably, unwrapped (lib.modules.sortProperties)."""
    ranked = _ranked(definitions, "order", _DEFAULT_ORDER)
    ranked.sort(key=lambda pair: pair[0])
    return [value for _, value in ranked]


def _ranked(definitions: Sequence[Json], type_: str, default: int) -> list[tuple[int, Json]]:
    """Pair each unwrapped definition with the priority of its node, or the default."""
    ranked: list[tuple[int, Json]] = []
    for definition in definitions:
        if isinstance(definition, Mapping) and definition.get("_type") == type_:
            ranked.append((_priority(definition), _content(definition)))
        else:
            ranked.append((default, definition))
    return ranked


def _is_node(value: Json) -> bool:
    return isinstance(value, Mapping) and value.get("_type") in ("override", "if", "merge", "order")


def _content(node: Mapping[str, Json]) -> Json:
    if "content" not in node:
        raise MalformedSettingsError(f"a `_type` = {node.get('_type')!r} node has no `content`")
    return node["content"]


def _contents(node: Mapping[str, Json]) -> Sequence[Json]:
    contents = node.get("contents")
    if not is_list(contents):
        raise MalformedSettingsError("a `_type` = 'merge' node has no list `contents`")
    return contents


def _condition(node: Mapping[str, Json]) -> bool:
    condition = node.get("condition")
    if not isinstance(condition, bool):
        raise MalformedSettingsError("a `_type` = 'if' node has no boolean `condition`")
    return condition


def _priority(node: Mapping[str, Json]) -> int:
    value = node.get("priority")
    if not isinstance(value, int) or isinstance(value, bool):
        raise MalformedSettingsError(f"a `_type` = {node.get('_type')!r} node has no integer `priority`")
    return value
