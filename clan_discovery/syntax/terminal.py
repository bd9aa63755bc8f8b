"""Styles of a line on a terminal, as SGR sequences (ECMA-48)."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

Style: TypeAlias = Literal["plain", "bold", "dim", "red", "green", "yellow", "cyan"]
_PARAMETERS: Final[dict[Style, int]] = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}


def styled(text: str, style: Style) -> str:
    """Wrap text in the SGR sequence of a style; plain text stays as it is."""
    if style == "plain":
        return text
    return f"\x1b[{_PARAMETERS[style]}m{text}\x1b[0m"
