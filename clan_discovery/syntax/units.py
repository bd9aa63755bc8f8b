"""Names of systemd units. Pure."""

from __future__ import annotations

import re
from typing import Final

_UNIT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9:_.\\@-]{0,249}")
_SUFFIXES: Final = ("automount", "device", "mount", "path", "scope", "service", "slice", "socket", "target", "timer")


def unit_name(text: str) -> str | None:
    """Return the whole name of a unit, with `.service` if it has no suffix; None if no unit has such a name."""
    if _UNIT.fullmatch(text) is None:
        return None
    if text.rpartition(".")[2] in _SUFFIXES and "." in text:
        return text
    return f"{text}.service"


def unit_complaint(text: str) -> str | None:
    """Say that no systemd unit has such a name; None if one may have it."""
    if unit_name(text) is not None:
        return None
    return f"{text[:60]!r} is not a systemd unit: write one such as nginx.service"
