"""Log each packet on an interface that is not for the given networks: source and destination.

python -m tests.tailnet.wire INTERFACE NETWORK...

Uses a packet socket: tcpdump drops its rights at start, which fails in a user namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys
import time
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

_Address: TypeAlias = "IPv4Address | IPv6Address"
_Network: TypeAlias = "IPv4Network | IPv6Network"
_ALL: Final = 3  # ETH_P_ALL, linux/if_ether.h
_MEMBERSHIP, _PROMISCUOUS, _SOL_PACKET = 1, 1, 263  # PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC, linux/if_packet.h
_STATISTICS = 6  # PACKET_STATISTICS: two counters, reset by each read
_ATTACH_FILTER = 26  # SO_ATTACH_FILTER, asm-generic/socket.h
# Opcodes of the kernel's packet filter (linux/filter.h): load half word, load word, and, jump if equal, return.
_LDH, _LD, _AND, _JEQ, _RET = 0x28, 0x20, 0x54, 0x15, 0x06
_HEADER: Final = 14  # of Ethernet
_LOOK_S: Final = 0.5
# The kernel's own chatter: neighbours, routers, group membership.
_LINK_LOCAL: Final = [ip_network(net) for net in ("ff02::/16", "fe80::/10", "224.0.0.0/24")]


def program(networks: Sequence[_Network]) -> list[tuple[int, int, int, int]]:
    """Return a packet filter that drops packets to these networks, by their first four bytes.

    The bed sends thousands of packets a second, and no packet that matters may be missed.
    """
    steps: list[tuple[int, int, int, int]] = [(_LDH, 0, 0, 12)]
    for version, kind, destination in ((4, 0x0800, 30), (6, 0x86DD, 38)):
        block: list[tuple[int, int, int, int]] = []
        for net in networks:
            if net.version == version:
                bits = min(net.prefixlen, 32)
                mask = (1 << 32) - (1 << (32 - bits))
                value = int.from_bytes(net.network_address.packed[:4], "big")
                block += [(_LD, 0, 0, destination), (_AND, 0, 0, mask), (_JEQ, 0, 1, value), (_RET, 0, 0, 0)]
        steps += [(_JEQ, 0, len(block) + 1, kind), *block, (_RET, 0, 0, 0xFFFF)]
    return [*steps, (_RET, 0, 0, 0)]


def ends(frame: bytes) -> tuple[_Address, _Address] | None:
    """Return source and destination of a frame that holds an IP packet."""
    kind, packet = frame[12:_HEADER], frame[_HEADER:]
    if kind == b"\x08\x00" and len(packet) >= 20:
        return ip_address(packet[12:16]), ip_address(packet[16:20])
    if kind == b"\x86\xdd" and len(packet) >= 40:
        return ip_address(packet[8:24]), ip_address(packet[24:40])
    return None


def main(interface: str, *ours: str) -> None:
    """Log until the process ends."""
    networks: list[_Network] = [*_LINK_LOCAL, *(ip_network(net) for net in ours)]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL)) as wire:
        wire.bind((interface, 0))
        request = struct.pack("IHH8s", socket.if_nametoindex(interface), _PROMISCUOUS, 0, b"")
        wire.setsockopt(_SOL_PACKET, _MEMBERSHIP, request)
        wire.settimeout(_LOOK_S)
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program(networks)))
        length = len(code.raw) // 8
        wire.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HP", length, ctypes.addressof(code)))
        _say(f"listening on {interface}")
        looked = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                found = ends(wire.recv(128))
                if found is not None and not any(found[1] in net for net in networks):
                    _say(f"{found[0]} > {found[1]}")
            if time.monotonic() - looked > _LOOK_S:
                looked = time.monotonic()
                _, missed = struct.unpack("II", wire.getsockopt(_SOL_PACKET, _STATISTICS, 8))
                if missed:
                    _say(f"missed {missed} packets")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
