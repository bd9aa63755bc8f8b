"""Find circles in what machines need. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

Pair: TypeAlias = tuple[str, str]
"""A name, and another one that it needs."""


def circles(pairs: Collection[Pair]) -> list[list[Pair]]:
    """Return the pairs of each group of names that need each other, directly or through others.

    Takes linear time, as Kosaraju's algorithm for strongly connected components.
    """
    forward: dict[str, list[str]] = {}
    backward: dict[str, list[str]] = {}
    for name, other in pairs:
        forward.setdefault(name, []).append(other)
        backward.setdefault(other, []).append(name)
    seen: set[str] = set()
    finished = [name for start in forward for name in _reached(start, forward, seen)]
    seen = set()
    first_of: dict[str, str] = {}
    for start in reversed(finished):
        first_of |= dict.fromkeys(_reached(start, backward, seen), start)
    groups: dict[str, list[Pair]] = {}
    for name, other in pairs:
        if first_of[name] == first_of[other]:
            groups.setdefault(first_of[name], []).append((name, other))
    return list(groups.values())


def _reached(start: str, edges: Mapping[str, list[str]], seen: set[str]) -> Iterator[str]:
    """Yield the names that are reached from `start` and not seen before, each after those that are reached from it."""
    if start in seen:
        return
    seen.add(start)
    path = [(start, iter(edges.get(start, ())))]
    while path:
        name, others = path[-1]
        for other in others:
            if other not in seen:
                seen.add(other)
                path.append((other, iter(edges.get(other, ()))))
                break
        else:
            path.pop()
            yield name


def walk(pairs: Collection[Pair]) -> list[str]:
    """Return one circle of a group: its names in their order, and the first one again."""
    following = dict(sorted(pairs, reverse=True))
    name = min(following)
    path: list[str] = []
    seen: set[str] = set()
    while name not in seen:
        seen.add(name)
        path.append(name)
        name = following[name]
    return [*path[path.index(name) :], name]
