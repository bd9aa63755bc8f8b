"""Merge what several sources declare. Pure.

Equal facts are merged; different facts about one thing are a conflict that names both places. The result does not
depend on the order of the sources.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.errors import InputError
from clan_discovery.model import (
    Declared,
    DeclaredAddress,
    DeclaredRole,
    DeclaredService,
    Delivery,
    Endpoint,
    Exclusion,
    Expected,
    Exporter,
    Front,
    Machine,
    MachineLimit,
    MachineNeed,
    MachineUnit,
    Problem,
    PublishedMetrics,
    ServerSettings,
)
from clan_discovery.syntax.endpoint import LOOPBACK, is_address, join_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

CLAN: Final = "clan"
"""The name of the clan inventory among the sources: its instances, tags and domain come first."""
EXPOSED: Final = "exposed"
"""The name of the document of exposed services among the sources."""
_SERVER: Final = "server"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one source declares. `place` returns where it declares a machine, for facts without a place of their own."""

    source: str
    declared: Declared
    place: Callable[[str], str]


def merge(parts: Sequence[Part]) -> Declared:
    """Merge what different sources declare.

    Raises:
        InputError: facts about one thing differ. It has all conflicts.
    """
    parts = _with_agents(sorted(parts, key=lambda part: (part.source != CLAN, part.source)))
    work = _Merging()
    for part in parts:
        work.fronts_of(part)
    if len(parts) > 1:
        for part in parts:
            work.add(part)
    if work.conflicts:
        raise InputError(work.conflicts)
    if len(parts) > 1:
        return work.declared(_domain_of(parts))
    if not parts:
        return Declared()
    return msgspec.structs.replace(parts[0].declared, fronts=tuple(front for front, _ in work.fronts.values()))


def _domain_of(parts: Sequence[Part]) -> str:
    """Return the domain of the machines: that of the clan, else the first that a source knows."""
    return next((part.declared.domain for part in parts if part.declared.domain), "")


def _with_agents(parts: Sequence[Part]) -> Sequence[Part]:
    """Mark what agents send: all that the clan and the exposed services declare on them, but the server's metrics.

    An agent scrapes on loopback of its machine. Compose and manifests may name other networks of the machine.
    """
    agents = {name.casefold() for part in parts for name in part.declared.agents}
    if not agents:
        return parts
    return [_sent(part, agents) if part.source in (CLAN, EXPOSED) else part for part in parts]


def _sent(part: Part, agents: AbstractSet[str]) -> Part:
    """Mark what agents send. Loopback is where they scrape: it needs no `host`."""
    found: list[Expected] = []
    for expected in part.declared.expected:
        if expected.machine.name.casefold() in agents and expected.role != _SERVER:
            host = expected.host if expected.host != LOOPBACK else ""
            found.append(msgspec.structs.replace(expected, delivery="push", host=host))
        else:
            found.append(expected)
    return msgspec.structs.replace(part, declared=msgspec.structs.replace(part.declared, expected=tuple(found)))


