"""Names, paths and headers of virtual hosts, as reverse proxies read them. Pure.

What these functions return is safe in the config of every proxy: letters, digits, `-`, `_`, `.`, and a leading `*.`.
"""

from __future__ import annotations

import re
from typing import Final

OWN_PATH: Final = "/.clan-discovery"
"""The proxies use the paths below it themselves."""
OIDC_PATH: Final = "/oauth2"
"""oauth2-proxy answers below it."""
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST: Final = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_MOST: Final = 253
_SHOWN: Final = 80
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~@:+-]+)*/?")
_LONGEST_PATH: Final = 200
_HEADER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,99}")


def a_label(label: str) -> str:
    """Return a label of a DNS name in ASCII (RFC 5891).

    Raises:
        ValueError: it cannot be written in ASCII.
    """
    if label.isascii():
        return label
    import idna  # noqa: PLC0415 - few names need it

    try:
        return idna.alabel(idna.uts46_remap(label)).decode("ascii")
    except idna.IDNAError as error:
        raise ValueError(f"{label[:_SHOWN]!r} is not a DNS name: {error}") from None


def virtual_host(text: str) -> str:
    """Return a host name in lower case and ASCII, without a trailing dot; `*.example.org` is allowed.

    Raises:
        ValueError: it is not a host name, or an address.
    """
    name = text.removesuffix(".")
    if len(name) <= _MOST and not name.isascii():
        name = ".".join(map(a_label, name.split(".")))
    name = name.lower()
    if len(name) > _MOST or _HOST.fullmatch(name) is None:
        raise ValueError(f"{text[:_SHOWN]!r} is not a host name: write letters, digits, '-' and '.'")
    if name.rpartition(".")[2].isdigit():
        raise ValueError(f"{text[:_SHOWN]!r} is an address, not a host name")
    return name


def url_path(text: str) -> str:
    """Return the path of a virtual host without a trailing slash; `/` for the root.

    Raises:
        ValueError: it does not begin with `/`, or holds more than letters, digits and `._~@:+-`.
    """
    if len(text) > _LONGEST_PATH or not text.startswith("/") or _PATH.fullmatch(text) is None:
        raise ValueError(f"{text[:_SHOWN]!r} is not a path: write / and then letters, digits, '.', '_', '-' and '/'")
    if not {".", ".."}.isdisjoint(text.split("/")):
        raise ValueError(f"{text[:_SHOWN]!r} has a part '.' or '..'")
    return text.rstrip("/") or "/"


def is_header(name: str) -> bool:
    """Tell whether every proxy can write this name of a header."""
    return _HEADER.fullmatch(name) is not None
