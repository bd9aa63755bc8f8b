"""Say why YAML does not parse, and what to write instead. PyYAML's own messages describe its parser's states.

Imported only if a text does not parse.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

Position = tuple[int, int]
"""Line and column, counted from 1."""

_QUOTES: Final = "put it in quotes"


class SyntaxWords(NamedTuple):
    """What is wrong, where, and what to do."""

    what: str
    at: Position
    hint: str | None


_NO_START: Final = "a text cannot begin with {}"
_BY_CHARACTER: Final = {
    "\t": ("a tab is not allowed here", "indent with spaces"),
    "@": (_NO_START.format("'@'"), _QUOTES),
    "`": (_NO_START.format("'`'"), _QUOTES),
    "%": (_NO_START.format("'%'"), _QUOTES),
}
_INDENT: Final = "begin all keys of a mapping in the same column"
# By what both of the library's parsers say, the one in C and the one in Python.
_BY_PROBLEM: Final = (
    ("tab character", "a tab is not allowed here", "indent with spaces"),
    (
        "mapping values are not allowed",
        "no key can be here",
        "put a text with a colon in quotes; else check the indentation, and that the line above ends in a colon",
    ),
    ("find expected ':'", "a colon is missing after this key", "write `key: value`"),
    ("find expected key|expected <block end>", "the indentation or the text after a value is wrong", _INDENT),
    ("unknown escape", "a backslash begins an escape in double quotes", "write single quotes"),
    ("sequence entries are not allowed", "no list can be here", "begin the list on its own line, or write [a, b]"),
    ("'-' indicator", "an entry of this list does not begin with `- `", "begin each entry in the same column"),
    ("comment or line break", "text follows '|' or '>'", "put the text on the next line, or the whole in quotes"),
    ("<document start>", "text follows the end of the value", "put the whole value in quotes"),
    ("expected node content|mapping keys are not allowed", "a value is missing here", _QUOTES),
)
_ADDRESS: Final = re.compile(r"\[[0-9a-fA-F:.]*:[0-9a-fA-F:.]*\]")
_BRACKETS: Final = {"[": "]", "{": "}"}


def syntax_words(text: str, problem: str, context: str, at: Position, began: Position) -> SyntaxWords:
    """Explain an error of the parser.

    `at` is the position of the problem, `began` that of the construct being parsed (`context`).
    """
    here, start = _text_at(text, at), _text_at(text, began)
    if "alphabetic or numeric" in problem:
        kind = {"*": "an alias", "&": "an anchor"}.get(start[:1], "a name")
        return SyntaxWords(f"{start[:1]!r} begins {kind} in YAML", began, "put the text in quotes")
    if "quoted scalar" in context and "end of" in problem:
        return SyntaxWords("this quote is never closed", began, "add the closing quote")
    if "node content" in problem and _ADDRESS.search(_text_at(text, (at[0], 1))):
        return SyntaxWords("an IPv6 address in brackets is read as a list", at, "put host and port in quotes")
    if "flow" in context and start[:1] in _BRACKETS:
        return _open_bracket(text, here, start[:1], at, began)
    what, hint = _by_table(problem, here[:1])
    return SyntaxWords(what or f"{context} {problem}".strip(), at, hint)


def _by_table(problem: str, character: str) -> tuple[str, str | None]:
    """Explain a problem by its character or by the library's message; empty if both are unknown."""
    if "cannot start any token" in problem and character in _BY_CHARACTER:
        return _BY_CHARACTER[character]
    for pattern, what, hint in _BY_PROBLEM:
        if re.search(pattern, problem):
            return what, hint
    return "", None


def _open_bracket(text: str, here: str, bracket: str, at: Position, began: Position) -> SyntaxWords:
    closing = _BRACKETS[bracket]
    after = text.split("\n")[at[0] :]
    if not here.strip() and not "".join(after).strip():
        return SyntaxWords(f"this {bracket!r} is never closed", began, f"add {closing!r}")
    if here[:1] in "{[":
        return SyntaxWords(f"{here[:1]!r} is not allowed inside this text", at, "put the whole text in quotes")
    hint = f"write a comma between entries, {closing!r} at the end, and quotes around a text with brackets or commas"
    return SyntaxWords(f"the entries after {bracket!r} are not separated or not closed", at, hint)


def _text_at(text: str, at: Position) -> str:
    """Return the rest of a line from a position on."""
    lines = text.split("\n")
    line, column = at
    if line > len(lines):
        return ""
    return lines[line - 1][column - 1 :]
