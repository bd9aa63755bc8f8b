"""Compute what Compose files declare: targets, fronts and services, each with its place. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.errors import InputError
from clan_discovery.inventory.compose.fronts import FrontReader
from clan_discovery.inventory.compose.metrics import read_metrics
from clan_discovery.inventory.compose.project import ComposeFindings, ComposeProject, Read, load_project
from clan_discovery.inventory.compose.reach import Client, Reach, Reached, Unreachable, client_of
from clan_discovery.inventory.compose.service import ComposeService
from clan_discovery.inventory.exporters import default_exporter, idle_complaint
from clan_discovery.model import (
    Declared,
    DeclaredService,
    Exclusion,
    Expected,
    Front,
    Machine,
    Problem,
    PublishedMetrics,
)
from clan_discovery.syntax.counting import first_names
from clan_discovery.syntax.endpoint import LOOPBACK, is_address, is_loopback, join_endpoint
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from clan_discovery.inventory.compose.metrics import Metrics
    from clan_discovery.inventory.exporters import ExporterLookup
    from clan_discovery.model import Exporter, Reason

_NOWHERE: Final = "none"
_ON_HOST: Final = "host"
_SCRAPERS: Final = ("scraper",)
_PROXIES: Final = ("traefik", "caddy", "nginx")
"""The kinds of images that are looked for, the likeliest first."""


class ComposeMachine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine that runs Compose projects.

    `scraper` and `proxy` name the services that connect to others: a service, `host` for a program on the machine
    outside of Compose, or `none` if it is on another machine. None: found by the images.
    """

    name: str
    projects: tuple[ComposeProject, ...]
    scraper: str | None = None
    proxy: str | None = None


def _machine_problem(path: tuple[str | int, ...], what: str, hint: str | None) -> Problem:
    return Problem(where=".".join(map(str, path)), what=what, hint=hint)


class ComposeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to read files and to find an exporter's defaults, and how to make a problem of a path in the config."""

    read: Read
    lookup: ExporterLookup = default_exporter
    problem: Callable[[tuple[str | int, ...], str, str | None], Problem] = _machine_problem


class _Facts(msgspec.Struct, frozen=True):
    """What the machines declare."""

    expected: list[Expected] = []
    excluded: list[Exclusion] = []
    fronts: list[Front] = []
    services: list[DeclaredService] = []
    refused: list[Front] = []
    published: list[PublishedMetrics] = []


def declare_compose(machines: Sequence[ComposeMachine], options: ComposeOptions) -> Declared:
    """Return what the Compose files of some machines declare.

    Raises:
        InputError: a file cannot be used, or a label or the config is wrong. It has all problems found.
    """
    facts = _Facts()
    problems: list[Problem] = []
    for machine in machines:
        work = _Machine(machine, options, facts)
        try:
            work.run()
        except InputError as error:
            problems += error.problems
        problems += work.findings.problems
    problems += _two_scrapers(facts.expected, options)
    if any(problem.severity == "error" for problem in problems):
        raise InputError(sorted(problems, key=lambda problem: problem.severity))
    return Declared(
        machines=tuple(Machine(name=machine.name) for machine in machines),
        expected=tuple(facts.expected),
        excluded=tuple(facts.excluded),
        problems=tuple(problems),
        fronts=tuple(facts.fronts),
        services=tuple(facts.services),
        refused=tuple(facts.refused),
        published=tuple(facts.published),
    )


def _two_scrapers(targets: Sequence[Expected], options: ComposeOptions) -> list[Problem]:
    """Complain if targets of two machines are at names that only their own scraper can resolve.

    One name on two machines is an error: a scraper would take the metrics of one for those of the other.
    """
    at_names = [expected for expected in targets if expected.host and not is_address(expected.host)]
    found = sorted({expected.machine.name for expected in at_names})
    if len(found) < 2:
        return []
    what = f"the targets of {first_names(found, 5)} are in networks of different scrapers"
    hint = f"set inventory.compose.{found[1]}.scraper to none where the scraper that reads the target files is not"
    problem = options.problem(("inventory", "compose"), what, hint)
    addresses = Counter(join_endpoint(expected.host, expected.exporter.port) for expected in at_names)
    address, count = addresses.most_common(1)[0]
    if count > 1:
        return [msgspec.structs.replace(problem, what=f"{problem.what}, and {count} of them are at {address}")]
    return [msgspec.structs.replace(problem, severity="problem")]


