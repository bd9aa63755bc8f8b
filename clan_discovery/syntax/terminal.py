"""Make output safe for a terminal: styles as SGR sequences (ECMA-48), and JSON without control characters."""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

Style: TypeAlias = Literal["plain", "bold", "dim", "red", "green", "yellow", "cyan"]
_PARAMETERS: Final[dict[Style, int]] = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}


def styled(text: str, style: Style) -> str:
    """Wrap text in the SGR sequence of a style; plain text stays as it is."""
    if style == "plain":
        return text
    return f"\x1b[{_PARAMETERS[style]}m{text}\x1b[0m"


_OTHER: Final = re.compile(r"[^\x00-\x7e]")


def escape_json(text: str) -> str:
    r"""Escape unprintable characters of a JSON text as `\uXXXX`; its value stays the same.

    JSON itself only requires this for characters below 0x20. The others are DEL, C1 controls, bidirectional marks,
    invisible characters and line separators.
    """
    if text.isascii() and "\x7f" not in text:
        return text
    return _OTHER.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    if found[0].isprintable():
        return found[0]
    units = found[0].encode("utf-16-be", "surrogatepass").hex(" ", 2)
    return "\\u" + units.replace(" ", "\\u")
