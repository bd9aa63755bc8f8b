"""Read `extra_config` of a proxy: lines of a Caddyfile. Pure.

Only a few directives have a meaning for every kind of proxy. Some others are left out with a warning: without them, the
front has the same clients. Everything else is refused, because it could open or move the front.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.syntax.secret import is_secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clan_discovery.model import Pairs

_LONGEST: Final = 20_000
_MAX_DEPTH: Final = 3
_TOKEN: Final = re.compile(
    r'[ \t\r]+|#[^\n]*|(?P<line>\n)|"(?P<quoted>(?:[^"\\]|\\.)*)"(?!\S)|`(?P<raw>[^`]*)`(?!\S)|(?P<word>[^\s"`]\S*)',
    re.DOTALL,
)
_PLACEHOLDER: Final = re.compile(r"\{[a-z][a-z0-9_.]{0,60}\}")
_MATCHER: Final = re.compile(r"@[A-Za-z0-9_-]{1,40}")
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,80}")
_CREDENTIALS: Final = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key"})
# Every proxy sets these to the same values by itself.
_FORWARDED: Final = frozenset({"host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"})
_HARMLESS: Final = frozenset({"encode", "header", "log"})
_RESPONDED: Final = frozenset({"200", "204"})
# Named in messages; other words are not, because a value could be among them.
_DIRECTIVES: Final = frozenset(
    [
        "abort",
        "acme_server",
        "basic_auth",
        "basicauth",
        "bind",
        "error",
        "file_server",
        "forward_auth",
        "handle",
        "handle_errors",
        "handle_path",
        "import",
        "invoke",
        "map",
        "method",
        "metrics",
        "php_fastcgi",
        "push",
        "redir",
        "request_body",
        "request_header",
        "respond",
        "reverse_proxy",
        "rewrite",
        "root",
        "route",
        "skip_log",
        "templates",
        "tls",
        "tracing",
        "transport",
        "try_files",
        "uri",
        "vars",
    ]
)
_HINT: Final = "`header_up NAME VALUE` and `flush_interval -1` are understood; configure the rest in the proxy itself"


class ExtraError(ValueError):
    """A text that is not understood, with the fix in `hint`."""

    def __init__(self, what: str, hint: str = _HINT) -> None:
        super().__init__(what)
        self.hint = hint


class Extra(msgspec.Struct, frozen=True):
    """What an `extra_config` says: headers of requests, no buffering, and the directives that are left out."""

    headers: Pairs = ()
    unbuffered: bool = False
    left_out: tuple[str, ...] = ()


class _Word(msgspec.Struct, frozen=True):
    text: str
    quoted: bool


class _Statement(msgspec.Struct, frozen=True):
    """A line: its words, and the lines of the block that it opens."""

    words: tuple[str, ...]
    block: tuple[_Statement, ...] = ()


def parse_extra(text: str) -> Extra:
    """Read a text.

    Raises:
        ExtraError: it closes a brace that it does not open, or holds a directive that is not understood.
    """
    if len(text) > _LONGEST:
        raise ExtraError("is too long")
    lines = list(_lines(text))
    statements, rest = _block(lines, 0, 0)
    if rest < len(lines):
        raise ExtraError("closes a brace that it does not open")
    preflight = frozenset(name for statement in statements if (name := _preflight(statement)))
    found = _Found(preflight)
    for statement in statements:
        found.add(statement)
    left_out = tuple(directive for directive in dict.fromkeys(found.left_out) if directive not in preflight)
    return Extra(tuple(found.headers.items()), found.unbuffered, left_out)


class _Found(msgspec.Struct):
    """What the statements read so far say. `preflight` are the matchers of OPTIONS requests."""

    preflight: frozenset[str]
    headers: dict[str, str] = {}
    unbuffered: bool = False
    left_out: list[str] = []

    def add(self, statement: _Statement) -> None:
        match statement.words:
            case ("header_up", name, value) if not statement.block:
                if not _header(name, value, self.headers):
                    self.left_out.append(f"header_up {name}")
            case ("flush_interval", "-1") if not statement.block:
                self.unbuffered = True
            case (directive, *rest) if _is_harmless(directive, rest, self.preflight):
                self.left_out.append(directive)
            case _:
                raise ExtraError(f"holds {_named(statement.words[0])}, which is not understood")


def _lines(text: str) -> Iterator[tuple[_Word, ...]]:
    """Yield the words of each line that has any."""
    words: list[_Word] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ExtraError("has a quote that is never closed", "add the closing quote")
        at = found.end()
        if found["line"] is not None:
            if words:
                yield tuple(words)
            words = []
        elif found["word"] is not None:
            words.append(_Word(_plain(found["word"]), quoted=False))
        elif found["quoted"] is not None or found["raw"] is not None:
            words.append(_Word(_quoted(found), quoted=True))
    if words:
        yield tuple(words)


def _quoted(found: re.Match[str]) -> str:
    text = found["raw"]
    if text is None:
        text = found["quoted"].replace('\\"', '"')
    if not text.isprintable():
        raise ExtraError("has a line break or a control character in quotes")
    return _checked(text)


def _plain(word: str) -> str:
    if word in ("{", "}"):
        return word
    if word.startswith("<<") or word.endswith("\\") or not word.isprintable():
        raise ExtraError("has a text of several lines")
    return _checked(word)


def _checked(word: str) -> str:
    """Refuse braces that are not those of a placeholder."""
    rest = _PLACEHOLDER.sub("", word)
    if "{" in rest or "}" in rest:
        raise ExtraError("has a brace inside a text")
    return word


def _block(lines: Sequence[tuple[_Word, ...]], at: int, depth: int) -> tuple[list[_Statement], int]:
    """Return the statements up to the brace that closes this block, and the index of its line."""
    found: list[_Statement] = []
    while at < len(lines):
        braces = _braces(lines[at])
        words = [word.text for word in lines[at]]
        if words == ["}"] and braces:
            return found, at
        block: list[_Statement] = []
        if braces:
            if braces != [len(words) - 1] or words.pop() != "{" or not words or depth >= _MAX_DEPTH:
                raise ExtraError("has a brace in the wrong place")
            block, at = _block(lines, at + 1, depth + 1)
            if at >= len(lines):
                raise ExtraError("opens a brace that it does not close")
        found.append(_Statement(tuple(words), tuple(block)))
        at += 1
    return found, at


def _braces(words: Sequence[_Word]) -> list[int]:
    return [index for index, word in enumerate(words) if word.text in ("{", "}") and not word.quoted]


def _preflight(statement: _Statement) -> str | None:
    """Return the name of a matcher that matches only OPTIONS requests."""
    name, *rest = statement.words
    if not _MATCHER.fullmatch(name):
        return None
    inner = [one.words for one in statement.block]
    if (rest == ["method", "OPTIONS"] and not inner) or (not rest and inner == [("method", "OPTIONS")]):
        return name
    return None


def _is_harmless(directive: str, rest: Sequence[str], preflight: frozenset[str]) -> bool:
    """Tell whether a front may do without this directive."""
    if directive == "respond":  # answers to preflight requests of browsers
        return len(rest) == 2 and rest[0] in preflight and rest[1] in _RESPONDED
    return directive in _HARMLESS or directive in preflight or directive == "flush_interval"


def _header(name: str, value: str, headers: dict[str, str]) -> bool:
    """Keep a header; return False if the proxy sets it by itself."""
    if not _HEADER.fullmatch(name) or not value.isascii():
        raise ExtraError("removes, adds or misspells a header", "write `header_up NAME VALUE`")
    if is_secret(name) or name.casefold() in _CREDENTIALS:
        raise ExtraError("sets a header that holds a secret", "let the service trust the proxy in another way")
    if _PLACEHOLDER.search(value):
        if name.casefold() in _FORWARDED:
            return False
        raise ExtraError("uses a placeholder of Caddy in a header", "other proxies do not have it; write a fixed value")
    headers[name] = value
    return True


def _named(directive: str) -> str:
    if directive in _DIRECTIVES:
        return f"the directive `{directive}`"
    return "a directive"