class _Machine:
    """Collects what the projects of one machine declare."""

    def __init__(self, machine: ComposeMachine, options: ComposeOptions, facts: _Facts) -> None:
        self.machine = machine
        self.findings = ComposeFindings()
        self._facts = facts
        self._options = options
        self._names: dict[ComposeService, str] = {}
        self._taken: dict[tuple[str, int], tuple[ComposeService, str]] = {}

    def run(self) -> None:
        started, stopped = self._load()
        self._name(started)
        fronts = FrontReader(started, self.findings)
        for service in stopped:
            self._stopped(service, fronts)
        reach = Reach(started)
        metrics = self._metrics(started)
        routes = {service: of_service for service in started if (of_service := fronts.read(service))}
        scraper = proxy = Client("elsewhere")
        if metrics:
            scraper = self._client("scraper", self.machine.scraper, started, _SCRAPERS)
        if routes:
            proxy = self._client("proxy", self.machine.proxy, started, _PROXIES)
        self._facts.refused.extend(fronts.refused)
        for service, found in metrics.items():
            self._target(service, found, scraper, reach)
        for service, of_service in routes.items():
            for front in of_service:
                self._front(service, _without_metrics(front, metrics.get(service)), proxy, reach)
        self._check_ports(metrics, routes, scraper, reach)

    def _load(self) -> tuple[list[ComposeService], list[ComposeService]]:
        """Return the services that start, in a fixed order, and those whose profiles are not started."""
        started: list[ComposeService] = []
        stopped: list[ComposeService] = []
        for given in self.machine.projects:
            project = load_project(given, self._options.read, self.findings)
            for name, fields in project.services.items():
                service = ComposeService(name, project, fields)
                if not service.profiles or service.profiles & project.profiles or "*" in project.profiles:
                    started.append(service)
                else:
                    stopped.append(service)
        started.sort(key=lambda service: (service.name, service.project.name))
        return started, stopped

    def _metrics(self, services: Sequence[ComposeService]) -> dict[ComposeService, Metrics]:
        found = {service: read_metrics(service, self._options.lookup, self.findings) for service in services}
        return {service: metrics for service, metrics in found.items() if metrics is not None}

    def _name(self, services: Sequence[ComposeService]) -> None:
        """Name the services; one that several projects have gets the name of its project, too."""
        counts = Counter(service.name for service in services)
        for service in services:
            name = service.name
            if counts[name] > 1:
                name = f"{service.project.name}-{name}"
            self._names[service] = name
        of_project = {(service.project.name, service.name): name for service, name in self._names.items()}
        for service, name in self._names.items():
            needed = (of_project.get((service.project.name, other), other) for other in service.depends_on)
            self._facts.services.append(
                DeclaredService(
                    name=name,
                    machine=self.machine.name,
                    because=self._because(service),
                    depends_on=tuple(sorted(needed)),
                    where=service.where,
                )
            )

    def _because(self, service: ComposeService) -> str:
        return f"compose: services.{service.name} of {self.machine.name}"

    def _exclude(self, service: ComposeService, reason: Reason, detail: str, job: str | None) -> None:
        detail = f"{self._because(service)}: {detail}"
        self._facts.excluded.append(
            Exclusion(name=self.machine.name, reason=reason, detail=detail, by="inventory", job=job)
        )

    def _stopped(self, service: ComposeService, fronts: FrontReader) -> None:
        """Exclude a service whose profiles are not started, if it declares something."""
        quiet = ComposeFindings()
        metrics = read_metrics(service, self._options.lookup, quiet)
        if metrics is None and not fronts.read(service, quiet):
            return
        profiles = ", ".join(sorted(service.profiles))
        detail = f"it starts with the profile {profiles} only (config: profiles)"
        self._exclude(service, "disabled", detail, metrics.type if metrics is not None else None)

    def _client(
        self, role: str, named: str | None, services: Sequence[ComposeService], software: Sequence[str]
    ) -> Client:
        """Return the scraper or the proxy: the one in the config, or the only service with such an image."""
        if named == _NOWHERE:
            return Client("elsewhere")
        if named == _ON_HOST:
            return Client("host")
        if named is None:
            found = _of_first_kind(services, software)
        else:
            found = [service for service in services if named in (service.name, self._names[service])]
            if not found:
                hint = did_you_mean(named, {service.name for service in services})
                hint = hint or f"name a service, or write {_ON_HOST} or {_NOWHERE}"
                self._complain(role, f"the Compose files have no service {named!r}", hint)
        if not found:
            return Client("elsewhere")
        if len(found) > 1:
            names = first_names(sorted(self._names[service] for service in found), 5)
            self._complain(role, f"{names} could all be the {role}", f"set `{role}` to one of them, to host or to none")
        return client_of(found[0])

    def _complain(self, role: str, what: str, hint: str) -> None:
        problem = self._options.problem(("inventory", "compose", self.machine.name, role), what, hint)
        self.findings.problems[problem] = None

    def _target(self, service: ComposeService, metrics: Metrics, scraper: Client, reach: Reach) -> None:
        """Expect a target where the scraper reaches it, or exclude it with the reason."""
        exporter = metrics.exporter
        if exporter is None:
            self._exclude(service, metrics.reason, metrics.why, metrics.type)
            if metrics.reason == "no_port":
                what = f"services.{service.name}: {metrics.why}"
                self.findings.add(metrics.where, what, "add the label prometheus.io/port", "problem")
            return
        if idle := idle_complaint(exporter):
            self._exclude(service, "probe_without_target", idle, exporter.type)
            return
        place = reach.place(service, exporter.port, scraper)
        if isinstance(place, Unreachable):
            self._exclude(service, "unreachable_network", f"{place.why} ({place.fix})", exporter.type)
            return
        if place.is_loopback and scraper.kind != "host":
            why = f"it publishes port {exporter.port} on loopback only"
            fix = f"publish it on another address, or set scraper to {_ON_HOST} if the scraper is on this machine"
            self._exclude(service, "unreachable_network", f"{why} ({fix})", exporter.type)
            return
        self._expect(service, metrics, exporter, place)

    def _expect(self, service: ComposeService, metrics: Metrics, exporter: Exporter, place: Reached) -> None:
        key = place.host, place.port
        other, where = self._taken.setdefault(key, (service, metrics.where))
        if other is not service:
            address = join_endpoint(place.host or self.machine.name, place.port)
            what = f"services.{service.name} is at {address}, as is services.{other.name} ({where})"
            self.findings.add(metrics.where, what, "give one of them another port")
            return
        self._facts.expected.append(
            Expected(
                machine=Machine(name=self.machine.name),
                exporter=msgspec.structs.replace(exporter, port=place.port),
                because=self._because(service),
                host=place.host,
                where=metrics.where,
            )
        )

    def _front(self, service: ComposeService, front: Front, proxy: Client, reach: Reach) -> None:
        """Complete a front with its machine and address, or exclude it with the reason."""
        if not front.port:
            self._facts.refused.append(front)
            fix = f"add the label traefik.http.services.{service.name}.loadbalancer.server.port, or `expose`"
            self._exclude(service, "no_port", f"the front {front.domain}{front.path} has no port ({fix})", None)
            return
        place = reach.place(service, front.port, proxy)
        if isinstance(place, Unreachable):
            self._facts.refused.append(front)
            detail = f"the front {front.domain}{front.path}: {place.why} ({place.fix})"
            self._exclude(service, "unreachable_network", detail, None)
            return
        host = place.host
        if place.is_loopback:
            host = ""
        in_network = bool(host) and not is_address(host)
        self._facts.fronts.append(
            msgspec.structs.replace(
                front,
                service=self._names[service],
                machine=self.machine.name,
                because=self._because(service),
                port=place.port,
                host=host,
                loopback=place.is_loopback or in_network,
            )
        )

    def _check_ports(
        self,
        metrics: Mapping[ComposeService, Metrics],
        routes: Mapping[ComposeService, Sequence[Front]],
        scraper: Client,
        reach: Reach,
    ) -> None:
        """Check which metrics ports are published, but not those that are the port of a front, too."""
        of_fronts = {(service, front.port) for service, fronts in routes.items() for front in fronts}
        for service, found in metrics.items():
            if found.exporter is None:
                continue
            port = found.exporter.port
            binding = reach.binding(service, port)
            if binding is None or is_loopback(binding.ip):
                continue
            self._facts.published.append(
                PublishedMetrics(
                    service=self._names[service],
                    machine=self.machine.name,
                    port=(binding.first or port) + port - binding.target,
                    ip=binding.ip,
                    where=binding.part.where,
                )
            )
            if not binding.ip and (service, port) not in of_fronts:
                self._complain_of_port(service, port, binding.part.where, scraper, reach)

    def _complain_of_port(self, service: ComposeService, port: int, where: str, scraper: Client, reach: Reach) -> None:
        """Report a metrics port that is published on all addresses."""
        what = f"services.{service.name}: the metrics port {port} is published on all addresses"
        hint = self._instead_of_publishing(reach.place(service, port, scraper), scraper, port)
        self.findings.add(where, what, hint, "problem")

    def _instead_of_publishing(self, place: Reached | Unreachable, scraper: Client, port: int) -> str:
        """Say what to do instead of publishing a metrics port on all addresses."""
        if isinstance(place, Reached) and place.host:
            return f"remove it from `ports`: the scraper reaches it as {join_endpoint(place.host, place.port)}"
        if scraper.kind == "service":
            return f"remove it from `ports`, and put the service into a network of {scraper.name}"
        if scraper.kind == "host":
            return f"publish it for this machine only: {LOOPBACK}:{port}:{port}"
        return f"publish it on the one address that the scraper reaches: ADDRESS:{port}:{port}"


def _without_metrics(front: Front, metrics: Metrics | None) -> Front:
    """Hide the metrics of a service, also where the scraper reaches them at another address than the proxy."""
    exporter = metrics.exporter if metrics is not None else None
    if exporter is None or exporter.port != front.port or front.auth != "none":
        return front
    return msgspec.structs.replace(front, hidden=(exporter.path,))


def _of_first_kind(services: Sequence[ComposeService], kinds: Sequence[str]) -> list[ComposeService]:
    """Return the services of the first kind of software that there is."""
    for kind in kinds:
        found = [service for service in services if service.software == kind]
        if found:
            return found
    return []
