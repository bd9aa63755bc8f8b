"""Map the names of nodes to machines, and find ignored names. Pure.

`aliases` and `ignore` come from the config, never from a node. A node reports its own tags and OS, so these only hide
nodes that are not declared.
"""

from __future__ import annotations

import re
from fnmatch import translate
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.model import Exclusion, Problem
from clan_discovery.syntax.suggest import Suggester

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from clan_discovery.model import Declared, Machine, Node, Resolution

_WILDCARDS: Final = frozenset("*?[")


class Ignore(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The nodes that are neither targets nor strays.

    `names` are names or shell patterns; they apply to declared machines, too. `tags` (without `tag:`) and `os` (in
    lower case) apply only to nodes that are not declared.
    """

    names: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()
    os: frozenset[str] = frozenset()


class NamePatterns:
    """Compiled names and shell patterns; matching ignores case."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names: dict[str, str] = {}
        self._patterns: dict[str, re.Pattern[str]] = {}
        for name in names:
            folded = name.casefold()
            if _WILDCARDS.isdisjoint(name):
                self._names[folded] = name
            else:
                self._patterns[name] = re.compile(translate(folded))

    def __bool__(self) -> bool:
        return bool(self._names or self._patterns)

    def match(self, name: str) -> str | None:
        """Return the name or pattern that matches a name, or None."""
        folded = name.casefold()
        if folded in self._names:
            return self._names[folded]
        for text, pattern in self._patterns.items():
            if pattern.match(folded):
                return text
        return None


class Names:
    """Maps names of nodes to machines, and finds ignored nodes.

    `machines` are the declared machines, case-folded.
    """

    def __init__(self, machines: AbstractSet[str], aliases: Mapping[str, str], ignore: Ignore) -> None:
        self._machines = machines
        self._aliases = aliases
        self._ignore = ignore
        self._patterns = NamePatterns(ignore.names)
        self.hides_nodes: Final = bool(self._patterns or ignore.tags or ignore.os)

    def machine_of(self, name: str) -> str:
        """Return the machine with this name or alias, case-folded.

        A name that is not an alias is returned itself.
        """
        folded = name.casefold()
        return self._aliases.get(folded, folded)

    def why_ignored(self, name: str) -> str:
        """Return why a name is ignored; empty if it is not."""
        if not self._patterns:
            return ""
        return _why_named(self._patterns, name) or _why_named(self._patterns, self.machine_of(name))

    def why_hidden(self, node: Node) -> str:
        """Return why a node is ignored; empty if it is not."""
        if why := self.why_ignored(node.name):
            return why
        if self.machine_of(node.name) in self._machines:
            return ""
        for tag in node.tags:
            if tag in self._ignore.tags:
                return f"it has the tag {tag}: ignore.tags"
        if node.os in self._ignore.os:
            return f"its OS is {node.os}: ignore.os"
        return ""


def _why_named(patterns: NamePatterns, name: str) -> str:
    pattern = patterns.match(name)
    if pattern is None:
        return ""
    if pattern.casefold() == name.casefold():
        return "the config ignores it: ignore.names"
    return f"the config ignores {pattern!r}: ignore.names"


def without_ignored(declared: Declared, ignore: Ignore) -> Declared:
    """Remove the targets of ignored machines; each such machine becomes an exclusion."""
    patterns = NamePatterns(ignore.names)
    if not patterns:
        return declared
    reasons = {machine.name: _why_named(patterns, machine.name) for machine in declared.machines}
    ignored = {name: why for name, why in reasons.items() if why}
    excluded = [Exclusion(name=name, reason="ignored", detail=why, by="config") for name, why in ignored.items()]
    return msgspec.structs.replace(
        declared,
        expected=tuple(expected for expected in declared.expected if expected.machine.name not in ignored),
        excluded=(*declared.excluded, *excluded),
        agents=tuple(name for name in declared.agents if name not in ignored),
    )


def unmatched_names(ignore: Ignore, resolution: Resolution) -> list[str]:
    """Return the names and patterns of `ignore.names` that match nothing.

    Returns an empty list while a backend has no data.
    """
    if any(belief.snapshot is None for belief in resolution.beliefs):
        return []
    names = {exclusion.name for exclusion in resolution.excluded}
    found: list[str] = []
    for text in ignore.names:
        pattern = NamePatterns([text])
        if all(pattern.match(name) is None for name in names):
            found.append(text)
    return found


def usable_aliases(aliases: Mapping[str, str], machines: Iterable[Machine]) -> tuple[dict[str, str], list[Problem]]:
    """Return the usable aliases, case-folded, and a problem for each other alias.

    A machine keeps its own name, and an alias of two machines is used for neither. `where` of a problem is the alias.
    """
    known = {machine.name.casefold(): machine.name for machine in machines}
    owners: dict[str, set[str]] = {}
    for alias, machine in aliases.items():
        owners.setdefault(alias.casefold(), set()).add(machine.casefold())
    suggester = Suggester()
    usable: dict[str, str] = {}
    problems: list[Problem] = []
    for alias, machine in aliases.items():
        folded = alias.casefold()
        hint: str | None = "remove the alias, or rename one of the two"
        if folded in known:
            what = f"{alias!r} is a declared machine itself, and keeps its own targets"
        elif len(owners[folded]) > 1:
            what = f"{alias!r} is an alias of {len(owners[folded])} machines, so it is used for none of them"
            hint = "keep one of them"
        elif machine.casefold() not in known:
            what = f"no source declares a machine {machine!r}"
            hint = suggester.did_you_mean(machine, known.values()) or "name a declared machine"
        else:
            usable[folded] = machine.casefold()
            continue
        problems.append(Problem(where=alias, what=what, hint=hint, severity="problem"))
    return usable, problems
