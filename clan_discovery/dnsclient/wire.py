"""A question as bytes, and bytes as a reply. Pure.

The reply that nearly every question gets (the question, addresses that point back at it, EDNS) is read here, in a few
microseconds; whatever looks otherwise is read by dnspython (`message`), in a hundred. What is no answer to the question
that was asked is no reply at all: the id, the question and the case of every letter in it must be ours (RFC 5452;
draft-vixie-dnsext-dns0x20).
"""

from __future__ import annotations

import ipaddress
from socket import inet_ntoa  # four bytes as text, no network
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from clan_discovery.dnsclient.names import to_wire
from clan_discovery.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clan_discovery.model import RecordType

A: Final = 1
CNAME: Final = 5
SOA: Final = 6
NS: Final = 2
PTR: Final = 12
TXT: Final = 16
AAAA: Final = 28
SRV: Final = 33
DNAME: Final = 39
TYPES: Final[Mapping[RecordType, int]] = {"A": A, "AAAA": AAAA, "SRV": SRV, "PTR": PTR, "TXT": TXT}

NOERROR: Final = 0
FORMERR: Final = 1
NXDOMAIN: Final = 3
NOTIMP: Final = 4
BADVERS: Final = 16
RCODES: Final = {1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 9: "NOTAUTH", 16: "BADVERS"}

PAYLOAD: Final = 1232
"""Bytes that a datagram may have, without being fragmented anywhere (DNS flag day 2020)."""
MAX_DATAGRAM: Final = 65535
_OPT: Final = b"\0" + Struct("!HHIH").pack(41, PAYLOAD, 0, 0)
_HEADER: Final = Struct("!HHHHHH")
_RECORD: Final = Struct("!HHIH")
_TAIL: Final = Struct("!HH")
_RECURSION_DESIRED: Final = 0x0100
_LETTERS: Final = bytes(0x20 if chr(i).isascii() and chr(i).isalpha() else 0 for i in range(256))
"""Where a byte of a name is a letter: the bit that makes it upper case. Lengths of labels are below 64, and none."""
_POINTER: Final = b"\xc0\x0c"
"""A compressed name that points at the question."""


class MalformedError(BackendError):
    """Bytes that are no DNS message."""


class Record(NamedTuple):
    """A record: who owns it, its type, for how many seconds it holds, and what it says.

    An address as such, a name in the inside form, SRV as `priority weight port target`, of TXT the value of `path`
    (RFC 6763, 6).
    """

    name: str
    type: int
    ttl: int
    text: str


class Reply(NamedTuple):
    """An answer to a question of ours, read.

    `negative` is for how long an absence holds (RFC 2308, 5), where it says, and `zone` which zone says so. `referral`:
    it only names other servers. `extra` are addresses that came along.
    """

    rcode: int
    truncated: bool
    authoritative: bool
    recursive: bool
    answer: tuple[Record, ...] = ()
    negative: int | None = None
    zone: str = ""
    referral: bool = False
    extra: tuple[Record, ...] = ()


class Query(NamedTuple):
    """A question as it goes out: the name of the inside form, the type, and both as bytes, the case ours alone."""

    name: str
    type: int
    question: bytes


Read: TypeAlias = "Reply | str | None"
"""A reply; or `case`, an answer whose case is not ours; or None, no answer to this question at all."""


def make_query(name: str, type_: int, dice: bytes | None) -> Query:
    """Write a question. `dice` are as many random bytes as the name has: they choose the case of its letters.

    Raises:
        ValueError: the name is none.
    """
    wire = to_wire(name)
    if dice is not None:
        size = len(wire)
        flips = int.from_bytes(wire.translate(_LETTERS), "big") & int.from_bytes(dice[:size], "big")
        wire = (int.from_bytes(wire, "big") ^ flips).to_bytes(size, "big")
    return Query(name, type_, wire + _TAIL.pack(type_, 1))


def message(query: Query, number: int, *, edns: bool) -> bytes:
    """Write the message that asks it."""
    return _HEADER.pack(number, _RECURSION_DESIRED, 1, 0, 0, int(edns)) + query.question + (_OPT if edns else b"")


def read(body: bytes, query: Query, number: int, *, exact: bool = True) -> Read:
    """Read an answer to this question. `exact`: it must repeat the question in our case, letter by letter.

    Raises:
        MalformedError: it answers the question, and is no message.
    """
    if len(body) < 12:
        return None
    found, flags, questions, answers, authority, additional = _HEADER.unpack_from(body)
    if found != number or flags & 0xF800 != 0x8000:  # a response, to a query
        return None
    if questions == 0 and flags & 0xF not in (NOERROR, NXDOMAIN):
        return _headed(flags)  # a server that could not read the question does not repeat it
    end = 12 + len(query.question)
    theirs = body[12:end]
    if questions != 1 or theirs.lower() != query.question.lower():
        return None
    if exact and theirs != query.question:
        return "case"
    if flags & 0x0200:
        return _headed(flags)
    if not flags & 0xF and answers and not authority and additional <= 1:
        records = _addresses(body, end, query, answers, additional)
        if records is not None:
            return Reply(NOERROR, False, bool(flags & 0x0400), bool(flags & 0x0080), records)  # noqa: FBT003
    # dnspython takes 60 ms of a start that most rounds never need.
    from clan_discovery.dnsclient.decoder import parse  # noqa: PLC0415

    return parse(body)


def _headed(flags: int) -> Reply:
    return Reply(flags & 0xF, bool(flags & 0x0200), bool(flags & 0x0400), bool(flags & 0x0080))


def _addresses(body: bytes, at: int, query: Query, answers: int, additional: int) -> tuple[Record, ...] | None:
    """Read addresses that all point back at the question; None where anything looks otherwise."""
    length = {A: 4, AAAA: 16}.get(query.type)
    records: list[Record] = []
    for _ in range(answers):
        start = at + 12
        if length is None or start + length > len(body) or body[at : at + 2] != _POINTER:
            return None
        type_, class_, ttl, size = _RECORD.unpack_from(body, at + 2)
        if type_ != query.type or class_ != 1 or size != length:
            return None
        at = start + length
        records.append(Record(query.name, type_, ttl, _address(body[start:at])))
    if additional:
        if len(body) < at + 11 or body[at] != 0:
            return None
        type_, _, extended, size = _RECORD.unpack_from(body, at + 1)
        if type_ != 41 or extended >> 24 or size:
            return None
        at += 11
    return tuple(records) if at == len(body) else None


def _address(packed: bytes) -> str:
    if len(packed) == 4:
        return inet_ntoa(packed)
    return str(ipaddress.IPv6Address(packed))
