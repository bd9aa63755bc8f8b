"""Interpret the cached answers: machines and targets as a snapshot. Pure.

A name is a host. Its addresses of both families are one target, at its lowest IPv4 address, else at its lowest IPv6
address, so the order of an answer changes nothing. A name with several addresses of one family is several hosts, each
named by its address, because the addresses have no other name. The host of a service is named by its name.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from clan_discovery.backends.dns.claims import Claim, Listed, settle
from clan_discovery.backends.dns.reading import (
    ANY,
    Reading,
    Service,
    View,
    Wanted,
    family_of,
    questions_of,
    reverse,
    services,
)
from clan_discovery.dnsclient.names import split_name
from clan_discovery.model import Exclusion, Exporter, Failure, Group, Reason, Snapshot
from clan_discovery.syntax.endpoint import NOWHERE, is_address, nowhere
from clan_discovery.syntax.labels import path_complaint
from clan_discovery.syntax.networks import refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clan_discovery.dnsclient.message import Question

_ANY_MACHINE: Final = "*"
_NAME: Final = "__meta_dns_name"
_TARGET: Final = "__meta_dns_srv_record_target"
_PORT: Final = "__meta_dns_srv_record_port"
_INSTANCE: Final = "__meta_dns_service_instance"
_NO_EXPORTER: Final = Exporter(type="", port=0)


class _Addresses(NamedTuple):
    """The addresses of a name, or the proof that it has none (`absent`)."""

    name: str
    found: tuple[str, ...] = ()
    absent: str = ""


class _Host(NamedTuple):
    """A host: its name, its machine, if any, and its addresses.

    `dns_name` is a name that resolves to these addresses only; empty if there is none.
    """

    name: str
    machine: str
    addresses: tuple[str, ...]
    dns_name: str = ""


def snapshot(reading: Reading, view: View) -> Snapshot:
    """Return all that the cached answers say; each name of the config is a group."""
    claims: list[Claim] = []
    listed: list[Listed] = []
    excluded: list[Exclusion] = []
    groups: dict[str, Group] = {}
    for wanted in reading.wanted:
        found = _Name(reading, view, wanted)
        found.read()
        claims += found.claims
        listed += found.listed
        excluded += found.excluded
        groups[wanted.group] = Group(found.failures(), wanted.job or "")
    nodes, endpoints = settle(reading, claims, listed)
    return Snapshot(
        backend=reading.backend,
        nodes=nodes,
        endpoints=endpoints,
        excluded=tuple(dict.fromkeys(excluded)),
        groups=groups,
    )


class _Name:
    """Reads the cached answers for one name of the config.

    The results are claims on machines, targets, exclusions and failed lookups.
    """

    def __init__(self, reading: Reading, view: View, wanted: Wanted) -> None:
        self.reading = reading
        self.view = view
        self.wanted = wanted
        self.claims: list[Claim] = []
        self.listed: list[Listed] = []
        self.excluded: list[Exclusion] = []
        self._unknown: dict[str, str] = {}

    def read(self) -> None:
        """Read the name as a service or as a host."""
        if self.wanted.service:
            self._services()
        else:
            self._host()

    def failures(self) -> tuple[Failure, ...]:
        """Return the lookups that failed for this name."""
        if not self.view.failed:
            return ()
        found: dict[str, Failure] = {}
        for question in questions_of(self.wanted, self.reading, self.view):
            reason = self.view.failed.get(question)
            if reason is not None:
                failure = Failure(question.name, reason, self._unknown.get(question.name, ""), self._age(question))
                known = found.setdefault(question.name, failure)
                if failure.age is None or (known.age is not None and failure.age > known.age):
                    found[question.name] = failure
        return tuple(found.values())

    def _age(self, question: Question) -> float | None:
        """Return the age of the answer that replaces a failed one; None without one."""
        answer = self.view.usable(question)
        if answer is None and self.view.is_absent(self.wanted, question.name):
            answer = self.view.cache.ever(question)
        if answer is not None:
            return answer.age(self.view.now)
        if question.type == "TXT":
            return 0.0  # the service is used without TXT, at the path of the job
        return None

    # Names with addresses

    def _host(self) -> None:
        """Read the addresses of a name: one machine, one host, or several hosts."""
        found = self._addresses()
        if found is None:
            for name in self.wanted.names:
                self._unknown[name] = self._meant(name)
        elif found.found:
            self._found_host(found)
        elif self.wanted.job is not None and not self.wanted.machine:  # the resolver reports a missing machine
            detail = f"{found.absent}: {found.name} {'+'.join(self.wanted.families)} is proven absent"
            self._exclude(_absolute(self.wanted.text), "no_such_name", detail)

    def _addresses(self) -> _Addresses | None:
        """Return the addresses of the first form of the name that exists.

        None if the lookup of an earlier form failed.
        """
        absent = ""
        for name in self.wanted.names:
            records: list[str] = []
            unknown = False
            for family in self.wanted.families:
                answer = self.view.get(name, family)
                if answer is None:
                    unknown = True
                    continue
                records += answer.records
                absent = absent or answer.absent
            if unknown and not self._is_passed_over(name):
                self._unknown[name] = self._meant(name)
                if not records:
                    return None
            if records:
                return _Addresses(name, _sorted(records))
        return _Addresses(self.wanted.names[0], absent=absent or "NXDOMAIN")

    def _is_passed_over(self, name: str) -> bool:
        """Tell whether a name of a search list is proven absent; then the next one counts."""
        return len(self.wanted.names) > 1 and self.view.is_absent(self.wanted, name)

    def _found_host(self, found: _Addresses) -> None:
        """Read a name that has addresses."""
        wanted = self.wanted
        machine, aside = wanted.machine, wanted.aside
        if not machine and self.reading.machines == "name":
            machine = self._mapped(found.name)
            aside = self._untrusted(found.name, machine)
        usable = self._allowed(found, machine or _absolute(wanted.text))
        verb = "has" if usable else "has only"
        what = f"{found.name} {verb} {', '.join(found.found)}{aside}"
        labels = {_NAME: wanted.text}
        dns_name = found.name if usable == found.found else ""
        hosts: list[_Host] = []
        if machine:
            host = _Host(found.name, machine, usable, dns_name)
            self._claim(host, labels, what)
            if usable:
                hosts.append(host)
        elif self.reading.machines == "ptr":
            hosts = self._by_pointer(usable, labels, what)
        else:
            hosts = _hosts(found.name, usable, dns_name)
        for host in hosts:
            self._list_host(host, labels, what)

    def _list_host(self, host: _Host, labels: dict[str, str], what: str) -> None:
        """List a host as a target, if the name has a job."""
        if self.wanted.job is None:
            return
        exporter = self.reading.exporters[self.wanted.job]
        name = _absolute(host.name)
        if exporter.port == 0:
            self._exclude(name, "no_port", f"the job {self.wanted.job} has no port, and address records give none")
        else:
            address = host.addresses[0]
            self.listed.append(Listed(self.wanted, address, name, host.machine, exporter, labels, what, host.dns_name))

    def _meant(self, name: str) -> str:
        """Return the machine that is unknown if the lookup of this name fails."""
        if self.wanted.machine:
            return self.wanted.machine
        match self.reading.machines:
            case "name":
                return self._mapped(name)
            case "ptr":
                return _ANY_MACHINE
            case _:
                return ""

    # Names with SRV records

    def _services(self) -> None:
        """Read the services at a name: its own, or those of its instances."""
        wanted = self.wanted
        for name in wanted.names:
            known = services(self.view, name)
            for unknown in known.unknown:
                self._unknown[unknown] = wanted.machine or (_ANY_MACHINE if self.reading.machines is not None else "")
            for service in known.found:
                self._service(service)
            if known.found or known.unknown:
                for absent in known.absent:
                    self._exclude(absent, "no_such_name", f"{wanted.text} lists it, but it has no SRV record")
                return
        if not wanted.machine:
            detail = f"proven absent: neither {wanted.names[0]} nor an instance that it lists has an SRV record"
            self._exclude(_absolute(wanted.text), "no_such_name", detail)

    def _service(self, service: Service) -> None:
        """Read one SRV record."""
        wanted = self.wanted
        if service.target == ".":
            detail = "its SRV target is `.`: the service is withdrawn (RFC 2782)"
            self._exclude(service.instance or _absolute(wanted.text), "withdrawn", detail)
            return
        labels = {_NAME: wanted.text, _TARGET: f"{service.target}.", _PORT: str(service.port)}
        if service.instance:
            labels[_INSTANCE] = service.instance
        record = f"{service.priority} {service.weight} {service.port} {service.target}"
        what = f"{service.instance or wanted.text} has SRV {record}"
        machine = wanted.machine
        if not machine and self.reading.machines == "target":
            machine = self._mapped(service.target)
            what += self._untrusted(service.target, machine)
        host, what = self._service_host(service, machine, labels, what)
        if host.addresses:
            name = _absolute(service.target)
            address = host.addresses[0]
            listed = Listed(wanted, address, name, host.machine, _NO_EXPORTER, labels, what, host.dns_name)
            self._list_service(service, listed)

    def _service_host(self, service: Service, machine: str, labels: dict[str, str], what: str) -> tuple[_Host, str]:
        """Return the host of an SRV target and the explanation.

        The host has no address if all its addresses are refused.
        """
        found = self._target_addresses(service, machine)
        if not found.found:
            why = "is unknown: the lookup of its address failed"
            if found.absent:
                why = f"has no address ({found.absent})"
            what += f", which {why}: using a name below .{NOWHERE}, which resolves nowhere"
            return _Host(service.target, machine, (nowhere(service.target),)), what
        usable = self._allowed(found, machine or _absolute(service.target))
        what += f", at {', '.join(usable or found.found)}"
        dns_name = service.target if usable == found.found else ""
        if machine:
            self._claim(_Host(service.target, machine, usable, dns_name), labels, what)
        elif self.reading.machines == "ptr":
            hosts = self._by_pointer(usable, labels, what)
            machine = hosts[0].machine if hosts else ""
        return _Host(service.target, machine, usable, dns_name), what

    def _target_addresses(self, service: Service, machine: str) -> _Addresses:
        """Return the addresses of an SRV target.

        If the lookup failed, the result has neither addresses nor `absent`.
        """
        absent = ""
        for family in ANY:
            answer = self.view.get(service.target, family, hosting=True)
            if answer is None:
                self._unknown[service.target] = machine
                return _Addresses(service.target)
            if answer.records:
                return _Addresses(service.target, _sorted(answer.records))
            absent = absent or answer.absent
        return _Addresses(service.target, absent=absent)

    def _list_service(self, service: Service, listed: Listed) -> None:
        """List a service as a target of its job.

        Its port and path are those of the SRV and TXT records, or those of the job.
        """
        base = self.reading.exporters.get(self.wanted.job or "")
        if base is None:
            return
        port = service.port or base.port
        path = service.path or base.path
        if not path.startswith("/"):
            path = f"/{path}"
        if port == 0:
            detail = f"the port of its SRV record is 0, and the job {self.wanted.job} has none"
            self._exclude(listed.name, "no_port", detail)
            return
        if service.path and (complaint := path_complaint(path)):
            self._exclude(service.instance, "inexpressible", f"the path of its TXT record: {complaint}")
            return
        what = listed.what + service.aside
        if service.priority or service.weight:
            what += " (priority and weight are ignored: every host is scraped)"
        exporter = msgspec.structs.replace(base, port=port, path=path)
        self.listed.append(listed._replace(exporter=exporter, what=what))

    # Both kinds of names

    def _claim(self, host: _Host, labels: dict[str, str], what: str) -> None:
        group = self.wanted.group
        self.claims.append(Claim(host.machine, host.name, host.addresses, labels, what, group, host.dns_name))

    def _allowed(self, found: _Addresses, name: str) -> tuple[str, ...]:
        """Return the addresses that a target may have, and exclude the others."""
        usable: list[str] = []
        for address in found.found:
            why = refusal(address, self.reading.allow, self.reading.deny)
            if why is None:
                usable.append(address)
            else:
                self._exclude(name, "refused_address", f"{found.name} has the address {address}: {why}")
        return tuple(usable)

    def _mapped(self, host: str) -> str:
        """Return the machine of a host name; empty if its domain is not trusted."""
        label, domain = split_name(host)
        if domain in self._domains:
            return self.reading.declared.get(label.casefold(), label)
        return ""

    @property
    def _domains(self) -> tuple[str, ...]:
        """Return the domains whose names are machines."""
        if self.reading.domains is not None:
            return self.reading.domains
        return self.wanted.domains

    def _untrusted(self, name: str, machine: str) -> str:
        """Explain why a name is not a machine; empty if it is one.

        It is excluded, too: as the name itself if it has no job, and as the declared machine with the same first label,
        which may be the machine that was meant.
        """
        if machine or self.reading.machines is None:
            return ""
        label, domain = split_name(name)
        trusted = " or ".join(filter(None, self._domains))
        why = f"{name} is not directly below {trusted or 'a domain'}"
        fix = ""
        if domain and not is_address(name):
            beside = f", besides {trusted.replace(' or ', ', ')}" if trusted and self.reading.domains is None else ""
            fix = f" (if it is, add {domain} to backends.dns.{self.reading.backend}.domains{beside})"
        excluded = {self.reading.declared.get(label.casefold(), "")}
        if self.wanted.job is None:
            excluded.add(_absolute(name))
        for name_ in sorted(filter(None, excluded)):
            self._exclude(name_, "untrusted_name", f"{why}, so it is not a machine{fix}")
        return f"; {why}, so it is not a machine{fix}"

    def _by_pointer(self, addresses: Iterable[str], labels: dict[str, str], what: str) -> list[_Host]:
        """Group addresses by the name in their PTR records, and claim the machines.

        An address is its own name if it has no PTR record or several, or if the name does not have the address. An
        address whose lookup failed is left out.
        """
        groups: dict[tuple[str, str], tuple[str, ...]] = {}
        for address in addresses:
            name = self._pointer(address)
            if name is not None:
                host = name, self._mapped(name)
                groups[host] = (*groups.get(host, ()), address)
        hosts = [_Host(name, machine, group) for (name, machine), group in groups.items()]
        for host_ in hosts:
            if host_.machine:
                self._claim(host_, labels, f"{what}; PTR of {host_.addresses[0]} names {host_.name}")
            else:
                self._untrusted(host_.name, "")
        return hosts

    def _pointer(self, address: str) -> str | None:
        """Return the name in the PTR record of an address, else the address itself.

        None if a lookup failed.
        """
        question = reverse(address)
        names = self.view.get(question, "PTR")
        if names is None:
            self._unknown[question] = _ANY_MACHINE
            return None
        if len(names.records) != 1:
            return address
        name = names.records[0]
        known = self.view.get(name, family_of(address))
        if known is None:
            self._unknown[name] = self._mapped(name)
            return None
        if address in known.records:
            return name
        return address

    def _exclude(self, name: str, reason: Reason, detail: str) -> None:
        backend, job, group = self.reading.backend, self.wanted.job, self.wanted.group
        self.excluded.append(Exclusion(name=name, reason=reason, detail=detail, by=backend, job=job, group=group))


def _absolute(name: str) -> str:
    """Return the full name of a host, with a dot after a single label.

    Without the dot, a single label would match a machine of the inventory.
    """
    return name if "." in name or ":" in name else f"{name}."


def _hosts(name: str, addresses: tuple[str, ...], dns_name: str) -> list[_Host]:
    """Split the addresses of a name into hosts.

    One address of each family is one host; several addresses of one family are several hosts.
    """
    v4 = tuple(address for address in addresses if ":" not in address)
    v6 = addresses[len(v4) :]
    if not addresses:
        return []
    if len(v4) <= 1 and len(v6) <= 1:
        return [_Host(name, "", addresses, dns_name)]
    return [_Host(address, "", (address,)) for address in v4 or v6]


def _sorted(addresses: Iterable[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(addresses))
    if len(found) < 2:
        return found
    return tuple(str(a) for a in sorted(map(ip_address, found), key=lambda a: (a.version, int(a))))
