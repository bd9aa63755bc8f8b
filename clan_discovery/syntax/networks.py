"""Refuse addresses that no target may have. Pure.

A target at such an address would make the scraper connect to itself, or to a cloud's metadata service, which serves
secrets. Refused are loopback, link-local (it includes 169.254.169.254, the metadata service of most clouds), multicast,
reserved and unspecified addresses, metadata services at other addresses, and tailscaled's resolver. This also holds for
IPv6 addresses that embed such an IPv4 address. Alibaba's metadata service, 100.100.100.200, is allowed, because a
machine of a tailnet may have this address. Private and documentation networks are allowed, too.

Addresses from the network, the state and the exports are checked. Those in the config or the inventory are not.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from socket import AF_INET, AF_INET6, inet_pton  # decodes text, does no I/O
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Network: TypeAlias = IPv4Network | IPv6Network

_REFUSED: Final = (
    ("169.254.169.254/32", "the metadata address of clouds"),
    ("168.63.129.16/32", "the metadata address of a cloud"),  # Azure's WireServer
    ("fd00:ec2::254/128", "the metadata address of a cloud"),  # AWS
    ("fd00:ec2::23/128", "the metadata address of a cloud"),  # AWS, pod identity
    ("fd00:c1::a9fe:a9fe/128", "the metadata address of a cloud"),  # Oracle
    ("fd20:ce::254/128", "the metadata address of a cloud"),  # Google Cloud
    ("fd00:42::42/128", "the metadata address of a cloud"),  # Scaleway
    ("100.100.100.100/32", "tailscaled's own resolver"),
    ("fd7a:115c:a1e0::53/128", "tailscaled's own resolver"),
    ("192.0.0.0/24", "of no host (RFC 6890)"),  # in it 192.0.0.192, Oracle's old metadata service
    ("0.0.0.0/8", "unspecified"),
    ("::/128", "unspecified"),
    ("127.0.0.0/8", "loopback"),
    ("::1/128", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local (RFC 3879)"),
    ("224.0.0.0/4", "multicast"),
    ("ff00::/8", "multicast"),
    ("240.0.0.0/4", "reserved or broadcast"),
)


def _ranges(version: int) -> tuple[tuple[int, int, str], ...]:
    networks = [(ip_network(text), why) for text, why in _REFUSED]
    return tuple((int(n[0]), int(n[-1]), why) for n, why in networks if n.version == version)


_REFUSED_4: Final = _ranges(4)
_REFUSED_6: Final = _ranges(6)
# A fast check that accepts only allowed addresses: nearly all addresses of a tailnet, and most of IPv4.
_is_plain: Final = re.compile(
    r"(?!0|100\.100\.|127\.|168\.63\.|169\.254\.|192\.0\.|22[4-9]\.|2[3-9][0-9]\.)[0-9]{1,3}\.[0-9.]+"
    r"|fd7a:115c:a1e0:(?!.*(?:5efe|b1a|53$|\.))[0-9a-f:]+"
).fullmatch

_MASK_4: Final = 0xFFFFFFFF
_HIGHEST_OF_0: Final = 0x00FFFFFF


def refusal(address: str, allow: Sequence[Network] = (), deny: Sequence[Network] = ()) -> str | None:
    """Say why no target may have this address, or return None. `deny` wins over `allow`.

    Raises:
        OSError: it is not an address.
    """
    if allow or deny:
        return _refusal_beside(address, tuple(allow), tuple(deny))
    if _is_plain(address) is not None:
        return None
    return _refusal(address)


@lru_cache(maxsize=65536)
def _refusal_beside(address: str, allow: tuple[Network, ...], deny: tuple[Network, ...]) -> str | None:
    """Check an address with the user's networks. IPv4 addresses that it embeds are compared, too."""
    hosts = [ip_address(address), *map(IPv4Address, _forms(address)[1])]
    for network in deny:
        if any(map(network.__contains__, hosts)):
            return f"in deny_networks ({network})"
    for network in allow:
        if any(map(network.__contains__, hosts)):
            return None
    return _refusal(address)


def _refusal(address: str) -> str | None:
    number, forms = _forms(address)
    own = _REFUSED_4
    if ":" in address:
        own = () if number >> 125 == 1 else _REFUSED_6  # none is in 2000::/3, the public networks
    for first, last, why in own:
        if first <= number <= last:
            return why
    for form in forms:
        for first, last, why in _REFUSED_4:
            if first <= form <= last:
                return f"{why} ({IPv4Address(form)}) in IPv6"
    return None


def _forms(address: str) -> tuple[int, list[int]]:
    """Return an address as a number, and the IPv4 addresses that it embeds."""
    if ":" not in address:
        return int.from_bytes(inet_pton(AF_INET, address), "big"), []
    number = int.from_bytes(inet_pton(AF_INET6, address), "big")
    return number, _wrapped(number)


def _wrapped(number: int) -> list[int]:
    """Return the IPv4 addresses to which a translator, a tunnel or the kernel may map an IPv6 address."""
    found: list[int] = []
    prefix, low = number >> 32, number & _MASK_4
    # IPv4-mapped and IPv4-compatible (RFC 4291), IPv4-translated (RFC 2765), Tailscale's 4via6 subnets, and ISATAP in
    # any network (RFC 5214; the bit says whether the IPv4 address is a public one).
    is_ending = prefix in (0xFFFF, 0xFFFF0000) or (prefix == 0 and low > 1) or number >> 64 == 0xFD7A115CA1E00B1A
    if is_ending or prefix & 0xFDFFFFFF == 0x5EFE:
        found.append(low)
    if number >> 112 == 0x2002:  # 6to4 (RFC 3056)
        found.append(number >> 80 & _MASK_4)
    elif number >> 96 == 0x20010000:  # Teredo (RFC 4380): the client, with all bits flipped, and its server
        found += (low ^ _MASK_4, number >> 64 & _MASK_4)
    elif prefix == 0x0064FF9B << 64:  # NAT64, the well-known prefix
        found.append(low)
    elif number >> 96 == 0x0064FF9B:
        found += _nat64(number)
    return found


def _nat64(number: int) -> list[int]:
    """Return the IPv4 addresses that a NAT64 address may embed, for each prefix length of RFC 6052, 2.2.

    Each network chooses its own prefix inside 64:ff9b:1::/48 (RFC 8215), so its length is unknown. A wrong length
    mostly gives an address in 0.0.0.0/8; such results are left out.
    """
    readings = (
        number >> 64 & _MASK_4,  # /32; bits 64 to 71 are never part of the address
        (number >> 64 & 0xFFFFFF) << 8 | number >> 48 & 0xFF,  # /40
        (number >> 64 & 0xFFFF) << 16 | number >> 40 & 0xFFFF,  # /48
        (number >> 64 & 0xFF) << 24 | number >> 32 & 0xFFFFFF,  # /56
        number >> 24 & _MASK_4,  # /64
        number & _MASK_4,  # /96
    )
    return [reading for reading in readings if reading > _HIGHEST_OF_0]
