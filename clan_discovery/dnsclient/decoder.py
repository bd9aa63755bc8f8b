"""Messages and names of any shape, by dnspython. Pure. The only file that knows it, and imported where it is needed.

Everything that is used of it is imported here at once: backends are asked in threads, and the library imports the rest
of itself at its first use.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import dns.exception
import dns.message
import dns.name
import dns.rdata
import dns.rdtypes.ANY.SOA
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rdtypes.IN.SRV
import dns.rdtypes.nsbase

from clan_discovery.dnsclient.wire import AAAA, NS, A, MalformedError, Record, Reply

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def name_to_wire(name: str) -> bytes:
    """Write a name of the inside form as bytes, whatever is escaped in it.

    Raises:
        ValueError: it is none.
    """
    try:
        return dns.name.from_text(f"{name}.").to_wire() or b""
    except (dns.exception.DNSException, UnicodeError) as error:
        raise ValueError(f"{name!r} is no name in DNS") from error


def parse(body: bytes) -> Reply:
    """Read a message.

    Raises:
        MalformedError: it is none.
    """
    try:
        return _reply(dns.message.from_wire(body))
    except (dns.exception.DNSException, ValueError) as error:
        raise MalformedError(f"a malformed answer ({type(error).__name__})") from error


def _reply(found: dns.message.Message) -> Reply:
    answer: list[Record] = []
    extra: list[Record] = []
    for rrset in found.answer:
        if rrset.rdclass == 1:
            name = _folded(rrset.name)
            answer += [Record(name, int(rrset.rdtype), rrset.ttl, _text(rdata)) for rdata in _each(rrset)]
    for rrset in found.additional:
        if rrset.rdclass == 1 and rrset.rdtype in (A, AAAA):
            name = _folded(rrset.name)
            extra += [Record(name, int(rrset.rdtype), rrset.ttl, _text(rdata)) for rdata in _each(rrset)]
    flags = int(found.flags)
    zone, negative = _negative(found)
    return Reply(
        rcode=int(found.rcode()),
        truncated=bool(flags & 0x0200),
        authoritative=bool(flags & 0x0400),
        recursive=bool(flags & 0x0080),
        answer=tuple(answer),
        negative=negative,
        zone=zone,
        referral=negative is None and any(rrset.rdtype == NS for rrset in found.authority),
        extra=tuple(extra),
    )


def _negative(found: dns.message.Message) -> tuple[str, int | None]:
    for rrset in found.authority:
        for rdata in _each(rrset):
            if isinstance(rdata, dns.rdtypes.ANY.SOA.SOA):
                return _folded(rrset.name), min(int(rrset.ttl), int(rdata.minimum))
    return "", None


def _each(found: Iterable[object]) -> Iterator[dns.rdata.Rdata]:
    """Yield the records of a set; the library does not say of which type they are."""
    for rdata in found:
        if isinstance(rdata, dns.rdata.Rdata):
            yield rdata


def _text(rdata: dns.rdata.Rdata) -> str:
    match rdata:
        case dns.rdtypes.IN.A.A() | dns.rdtypes.IN.AAAA.AAAA():
            return str(ipaddress.ip_address(rdata.address))
        case dns.rdtypes.IN.SRV.SRV():
            return f"{rdata.priority} {rdata.weight} {rdata.port} {_folded(rdata.target)}"
        case dns.rdtypes.nsbase.NSBase():  # CNAME, DNAME, NS, PTR
            return _folded(rdata.target)
        case dns.rdtypes.ANY.TXT.TXT():
            return _path(rdata.strings)
        case _:
            return ""


def _folded(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


def _path(strings: tuple[bytes, ...]) -> str:
    """Return the value of the first `path` of a service's TXT record; its key has no case (RFC 6763, 6.4)."""
    for string in strings:
        key, _, value = string.partition(b"=")
        if key.lower() == b"path":
            return value.decode("utf-8", "replace")
    return ""
