"""What is asked, and what the answers say of machines and endpoints. Pure; the time is an argument.

The answers stand in a book, each until its TTL ends, and beyond it while nobody can be asked. What is to be asked next
follows from what the book says: a service's instances, their hosts, the hosts' addresses.
"""

from __future__ import annotations

from ipaddress import ip_address
from socket import AF_INET, AF_INET6, inet_pton  # text as bytes, no network
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import msgspec

from clan_discovery.backends.dns.networks import refusal
from clan_discovery.dnsclient.lookup import Absent, Found
from clan_discovery.dnsclient.message import TYPES, Question
from clan_discovery.dnsclient.names import first_label
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
    """An SRV record, read. Of which service instance, and at which path it serves, as its TXT record says.

    `host` is its address where the published files alone know it.
    """

    port: int
    target: str
    priority: int
    weight: int
    path: str = ""
    instance: str = ""
    aside: str = ""
    host: str = ""


class Known(NamedTuple):
    """The book at a time: what stands in it, and what could not be found out in this round."""

    book: Mapping[Question, DnsAnswer]
    failed: Mapping[Question, str]
    now: float
    max_age: float | None

    def get(self, name: str, type_: RecordType, *, hosting: bool = False) -> DnsAnswer | None:
        """Return what stands of a name; None where nothing does."""
        answer = self.book.get(Question(name, type_, hosting))
        return answer if answer is not None and _says(answer) and self.stands(answer) else None

    def ever(self, name: str, type_: RecordType) -> DnsAnswer | None:
        """Return what was ever said of a name: for what only adds to something that stands."""
        answer = self.book.get(Question(name, type_))
        return answer if answer is not None and _says(answer) else None

    def is_absent(self, wanted: Wanted, name: str) -> bool:
        """Tell whether a name of a search list is not there, so that the next one counts.

        Once it was not, it is not until somebody says otherwise: that nobody can ask for it now must not hide a name
        that answers.
        """
        if wanted.service:
            services, pointers = self.ever(name, "SRV"), self.ever(name, "PTR")
            gone = services is not None and services.absent
            return gone == "NXDOMAIN" or bool(gone and pointers is not None and pointers.absent)
        answers = [self.ever(name, family) for family in wanted.families]
        return all(answer is not None and answer.absent for answer in answers)

    def stands(self, answer: DnsAnswer) -> bool:
        """Tell whether an answer holds, or is young enough to stand for one that could not be had."""
        return self.now < answer.until or self.max_age is None or self.now - answer.at <= self.max_age

    def may_recall(self, question: Question) -> bool:
        """Tell whether the published files may speak for a name: nothing was ever known of it, and not for too long."""
        answer = self.book.get(question)
        return answer is not None and not _says(answer) and self.stands(answer)


def is_sound(answer: DnsAnswer) -> bool:
    """Tell whether a remembered answer can be one: a state may have been written by somebody else."""
    try:
        for record in answer.records:
            if answer.type == "SRV":
                _service(record)
            elif answer.type in ("A", "AAAA"):
                inet_pton(AF_INET if answer.type == "A" else AF_INET6, record)
    except (ValueError, OSError):
        return False
    return True


def blank(question: Question, now: float) -> DnsAnswer:
    """Make the entry of a name of which nothing is known, so that it is known since when."""
    return _answer(question, now, 0.0)


def _says(answer: DnsAnswer) -> bool:
    return bool(answer.records or answer.absent)


def is_due(answer: DnsAnswer | None, now: float) -> bool:
    """Tell whether a name is to be asked (again). An answer of the future is of a clock that was set back since."""
    return answer is None or answer.until <= now or answer.at > now


def entries(question: Question, found: Found | Absent, reading: Reading, now: float) -> Book:
    """Make the book's entries of an answer: of itself, and of the addresses that came along for its targets."""
    if isinstance(found, Absent):
        most = min(reading.max_ttl, _ABSENT_MOST_S)
        ttl = min(max(found.ttl or 0.0, reading.min_ttl), max(most, reading.min_ttl))
        return {question: _answer(question, now, ttl, absent=found.code)}
    made = {question: _answer(question, now, _bounded(found.ttl, reading), tuple(sorted(found.texts)))}
    if question.type == "SRV":
        targets = {text.rpartition(" ")[2] for text in found.texts}
        for family in ANY:
            came = [record for record in found.extra if record.type == TYPES[family]]
            for target in sorted(targets & {record.name for record in came}):
                own = [record for record in came if record.name == target]
                host = Question(target, family, hosting=True)
                ttl = _bounded(min(record.ttl for record in own), reading)
                made[host] = _answer(host, now, ttl, tuple(sorted({record.text for record in own})))
    return made


def _bounded(ttl: float, reading: Reading) -> float:
    return min(max(ttl, reading.min_ttl), reading.max_ttl)


def _answer(question: Question, now: float, ttl: float, records: tuple[str, ...] = (), absent: str = "") -> DnsAnswer:
    return DnsAnswer(question.name, question.type, now, now + ttl, records, absent, question.hosting)


def questions(reading: Reading, known: Known) -> Iterator[Question]:
    """Yield every question that matters, as far as the book can tell; asked and answered, they may lead to more."""
    for wanted in reading.wanted:
        for name in wanted.names:
            if wanted.service:
                yield from _of_service(reading, known, name)
            else:
                yield from (Question(name, family) for family in wanted.families)
                if reading.machines == "ptr":
                    for family in wanted.families:
                        yield from _reverses(reading, _records(known.get(name, family)))
            if not known.is_absent(wanted, name):
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
        for family in ANY:
            yield Question(target, family, hosting=True)
            found = known.get(target, family, hosting=True)
            if reading.machines == "ptr" and found is not None:
                yield from _reverses(reading, found.records)
            if found is None or found.records:
                break


def _records(answer: DnsAnswer | None) -> tuple[str, ...]:
    return answer.records if answer is not None else ()


def _reverses(reading: Reading, addresses: Sequence[str]) -> Iterator[Question]:
    for address in addresses:
        if refusal(address, reading.allow, reading.deny) is None:
            yield Question(reverse(address), "PTR")


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
        service, text = known.get(instance, "SRV"), known.ever(instance, "TXT")
        if service is None:
            unknown.append(instance)
        elif service.absent:
            absent.append(instance)
        else:
            path = next((record for record in _records(text) if record), "")
            aside = "" if text is not None else "; its TXT record could not be asked, so its path is the job's"
            found += [
                _service(record)._replace(path=path, instance=instance, aside=aside) for record in service.records
            ]
    return found, absent, unknown


def _service(text: str) -> Service:
    priority, weight, port, target = text.split(" ", 3)
    return Service(int(port), target, int(priority), int(weight))


def machine_of(reading: Reading, host: str) -> str | None:
    """Return the declared machine whose name is the first label of a host's name, None where none is."""
    return reading.declared.get(first_label(host).casefold())
