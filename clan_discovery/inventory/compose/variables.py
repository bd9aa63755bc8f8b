"""Expand variables as Compose does, and read the env files that define them. Pure.

The environment of this process is never read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.errors import refuse

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST: Final = 65_536
"""The longest expanded text, in characters: variables that name others may double it each time."""
_MAX_NESTED: Final = 20
_MAX_VARIABLES: Final = 10_000
_MOST: Final = 4_000_000
"""The most characters of all variables of an env file."""
_FORM: Final = "write ${NAME}, ${NAME:-default}, or $$ for a dollar sign"
_NAME: Final = "[A-Za-z_][A-Za-z0-9_]*"
_VARIABLE: Final = re.compile(
    rf"\$(?:(?P<escaped>\$)|(?P<named>{_NAME})|\{{(?P<braced>{_NAME})(?P<operator>:?[-?+])?)?"
)
_BRACES: Final = re.compile(r"\$\{|\}")
_ASSIGNMENT: Final = re.compile(
    rf"[ \t]*(?:export[ \t]+)?(?P<name>{_NAME}|[A-Za-z0-9_.-]+)[ \t]*(?P<sign>[=:]|$)[ \t]*"
)
_ESCAPES: Final = re.compile(r"\\(.)")
_ESCAPED: Final = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "b": "\b", "a": "\a", "v": "\v"}
_COMMENT: Final = re.compile(r"(?:^|[ \t])#.*")


class Expanded(msgspec.Struct, frozen=True, gc=False):
    """A text after expansion, and the variables in it that are not set and have no default."""

    text: str
    unset: tuple[str, ...] = ()


class ExpansionError(Exception):
    """A text cannot be expanded. The message names variables, never their values."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


def expand(text: str, variables: Mapping[str, str]) -> Expanded:
    """Expand `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:?message}`, `${NAME:+value}` and `$$`.

    A variable that is not set becomes empty.

    Raises:
        ExpansionError: a `$` begins none of these, a required variable is missing, or the text becomes too long.
    """
    if "$" not in text:
        return Expanded(text)
    expansion = _Expansion(variables)
    expanded = expansion.expand(text, 0)
    return Expanded(expanded, tuple(dict.fromkeys(expansion.unset)))


class _Expansion:
    """Expands one text; `unset` collects the variables without a value or default."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self.unset: list[str] = []

    def expand(self, text: str, depth: int) -> str:
        if depth > _MAX_NESTED:
            raise ExpansionError("defaults are nested too deeply", "write the value into the env file")
        parts: list[str] = []
        at = length = 0
        while (found := _VARIABLE.search(text, at)) is not None:
            value, end = self._value(text, found, depth)
            parts += (text[at : found.start()], value)
            length += found.start() - at + len(value)
            if length > _LONGEST:
                raise ExpansionError(f"becomes longer than {_LONGEST:,} characters", "shorten its variables")
            at = end
        parts.append(text[at:])
        return "".join(parts)

    def _value(self, text: str, found: re.Match[str], depth: int) -> tuple[str, int]:
        """Return the value of one variable, and where the text goes on."""
        if found["escaped"]:
            return "$", found.end()
        if found["named"]:
            return self._plain(found["named"]), found.end()
        name = found["braced"]
        if name is None:
            raise ExpansionError("a '$' begins no variable", _FORM)
        end = _closing(text, found.end())
        word = text[found.end() : end]
        if found["operator"] is None:
            if word:
                raise ExpansionError(f"'${{{name}' is not followed by '}}' or a default", _FORM)
            return self._plain(name), end + 1
        return self._with_operator(name, found["operator"], word, depth), end + 1

    def _plain(self, name: str) -> str:
        value = self._variables.get(name)
        if value is None:
            self.unset.append(name)
            return ""
        return value

    def _with_operator(self, name: str, operator: str, word: str, depth: int) -> str:
        value = self._variables.get(name)
        is_set = value is not None
        if operator.startswith(":"):
            is_set = bool(value)
        match operator[-1]:
            case "+":
                return self.expand(word, depth + 1) if is_set else ""
            case "-":
                return (value or "") if is_set else self.expand(word, depth + 1)
            case _:
                if not is_set:
                    raise ExpansionError(f"the variable {name} is required and not set", "set it in the env file")
                return value or ""


def _closing(text: str, start: int) -> int:
    """Return the position of the brace that closes a variable."""
    depth = 1
    for found in _BRACES.finditer(text, start):
        depth += 1 if found[0] == "${" else -1
        if not depth:
            return found.start()
    raise ExpansionError("a '${' is not closed", _FORM)


def parse_env(text: str, file: str) -> dict[str, str]:
    """Read an env file: `NAME=value`, with quotes, `export`, comments, and variables set above.

    Raises:
        InputError: a line is no assignment, a quote is not closed, or a value cannot be expanded.
    """
    found: dict[str, str] = {}
    lines = text.removeprefix("\ufeff").splitlines()
    number = length = 0
    while number < len(lines):
        line = lines[number]
        first = number
        number += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{file}:{number}:1"
        assigned = _ASSIGNMENT.match(line)
        if assigned is None:
            refuse(where, "is not a line of an env file", "write NAME=value, or begin a comment with #")
        if len(found) >= _MAX_VARIABLES:
            refuse(where, f"holds more than {_MAX_VARIABLES:,} variables")
        if not assigned["sign"]:  # `NAME` alone takes the value of Compose's own environment, which is not read
            continue
        value = line[assigned.end() :]
        quote = value[:1]
        if quote in ("'", '"'):
            value, number = _quoted(lines, first, assigned.end() + 1, quote, where)
        else:
            value = _COMMENT.sub("", value).strip()
        if quote != "'":
            value = _expanded(value, found, where)
        length += len(value)
        if length > _MOST:
            refuse(where, f"its variables become longer than {_MOST:,} characters", "shorten them")
        found[assigned["name"]] = value
    return found


def _expanded(value: str, variables: Mapping[str, str], where: str) -> str:
    try:
        return expand(value, variables).text
    except ExpansionError as error:
        refuse(where, error.what, error.hint)


def _quoted(lines: list[str], number: int, start: int, quote: str, where: str) -> tuple[str, int]:
    """Return a value in quotes, which may have several lines, and the number of the line after it."""
    parts: list[str] = []
    rest = lines[number][start:]
    while True:
        end = _end_of_quote(rest, quote)
        if end is not None:
            parts.append(rest[:end])
            break
        parts.append(rest)
        number += 1
        if number == len(lines):
            refuse(where, f"the quote {quote} is not closed", "close it, or write the value without quotes")
        rest = lines[number]
    value = "\n".join(parts)
    if quote == '"':
        value = _ESCAPES.sub(_unescaped, value)
    return value, number + 1


def _unescaped(found: re.Match[str]) -> str:
    if found[1] == "$":
        return "$$"  # it is expanded afterwards
    return _ESCAPED.get(found[1], found[1])


def _end_of_quote(text: str, quote: str) -> int | None:
    """Return the position of the closing quote; in double quotes, a backslash hides the next character."""
    at = 0
    while at < len(text):
        if text[at] == "\\" and quote == '"':
            at += 1
        elif text[at] == quote:
            return at
        at += 1
    return None
