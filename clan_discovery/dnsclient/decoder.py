"""Decode messages and encode names of any form, with dnspython.

No other module imports dnspython, and this one is imported only if a response needs it. It imports every part of
dnspython that it uses: otherwise dnspython imports parts at first use, which is not safe in several threads.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdtypes.ANY.SOA
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rdtypes.IN.SRV
import dns.rdtypes.nsbase
import dns.rrset

from clan_discovery.dnsclient.message import AAAA, NS, A, MalformedError, Record, Response

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def encode_name(name: str) -> bytes:
    """Encode a name, uncompressed; it may contain escapes (RFC 1035, 5.1).

    Raises:
        ValueError: the name cannot be encoded.
    """
    try:
        return dns.name.from_text(f"{name}.").to_wire() or b""
    except (dns.exception.DNSException, UnicodeError) as error:
        raise ValueError(f"invalid DNS name {name!r}") from error


def parse(body: bytes) -> Response:
    """Decode a message.

    Raises:
        MalformedError: the bytes are not a DNS message.
    """
    try:
        return _response(dns.message.from_wire(body))
    except (dns.exception.DNSException, ValueError) as error:
        raise MalformedError(f"malformed response ({type(error).__name__})") from error


def _response(message: dns.message.Message) -> Response:
    flags = int(message.flags)
    zone, negative = _negative(message)
    has_ns = any(rrset.rdtype == NS for rrset in message.authority)
    return Response(
        rcode=int(message.rcode()),
        truncated=bool(flags & dns.flags.TC),
        authoritative=bool(flags & dns.flags.AA),
        recursive=bool(flags & dns.flags.RA),
        answer=tuple(_records(message.answer)),
        negative=negative,
        zone=zone,
        referral=has_ns and negative is None,
        extra=tuple(record for record in _records(message.additional) if record.type in (A, AAAA)),
    )


def _negative(message: dns.message.Message) -> tuple[str, int | None]:
    """Return the owner of the SOA record in the authority section, and its TTL.

    It is the negative caching TTL (RFC 2308, 5).
    """
    for rrset in message.authority:
        for rdata in _each(rrset):
            if isinstance(rdata, dns.rdtypes.ANY.SOA.SOA):
                return _name_text(rrset.name), min(int(rrset.ttl), int(rdata.minimum))
    return "", None


def _records(section: Iterable[dns.rrset.RRset]) -> Iterator[Record]:
    for rrset in section:
        if rrset.rdclass == dns.rdataclass.IN:
            owner, type_ = _name_text(rrset.name), int(rrset.rdtype)
            yield from (Record(owner, type_, rrset.ttl, _data_text(rdata)) for rdata in _each(rrset))


def _each(rrset: Iterable[object]) -> Iterator[dns.rdata.Rdata]:
    """Yield the data of each record; dnspython does not declare its type."""
    for rdata in rrset:
        if isinstance(rdata, dns.rdata.Rdata):
            yield rdata


def _data_text(rdata: dns.rdata.Rdata) -> str:
    match rdata:
        case dns.rdtypes.IN.A.A() | dns.rdtypes.IN.AAAA.AAAA():
            return str(ipaddress.ip_address(rdata.address))
        case dns.rdtypes.IN.SRV.SRV():
            return f"{rdata.priority} {rdata.weight} {rdata.port} {_name_text(rdata.target)}"
        case dns.rdtypes.nsbase.NSBase():  # CNAME, DNAME, NS, PTR
            return _name_text(rdata.target)
        case dns.rdtypes.ANY.TXT.TXT():
            return _path(rdata.strings)
        case _:
            return ""


def _name_text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


def _path(strings: tuple[bytes, ...]) -> str:
    """Return the value of the first `path` of a service's TXT record.

    The key is case-insensitive (RFC 6763, 6.4).
    """
    for string in strings:
        key, _, value = string.partition(b"=")
        if key.lower() == b"path":
            return value.decode("utf-8", "replace")
    return ""
