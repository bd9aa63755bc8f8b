"""Parse and write targets: `host`, `host:port`, `[v6]:port`. Pure.

Only this module adds brackets to IPv6 addresses and checks ports.
"""

from __future__ import annotations

import ipaddress
import re
from binascii import crc32
from typing import Final
from urllib.parse import urlsplit

OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_is_ipv4: Final = re.compile(rf"(?:{OCTET}\.){{3}}{OCTET}").fullmatch  # five times as fast as ipaddress
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?")
_NUMBERS: Final = re.compile(r"[0-9]+(\.[0-9]+)+\.?")  # an address, or a typo: no top-level domain is a number
_NETWORK: Final = re.compile(r"[0-9a-fA-F.:]+/[0-9]{1,3}")
_PORT: Final = re.compile(r":[0-9]{1,5}")
MAX_PORT: Final = 65535
NOWHERE: Final = "invalid"
"""The domain that never resolves (RFC 6761): a target below it is down, and leads to no other machine."""
LOOPBACK: Final = "127.0.0.1"
_OF_NO_MACHINE: Final = ("localhost", NOWHERE)  # RFC 6761
_NO_LETTERS: Final = re.compile("[^A-Za-z0-9]+")
_MOST_LETTERS: Final = 48


def split_endpoint(text: str) -> tuple[str, int | None]:
    """Split a target into host and port; the port is None where none is given. A bare IPv6 address is a host.

    Raises:
        ValueError: it is not a target; the message says what to write.
    """
    if "://" in text:
        raise ValueError(f"{text!r} is a URL: write host:port, and the scheme and path as settings of the exporter")
    if _NETWORK.fullmatch(text):
        raise ValueError(f"{text!r} is a network: write the host:port of each target")
    if "%" in text:
        raise ValueError(f"{text!r} holds a '%': write an address without a zone, or a name")
    if "/" in text:
        raise ValueError(f"{text!r} holds a slash: write host:port, and the path as a setting of the exporter")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not is_ipv6(host) or rest[:1] not in ("", ":"):
            raise ValueError(f"{text!r} is not an address: write [v6]:port")
        return host, _port(rest, text)
    if is_ipv6(text):
        return text, None
    host, colon, port = text.partition(":")
    _check_host(host, text)
    return host, _port(colon + port, text)


def _check_host(host: str, whole: str) -> None:
    if _NUMBERS.fullmatch(host) and _is_ipv4(host) is None:
        raise ValueError(f"{whole!r} is no address: an IPv4 address is four numbers from 0 to 255")
    if not is_host(host):
        raise ValueError(f"{whole!r} is not a host: write a name or an address, then a colon and the port")


def _port(text: str, whole: str) -> int | None:
    """Read `:port`, or nothing."""
    if not text:
        return None
    if not _PORT.fullmatch(text) or not 1 <= int(text[1:]) <= MAX_PORT:
        raise ValueError(f"{whole!r} has no valid port: a port is a number from 1 to {MAX_PORT}")
    return int(text[1:])


def join_endpoint(host: str, port: int) -> str:
    """Write host and port as Prometheus reads them: IPv6 in brackets."""
    if ":" in host:
        return f"[{host}]:{port}"
    return f"{host}:{port}"


def is_host(host: str) -> bool:
    """Tell whether this is an IP address or could be a name in DNS (underscores allowed, 253 characters)."""
    return len(host) <= 253 and (_HOST.fullmatch(host) is not None or is_ipv6(host))


def is_name(host: str) -> bool:
    """Tell whether this could be a name in DNS and is not an address in any notation."""
    last = host.removesuffix(".").rpartition(".")[2]
    return is_host(host) and ":" not in host and not last.isdigit()


def is_domain(name: str) -> bool:
    """Tell whether this can be the domain of machine names (`<machine>.<domain>`)."""
    last = name.removesuffix(".").rpartition(".")[2].lower()
    return is_name(name) and is_host(f"a.{name}") and last not in _OF_NO_MACHINE


def nowhere(name: str) -> str:
    """Return a host below .invalid for a name; it never resolves (RFC 6761).

    If the name cannot be a host name, its letters and digits and a checksum are used, so that hosts stay distinct.
    """
    host = f"{name}.{NOWHERE}"
    if is_name(host):
        return host
    letters = _NO_LETTERS.sub("-", name[:_MOST_LETTERS]).strip("-")
    return f"{letters}{'-' * bool(letters)}{crc32(name.encode('utf-8', 'surrogatepass')):08x}.{NOWHERE}"


def is_nowhere(host: str) -> bool:
    """Tell whether a host is one that `nowhere` returns."""
    return host.endswith(f".{NOWHERE}")


def is_address(text: str) -> bool:
    """Tell whether this is an IPv4 address, or an IPv6 address without a zone."""
    return _is_ipv4(text) is not None or is_ipv6(text)


def is_loopback(host: str) -> bool:
    """Tell whether this is `localhost` or an address of loopback."""
    return host.lower() == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_loopback_url(url: str) -> bool:
    """Tell whether the host of a URL is on loopback."""
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return False
    return host is not None and is_loopback(host)


def is_ipv6(host: str) -> bool:
    """Tell whether this is an IPv6 address without a zone."""
    if ":" not in host or "%" in host:
        return False
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
