"""Addresses that no target has: a zone must not point a scraper at its own machine or at a cloud's secrets. Pure.

Loopback, link-local (in it 169.254.169.254, the metadata service of most clouds), multicast, reserved and unspecified
addresses, by themselves or wrapped into IPv6; and what clouds have elsewhere. Not 100.100.100.200, Alibaba's: a
machine of a tailnet may have it.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Network: TypeAlias = IPv4Network | IPv6Network

_REFUSED: Final = (
    (ip_network("169.254.169.254/32"), "the metadata address of clouds"),
    (ip_network("168.63.129.16/32"), "the metadata address of a cloud"),  # Azure's WireServer
    (ip_network("fd00:ec2::254/128"), "the metadata address of a cloud"),  # AWS
    (ip_network("fd00:ec2::23/128"), "the metadata address of a cloud"),  # AWS, pod identity
    (ip_network("fd00:c1::a9fe:a9fe/128"), "the metadata address of a cloud"),  # Oracle
    (ip_network("fd20:ce::254/128"), "the metadata address of a cloud"),  # Google Cloud
    (ip_network("fd00:42::42/128"), "the metadata address of a cloud"),  # Scaleway
    (ip_network("192.0.0.0/24"), "of no host (RFC 6890)"),  # in it 192.0.0.192, Oracle's old metadata service
    (ip_network("0.0.0.0/8"), "unspecified"),
    (ip_network("::/128"), "unspecified"),
    (ip_network("127.0.0.0/8"), "loopback"),
    (ip_network("::1/128"), "loopback"),
    (ip_network("169.254.0.0/16"), "link-local"),
    (ip_network("fe80::/10"), "link-local"),
    (ip_network("224.0.0.0/4"), "multicast"),
    (ip_network("ff00::/8"), "multicast"),
    (ip_network("240.0.0.0/4"), "reserved or broadcast"),
)
# RFC 6052, RFC 8215, RFC 2765 and RFC 4291: the last four bytes are an IPv4 address.
_WRAPPING: Final = tuple(ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96", "::/96"))


def refusal(address: str, allow: Sequence[Network], deny: Sequence[Network]) -> str | None:
    """Say why no target has this address, or None. What the user denies goes before what the user allows."""
    if not allow and not deny and _plain(address):
        return None
    return _refusal(address, tuple(allow), tuple(deny))


@lru_cache(maxsize=65536)
def _refusal(address: str, allow: tuple[Network, ...], deny: tuple[Network, ...]) -> str | None:
    forms = _forms(ip_address(address))
    for form in forms:
        for network in deny:
            if form in network:
                return f"in deny_networks ({network})"
    if any(form in network for form in forms for network in allow):
        return None
    for form in forms:
        for network, why in _REFUSED:
            if form in network:
                return why if form == forms[0] else f"{why} ({form}) in IPv6"
    return None


def _plain(address: str) -> bool:
    """Tell at a glance that an address is none of the refused ones: most are IPv4, and start otherwise."""
    head, dot, _ = address.partition(".")
    return bool(dot) and head.isdigit() and head not in ("0", "127", "168", "169", "192") and int(head) < 224


def _forms(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """Return an address, and the IPv4 address that it wraps."""
    if isinstance(address, IPv4Address):
        return [address]
    wrapped = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
    if wrapped is None and int(address) > 0xFFFF and any(address in network for network in _WRAPPING):
        wrapped = IPv4Address(int(address) & 0xFFFFFFFF)
    return [address] if wrapped is None else [address, wrapped]
