"""What a reply means for a question: records, proven absent, follow a name, or could not find out. Pure.

Sources: RFC 1034 (3.6.2, CNAME), RFC 6672 (DNAME), RFC 2308 (absence and for how long), RFC 6604 (the code of a chain
is that of its end).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from clan_discovery.dnsclient.message import CNAME, DNAME, MAX_TTL, NOERROR, NXDOMAIN, RCODES
from clan_discovery.dnsclient.names import ROOT, is_below, to_wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.dnsclient.message import Record, Response

LONGEST_CHAIN: Final = 16
"""Aliases that are followed; resolvers give up between 8 (nsd) and 17 (BIND)."""


class Found(NamedTuple):
    """Records, each once, in the order of the answer, and addresses that came along. `ttl` in seconds."""

    texts: tuple[str, ...]
    ttl: int
    extra: tuple[Record, ...] = ()


class Absent(NamedTuple):
    """Proven: there is no such name (NXDOMAIN), or it has no record of the type (NODATA). `ttl`, where it is said."""

    code: Literal["NXDOMAIN", "NODATA"]
    ttl: int | None


class Follow(NamedTuple):
    """The name is an alias, and where it leads this reply does not say: ask again there."""

    name: str
    ttl: int


class Failed(NamedTuple):
    """Could not find out."""

    reason: str


Meaning: TypeAlias = Found | Absent | Follow | Failed


def understand(name: str, type_: int, reply: Response, seen: Sequence[str] = ()) -> Meaning:
    """Say what a reply means for a name and a type. `seen` are the aliases that led here already."""
    if reply.truncated:
        return Failed("the answer is cut off, even where it could be whole")
    if reply.rcode not in (NOERROR, NXDOMAIN):
        return Failed(RCODES.get(reply.rcode, f"code {reply.rcode}"))
    chain = [*seen, name]
    ttl = MAX_TTL
    while True:
        here = chain[-1]
        own = [record for record in reply.answer if record.name == here]
        found = [record for record in own if record.type == type_]
        if found:
            texts = tuple(dict.fromkeys(record.text for record in found))
            return Found(texts, min(ttl, *(_ttl(record) for record in found)), reply.extra)
        # Of a CNAME that was made of a DNAME, the TTL is the DNAME's: some resolvers write 0 (unbound).
        try:
            alias = _renamed(here, reply.answer) or next((record for record in own if record.type == CNAME), None)
        except ValueError:
            return Failed("a DNAME makes a name that is too long")
        if alias is None:
            break
        if alias.text in chain:
            return Failed(f"an alias loop: {' -> '.join([*chain, alias.text])[:200]}")
        if len(chain) > LONGEST_CHAIN:
            return Failed(f"more than {LONGEST_CHAIN} aliases in a row")
        chain.append(alias.text)
        ttl = min(ttl, _ttl(alias))
    return _absence(here, reply, ttl, moved=here != name)


def _absence(name: str, reply: Response, ttl: int, *, moved: bool) -> Meaning:
    """Say what it means that a reply has no records of the wanted type at the end of its chain."""
    own = reply.zone and (name == reply.zone or is_below(name, reply.zone))
    negative = reply.negative if own else None
    knows = reply.authoritative or reply.recursive
    if reply.rcode == NXDOMAIN and knows:
        return Absent("NXDOMAIN", _least(negative, ttl))
    if moved and negative is None:
        return Follow(name, ttl)
    if not knows or (negative is None and (reply.referral or reply.zone)):
        return Failed("lame: the server does not know this zone and asks nobody")
    return Absent("NODATA", _least(negative, ttl))


def _ttl(record: Record) -> int:
    return record.ttl if record.ttl <= MAX_TTL else 0  # RFC 2181, 8


def _least(negative: int | None, ttl: int) -> int | None:
    return None if negative is None else min(negative, ttl)


def _renamed(name: str, answer: Sequence[Record]) -> Record | None:
    """Return the alias that a DNAME above a name makes of it, as the CNAME that a server should have sent along.

    Raises:
        ValueError: it makes a name that is too long.
    """
    for record in answer:
        if record.type == DNAME and is_below(name, record.name):
            rest = name if record.name == ROOT else name.removesuffix(f".{record.name}")
            target = rest if record.text == ROOT else f"{rest}.{record.text}"
            if len(to_wire(target)) > 255:
                raise ValueError(target)
            return record._replace(name=name, type=CNAME, text=target)
    return None
