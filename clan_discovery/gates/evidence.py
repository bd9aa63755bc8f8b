"""Read the evidence that an item of a checklist names, in a code span such as `gate: unit nginx.service`. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

import msgspec

from clan_discovery.syntax.endpoint import split_endpoint
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

EvidenceKind: TypeAlias = Literal["verify", "http", "unit", "unpublished", "rule"]
KINDS: Final[tuple[EvidenceKind, ...]] = get_args(EvidenceKind)
PREFIX: Final = "gate:"
_UNIT: Final = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}")
_STATUS: Final = re.compile("[1-5][0-9][0-9]")
_SHOWN: Final = 60
_FORMS: Final = {
    "verify": "`gate: verify` or `gate: verify MACHINE`",
    "http": "`gate: http URL` or `gate: http URL STATUS`",
    "unit": "`gate: unit NAME.service`",
    "unpublished": "`gate: unpublished`",
    "rule": "`gate: rule NAME`",
}


class EvidenceError(Exception):
    """The words name no evidence. `hint` says what to write."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


class Evidence(msgspec.Struct, frozen=True):
    """Something that a program can look at: its kind, and the words after it."""

    kind: EvidenceKind
    words: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The evidence as it is written after `gate:`."""
        return " ".join((self.kind, *self.words))


def read_evidence(span: str) -> Evidence:
    """Read the content of a code span that begins with `gate:`.

    Raises:
        EvidenceError: the kind is unknown, or its words are wrong.
    """
    name, *words = span.removeprefix(PREFIX).split() or [""]
    for kind in KINDS:
        if name == kind:
            _check(kind, words)
            return Evidence(kind, tuple(words))
    hint = did_you_mean(name, KINDS) or f"write one of: {', '.join(f'{PREFIX} {kind}' for kind in KINDS)}"
    raise EvidenceError(f"{name[:_SHOWN]!r} is no evidence", hint)


def _check(kind: EvidenceKind, words: Sequence[str]) -> None:
    """Raise an EvidenceError for wrong words."""
    complaint = ""
    match kind, words:
        case "http", [url] | [url, _] if complaint := _url_complaint(url):
            pass
        case "http", [_, status] if not _STATUS.fullmatch(status):
            complaint = f"{status[:_SHOWN]!r} is no HTTP status"
        case "unit", [name] if not _UNIT.fullmatch(name):
            complaint = f"{name[:_SHOWN]!r} is no name of a systemd unit"
        case ("verify", _) | ("unpublished", []) | ("unit", [_]) | ("http", [_] | [_, _]) | ("rule", [_]):
            return
        case _:
            complaint = (
                f"`{PREFIX} {kind}` with {len(words)} words" if words else f"`{PREFIX} {kind}` alone is incomplete"
            )
    raise EvidenceError(complaint, f"write {_FORMS[kind]}")


def _url_complaint(url: str) -> str:
    """Say what is wrong with a URL; empty if nothing is. A password is not repeated."""
    if "@" in url.partition("://")[2].partition("/")[0]:
        return "the URL has a user or a password: a checklist is no place for secrets"
    try:
        parts = urlsplit(url)
        host, _ = split_endpoint(parts.netloc)
    except ValueError as error:
        return f"{url[:_SHOWN]!r} is no URL: {error}"
    if parts.scheme not in ("http", "https") or not host:
        return f"{url[:_SHOWN]!r} is no URL with http:// or https://"
    if not url.isascii() or not url.isprintable():
        return f"{url[:_SHOWN]!r} has a character that no URL has: write it as %XX"
    return ""
