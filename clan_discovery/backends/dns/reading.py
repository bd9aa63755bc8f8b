"""Which questions follow from the config, and what the cached answers say at a given time. Pure.

What is asked next follows from what is known: the instances of a service, their hosts, the addresses of these.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import msgspec

from clan_discovery.dnsclient.cache import TtlBounds
from clan_discovery.dnsclient.message import Question, RecordType
from clan_discovery.syntax.networks import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clan_discovery.dnsclient.cache import Cache, CachedAnswer
    from clan_discovery.model import Exporter
    from clan_discovery.syntax.networks import Network

Mapped: TypeAlias = Literal["name", "target", "ptr"]
Families: TypeAlias = tuple[RecordType, ...]
ANY: Final[Families] = ("A", "AAAA")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A name of the config: `text` as written there, `names` as it is asked, one after the other (search list).

    `service`: it is asked for SRV, else for addresses of these `families`. `job`: its answers are targets.
    `machine` is the declared machine that it belongs to, if any. `domains` are those whose names are machines, unless
    the reading has its own. `because` and `aside` go into explanations.
    """

    text: str
    names: tuple[str, ...]
    service: bool = False
    families: Families = ANY
    job: str | None = None
    machine: str = ""
    domains: tuple[str, ...] = ()
    because: str = ""
    aside: str = ""

    @property
    def group(self) -> str:
        """Return the group of the snapshot that this name is: it is answered or fails by itself."""
        kind = "SRV" if self.service else "addresses"
        return f"{self.text} {kind} {self.job}" if self.job else f"{self.text} {kind}"


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """How the answers are read. Times in seconds; `declared` maps case-folded names to machines of the inventory.

    `exporters` gives each job what is scraped; port 0 means that the job has no port. `domains`: only names directly
    below one of these are machines; None: of each name its own.
    """

    backend: str
    wanted: tuple[Wanted, ...]
    exporters: Mapping[str, Exporter] = {}
    machines: Mapped | None = None
    domains: tuple[str, ...] | None = None
    declared: Mapping[str, str] = {}
    min_ttl: float = 5.0
    max_ttl: float = 3600.0
    max_age: float | None = 86400.0
    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()

    @property
    def bounds(self) -> TtlBounds:
        """Return for how long answers are valid."""
        return TtlBounds(self.min_ttl, self.max_ttl)


class Service(NamedTuple):
    """An SRV record, with the instance that it belongs to and the path that the TXT record gives."""

    port: int
    target: str
    priority: int
    weight: int
    path: str = ""
    instance: str = ""
    aside: str = ""


class Services(NamedTuple):
    """The services at a name, what is proven absent, and the names that are unknown because a lookup failed."""

    found: tuple[Service, ...] = ()
    absent: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


class View(NamedTuple):
    """The cached answers at a time, and the questions that failed in this cycle, each with the reason."""

    cache: Cache
    failed: Mapping[Question, str]
    now: float
    max_age: float | None

    def get(self, name: str, type_: RecordType, *, hosting: bool = False) -> CachedAnswer | None:
        """Return the answer that may be used; None where there is none."""
        return self.usable(Question(name, type_, hosting))

    def usable(self, question: Question) -> CachedAnswer | None:
        """Return the answer that may be used: a valid one, or one of at most `max_age`.

        What only adds to another answer (a TXT path, the name of an address) is usable as long as that one is.
        """
        if question.type == "TXT" or question.name.endswith((".in-addr.arpa", ".ip6.arpa")):
            return self.cache.ever(question)
        return self.cache.get(question, self.now, self.max_age)

    def is_absent(self, wanted: Wanted, name: str) -> bool:
        """Tell whether a name of a search list does not exist, so that the next one counts.

        A name proven absent stays absent until a server says otherwise: while no server responds, a proven absence must
        not become an unknown that hides the next name.
        """
        if not wanted.service:
            return self.cache.is_absent(name, wanted.families)
        services = self.cache.ever(Question(name, "SRV"))
        if services is None or not services.absent:
            return False
        return services.absent == "NXDOMAIN" or self.cache.is_absent(name, ("PTR",))


