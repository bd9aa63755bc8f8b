"""Suggest an alias if an undeclared node is probably a missing machine. Pure."""

from __future__ import annotations

import re
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Final

from clan_discovery.syntax.suggest import similar
from clan_discovery.syntax.yaml_text import yaml_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clan_discovery.model import Resolution

_COMPARED_MOST: Final = 20
"""The most missing machines that are compared with the strays: each comparison reads every stray."""
_CLOSE_MOST: Final = 3


def suggested_aliases(resolution: Resolution) -> dict[str, str]:
    """Return the stray that is probably the missing machine, by machine.

    A stray whose own name is the machine's comes first, then one with a similar name. A stray that resembles several
    missing machines is not suggested.
    """
    called = {stray.alias: stray.name for stray in resolution.stray if stray.alias}
    strays = [stray.name for stray in resolution.stray if not stray.alias]
    found: dict[str, str] = {}
    others: list[str] = []
    for missing in resolution.missing:
        if missing.machine in called:
            found[missing.machine] = called[missing.machine]
        else:
            others.append(missing.machine)
    return found | _resembled(others[:_COMPARED_MOST], strays)


def _resembled(machines: list[str], strays: list[str]) -> dict[str, str]:
    """Return the best stray for each machine, unless it resembles another of these machines, too."""
    resembling = {machine: list(_resembling(machine, strays)) for machine in machines}
    claims = Counter(chain.from_iterable(resembling.values()))
    return {machine: names[0] for machine, names in resembling.items() if names and claims[names[0]] == 1}


def _resembling(machine: str, strays: list[str]) -> Iterator[str]:
    """Yield the strays with a similar name and the same words, best first: `desktop-pc` or `desktop-1` for `desktop`.

    Names with different numbers or words are different machines: `web1` and `web2`, `shop-a` and `shop-b`.
    """
    words, numbers = _parts(machine)
    for name in similar(machine, strays, _CLOSE_MOST):
        others, other_numbers = _parts(name)
        if numbers and other_numbers and numbers != other_numbers:
            continue
        if words <= others or others <= words:
            yield name


def _parts(name: str) -> tuple[set[str], list[str]]:
    """Return the words and the numbers of a name."""
    return set(re.findall("[^\\W\\d_]+", name.casefold())), re.findall("[0-9]+", name)


def alias_advice(stray: str, machine: str) -> str:
    """Say how to make a stray the address of a missing machine."""
    found = f"{stray} is not declared and {machine} is missing"
    return f"{found}: if they are the same, add {alias_entry(stray, machine)}"


def alias_entry(stray: str, machine: str) -> str:
    """Say what makes a stray a declared machine."""
    return f"`{alias_line(stray, machine)}` to the config"


def alias_line(stray: str, machine: str) -> str:
    """Return the line of the config that makes a stray a declared machine."""
    return f"aliases: {{{yaml_text(stray)}: {yaml_text(machine)}}}"
