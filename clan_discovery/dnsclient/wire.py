"""Encode a DNS question and decode its response.

Most responses repeat the question, and contain address records that point back at it and an OPT record. They are
decoded here in a few microseconds. `decoder` takes about 100 us for any other response.

A datagram is a response only if it has our message id and repeats our question, with the case of every letter (RFC
5452; draft-vixie-dnsext-dns0x20).
"""

from __future__ import annotations

from enum import Enum
from ipaddress import IPv6Address
from socket import inet_ntoa  # formats four bytes, does no I/O
from struct import Struct
from typing import Final, NamedTuple

from clan_discovery.dnsclient.message import AAAA, NOERROR, NXDOMAIN, A, Record, Response
from clan_discovery.dnsclient.names import to_wire

PAYLOAD: Final = 1232
"""The EDNS payload size in bytes: datagrams up to this size are not fragmented (DNS flag day 2020)."""
MAX_DATAGRAM: Final = 65535
_OPT_TYPE: Final = 41
_OPT: Final = b"\0" + Struct("!HHIH").pack(_OPT_TYPE, PAYLOAD, 0, 0)
_CLASS_IN: Final = 1
_HEADER: Final = Struct("!HHHHHH")
_RECORD: Final = Struct("!HHIH")
_TYPE_AND_CLASS: Final = Struct("!HH")
_ADDRESS_SIZE: Final = {A: 4, AAAA: 16}

_RESPONSE: Final = 0x8000
_RESPONSE_AND_OPCODE: Final = 0xF800
_AUTHORITATIVE: Final = 0x0400
_TRUNCATED: Final = 0x0200
_RECURSION_DESIRED: Final = 0x0100
_RECURSION_AVAILABLE: Final = 0x0080
_RCODE: Final = 0x000F

_CASE_BIT: Final = bytes(0x20 if chr(i).isascii() and chr(i).isalpha() else 0 for i in range(256))
"""Maps a byte of a name to the bit that switches its case. A label's length is below 64, so it is never a letter."""
_POINTER: Final = b"\xc0\x0c"
"""A compressed name that points at the question."""


class EncodedQuestion(NamedTuple):
    """A question in the form in which it is sent.

    `wire` is the name with its random case, the type and the class, as bytes.
    """

    name: str
    type: int
    wire: bytes


class Mismatch(Enum):
    """Why a message is not the response to a question."""

    OTHER = "a response to something else"
    CASE = "a response with letters of another case"


def encode_question(name: str, type_: int, case_bits: bytes | None = None) -> EncodedQuestion:
    """Encode a question, with random case if `case_bits` is given.

    `case_bits` are random bytes, at least one for each byte of the encoded name.

    Raises:
        ValueError: the name cannot be encoded.
    """
    wire = to_wire(name)
    if case_bits is not None:
        size = len(wire)
        flips = int.from_bytes(wire.translate(_CASE_BIT), "big") & int.from_bytes(case_bits[:size], "big")
        wire = (int.from_bytes(wire, "big") ^ flips).to_bytes(size, "big")
    return EncodedQuestion(name, type_, wire + _TYPE_AND_CLASS.pack(type_, _CLASS_IN))


def encode_query(question: EncodedQuestion, message_id: int, *, edns: bool) -> bytes:
    """Encode the query message that carries a question."""
    query = _HEADER.pack(message_id, _RECURSION_DESIRED, 1, 0, 0, int(edns)) + question.wire
    return query + _OPT if edns else query


def decode_response(
    body: bytes, question: EncodedQuestion, message_id: int, *, exact_case: bool = True
) -> Response | Mismatch:
    """Decode the response to a question.

    Without `exact_case`, its letters may have any case.

    Raises:
        MalformedError: the response to this question cannot be decoded.
    """
    if len(body) < _HEADER.size:
        return Mismatch.OTHER
    found_id, flags, questions, answers, authority, additional = _HEADER.unpack_from(body)
    if (found_id, flags & _RESPONSE_AND_OPCODE) != (message_id, _RESPONSE):
        return Mismatch.OTHER
    if questions == 0 and flags & _RCODE not in (NOERROR, NXDOMAIN):
        return _response(flags)  # a server that cannot decode the question does not repeat it
    end = _HEADER.size + len(question.wire)
    repeated = body[_HEADER.size : end]
    if questions != 1 or repeated.lower() != question.wire.lower():
        return Mismatch.OTHER
    if exact_case and repeated != question.wire:
        return Mismatch.CASE
    if flags & _TRUNCATED:
        return _response(flags)
    if authority == 0:
        records = _decode_addresses(body, end, question, answers, additional)
        if records:
            return _response(flags, records)
    # Importing dnspython takes 60 ms, and most processes never need it.
    from clan_discovery.dnsclient.decoder import parse  # noqa: PLC0415

    return parse(body)


def _response(flags: int, answer: tuple[Record, ...] = ()) -> Response:
    return Response(
        rcode=flags & _RCODE,
        truncated=bool(flags & _TRUNCATED),
        authoritative=bool(flags & _AUTHORITATIVE),
        recursive=bool(flags & _RECURSION_AVAILABLE),
        answer=answer,
    )


def _decode_addresses(
    body: bytes, at: int, question: EncodedQuestion, answers: int, additional: int
) -> tuple[Record, ...] | None:
    """Decode address records that point back at the question.

    None for a message of any other form.
    """
    size = _ADDRESS_SIZE.get(question.type)
    if size is None:
        return None
    expected = (question.type, _CLASS_IN, size)
    records: list[Record] = []
    for _ in range(answers):
        start = at + len(_POINTER) + _RECORD.size
        if start + size > len(body) or not body.startswith(_POINTER, at):
            return None
        type_, class_, ttl, found_size = _RECORD.unpack_from(body, at + len(_POINTER))
        if (type_, class_, found_size) != expected:
            return None
        at = start + size
        records.append(Record(question.name, type_, ttl, _address_text(body[start:at])))
    rest = body[at:]
    if additional == 0 and not rest:
        return tuple(records)
    if additional == 1 and _is_plain_opt(rest):
        return tuple(records)
    return None


def _is_plain_opt(record: bytes) -> bool:
    """Tell whether bytes are one OPT record without options and extended RCODE."""
    if len(record) != 1 + _RECORD.size or record[0] != 0:
        return False
    extended: int
    type_, _, extended, size = _RECORD.unpack_from(record, 1)
    return (type_, extended >> 24, size) == (_OPT_TYPE, 0, 0)


def _address_text(packed: bytes) -> str:
    if len(packed) == 4:
        return inet_ntoa(packed)
    return str(IPv6Address(packed))