def questions(reading: Reading, view: View) -> Iterator[Question]:
    """Yield every question that matters, as far as the cache can tell; answers may lead to more."""
    for wanted in reading.wanted:
        yield from questions_of(wanted, reading, view)


def questions_of(wanted: Wanted, reading: Reading, view: View) -> Iterator[Question]:
    """Yield the questions of one name."""
    for name in wanted.names:
        if wanted.service:
            yield from _of_service(reading, view, name)
        else:
            for family in wanted.families:
                yield Question(name, family)
                if reading.machines == "ptr":
                    yield from _reverses(reading, view, _records(view.get(name, family)))
        if name == wanted.names[-1] or not view.is_absent(wanted, name):
            return


def _of_service(reading: Reading, view: View, name: str) -> Iterator[Question]:
    yield Question(name, "SRV")
    answer = view.get(name, "SRV")
    if answer is None:
        return
    yield from _of_hosts(reading, view, answer)
    if answer.absent == "NODATA":
        yield Question(name, "PTR")
        for instance in _records(view.get(name, "PTR")):
            yield Question(instance, "SRV")
            yield Question(instance, "TXT")
            yield from _of_hosts(reading, view, view.get(instance, "SRV"))


def _of_hosts(reading: Reading, view: View, answer: CachedAnswer | None) -> Iterator[Question]:
    for record in _records(answer):
        target = record.rpartition(" ")[2]
        if target == ".":
            continue
        for family in ANY:
            yield Question(target, family, hosting=True)
            found = view.get(target, family, hosting=True)
            if found is None:
                break
            if found.records:
                if reading.machines == "ptr":
                    yield from _reverses(reading, view, found.records)
                break


def _records(answer: CachedAnswer | None) -> tuple[str, ...]:
    return answer.records if answer is not None else ()


def _reverses(reading: Reading, view: View, addresses: Sequence[str]) -> Iterator[Question]:
    """Yield what is asked of addresses: the name in the PTR record, and whether that name has the address.

    Anyone who has an address can write any name into its PTR record.
    """
    for address in addresses:
        if refusal(address, reading.allow, reading.deny) is None:
            yield Question(reverse(address), "PTR")
            names = _records(view.get(reverse(address), "PTR"))
            if len(names) == 1:
                yield Question(names[0], family_of(address))


def family_of(address: str) -> RecordType:
    """Return the type of the records that hold this address."""
    if ":" in address:
        return "AAAA"
    return "A"


def reverse(address: str) -> str:
    """Return the name of an address below in-addr.arpa or ip6.arpa."""
    return ip_address(address).reverse_pointer


def services(view: View, name: str) -> Services:
    """Return the services at a name: its own, or those of the instances that it lists (RFC 6763)."""
    own = view.get(name, "SRV")
    if own is None:
        return Services(unknown=(name,))
    if own.records:
        return Services(found=tuple(_service(text) for text in own.records))
    if own.absent == "NXDOMAIN":
        return Services(absent=(name,))
    pointers = view.get(name, "PTR")
    if pointers is None:
        return Services(unknown=(name,))
    if not pointers.records:
        return Services(absent=(name,))
    found: list[Service] = []
    absent: list[str] = []
    unknown: list[str] = []
    for instance in pointers.records:
        answer = view.get(instance, "SRV")
        if answer is None:
            unknown.append(instance)
        elif answer.absent:
            absent.append(instance)
        else:
            found += _instance(view, instance, answer)
    return Services(tuple(found), tuple(absent), tuple(unknown))


def _instance(view: View, instance: str, answer: CachedAnswer) -> Iterator[Service]:
    text = view.get(instance, "TXT")
    path = next(filter(None, _records(text)), "")
    aside = "" if text is not None else "; the lookup of its TXT record failed, so its path is the job's"
    for record in answer.records:
        yield _service(record)._replace(path=path, instance=instance, aside=aside)


def _service(text: str) -> Service:
    priority, weight, port, target = text.split(" ", 3)
    return Service(int(port), target, int(priority), int(weight))
