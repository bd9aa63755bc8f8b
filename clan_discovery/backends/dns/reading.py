"""What is asked, and what the answers say of machines and endpoints. Pure; the time is an argument.

The answers stand in a book, each until its TTL ends, and beyond it while nobody can be asked. What is to be asked next
follows from what the book says: a service's instances, their hosts, the hosts' addresses.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import msgspec

from clan_discovery.backends.dns.lookup import Absent, Failed, Found
from clan_discovery.backends.dns.names import first_label
from clan_discovery.backends.dns.resolver import Question
from clan_discovery.model import DnsAnswer, Exporter, RecordType

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clan_discovery.backends.dns.networks import Network

Mapped: TypeAlias = Literal["name", "target", "ptr"]
Book: TypeAlias = "dict[Question, DnsAnswer]"
Families: TypeAlias = tuple[RecordType, ...]
ANY: Final[Families] = ("A", "AAAA")
_ABSENT_MOST_S: Final = 300.0
"""However long a zone says that an absence holds, a machine that is new is found after so long."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A name of the config: `text` as it stands there, `names` as it is asked, one after the other (search list).

    `service`: it is asked for SRV, else for addresses of these `families`. `job`: its answers are targets.
    `machine` is the declared machine that it stands for, where it stands for one. `because` and `aside` are said of it.
    """

    text: str
    names: tuple[str, ...]
    service: bool = False
    families: Families = ANY
    job: str | None = None
    machine: str = ""
    because: str = ""
    aside: str = ""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """How the answers are read. Times in seconds; `declared` maps folded names to machines of the inventory.

    `exporters` gives each job what is scraped: a port of 0 means that the job has none.
    """

    backend: str
    wanted: tuple[Wanted, ...]
    exporters: Mapping[str, Exporter] = {}
    machines: Mapped | None = None
    declared: Mapping[str, str] = {}
    min_ttl: float = 5.0
    max_ttl: float = 3600.0
    max_age: float | None = 86400.0
    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()


class Service(NamedTuple):
    """An SRV record, read. Of which service instance, and at which path it serves, as its TXT record says."""

    port: int
    target: str
    priority: int
    weight: int
    path: str = ""
    instance: str = ""


class Known(NamedTuple):
    """The book at a time: what stands in it, and what could not be found out in this round."""

    book: Mapping[Question, DnsAnswer]
    failed: Mapping[Question, str]
    now: float
    max_age: float | None

    def get(self, name: str, type_: RecordType) -> DnsAnswer | None:
        """Return what stands of a name; None where nothing does."""
        answer = self.book.get(Question(name, type_))
        if answer is None or self.now < answer.until or self.max_age is None:
            return answer
        return answer if self.now - answer.at <= self.max_age else None


def is_due(answer: DnsAnswer | None, now: float) -> bool:
    """Tell whether a name is to be asked (again). An answer of the future is of a clock that was set back since."""
    return answer is None or answer.until <= now or answer.at > now


def entry(question: Question, found: Found | Absent, reading: Reading, now: float) -> DnsAnswer:
    """Make the book's entry of an answer: how long it holds is bounded."""
    if isinstance(found, Absent):
        most = min(reading.max_ttl, _ABSENT_MOST_S)
        ttl = min(max(found.ttl or 0.0, reading.min_ttl), max(most, reading.min_ttl))
        return DnsAnswer(question.name, question.type, now, now + ttl, absent=found.code)
    ttl = min(max(found.ttl, reading.min_ttl), reading.max_ttl)
    extra: dict[str, tuple[str, ...]] = {}
    if question.type == "SRV":
        targets = {text.rpartition(" ")[2] for text in found.texts}
        extra = {name: addresses for name, addresses in sorted(found.extra.items()) if name in targets}
    return DnsAnswer(question.name, question.type, now, now + ttl, tuple(sorted(found.texts)), extra=extra)


def questions(reading: Reading, known: Known) -> Iterator[Question]:
    """Yield every question that matters, as far as the book can tell; asked and answered, they may lead to more."""
    for wanted in reading.wanted:
        for name in wanted.names:
            if wanted.service:
                yield from _of_service(reading, known, name)
                settled = known.get(name, "SRV"), known.get(name, "PTR")
                absent = all(answer is not None and answer.absent for answer in settled)
            else:
                yield from (Question(name, family) for family in wanted.families)
                settled_by = [known.get(name, family) for family in wanted.families]
                absent = all(answer is not None and answer.absent for answer in settled_by)
                if reading.machines == "ptr":
                    for answer in settled_by:
                        yield from _reverses(answer.records if answer is not None else ())
            if not absent:
                break


def _of_service(reading: Reading, known: Known, name: str) -> Iterator[Question]:
    yield Question(name, "SRV")
    answer = known.get(name, "SRV")
    if answer is None:
        return
    if not answer.absent:
        yield from _of_hosts(reading, known, answer)
    elif answer.absent == "NODATA":
        yield Question(name, "PTR")
        for instance in _records(known.get(name, "PTR")):
            yield Question(instance, "SRV")
            yield Question(instance, "TXT")
            service = known.get(instance, "SRV")
            if service is not None:
                yield from _of_hosts(reading, known, service)


def _of_hosts(reading: Reading, known: Known, answer: DnsAnswer) -> Iterator[Question]:
    for record in answer.records:
        target = record.rpartition(" ")[2]
        if target == ".":
            continue
        addresses = answer.extra.get(target, ())
        if not addresses:
            yield Question(target, "A")
            first = known.get(target, "A")
            addresses = _records(first)
            if first is not None and first.absent:
                yield Question(target, "AAAA")
                addresses = _records(known.get(target, "AAAA"))
        if reading.machines == "ptr":
            yield from _reverses(addresses)


def _records(answer: DnsAnswer | None) -> tuple[str, ...]:
    return answer.records if answer is not None else ()


def _reverses(addresses: Sequence[str]) -> Iterator[Question]:
    return (Question(reverse(address), "PTR") for address in addresses)


def reverse(address: str) -> str:
    """Return the name of an address below in-addr.arpa or ip6.arpa."""
    return ip_address(address).reverse_pointer


def services(known: Known, name: str) -> tuple[list[Service], list[str], list[str]]:
    """Return the services at a name, its own or those of its instances; what is absent; and what is not known."""
    own = known.get(name, "SRV")
    if own is None:
        return [], [], [name]
    if own.records:
        return [_service(text) for text in own.records], [], []
    pointers = known.get(name, "PTR") if own.absent == "NODATA" else own
    if pointers is None:
        return [], [], [name]
    found: list[Service] = []
    absent: list[str] = [] if pointers.records else [name]
    unknown: list[str] = []
    for instance in pointers.records:
        service, text = known.get(instance, "SRV"), known.get(instance, "TXT")
        if service is None or text is None:
            unknown.append(instance)
        elif service.absent:
            absent.append(instance)
        else:
            path = next((record for record in text.records if record), "")
            found += [_service(record)._replace(path=path, instance=instance) for record in service.records]
    return found, absent, unknown


def _service(text: str) -> Service:
    priority, weight, port, target = text.split(" ", 3)
    return Service(int(port), target, int(priority), int(weight))


def machine_of(reading: Reading, host: str) -> str | None:
    """Return the declared machine whose name is the first label of a host's name, None where none is."""
    return reading.declared.get(first_label(host).casefold())


def failure(result: object) -> str:
    """Say why a question has no answer."""
    return result.reason if isinstance(result, Failed) else "nobody was asked"
