"""Say why JSON does not parse, and what to write instead. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import json

_LITERALS: Final = {"True": "true", "False": "false", "None": "null", "yes": "true", "no": "false"}
_BY_MESSAGE: Final = (
    ("Illegal trailing comma", "a comma is after the last entry", "remove the comma"),
    ("Unterminated string", "a quote is never closed", "add the closing quote"),
    ("Invalid control character", "a line break or a tab is inside a string", r"write \n or \t"),
    ("Invalid \\", "a backslash begins an escape", r"write \\ for a backslash"),
    ("Expecting ',' delimiter", "a comma is missing", "write a comma between two entries"),
    ("Expecting ':' delimiter", "a colon is missing", 'write "key": value'),
    ("Expecting property name", "a key is not in double quotes", 'write "key": value'),
    ("Extra data", "text follows the end", "keep one value"),
)


def json_words(text: str, error: json.JSONDecodeError) -> tuple[str, str]:
    """Return what is wrong and what to do."""
    rest = text[error.pos :]
    if not rest.strip():
        return "it ends in the middle", "close every quote, '{' and '['"
    if rest.startswith("'"):
        return "a single quote is not allowed", "write double quotes"
    if rest.startswith(("//", "/*", "#")):
        return "a comment is not allowed", "remove it, or write YAML into a file that ends in .yaml"
    for message, what, hint in _BY_MESSAGE:
        if error.msg.startswith(message):
            return what, hint
    for word, literal in _LITERALS.items():
        if rest.startswith(word):
            return f"{word} is not a value", f"write {literal}"
    if not text[: error.pos].strip():
        return "it does not begin with '{'", "name the file .yaml if it is YAML"
    return "a value is missing, or a text has no quotes", "write text in double quotes"
