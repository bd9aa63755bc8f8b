"""List the questions that follow from the config, and read the cache. Pure.

Answers lead to further questions: the instances of a service, their hosts, and the addresses of these hosts.
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
    """A name of the config, and how to look it up.

    `text` is the name as written; `names` are the names to ask, in order (search list). `service`: ask for SRV, else
    for addresses of these `families`. `job`: the answers are targets of this job. `machine` is the declared machine
    that the name belongs to, if any. `domains` are the domains whose names are machines, unless the reading has its
    own. `because` and `aside` are parts of explanations.
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
        """Return the group of this name in the snapshot."""
        kind = "SRV" if self.service else "addresses"
        return f"{self.text} {kind} {self.job}" if self.job else f"{self.text} {kind}"


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The settings for reading the answers. Times are in seconds.

    `declared` maps case-folded names to machines of the inventory. `exporters` is the exporter of each job; port 0
    means that the job has no port. `domains`: only names directly below one of these are machines; None: use the
    domains of each name.
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
        """Return the limits of the time for which answers are valid."""
        return TtlBounds(self.min_ttl, self.max_ttl)


class Service(NamedTuple):
    """An SRV record, with its instance and the path of the TXT record."""

    port: int
    target: str
    priority: int
    weight: int
    path: str = ""
    instance: str = ""
    aside: str = ""


class Services(NamedTuple):
    """The services at a name, the names proven absent, and the names not looked up.

    A name is `unknown` because its lookup failed.
    """

    found: tuple[Service, ...] = ()
    absent: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


class View(NamedTuple):
    """The cached answers at one time, and the failed questions with their reasons."""

    cache: Cache
    failed: Mapping[Question, str]
    now: float
    max_age: float | None

    def get(self, name: str, type_: RecordType, *, hosting: bool = False) -> CachedAnswer | None:
        """Return the usable answer to this question, or None."""
        return self.usable(Question(name, type_, hosting))

    def usable(self, question: Question) -> CachedAnswer | None:
        """Return the answer that may be used: a valid one, or one of at most `max_age`.

        An answer that only adds to another one (a TXT path, the name of an address) has no limit of its own.
        """
        if question.type == "TXT" or question.name.endswith((".in-addr.arpa", ".ip6.arpa")):
            return self.cache.ever(question)
        return self.cache.get(question, self.now, self.max_age)

    def is_absent(self, wanted: Wanted, name: str) -> bool:
        """Tell whether a name of a search list does not exist; then the next one counts.

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
    """Yield every relevant question that the cached answers lead to."""
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
    """Yield the questions about addresses: PTR records, and the names in them.

    The name must have the address, because anyone who has an address can write any name into its PTR record.
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
    """Return the services at a name: its own, or those of its instances (RFC 6763)."""
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
