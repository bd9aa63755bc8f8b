"""Write text as a scalar of YAML. Pure."""

from __future__ import annotations

import json
import re
from typing import Final

# Text that is a string without quotes in YAML 1.1 and 1.2, in brackets, too. What begins with a digit may be a number,
# a date or a time; a duration is none of these.
_PLAIN: Final = re.compile(
    r"\.{1,2}|(?:\.{0,2}/|[A-Za-z_])[A-Za-z0-9_./+@-]*(?::[A-Za-z0-9_.+@-][A-Za-z0-9_./+@-]*)*|(?:[0-9]+(?:ms|[smhdwy]))+"
)
_WORDS: Final = frozenset({"false", "n", "no", "null", "off", "on", "true", "y", "yes"})


def yaml_text(text: str) -> str:
    """Write a string, in double quotes unless it is plain."""
    if _PLAIN.fullmatch(text) and text.casefold() not in _WORDS:
        return text
    return "".join(map(_escaped, json.dumps(text, ensure_ascii=False)))


def _escaped(character: str) -> str:
    r"""Write what cannot be printed as `\uXXXX` or `\UXXXXXXXX`."""
    if character.isprintable():
        return character
    code = ord(character)
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\u{code:04x}"
