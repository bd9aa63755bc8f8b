"""A resolution as a file to commit: for an evaluation without a network. Byte-stable: no clock, no age, sorted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from clan_discovery.emit.json import pretty
from clan_discovery.emit.nix import evaluable, to_nix

if TYPE_CHECKING:
    from clan_discovery.model import Resolution

SUFFIXES: Final = (".nix", ".json")
_NAMES: Final = ["additionalScrapeConfigs", "jobs"]
# What both languages are made of, as far as we write it: texts, brackets, and names before `=` or `:`.
_TOKEN: Final = re.compile(r'("(?:[^"\\]|\\.)*"|[\w\'-]+)(\s*[=:](?!=))?|([\[{(])|([\])}])', re.DOTALL)
_OBSERVED: Final = re.compile(r'__meta_clan_observed"?\s*[=:]\s*"true"(.*?)\btargets"?\s*[=:]\s*\[', re.DOTALL)
_MACHINE: Final = re.compile(r'[\s{;,]"?machine"?\s*[=:]\s*"((?:[^"\\]|\\.)*)"')


def render_snapshot(resolution: Resolution, suffix: str) -> str:
    """Return the text of a file with this suffix: the same value as a Nix expression or as JSON.

    Raises:
        InputError: an additional scrape config holds what Nix has no way to say, not even when it reads JSON.
    """
    value = evaluable(resolution)
    text = to_nix(value) + "\n"
    return text if suffix == ".nix" else pretty(value)


def is_snapshot(text: str) -> bool:
    """Tell by what stands at its top whether a file is one of these, perhaps through a formatter since.

    A server's settings begin as a snapshot does, and have other names beside, or no `jobs`.
    """
    if not text.lstrip().startswith("{"):
        return False
    names: list[str] = []
    depth = 0
    for token in _TOKEN.finditer(text):
        name, assigned, opening, closing = token.groups()
        if depth == 1 and assigned:
            names.append(name.strip('"'))
        depth += bool(opening) - bool(closing)
    return names == _NAMES


def observed_machines(text: str) -> frozenset[str]:
    """Return the machines of a snapshot that a backend saw, as their names are written there."""
    groups = (_MACHINE.search(group[1]) for group in _OBSERVED.finditer(text))
    return frozenset(found[1] for found in groups if found is not None)
