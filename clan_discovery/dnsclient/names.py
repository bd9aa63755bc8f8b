"""Convert DNS names between text and bytes.

This package writes a name in lower-case ASCII without the trailing dot, and the root as `.`. Bytes other than letters,
digits, `-` and `_` are escaped as in zone files (RFC 1035, 5.1). Nearly all names have no escapes and are encoded here;
`decoder` encodes the others.
"""

from __future__ import annotations

import re
from typing import Final

from clan_discovery.syntax.hosts import a_label

_PLAIN: Final = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_ESCAPED_LABEL: Final = r'(?:[!-\-/-@\[\]-~]|\\[0-9]{3}|\\["().;\\@$])+'
_ESCAPED: Final = re.compile(rf"{_ESCAPED_LABEL}(?:\.{_ESCAPED_LABEL})*")
_SERVICE: Final = re.compile(r"^(?:_[^.]*\.)+")
_INSTANCE: Final = re.compile(r"^.*(?<![^.])_[^.]*\.")
ROOT: Final = "."
MAX_NAME: Final = 253
"""Characters of a name without its trailing dot: 255 bytes on the wire (RFC 1035, 3.1)."""
_MAX_ESCAPED: Final = 4 * MAX_NAME


def absolute(text: str) -> str:
    """Return a name in lower case, without trailing dot, as A-labels (RFC 5891).

    Raises:
        ValueError: the text is not a DNS name.
    """
    given = text.removesuffix(".")
    if not given.isascii():
        given = ".".join(map(a_label, given.split(".")))
    name = given.lower()
    if not _is_plain(name):
        raise ValueError(f"{text!r} is not a DNS name")
    return name


def _is_plain(name: str) -> bool:
    return len(name) <= MAX_NAME and _PLAIN.fullmatch(name) is not None


def is_name(text: str) -> bool:
    """Tell whether text is a name in this package's form, with or without escapes."""
    if _is_plain(text) or text == ROOT:
        return True
    return len(text) <= _MAX_ESCAPED and _ESCAPED.fullmatch(text) is not None


def to_wire(name: str) -> bytes:
    """Encode a name, uncompressed.

    Raises:
        ValueError: the name cannot be encoded.
    """
    if _is_plain(name):
        return b"".join([bytes((len(label),)) + label.encode("ascii") for label in name.split(".")]) + b"\0"
    if name == ROOT:
        return b"\0"
    # Importing dnspython takes 60 ms, and most processes never need it.
    from clan_discovery.dnsclient.decoder import encode_name  # noqa: PLC0415

    return encode_name(name)


def split_name(name: str) -> tuple[str, str]:
    """Split a name into its first label and the domain directly above it.

    The domain is empty for a single label. A name with escapes is not split, because its first label may contain a dot.
    """
    if "\\" in name:
        return name, ""
    label, _, domain = name.partition(".")
    return label, domain


def domains_of(name: str, *, is_service: bool) -> tuple[str, ...]:
    """Return the domains whose hosts the name of a list may be expected to list.

    For a service, `_node._tcp.example.org`, this is `example.org`. For other names, it is the domain directly above the
    name; for SRV records, also the name itself.
    """
    host = _SERVICE.sub("", name)
    if host != name:
        return (host,)
    domain = split_name(name)[1]
    if is_service:
        return name, domain or name
    return (domain,)


def service_domain(name: str) -> str:
    r"""Return the domain of a service or of one of its instances.

    It is `example.org` for `on\032db._node._tcp.example.org`. For a name without service labels, it is the domain
    directly above the name.
    """
    domain = _INSTANCE.sub("", name)
    if domain != name:
        return domain
    return split_name(name)[1]


def is_below(name: str, domain: str) -> bool:
    """Tell whether a name is below a domain; the domain itself is not."""
    if domain == ROOT:
        return name != ROOT
    return name.endswith(f".{domain}")
