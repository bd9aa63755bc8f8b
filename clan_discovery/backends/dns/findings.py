"""What the book says of machines and endpoints: a snapshot. Pure.

A name is a host: its addresses of both families are one target, at the first of them, IPv4 before IPv6, the lowest
first, so that the order of an answer changes nothing. A name with several addresses of one family is several hosts,
each called by its address, for nothing tells which of them is which. A service's host is called by its name.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

from clan_discovery.backends.dns.claims import Claim, Listed, settle
from clan_discovery.backends.dns.networks import refusal
from clan_discovery.backends.dns.reading import ANY, Known, Reading, Service, Wanted, machine_of, reverse, services
from clan_discovery.dnsclient.message import Question
from clan_discovery.dnsclient.names import first_label
from clan_discovery.model import DnsList, Exclusion, Exporter, Reason, Snapshot, Unanswered
from clan_discovery.syntax.labels import path_complaint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Recall: TypeAlias = Callable[[], Snapshot | None]
NOWHERE: Final = "invalid"
"""The domain that resolves nowhere (RFC 6761): a target there is down, and leads nobody astray."""
_RETRY_S: Final = 10.0
"""A name of which nobody could find out is asked again after so long."""
_ANY: Final = "*"
_KEPT: Final = "as the published files have it, for it could not be asked"
_NAME: Final = "__meta_dns_name"
_TARGET: Final = "__meta_dns_srv_record_target"
_PORT: Final = "__meta_dns_srv_record_port"
_INSTANCE: Final = "__meta_dns_service_instance"


class _Kept(NamedTuple):
    """A target of the published files: its address (none below .invalid), what it is called, what DNS said of it."""

    host: str
    name: str
    labels: Mapping[str, str]
    path: str
    job: str = ""


class _Addresses(NamedTuple):
    """The addresses of a name: which, or that there are proven to be none."""

    name: str
    found: tuple[str, ...] = ()
    absent: str = ""


def snapshot(
    reading: Reading,
    known: Known,
    relevant: Iterable[Question],
    recall: Recall,
    *,
    ended: float = 0.0,
    silent: bool = False,
) -> Snapshot:
    """Say everything that the book says now.

    `relevant` are the questions that matter, `recall` gives what the published files know, where the book knows
    nothing. `ended` is when asking ended; `silent`: nobody answered anything this time.
    """
    work = _Work(reading, known, recall)
    for wanted in reading.wanted:
        if wanted.service:
            work.service(wanted)
        else:
            work.host(wanted)
    dues = [known.book[q].until for q in relevant if q in known.book and q not in known.failed]
    if known.failed:
        dues.append(ended + _RETRY_S)
    nodes, endpoints = settle(reading, work.claims, work.listed)
    lists = {_list(wanted) for wanted in reading.wanted}
    return Snapshot(
        backend=reading.backend,
        nodes=nodes,
        endpoints=endpoints,
        excluded=tuple(dict.fromkeys(work.excluded)),
        answers=tuple(known.book.values()),
        unanswered=work.unanswered(),
        due=min(dues, default=None),
        jobs=tuple(sorted(reading.exporters)),
        silent=silent,
        asked=frozenset(lists),
        found=frozenset(lists - work.lacking),
    )


def _list(wanted: Wanted) -> DnsList:
    return DnsList(wanted.job or "", wanted.text, wanted.service)


class _Work:
    def __init__(self, reading: Reading, known: Known, recall: Recall) -> None:
        self.reading = reading
        self.known = known
        self.claims: list[Claim] = []
        self.listed: list[Listed] = []
        self.excluded: list[Exclusion] = []
        self.unknown: dict[str, str] = {}
        self.lacking: set[DnsList] = set()
        self._recall = recall
        self._recalled: dict[str, list[_Kept]] | None = None

    def host(self, wanted: Wanted) -> None:
        """Take the addresses of a name: of a machine, of one host, or of several."""
        found = self.addresses(wanted)
        if found is None:
            for name in wanted.names:
                self.unknown[name] = wanted.machine or self.meant(name)
        elif found.absent:
            if wanted.job is not None and not wanted.machine:  # of a machine, the resolver says that it is missing
                detail = f"{found.absent}: {found.name} {'+'.join(wanted.families)} is proven not to be there"
                self.exclude(_absolute(wanted.text), "no_such_name", detail, wanted.job)
        else:
            self.found_host(wanted, found)

    def found_host(self, wanted: Wanted, found: _Addresses) -> None:
        """Take a name that has addresses."""
        machine = wanted.machine or (self.mapped(found.name) if self.reading.machines == "name" else "")
        usable = self.allowed(found, machine or _absolute(wanted.text), wanted.job)
        what = f"{found.name} {'has' if usable else 'has only'} {', '.join(found.found)}{wanted.aside}"
        labels = {_NAME: wanted.text}
        if machine:
            self.claims.append(Claim(machine, found.name, usable, labels, what))
            hosts = [(found.name, machine, usable)] if usable else []
        elif self.reading.machines == "ptr":
            hosts = self.by_pointer(wanted, usable, labels, what)
        else:
            hosts = [(name, "", addresses) for name, addresses in _hosts(found.name, usable)]
        for name, mapped, addresses in hosts if wanted.job is not None else ():
            exporter = self.reading.exporters[wanted.job or ""]
            if exporter.port == 0:
                detail = f"{wanted.job} has no port, and an address says none"
                self.exclude(_absolute(name), "no_port", detail, wanted.job)
            else:
                self.listed.append(Listed(wanted, addresses[0], _absolute(name), mapped, exporter, labels, what))

    def service(self, wanted: Wanted) -> None:
        """Take the services at a name, its own or those of its instances."""
        for name in wanted.names:
            found, absent, unknown = services(self.known, name)
            for gone in unknown:
                self.unknown[gone] = wanted.machine or (_ANY if self.reading.machines is not None else "")
                self.lacking.add(_list(wanted))
                found += self.kept_services(wanted, gone, whole=gone == name)
            for service in found:
                self.one_service(wanted, service)
            if found or unknown:
                for gone in absent:
                    self.exclude(gone, "no_such_name", f"{wanted.text} lists it, and it has no SRV record", wanted.job)
                return
        if not wanted.machine:
            detail = f"{wanted.names[0]} is proven to have no SRV record, and no instance that it lists has one"
            self.exclude(_absolute(wanted.text), "no_such_name", detail, wanted.job)

    def one_service(self, wanted: Wanted, service: Service) -> None:
        """Take one SRV record: where its target is, and what serves there."""
        if service.target == ".":
            detail = "its SRV target is `.`: the service is withdrawn (RFC 2782)"
            self.exclude(service.instance or _absolute(wanted.text), "withdrawn", detail, wanted.job)
            return
        labels = {
            _NAME: wanted.text,
            _TARGET: f"{service.target}.",
            _PORT: str(service.port),
        }
        if service.instance:
            labels[_INSTANCE] = service.instance
        record = f"{service.priority} {service.weight} {service.port} {service.target}"
        what = f"{service.instance or wanted.text} has SRV {record}"
        name = _absolute(service.target)
        machine = wanted.machine or (self.mapped(service.target) if self.reading.machines == "target" else "")
        found = self.target_addresses(wanted, service, machine)
        usable = self.allowed(found, machine or name, wanted.job) if found.found else ()
        if found.found:
            what += f", at {', '.join(usable or found.found)}"
            if machine:
                self.claims.append(Claim(machine, service.target, usable, labels, what))
            elif self.reading.machines == "ptr":
                machine = next((mapped for _, mapped, _ in self.by_pointer(wanted, usable, labels, what)), "")
            if not usable:
                return
        else:
            why = f"has no address ({found.absent})" if found.absent else "could not be asked for an address yet"
            what += f", which {why}: it stands below .{NOWHERE}, where nothing is"
        host = usable[0] if usable else f"{service.target}.{NOWHERE}"
        self.list_service(wanted, service, Listed(wanted, host, name, machine, _NONE, labels, what))

    def list_service(self, wanted: Wanted, service: Service, listed: Listed) -> None:
        """List a service as a target of its job: at its port, or the job's, and at the path of its TXT record."""
        base = self.reading.exporters.get(wanted.job or "")
        if base is None:
            return
        port = service.port or base.port
        path = service.path if service.path.startswith("/") or not service.path else f"/{service.path}"
        if port == 0:
            detail = f"the port of its SRV record is 0, and the job {wanted.job} has none"
            self.exclude(listed.name, "no_port", detail, wanted.job)
        elif complaint := path_complaint(path) if path else None:
            self.exclude(service.instance, "inexpressible", f"the path of its TXT record: {complaint}", wanted.job)
        else:
            exporter = msgspec.structs.replace(base, port=port, path=path or base.path)
            chooses = " (priority and weight choose for clients that want one; every one is scraped)"
            what = listed.what + service.aside + (chooses if service.priority or service.weight else "")
            self.listed.append(listed._replace(exporter=exporter, what=what))

    def target_addresses(self, wanted: Wanted, service: Service, machine: str) -> _Addresses:
        """Return the addresses of an SRV target; with neither addresses nor an absence where nobody knows any."""
        if service.host:
            return _Addresses(service.target, (service.host,))
        absent = ""
        for family in ANY:
            answer = self.known.get(service.target, family, hosting=True)
            if answer is None:
                self.unknown[service.target] = machine
                kept = self.kept_host(wanted, Question(service.target, family, hosting=True))
                return _Addresses(service.target, (kept,) if kept else ())
            if answer.records:
                return _Addresses(service.target, _sorted(answer.records))
            absent = absent or answer.absent
        return _Addresses(service.target, absent=absent)

    def addresses(self, wanted: Wanted) -> _Addresses | None:
        """Return the addresses of the first of a name's forms that is there; None where that is not known.

        Of a family of which nothing was ever known, the published files speak.
        """
        absent = ""
        for name in wanted.names:
            records: list[str] = []
            unknown = False
            for family in wanted.families:
                answer = self.known.get(name, family)
                kept = self.kept_addresses(wanted, Question(name, family)) if answer is None else ()
                records += answer.records if answer is not None else kept
                unknown = unknown or answer is None
                absent = absent or (answer.absent if answer is not None else "")
            if unknown and (len(wanted.names) == 1 or not self.known.is_absent(wanted, name)):
                self.lacking.add(_list(wanted))
                self.unknown[name] = wanted.machine or self.meant(name)
                if not records:
                    return None
            if records:
                return _Addresses(name, _sorted(records))
        return _Addresses(wanted.names[0], absent=absent or "NXDOMAIN")

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

    def meant(self, name: str) -> str:
        """Return the machine that a name of addresses would have stood for, had it been found out."""
        return {"name": self.mapped(name), "ptr": _ANY}.get(self.reading.machines or "", "")

    def by_pointer(
        self, wanted: Wanted, addresses: Iterable[str], labels: dict[str, str], what: str
    ) -> list[tuple[str, str, tuple[str, ...]]]:
        """Group addresses by whom their PTR records name: name, machine, addresses.

        One without a record stands for itself; one whose record nobody ever gave for what the published files say.
        """
        groups: dict[tuple[str, str], tuple[str, ...]] = {}
        waiting = False
        for address in addresses:
            question = Question(reverse(address), "PTR")
            answer = self.known.ever(question.name, question.type)
            if answer is None:
                self.unknown[question.name] = _ANY
                self.lacking.add(_list(wanted))
                waiting = waiting or self.known.may_recall(question)
                name = self.kept_name(wanted, address)
                machine = self.mapped(name)
            else:
                alone = len(answer.records) == 1
                name, machine = (answer.records[0], self.mapped(answer.records[0])) if alone else (address, "")
            if name:
                groups[name, machine] = (*groups.get((name, machine), ()), address)
        for name, host in self.kept_hosts(wanted) if waiting else ():
            if all(name not in group for group in groups):  # perhaps it is one of those that have no name yet
                groups[name, self.mapped(name)] = (host,)
        for (name, machine), group in groups.items():
            if machine:
                self.claims.append(Claim(machine, name, group, labels, f"{what}; PTR of {group[0]} names {name}"))
        return [(name, machine, group) for (name, machine), group in groups.items()]

    def exclude(self, name: str, reason: Reason, detail: str, job: str | None) -> None:
        self.excluded.append(Exclusion(name=name, reason=reason, detail=detail, by=self.reading.backend, job=job))

    # What the published files still know

    def recalled(self, wanted: Wanted) -> list[_Kept]:
        """Return what the published files have of a name as it stands in the config, in this list."""
        if self._recalled is None:
            self._recalled = {}
            found = self._recall()
            for node in found.nodes if found is not None else ():
                kept = _Kept(node.addresses[0], node.name, node.labels, "")
                self._recalled.setdefault(node.labels[_NAME], []).append(kept)
            for e in found.endpoints if found is not None else ():
                host = e.host if e.observed else ""
                kept = _Kept(host, e.machine, e.labels, e.exporter.path, e.exporter.type)
                self._recalled.setdefault(e.labels[_NAME], []).append(kept)
        known = self._recalled.get(wanted.text, [])
        return [kept for kept in known if (_TARGET in kept.labels) == wanted.service and kept.job in ("", wanted.job)]

    def kept_addresses(self, wanted: Wanted, question: Question) -> tuple[str, ...]:
        """Return the addresses of one family that the published files have of a host."""
        if not self.known.may_recall(question):
            return ()
        hosts = [kept.host for kept in self.recalled(wanted) if kept.host]
        return tuple(dict.fromkeys(host for host in hosts if (":" in host) == (question.type == "AAAA")))

    def kept_services(self, wanted: Wanted, name: str, *, whole: bool) -> list[Service]:
        """Return the services that the published files have, of one instance or of the whole name."""
        if not any(self.known.may_recall(Question(name, type_)) for type_ in ("SRV", "PTR")):
            return []
        found: list[Service] = []
        for kept in self.recalled(wanted):
            instance, port = kept.labels.get(_INSTANCE, ""), kept.labels.get(_PORT, "")
            if (whole or instance == name) and port.isascii() and port.isdigit() and len(port) < 6:
                target = kept.labels[_TARGET].removesuffix(".")
                path = kept.path if instance and kept.path != "/metrics" else ""
                found.append(Service(int(port), target, 0, 0, path, instance, f"; {_KEPT}", kept.host))
        return list(dict.fromkeys(found))

    def kept_host(self, wanted: Wanted, host: Question) -> str:
        """Return where the published files have the host of a service."""
        known = self.recalled(wanted) if self.known.may_recall(host) else []
        return next((kept.host for kept in known if kept.host and kept.labels[_TARGET] == f"{host.name}."), "")

    def kept_hosts(self, wanted: Wanted) -> list[tuple[str, str]]:
        """Return who is where, as the published files have it, where a target may be there."""
        allow, deny = self.reading.allow, self.reading.deny
        known = self.recalled(wanted)
        return [(kept.name, kept.host) for kept in known if kept.host and refusal(kept.host, allow, deny) is None]

    def kept_name(self, wanted: Wanted, address: str) -> str:
        """Return whom the published files have at an address."""
        return next((kept.name for kept in self.recalled(wanted) if kept.host == address), "")

    def unanswered(self) -> tuple[Unanswered, ...]:
        """List the names that could not be found out: those with a last good answer, and those without."""
        found: dict[str, Unanswered] = {}
        for question, reason in self.known.failed.items():
            standing = self.known.get(question.name, question.type, hosting=question.hosting)
            blank = self.known.book.get(question)
            since = standing or (blank if self._recalled else None)
            age = None if since is None else max(self.known.now - since.at, 0.0)
            machine = self.unknown.get(question.name, "")
            before = found.get(question.name)
            if before is None or (before.age is not None and (age is None or age > before.age)):
                found[question.name] = Unanswered(question.name, reason, machine, age)
        return tuple(found[name] for name in sorted(found))


_NONE: Final = Exporter(type="", port=0)


def _absolute(name: str) -> str:
    """Return what a host is called: one of a single label is no machine of the inventory by that alone."""
    return name if "." in name or ":" in name else f"{name}."


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
