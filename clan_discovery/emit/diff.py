"""What a refresh would change, target by target, as a unified diff. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from clan_discovery.model import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Targets: TypeAlias = "Mapping[str, Sequence[tuple[str, Mapping[str, str]]]]"
"""Targets by job: address and labels."""


def diff(published: Targets, wanted: Targets) -> list[str]:
    """Return the lines of the difference, none where there is none.

    A target is known by job and instance; one that stays and changes is shown with the labels that differ.
    """
    lines: list[str] = []
    for job in sorted({*published, *wanted}):
        changes = list(_job(_by_instance(published.get(job, ())), _by_instance(wanted.get(job, ()))))
        if changes:
            lines += [f"@@ {job} @@", *changes]
    return [one_line(line) for line in (["--- published", "+++ wanted", *lines] if lines else [])]


def _by_instance(targets: Sequence[tuple[str, Mapping[str, str]]]) -> dict[str, tuple[str, Mapping[str, str]]]:
    return {labels.get("instance", address): (address, labels) for address, labels in targets}


def _job(
    before: Mapping[str, tuple[str, Mapping[str, str]]], after: Mapping[str, tuple[str, Mapping[str, str]]]
) -> Iterator[str]:
    for instance in sorted({*before, *after}):
        old, new = before.get(instance), after.get(instance)
        if old == new:
            continue
        if old is None or new is None or old[0] != new[0]:
            if old is not None:
                yield f"-{instance} {old[0]}"
            if new is not None:
                yield f"+{instance} {new[0]}"
        else:
            yield f" {instance} {new[0]}"
        if old is not None and new is not None:
            yield from _labels(old[1], new[1])


def _labels(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            if name in old:
                yield f"-    {name}={old[name]!r}"
            if name in new:
                yield f"+    {name}={new[name]!r}"
