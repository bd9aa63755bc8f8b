"""What a reply means for a question: records, proven absent, follow a name, or could not find out. Pure.

Sources: RFC 1034 (3.6.2, CNAME), RFC 6672 (DNAME), RFC 2308 (absence and for how long), RFC 6604 (the code of a chain
is that of its end).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from clan_discovery.backends.dns.names import MAX_NAME, is_below
from clan_discovery.backends.dns.wire import CNAME, DNAME, NOERROR, NXDOMAIN, RCODES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clan_discovery.backends.dns.wire import Record, Reply

LONGEST_CHAIN: Final = 16
"""Aliases that are followed; resolvers give up between 8 (nsd) and 17 (BIND)."""


class Found(NamedTuple):
    """Records, each once, in the order of the answer, and addresses that came along. `ttl` in seconds."""

    texts: tuple[str, ...]
    ttl: int
    extra: Mapping[str, tuple[str, ...]]


class Absent(NamedTuple):
    """Proven: there is no such name (NXDOMAIN), or it has no record of the type (NODATA). `ttl`, where it is said."""

    code: str
    ttl: int | None


class Follow(NamedTuple):
    """The name is an alias, and where it leads this reply does not say: ask again there."""

    name: str
    ttl: int


class Failed(NamedTuple):
    """Could not find out. `lost`: nobody answered, so the same server may be asked once more."""

    reason: str
    lost: bool = False


Meaning: TypeAlias = Found | Absent | Follow | Failed


def understand(name: str, type_: int, reply: Reply, seen: Sequence[str] = ()) -> Meaning:
    """Say what a reply means for a name and a type. `seen` are the aliases that led here already."""
    if reply.rcode not in (NOERROR, NXDOMAIN):
        return Failed(RCODES.get(reply.rcode, f"code {reply.rcode}"))
    chain = [*seen, name]
    ttl = 0x7FFFFFFF
    while True:
        here = chain[-1]
        own = [record for record in reply.answer if record.name == here]
        found = [record for record in own if record.type == type_]
        if found:
            texts = tuple(dict.fromkeys(record.text for record in found))
            return Found(texts, min(ttl, *(_ttl(record) for record in found)), reply.extra)
        # Of a CNAME that was made of a DNAME, the TTL is the DNAME's: some resolvers write 0 (unbound).
        alias = _renamed(here, reply.answer) or next((record for record in own if record.type == CNAME), None)
        if alias is None:
            break
        if alias.text in chain:
            return Failed(f"an alias loop: {' -> '.join([*chain, alias.text])[:200]}")
        if len(chain) > LONGEST_CHAIN:
            return Failed(f"more than {LONGEST_CHAIN} aliases in a row")
        chain.append(alias.text)
        ttl = min(ttl, _ttl(alias))
    moved = here != name
    if reply.rcode == NXDOMAIN:
        return Absent("NXDOMAIN", _least(reply.negative, ttl))
    if moved and reply.negative is None:
        return Follow(here, ttl)
    if reply.negative is None and (reply.referral or not (reply.authoritative or reply.recursive)):
        return Failed("lame: the server does not know this zone and asks nobody")
    return Absent("NODATA", _least(reply.negative, ttl))


def _ttl(record: Record) -> int:
    return record.ttl if record.ttl <= 0x7FFFFFFF else 0  # RFC 2181, 8


def _least(negative: int | None, ttl: int) -> int | None:
    return None if negative is None else min(negative, ttl)


def _renamed(name: str, answer: Sequence[Record]) -> Record | None:
    """Return the alias that a DNAME above a name makes of it, as the CNAME that a server should have sent along."""
    for record in answer:
        if record.type == DNAME and is_below(name, record.name):
            target = f"{name.removesuffix(record.name)}{record.text}"
            if len(target) <= MAX_NAME:
                return record._replace(name=name, type=CNAME, text=target)
    return None
