"""A resolution as a file to commit: for an evaluation without a network. Byte-stable: no clock, no age, sorted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from clan_discovery.emit.json import pretty
from clan_discovery.emit.nix import evaluable, to_nix

if TYPE_CHECKING:
    from clan_discovery.model import Resolution

SUFFIXES: Final = (".nix", ".json")
_BEGINNING: Final = re.compile(r'\s*\{\s*"?additionalScrapeConfigs"?\s*[=:]')


def render_snapshot(resolution: Resolution, suffix: str) -> str:
    """Return the text of a file with this suffix: the same value as a Nix expression or as JSON.

    Raises:
        InputError: an additional scrape config holds what Nix has no way to say, not even when it reads JSON.
    """
    value = evaluable(resolution)
    text = to_nix(value) + "\n"
    return text if suffix == ".nix" else pretty(value)


def is_snapshot(text: str) -> bool:
    """Tell by its beginning whether a file is one of these, perhaps through a formatter since."""
    return _BEGINNING.match(text) is not None