class _Merging:
    """Collects facts, each with the part that declares it first. Names of machines are compared case-folded."""

    def __init__(self) -> None:
        self.machines: dict[str, Machine] = {}
        self.expected: list[Expected] = []
        self.servers: list[ServerSettings] = []
        self.excluded: list[Exclusion] = []
        self.problems: list[Problem] = []
        self.roles: list[DeclaredRole] = []
        self.endpoints: list[Endpoint] = []
        self.refused: list[Front] = []
        self.agents: set[str] = set()
        self.limits: list[MachineLimit] = []
        self.units: list[MachineUnit] = []
        self.needs: list[MachineNeed] = []
        self.published: list[PublishedMetrics] = []
        self.addresses: dict[str, tuple[DeclaredAddress, Part]] = {}
        self.fronts: dict[tuple[str, str], tuple[Front, Part]] = {}
        self.services: dict[tuple[str, str], DeclaredService] = {}
        self.conflicts: list[Problem] = []
        self._known: dict[Hashable, tuple[int, Part]] = {}

    def machine(self, name: str) -> Machine:
        """Return the merged machine."""
        return self.machines[name.casefold()]

    def add(self, part: Part) -> None:
        """Add everything but the fronts."""
        declared = part.declared
        for machine in declared.machines:
            known = self.machines.setdefault(machine.name.casefold(), machine)
            if known.tags != machine.tags:
                tags = tuple(sorted({*known.tags, *machine.tags}))
                self.machines[machine.name.casefold()] = msgspec.structs.replace(known, tags=tags)
        for expected in declared.expected:
            self._expected(expected, part)
        for name, address in declared.addresses.items():
            self._address(self.machine(name).name, address, part)
        for service in declared.services:
            self._service(service)
        self.servers += declared.servers
        self.excluded += declared.excluded
        self.problems += declared.problems
        self.roles += declared.roles
        self.endpoints += declared.endpoints
        self.refused += declared.refused
        self.agents |= {self.machine(name).name for name in declared.agents}
        self.limits += declared.limits
        self.units += declared.units
        self.needs += declared.needs
        self.published += declared.published

    def declared(self, domain: str) -> Declared:
        """Return everything, with the names of machines as the first source writes them."""
        fronts = [front for front, _ in self.fronts.values()]
        return Declared(
            machines=tuple(sorted(self.machines.values(), key=lambda machine: machine.name)),
            expected=tuple(msgspec.structs.replace(e, machine=self.machine(e.machine.name)) for e in self.expected),
            servers=tuple(self.servers),
            excluded=tuple(self.excluded),
            problems=tuple(self.problems),
            domain=domain,
            roles=tuple(self.roles),
            addresses={name: address for name, (address, _) in self.addresses.items()},
            fronts=tuple(msgspec.structs.replace(f, machine=self.machine(f.machine).name) for f in fronts),
            services=tuple(self.services.values()),
            endpoints=tuple(self.endpoints),
            refused=tuple(self.refused),
            agents=tuple(sorted(self.agents)),
            limits=tuple(self.limits),
            units=tuple(self.units),
            published=tuple(self.published),
            needs=tuple(self.needs),
        )

    def fronts_of(self, part: Part) -> None:
        """Add the fronts of a part: a domain and a path are one front."""
        for front in part.declared.fronts:
            other, owner = self.fronts.setdefault((front.domain.casefold(), front.path), (front, part))
            if _behind(front) != _behind(other):
                what = f"the front {front.domain}{front.path.rstrip('/')} leads to {_leads_to(other)} and to "
                what += _leads_to(front)
                places = other.where or owner.place(other.machine), front.where or part.place(front.machine)
                self._conflict(what, places, "give one of them another domain or path")

    def _expected(self, expected: Expected, part: Part) -> None:
        """Add an exporter, unless another source declares the same one."""
        exporter = expected.exporter
        served = expected.machine.name.casefold(), expected.host, exporter.port, exporter.params
        keys: tuple[Hashable, ...] = ((*served, "path", exporter.path), (*served, "type", exporter.type))
        for key in keys:
            if key in self._known and self._known[key][1] is not part:
                self._same(self._known[key], expected, part)
                return
        for key in keys:
            self._known.setdefault(key, (len(self.expected), part))
        self.expected.append(expected)

    def _same(self, known: tuple[int, Part], expected: Expected, part: Part) -> None:
        """Merge an exporter that another source declares, too."""
        index, owner = known
        other = self.expected[index]
        one, two = dict(other.exporter.labels), dict(expected.exporter.labels)
        if _scraped(other.exporter) != _scraped(expected.exporter) or _contradicts(one, two):
            place = join_endpoint(expected.host or self.machine(expected.machine.name).name, expected.exporter.port)
            what = f"{place} is declared as {_words(other.exporter)} and as {_words(expected.exporter)}"
            places = (
                other.where or owner.place(other.machine.name),
                expected.where or part.place(expected.machine.name),
            )
            self._conflict(what, places, "make them equal, or remove one of them")
            return
        because = f"{other.because} and {expected.because}"
        labels = tuple(sorted({**one, **two}.items()))
        exporter = msgspec.structs.replace(other.exporter, labels=labels)
        delivery: Delivery = "push" if "push" in (other.delivery, expected.delivery) else "pull"
        merged = msgspec.structs.replace(other, exporter=exporter, because=because, delivery=delivery)
        self.expected[index] = merged

    def _address(self, name: str, address: DeclaredAddress, part: Part) -> None:
        other, owner = self.addresses.setdefault(name, (address, part))
        if _normal(other.host) != _normal(address.host):
            what = f"the machine {name} is at {other.host} and at {address.host}"
            places = other.where or owner.place(name), address.where or part.place(name)
            self._conflict(what, places, "correct one of them, or remove it")

    def _service(self, service: DeclaredService) -> None:
        machine = self.machine(service.machine).name
        service = msgspec.structs.replace(service, machine=machine)
        key = machine, service.name
        known = self.services.setdefault(key, service)
        if known is not service:
            self.services[key] = msgspec.structs.replace(
                known,
                because=f"{known.because} and {service.because}",
                depends_on=tuple(dict.fromkeys((*known.depends_on, *service.depends_on))),
                units=tuple(dict.fromkeys((*known.units, *service.units))),
                probes=tuple(dict.fromkeys((*known.probes, *service.probes))),
            )

    def _conflict(self, what: str, places: tuple[str, str], hint: str) -> None:
        first, second = places
        self.conflicts.append(Problem(where=second, what=f"{what} (the other place: {first})", hint=hint))


def _behind(front: Front) -> tuple[Hashable, ...]:
    return front.machine.casefold(), front.port, front.scheme, front.host, front.auth


def _leads_to(front: Front) -> str:
    auth = f" (auth {front.auth})" if front.auth != "none" else ""
    return f"{front.scheme}://{join_endpoint(front.host or front.machine, front.port)}{auth}"


def _scraped(exporter: Exporter) -> tuple[str, str, str]:
    return exporter.type, exporter.scheme, exporter.path


def _words(exporter: Exporter) -> str:
    labels = ", ".join(f"{name}={value}" for name, value in exporter.labels)
    return f"{exporter.type} ({exporter.scheme}, {exporter.path}{', ' + labels if labels else ''})"


def _contradicts(one: Mapping[str, str], two: Mapping[str, str]) -> bool:
    return any(one[name] != two[name] for name in one.keys() & two.keys())


def _normal(host: str) -> str:
    return str(ip_address(host)) if is_address(host) else host.casefold().removesuffix(".")
