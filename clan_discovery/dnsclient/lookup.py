"""Interpret a response: records, a proven absence, an alias, or a failure.

Sources: RFC 1034 (3.6.2, CNAME), RFC 6672 (DNAME), RFC 2308 (negative caching), RFC 6604 (the response code of a chain
of aliases is that of its last name).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from clan_discovery.dnsclient.message import CNAME, DNAME, MAX_TTL, NOERROR, NXDOMAIN, RCODES
from clan_discovery.dnsclient.names import ROOT, is_below, to_wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.dnsclient.message import Record, Response

MAX_ALIASES: Final = 16
"""The most aliases to follow; servers stop between 8 (nsd) and 17 (BIND)."""


class Found(NamedTuple):
    """The records' data without duplicates, their TTL, and additional addresses.

    `texts` are in the order of the response.
    """

    texts: tuple[str, ...]
    ttl: int
    extra: tuple[Record, ...] = ()


class Absent(NamedTuple):
    """A proven absence: no such name (NXDOMAIN), or no records of the type (NODATA).

    `ttl` is None if the server gives none.
    """

    code: Literal["NXDOMAIN", "NODATA"]
    ttl: int | None


class Follow(NamedTuple):
    """An alias whose target is not in the response: ask for `name` next."""

    name: str
    ttl: int


class Failed(NamedTuple):
    """A failed lookup, which says nothing about the name."""

    reason: str


Meaning: TypeAlias = Found | Absent | Follow | Failed


def understand(name: str, type_: int, response: Response, aliases: Sequence[str] = ()) -> Meaning:
    """Interpret a response to a name and a type.

    `aliases` are the names that led to this one, in order.
    """
    if response.truncated:
        return Failed("truncated response, also over TCP")
    if response.rcode not in (NOERROR, NXDOMAIN):
        return Failed(RCODES.get(response.rcode, f"code {response.rcode}"))
    chain = [*aliases, name]
    ttl = MAX_TTL
    while True:
        owner = chain[-1]
        records = _owned(owner, type_, response)
        if records:
            texts = tuple(dict.fromkeys(record.text for record in records))
            return Found(texts, min(ttl, *map(_ttl, records)), response.extra)
        try:
            alias = _alias(owner, response)
        except ValueError:
            return Failed("a DNAME makes a name that is too long")
        if alias is None:
            return _absence(owner, response, ttl, is_alias_target=owner != name)
        if alias.text in chain:
            return Failed(f"an alias loop: {' -> '.join([*chain, alias.text])[:200]}")
        if len(chain) > MAX_ALIASES:
            return Failed(f"more than {MAX_ALIASES} aliases in a row")
        chain.append(alias.text)
        ttl = min(ttl, _ttl(alias))


def _absence(owner: str, response: Response, ttl: int, *, is_alias_target: bool) -> Meaning:
    """Interpret a response without records of the type at the end of its aliases."""
    negative = response.negative if _is_in_zone(owner, response.zone) else None
    absence_ttl = None if negative is None else min(negative, ttl)
    knows = response.authoritative or response.recursive
    if response.rcode == NXDOMAIN and knows:
        return Absent("NXDOMAIN", absence_ttl)
    if is_alias_target and negative is None:
        return Follow(owner, ttl)
    is_elsewhere = response.referral or response.zone
    if not knows or (negative is None and is_elsewhere):
        return Failed("lame: the server does not serve this zone and does not resolve it")
    return Absent("NODATA", absence_ttl)


def _is_in_zone(name: str, zone: str) -> bool:
    return zone != "" and (name == zone or is_below(name, zone))


def _ttl(record: Record) -> int:
    return record.ttl if record.ttl <= MAX_TTL else 0  # RFC 2181, 8


def _owned(owner: str, type_: int, response: Response) -> list[Record]:
    return [record for record in response.answer if (record.name, record.type) == (owner, type_)]


def _alias(owner: str, response: Response) -> Record | None:
    """Return the alias of a name: the one that a DNAME makes, else its CNAME.

    The DNAME comes first for its TTL. A CNAME that a server makes from a DNAME should have the same TTL, but unbound
    writes 0.

    Raises:
        ValueError: the DNAME makes a name that is too long.
    """
    for record in response.answer:
        if record.type == DNAME and is_below(owner, record.name):
            target = _rename(owner, record)
            if len(to_wire(target)) > 255:
                raise ValueError(target)
            return record._replace(name=owner, type=CNAME, text=target)
    return next(iter(_owned(owner, CNAME, response)), None)


def _rename(name: str, dname: Record) -> str:
    """Return a name below a DNAME, moved below the target of the DNAME."""
    suffix = "" if dname.name == ROOT else f".{dname.name}"
    labels = name.removesuffix(suffix)
    return labels if dname.text == ROOT else f"{labels}.{dname.text}"
