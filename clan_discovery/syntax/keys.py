"""How long a key of a config may be. Pure."""

from __future__ import annotations

from typing import Final

LONGEST_KEY: Final = 300
"""The longest key, in characters (a name in DNS has 253). Messages repeat the keys of the path."""


def long_key(key: str) -> str:
    """Say that a key is too long."""
    return f"the key {key[:60]!r}... has more than {LONGEST_KEY} characters"
