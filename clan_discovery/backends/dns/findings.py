"""What the book says of machines and endpoints: a snapshot. Pure.

A name is a host: its addresses of both families are one target, at the first of them, IPv4 before IPv6, the lowest
first, so that the order of an answer changes nothing. A name with several addresses of one family is several hosts,
each called by its address, for nothing tells which of them is which. A service's host is called by its name.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from clan_discovery.backends.dns.names import first_label
from clan_discovery.backends.dns.networks import refusal
from clan_discovery.backends.dns.reading import ANY, Known, Reading, Service, Wanted, machine_of, reverse, services
from clan_discovery.labels import path_complaint
from clan_discovery.model import Endpoint, Exclusion, Exporter, Node, Reason, Snapshot, Unanswered

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from clan_discovery.backends.dns.reading import Families

NOWHERE: Final = "invalid"
"""The domain that resolves nowhere (RFC 6761): a target there is down, and leads nobody astray."""
_RETRY_S: Final = 10.0
"""A name of which nobody could find out is asked again after so long."""


class _Addresses(NamedTuple):
    """The addresses of a name: which, or that there are proven to be none, or neither."""

    name: str
    found: tuple[str, ...] = ()
    absent: str = ""


def snapshot(reading: Reading, known: Known, *, silent: bool = False) -> Snapshot:
    """Say everything that the book says now. `silent`: nobody answered anything this time."""
    work = _Work(reading, known)
    for wanted in reading.wanted:
        if wanted.service:
            work.service(wanted)
        else:
            work.host(wanted)
    dues = [answer.until for question, answer in known.book.items() if question not in known.failed]
    if known.failed:
        dues.append(known.now + _RETRY_S)
    return Snapshot(
        backend=reading.backend,
        nodes=tuple(work.nodes.values()),
        endpoints=tuple(work.endpoints.values()),
        excluded=tuple(dict.fromkeys(work.excluded)),
        answers=tuple(known.book.values()),
        unanswered=work.unanswered(),
        due=min(dues, default=None),
        jobs=tuple(sorted(reading.exporters)),
        silent=silent,
    )


class _Work:
    def __init__(self, reading: Reading, known: Known) -> None:
        self.reading = reading
        self.known = known
        self.nodes: dict[tuple[str, tuple[str, ...]], Node] = {}
        self.endpoints: dict[tuple[str, str, str, Exporter], Endpoint] = {}
        self.excluded: list[Exclusion] = []
        self.unknown: dict[str, str] = {}

    def host(self, wanted: Wanted) -> None:
        """Take the addresses of a name: of a machine, of one host, or of several."""
        found = self.addresses(wanted.names, wanted.families)
        if found is None:
            for name in wanted.names:
                self.unknown[name] = wanted.machine or (self.mapped(name) if self.reading.machines == "name" else "")
            return
        if found.absent:
            if wanted.job is not None and not wanted.machine:  # of a machine, the resolver says that it is missing
                detail = f"{found.absent}: {_asked(found.name, wanted.families)} is proven not to be there"
                self.exclude(wanted.text, "no_such_name", detail, wanted.job)
            return
        machine = wanted.machine or (self.mapped(found.name) if self.reading.machines == "name" else "")
        usable = self.allowed(found, machine or wanted.text, wanted.job)
        what = f"{found.name} {'has' if usable else 'has only'} {', '.join(found.found)}{wanted.aside}"
        labels = {"__meta_dns_name": wanted.text}
        if machine:
            self.node(machine, usable, labels, what)
            groups = [(machine, usable)] if usable else []
        elif self.reading.machines == "ptr":
            groups = self.by_pointer(usable, labels, what)
        else:
            groups = [(name, addresses) for name, addresses in _hosts(found.name, usable)]
        for name, addresses in groups if wanted.job is not None else ():
            exporter = self.reading.exporters[wanted.job or ""]
            if exporter.port == 0:
                detail = f"{wanted.job} has no port, and an address says none"
                self.exclude(name, "no_port", detail, wanted.job)
            else:
                called = self.called(name, machine)
                self.endpoint(wanted, addresses[0], called, exporter, labels=labels, what=what)

    def service(self, wanted: Wanted) -> None:
        """Take the services at a name, its own or those of its instances."""
        for name in wanted.names:
            found, absent, unknown = services(self.known, name)
            for service in found:
                self.one_service(wanted, service)
            for gone in unknown:
                self.unknown[gone] = ""
            if found or unknown:
                for gone in absent:
                    self.exclude(gone, "no_such_name", f"{wanted.text} lists it, and it has no SRV record", wanted.job)
                return
        if wanted.machine:
            return
        detail = f"{wanted.names[0]} is proven to have no SRV record, and no instance that it lists has one"
        self.exclude(wanted.text, "no_such_name", detail, wanted.job)

    def one_service(self, wanted: Wanted, service: Service) -> None:
        """Take one SRV record: where its target is, and what serves there."""
        base = self.reading.exporters.get(wanted.job or "")
        if service.target == ".":
            detail = "its SRV target is `.`: the service is withdrawn (RFC 2782)"
            self.exclude(service.instance or wanted.text, "withdrawn", detail, wanted.job)
            return
        labels = {
            "__meta_dns_name": wanted.text,
            "__meta_dns_srv_record_target": f"{service.target}.",
            "__meta_dns_srv_record_port": str(service.port),
        }
        record = f"{service.priority} {service.weight} {service.port} {service.target}"
        what = f"{service.instance or wanted.text} has SRV {record}"
        found = self.target_addresses(wanted, service)
        machine = wanted.machine or (self.mapped(service.target) if self.reading.machines == "target" else "")
        usable: tuple[str, ...] = ()
        if found is not None and not found.absent:
            usable = self.allowed(found, machine or service.target, wanted.job)
            if not usable and not machine:
                return
            what += f", at {', '.join(usable)}" if usable else ", nowhere that a target may be"
        if machine and found is not None and not found.absent:
            self.node(machine, usable, labels, what)
        elif self.reading.machines == "ptr":
            machine = next((name for name, _ in self.by_pointer(usable, labels, what)), "")
        port = service.port or (base.port if base is not None else 0)
        if base is not None and port == 0:
            detail = f"the port of its SRV record is 0, and the job {wanted.job} has none"
            self.exclude(service.target, "no_port", detail, wanted.job)
        elif base is not None and (exporter := self.exporter(wanted, service, base, port)) is not None:
            why = "" if usable else f", {_unfound(found)}: it stands below .{NOWHERE}, where nothing is"
            used = " (priority and weight choose for clients that want one; every one is scraped)"
            host = usable[0] if usable else f"{service.target}.{NOWHERE}"
            called = self.called(service.target, machine)
            what += why + (used if _chooses(service) else "")
            self.endpoint(wanted, host, called, exporter, labels=labels, what=what)

    def exporter(self, wanted: Wanted, service: Service, base: Exporter, port: int) -> Exporter | None:
        """Return what is scraped of a service: the job's exporter at its port, and at the path of its TXT record."""
        path = service.path if service.path.startswith("/") or not service.path else f"/{service.path}"
        if complaint := path_complaint(path) if path else None:
            self.exclude(service.instance, "inexpressible", f"the path of its TXT record: {complaint}", wanted.job)
            return None
        return msgspec.structs.replace(base, port=port, path=path or base.path)

    def target_addresses(self, wanted: Wanted, service: Service) -> _Addresses | None:
        """Return the addresses of an SRV target: those that came along with the record, else those that were asked."""
        for name in (service.instance, *wanted.names) if service.instance else wanted.names:
            answer = self.known.get(name, "SRV")
            extra = answer.extra.get(service.target, ()) if answer is not None else ()
            if extra:
                return _Addresses(service.target, _sorted(extra))
        found = self.addresses((service.target,), ANY)
        if found is None:
            self.unknown[service.target] = self.mapped(service.target) if self.reading.machines == "target" else ""
        return found

    def addresses(self, names: Sequence[str], families: Families) -> _Addresses | None:
        """Return the addresses of the first of these names that is there; None where that is not known."""
        absent = ""
        for name in names:
            answers = [self.known.get(name, family) for family in families]
            records = [record for answer in answers if answer is not None for record in answer.records]
            if records:
                return _Addresses(name, _sorted(records))
            if any(answer is None for answer in answers):
                return None
            absent = absent or next(answer.absent for answer in answers if answer is not None)
        return _Addresses(names[0], absent=absent)

    def allowed(self, found: _Addresses, name: str, job: str | None) -> tuple[str, ...]:
        """Return the addresses that a target may have; each other one is excluded."""
        allow, deny = self.reading.allow, self.reading.deny
        refused = {address: why for address in found.found if (why := refusal(address, allow, deny))}
        for address, why in refused.items():
            self.exclude(name, "refused_address", f"{found.name} has the address {address}: {why}", job)
        return tuple(address for address in found.found if address not in refused) if refused else found.found

    def mapped(self, host: str) -> str:
        """Return the machine that a host's name stands for."""
        return machine_of(self.reading, host) or first_label(host)

    def called(self, name: str, machine: str) -> str:
        """Return the machine of an endpoint: a declared one, else what the host is called in full."""
        return self.reading.declared.get(machine.casefold(), name) if machine else name

    def by_pointer(
        self, addresses: Iterable[str], labels: dict[str, str], what: str
    ) -> list[tuple[str, tuple[str, ...]]]:
        """Group addresses by the machine that their PTR records name; one without stands for itself."""
        groups: dict[str, tuple[str, ...]] = {}
        for address in addresses:
            answer = self.known.get(reverse(address), "PTR")
            if answer is None:
                self.unknown[reverse(address)] = ""
            names = answer.records if answer is not None else ()
            name = self.mapped(names[0]) if len(names) == 1 else address
            groups[name] = (*groups.get(name, ()), address)
        for name, group in groups.items():
            if name not in group:
                self.node(name, group, labels, f"{what}; PTR of {group[0]} names {name}")
        return list(groups.items())

    def node(self, machine: str, addresses: tuple[str, ...], labels: dict[str, str], what: str) -> None:
        key = machine.casefold(), addresses
        if key not in self.nodes:
            self.nodes[key] = Node(machine.casefold(), addresses, labels=labels, note=what)

    def endpoint(
        self, wanted: Wanted, host: str, machine: str, exporter: Exporter, *, labels: dict[str, str], what: str
    ) -> None:
        key = machine, host, wanted.text if wanted.service else "", exporter
        if key not in self.endpoints:
            self.endpoints[key] = Endpoint(
                host=host,
                exporter=exporter,
                machine=machine,
                because=wanted.because,
                backend=self.reading.backend,
                labels=labels,
                located=f"{self.reading.backend}: {what}",
                observed=not host.endswith(f".{NOWHERE}"),
            )

    def exclude(self, name: str, reason: Reason, detail: str, job: str | None) -> None:
        self.excluded.append(Exclusion(name=name, reason=reason, detail=detail, by=self.reading.backend, job=job))

    def unanswered(self) -> tuple[Unanswered, ...]:
        """List the names that could not be found out: those with a last good answer, and those without."""
        found: dict[str, Unanswered] = {}
        for question, reason in self.known.failed.items():
            standing = self.known.get(*question)
            machine = self.unknown.get(question.name, "") if standing is None else ""
            age = None if standing is None else max(self.known.now - standing.at, 0.0)
            if question.name not in found or found[question.name].age is None:
                found[question.name] = Unanswered(question.name, reason, machine, age)
        return tuple(found[name] for name in sorted(found))


def _hosts(name: str, addresses: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    """Split the addresses of a name into hosts: one of both families, or several of one."""
    v4 = tuple(address for address in addresses if ":" not in address)
    v6 = addresses[len(v4) :]
    if not addresses:
        return []
    if len(v4) <= 1 and len(v6) <= 1:
        return [(name, addresses)]
    return [(address, (address,)) for address in v4 or v6]


def _sorted(addresses: Iterable[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(addresses))
    if len(found) < 2:
        return found
    return tuple(str(a) for a in sorted(map(ip_address, found), key=lambda a: (a.version, int(a))))


def _asked(name: str, families: Families) -> str:
    return f"{name} {'+'.join(families)}"


def _unfound(found: _Addresses | None) -> str:
    return "which could not be asked for an address yet" if found is None else f"which has no address ({found.absent})"


def _chooses(service: Service) -> bool:
    return bool(service.priority or service.weight)
