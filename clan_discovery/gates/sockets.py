"""Read the listening sockets in /proc/net/tcp and /proc/net/tcp6 (proc(5)). Pure."""

from __future__ import annotations

import sys
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_LISTEN: Final = "0A"
_WORD: Final = 8


class ListeningSocket(NamedTuple):
    """A listening socket: its address and port. `is_local`: only this machine reaches it."""

    host: str
    port: int
    is_local: bool


def listeners(text: str) -> Iterator[ListeningSocket]:
    """Yield the listening sockets of one table; lines that are none are left out."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[3] == _LISTEN:
            address, _, port = fields[1].partition(":")
            try:
                yield _listener(address, int(port, 16))
            except ValueError:
                continue


def _listener(address: str, port: int) -> ListeningSocket:
    """Decode an address: words of 32 bits in hexadecimal, each in the machine's byte order."""
    words = [address[start : start + _WORD] for start in range(0, len(address), _WORD)]
    host = ip_address(b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words))
    if isinstance(host, IPv6Address) and host.ipv4_mapped is not None:
        host = host.ipv4_mapped
    return ListeningSocket(str(host), port, host.is_loopback)
