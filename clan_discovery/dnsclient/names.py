"""Names in DNS as text and as bytes. Pure.

Inside, a name is lower-case ASCII without the trailing dot, the root alone is `.`; bytes that are no letters, digits,
`-` or `_` are escaped as in zone files (RFC 1035, 5.1). The plain ones, nearly all there are, are written here; the
rest is dnspython's.
"""

from __future__ import annotations

import re
from typing import Final

import idna

_PLAIN: Final = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
ROOT: Final = "."
MAX_NAME: Final = 253
"""Characters of a name without its trailing dot: 255 bytes on the wire (RFC 1035, 3.1)."""


def absolute(text: str) -> str:
    """Return a name as it is asked: folded, without trailing dot, what is not ASCII as A-labels (RFC 5891).

    Raises:
        ValueError: it is no name, with a sentence that says why.
    """
    given = text.removesuffix(".")
    if not given.isascii():
        given = ".".join(_a_label(label) for label in given.split("."))
    name = given.lower()
    if not _PLAIN.fullmatch(name) or len(name) > MAX_NAME:
        raise ValueError(f"{text!r} is no name in DNS")
    return name


def _a_label(label: str) -> str:
    if label.isascii():
        return label
    try:
        return idna.alabel(idna.uts46_remap(label)).decode("ascii")
    except idna.IDNAError as error:
        raise ValueError(f"{label!r} is no name in DNS: {error}") from None


def to_wire(name: str) -> bytes:
    """Write a name of the inside form as bytes, uncompressed.

    Raises:
        ValueError: it is none.
    """
    if _PLAIN.fullmatch(name) and len(name) <= MAX_NAME:
        return b"".join([bytes((len(label),)) + label.encode("ascii") for label in name.split(".")]) + b"\0"
    if name == ROOT:
        return b"\0"
    # dnspython takes 60 ms of a start that most rounds never need.
    from clan_discovery.dnsclient.decoder import name_to_wire  # noqa: PLC0415

    return name_to_wire(name)


def first_label(name: str) -> str:
    """Return the first label of a name."""
    return name.partition(".")[0]


def is_below(name: str, domain: str) -> bool:
    """Tell whether a name is below a domain, not the domain itself."""
    return name.endswith(f".{domain}") or (domain == ROOT and name != ROOT)
