"""Write a resolution as a file to commit, for an evaluation without a network. Sorted, without times."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from clan_discovery.emit.json import pretty
from clan_discovery.emit.nix import INEXPRESSIBLE, to_nix

if TYPE_CHECKING:
    from clan_discovery.model import Json, Resolution

SUFFIXES: Final = (".nix", ".json")
_NAMES: Final = ["additionalScrapeConfigs", "jobs"]
# The tokens of both languages as far as they are written here: a name before `=` or `:`, and brackets. A string is a
# token too, so that brackets inside it are skipped.
_TOKEN: Final = re.compile(
    r'("(?:[^"\\]|\\.)*"|[\w\'-]+)(?P<assigned>\s*[=:](?!=))?|(?P<open>[\[{(])|(?P<close>[\])}])',
    re.DOTALL,
)
_OBSERVED: Final = re.compile(r'__meta_clan_observed"?\s*[=:]\s*"true"(.*?)\btargets"?\s*[=:]\s*\[', re.DOTALL)
_MACHINE: Final = re.compile(r'[\s{;,]"?machine"?\s*[=:]\s*(?:builtins\.fromJSON\s+)?"((?:[^"\\]|\\.)*)"')


def render_snapshot(resolution: Resolution, suffix: str) -> str:
    """Return the text of a file with this suffix: the same value as a Nix expression or as JSON.

    Raises:
        InputError: an additional scrape config contains a value that Nix cannot express, not even when it reads JSON.
    """
    value = _evaluable(resolution)
    text = f"{to_nix(value)}\n"
    if suffix == ".nix":
        return text
    return pretty(value)


def _evaluable(resolution: Resolution) -> Json:
    """Return the part of a resolution that an evaluation needs. It contains no time."""
    jobs: dict[str, list[Json]] = {job: [] for job in resolution.jobs}
    for target in resolution.targets:
        # The HostName of an untrusted node may contain such characters: the label is dropped, the target kept.
        labels = {name: value for name, value in target.labels.items() if not INEXPRESSIBLE.search(value)}
        jobs.setdefault(target.job, []).append({"labels": labels, "targets": [target.address]})
    return {"additionalScrapeConfigs": list(resolution.additional_scrape_configs), "jobs": jobs}


def is_snapshot(text: str) -> bool:
    """Return whether a file is a snapshot, by its top-level names. A formatter may have changed its layout.

    The settings of a server begin like a snapshot, but have other names too, or no `jobs`.
    """
    if not text.lstrip().startswith("{"):
        return False
    names: list[str] = []
    depth = 0
    for token in _TOKEN.finditer(text):
        if token["open"]:
            depth += 1
        elif token["close"]:
            depth -= 1
        elif token["assigned"] and depth == 1:
            names.append(token[1].strip('"'))
    return names == _NAMES


def observed_machines(text: str) -> frozenset[str]:
    """Return the machines in a snapshot that a backend saw, with their names as written there."""
    groups = (_MACHINE.search(group[1]) for group in _OBSERVED.finditer(text))
    return frozenset(found[1] for found in groups if found is not None)
