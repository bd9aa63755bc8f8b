"""Read the commands of health checks. They are never run. Pure.

`systemctl is-active UNIT` becomes a unit that must be active, `curl URL` a URL that must answer. Both may be joined by
`&&`. Everything else is refused, because its meaning is unknown.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from clan_discovery.syntax.endpoint import is_host
from clan_discovery.syntax.secret import has_secret
from clan_discovery.syntax.units import unit_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LONGEST: Final = 4000
_PUNCTUATION: Final = "&|;<>()"
# What people append so that a check prints nothing, or fails with status 1.
_SILENCED: Final = re.compile(r"\s(?:[12&]?>\s*/dev/null|2>&1)(?=\s|$)|\s\|\|\s*(?:exit 1|false)\s*$")
_QUIET: Final = frozenset({"--quiet", "-q", "--system", "--no-pager"})
_HINT: Final = "`systemctl is-active UNIT` and `curl -f URL` are understood, several of them joined by &&"
_ONE_UNIT: Final = "one `systemctl is-active` for each unit: with several, one active unit is enough"

# Options of curl that do not change which URL must answer.
_ALONE: Final = frozenset(
    {
        "compressed",
        "disable",
        "fail",
        "fail-with-body",
        "globoff",
        "head",
        "insecure",
        "ipv4",
        "ipv6",
        "location",
        "no-buffer",
        "no-progress-meter",
        "retry-all-errors",
        "retry-connrefused",
        "show-error",
        "silent",
        "verbose",
    }
)
_WITH_VALUE: Final = frozenset(
    {"connect-timeout", "max-time", "output", "retry", "retry-delay", "retry-max-time", "write-out"}
)
_SHORT: Final = {
    "4": "ipv4",
    "6": "ipv6",
    "f": "fail",
    "g": "globoff",
    "I": "head",
    "k": "insecure",
    "L": "location",
    "m": "max-time",
    "N": "no-buffer",
    "o": "output",
    "q": "disable",
    "s": "silent",
    "S": "show-error",
    "v": "verbose",
    "w": "write-out",
    "X": "request",
}
_METHODS: Final = ("GET", "HEAD")


class CheckError(ValueError):
    """A command that is not understood, with the fix in `hint`. No message quotes the command."""

    def __init__(self, what: str = "the command is not understood", hint: str = _HINT) -> None:
        super().__init__(what)
        self.hint = hint


class Check(msgspec.Struct, frozen=True):
    """What a command checks: units that must be active, and URLs that must answer with success."""

    units: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()


def parse_check(command: str) -> Check:
    """Read a command.

    Raises:
        CheckError: it is not understood, or holds a secret.
    """
    if len(command) > _LONGEST:
        raise CheckError
    units: list[str] = []
    probes: list[str] = []
    for words in _commands(command):
        match words[0].rpartition("/")[2]:
            case "systemctl":
                units.append(_unit(words[1:]))
            case "curl":
                probes.append(_probe(words[1:]))
            case _:
                raise CheckError
    return Check(tuple(dict.fromkeys(units)), tuple(dict.fromkeys(probes)))


def _commands(command: str) -> Iterator[list[str]]:
    """Yield the words of each command that `&&` joins."""
    lexer = shlex.shlex(_SILENCED.sub(" ", command.strip()), posix=True, punctuation_chars=_PUNCTUATION)
    lexer.whitespace_split = True
    lexer.commenters = ""
    lexer.whitespace = " \t"  # a newline would begin another command
    try:
        words = list(lexer)
    except ValueError:
        raise CheckError from None
    found: list[str] = []
    for word in words:
        if word == "&&" and found:
            yield found
            found = []
        elif not word.strip(_PUNCTUATION) or not word.isprintable() or set("$`#") & set(word):
            raise CheckError
        else:
            found.append(word)
    if not found:
        raise CheckError
    yield found


def _unit(words: Sequence[str]) -> str:
    rest = [word for word in words if word not in _QUIET]
    if rest[:1] != ["is-active"] or len(rest) < 2:
        raise CheckError
    if len(rest) > 2:
        raise CheckError("`systemctl is-active` has several units", _ONE_UNIT)
    unit = unit_name(rest[1])
    if unit is None:
        raise CheckError
    return unit


def _probe(words: Sequence[str]) -> str:
    urls: list[str] = []
    waiting = iter(words)
    for word in waiting:
        if not word.startswith("-") or word == "-":
            urls.append(word)
            continue
        for option, joined in _options(word):
            _check_option(option, joined, waiting)
    if len(urls) != 1:
        raise CheckError
    return _url(urls[0])


def _options(word: str) -> Iterator[tuple[str, str]]:
    """Yield the options of a word: `--fail`, or `-fsSm5` with the value of the last one."""
    if word.startswith("--"):
        yield word[2:], ""
        return
    for index, letter in enumerate(word[1:], 2):
        option = _SHORT.get(letter, "")
        takes_value = option in _WITH_VALUE or option == "request"
        yield option, word[index:] if takes_value else ""
        if takes_value:
            return


def _check_option(option: str, joined: str, waiting: Iterator[str]) -> None:
    """Refuse an option that is unknown, or that sends something else than a plain request."""
    if option in _ALONE:
        return
    if option not in _WITH_VALUE and option != "request":
        raise CheckError
    value = joined or next(waiting, "")
    if option == "request" and value not in _METHODS:
        raise CheckError


def _url(text: str) -> str:
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and is_host(parts.hostname or "") and parts.port != 0
    except ValueError:
        raise CheckError from None
    if not is_usable:
        raise CheckError
    if "@" in parts.netloc or has_secret(url):
        raise CheckError("the URL holds a secret", "check a URL that answers without a login")
    return url
