"""What a refresh or a snapshot would change: target by target, or line by line."""

from __future__ import annotations

from collections import Counter
from difflib import unified_diff
from typing import TYPE_CHECKING, Final, TypeAlias

from clan_discovery.model import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from clan_discovery.syntax.terminal import Style

_Target: TypeAlias = "tuple[str, Mapping[str, str]]"
Targets: TypeAlias = "Mapping[str, Sequence[_Target]]"
"""Targets by job: address and labels of each."""
_MOST_LINES: Final = 3_000
"""The longest text that is compared by position."""


def diff(published: Targets, wanted: Targets) -> list[str]:
    """Return the lines of the difference; none if there is no difference.

    A target is identified by job and instance. For one that stays, the labels that differ are listed.
    """
    lines: list[str] = []
    for job in sorted({*published, *wanted}):
        changes = list(_job(_by_instance(published.get(job, ())), _by_instance(wanted.get(job, ()))))
        if changes:
            lines += [f"@@ {job} @@", *changes]
    if lines:
        lines = ["--- published", "+++ wanted", *lines]
    return list(map(one_line, lines))


def _by_instance(targets: Sequence[_Target]) -> dict[str, _Target]:
    return {labels.get("instance", address): (address, labels) for address, labels in targets}


def _job(before: Mapping[str, _Target], after: Mapping[str, _Target]) -> Iterator[str]:
    for instance in sorted({*before, *after}):
        old, new = before.get(instance), after.get(instance)
        if old is None and new is not None:
            yield f"+{instance} {new[0]}"
        elif new is None and old is not None:
            yield f"-{instance} {old[0]}"
        elif old is not None and new is not None and old != new:
            yield from _changed(instance, old, new)


def _changed(instance: str, old: _Target, new: _Target) -> Iterator[str]:
    if old[0] == new[0]:
        yield f" {instance} {new[0]}"
    else:
        yield f"-{instance} {old[0]}"
        yield f"+{instance} {new[0]}"
    for name in sorted({*old[1], *new[1]}):
        before, after = old[1].get(name), new[1].get(name)
        if before == after:
            continue
        if before is not None:
            yield f"-    {name}={before!r}"
        if after is not None:
            yield f"+    {name}={after!r}"


def diff_lines(old: str, new: str, name: str) -> Iterator[str]:
    """Yield a unified diff of two texts; of texts that are too long for one, only the lines that differ.

    difflib takes minutes where thousands of lines moved. Then the lines that only `old` has come first, those that only
    `new` has after them, and a line that only moved is not reported.
    """
    before, after = old.split("\n"), new.split("\n")
    if max(len(before), len(after)) <= _MOST_LINES:
        for line in unified_diff(before, after, name, name, lineterm=""):
            yield one_line(line)
        return
    yield f"--- {name}"
    yield f"+++ {name}"
    yield from _surplus("-", before, after)
    yield from _surplus("+", after, before)


def _surplus(mark: str, lines: Iterable[str], others: Iterable[str]) -> Iterator[str]:
    """Yield the lines that are not among the others, after a mark."""
    left = Counter(others)
    for line in lines:
        left[line] -= 1
        if left[line] < 0:
            yield one_line(f"{mark}{line}")


def with_styles(lines: Iterable[str]) -> Iterator[tuple[str, Style]]:
    """Yield the lines of a diff, each with its style on a terminal."""
    styles: dict[str, Style] = {"-": "red", "+": "green", "@": "cyan"}
    for line in lines:
        if line.startswith(("--- ", "+++ ")):
            yield line, "bold"
        else:
            yield line, styles.get(line[:1], "plain")
