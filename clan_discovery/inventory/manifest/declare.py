"""Read a service manifest: machines, addresses, exporters, services and fronts. Pure.

A manifest is an attrset with services in `core_services` and `services`, as JSON of `nix eval --json -f FILE`, or YAML:

    services.vaultwarden = {
      enable = true;
      ip = "10.0.0.14";
      hostname = "vaultwarden.example.org";
      depends_on = [ "postgresql" ];
      ports = [ 8080 ];
      interface.proxy = { domain = "vault.example.org"; upstream = "10.0.0.14:8080"; };
      interface.health.startup = "systemctl is-active --quiet vaultwarden";
    };

The format is that of its authors: unknown keys are ignored. It has no ports of exporters; the config gives these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.errors import InputError, refuse
from clan_discovery.inventory.exporters import default_exporter, idle_complaint, unknown_type_hint
from clan_discovery.inventory.manifest.checks import CheckError, parse_check
from clan_discovery.inventory.manifest.proxies import ProxySite, read_proxies
from clan_discovery.inventory.manifest.reader import ManifestReader, document_of, is_number, kind_of
from clan_discovery.model import (
    Declared,
    DeclaredAddress,
    DeclaredService,
    Exclusion,
    Expected,
    Exporter,
    Front,
    Json,
    Machine,
    Pairs,
    Problem,
)
from clan_discovery.syntax.document import decoded
from clan_discovery.syntax.endpoint import is_domain, is_name
from clan_discovery.syntax.networks import refusal
from clan_discovery.syntax.suggest import Suggester

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clan_discovery.inventory.exporters import ExporterLookup
    from clan_discovery.syntax.tree import KeyPath

WRITE_MANIFEST: Final = "write it with: nix eval --json -f service-manifest.nix > service-manifest.json"
_SECTIONS: Final = ("core_services", "services")
_FIELDS: Final = ("depends_on", "enable", "hostname", "interface", "ip", "ports")
_CHECKS: Final = ("startup", "readiness", "liveness")
_LEASED: Final = frozenset({"", "dhcp", "auto"})
_OLD_STATUS: Final = re.compile(r"https?://[^/]+/api/v1/status/?")
_ALERTMANAGER_PORT: Final = re.compile(r":9093/")


class ManifestExporter(msgspec.Struct, frozen=True, kw_only=True):
    """An exporter that the config gives to a service: its type, and what differs from the defaults of the type."""

    type: str
    port: int | None = None
    path: str | None = None
    scheme: str | None = None
    params: Pairs = ()
    labels: Pairs = ()


def _option_problem(path: tuple[str | int, ...], what: str, hint: str | None) -> Problem:
    return Problem(where=".".join(map(str, path)), what=what, hint=hint)


class ManifestOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the config adds to a manifest.

    `exporters` are those of each service, `default` those of each machine. `problem` makes a problem of a value in the
    config, from its path below `inventory.manifest`, what is wrong and a hint.
    """

    exporters: Mapping[str, Sequence[ManifestExporter]] = {}
    default: Sequence[ManifestExporter] = ()
    lookup: ExporterLookup = default_exporter
    problem: Callable[[tuple[str | int, ...], str, str | None], Problem] = _option_problem


class _Unit(msgspec.Struct, frozen=True, kw_only=True):
    """A service of the manifest: where it is, and on which machine it runs."""

    name: str
    path: tuple[str, str]
    machine: str
    value: Mapping[str, Json]
    enabled: bool

    @property
    def because(self) -> str:
        """Return the words that say which service declares something."""
        return f"manifest: {'.'.join(self.path)}"


def parse_manifest(body: bytes, where: str, options: ManifestOptions, *, is_json: bool = True) -> Declared:
    """Read a manifest; `where` names it in messages.

    Raises:
        InputError: it does not parse, is no attrset of services, or contradicts itself. It has all problems.
    """
    document = document_of(decoded(body, where), where, is_json=is_json)
    value = document.value
    if value is None:
        refuse(where, "the service manifest is empty", WRITE_MANIFEST)
    if not isinstance(value, Mapping):
        what = f"a service manifest is an attrset with `services`, not {kind_of(value)}"
        refuse(document.place(()), what, WRITE_MANIFEST)
    if not any(section in value for section in _SECTIONS):
        refuse(document.place(()), "the manifest has neither `services` nor `core_services`", WRITE_MANIFEST)
    reader = ManifestReader(document)
    reader.problems += [*document.complaints_of(_is_read), *document.half_characters()]
    work = _Manifest(reader, options)
    declared = work.declared(value)
    if any(problem.severity == "error" for problem in declared.problems):
        raise InputError(sorted(declared.problems, key=lambda problem: problem.severity))
    return declared


def _is_read(path: KeyPath) -> bool:
    """Tell whether the value at this path is read, or a key on the way to one that is."""
    if path[:1] == ("network",):
        return path[1:2] in ((), ("domain",))
    if path[:1] not in [(section,) for section in _SECTIONS]:
        return not path
    return len(path) <= 2 or path[2] in _FIELDS


class _Manifest:
    """Collects what the services declare."""

    def __init__(self, reader: ManifestReader, options: ManifestOptions) -> None:
        self.reader = reader
        self.options = options
        self.suggester = Suggester()
        self.domain = ""
        self.machines: dict[str, str] = {}
        """The name of each machine, by its case-folded name."""
        self.addresses: dict[str, DeclaredAddress] = {}
        self.expected: list[Expected] = []
        self.excluded: list[Exclusion] = []
        self.fronts: list[Front] = []
        self.services: list[DeclaredService] = []
        self._hosts: dict[str, str] = {}
        """The machine of each address and host name, for upstreams."""
        self._ports: dict[tuple[str, int], dict[str, str]] = {}
        """Which services have a port of a machine, and where that is said."""
        self._served: dict[tuple[str, int], tuple[Exporter, str]] = {}

    def declared(self, value: Mapping[str, Json]) -> Declared:
        """Read everything."""
        network = self.reader.mapping(value.get("network"), ("network",))
        self.domain = self._domain(network.get("domain"))
        units = list(self._units(value))
        names = {unit.name: unit.enabled for unit in units}
        live = [unit for unit in units if unit.enabled]
        for unit in units:
            if unit.enabled:
                self._place(unit)
            else:
                self._exclude(unit)
        self._check_exporters(names)
        for unit in live:
            self._read(unit, names)
        self._defaults(live)
        return Declared(
            machines=tuple(Machine(name=name) for name in sorted(self.machines.values())),
            expected=tuple(self.expected),
            excluded=tuple(self.excluded),
            problems=tuple(self.reader.problems),
            domain=self.domain,
            addresses=self.addresses,
            fronts=tuple(self.fronts),
            services=tuple(self.services),
            refused=tuple(self.reader.refused),
        )

    def _domain(self, given: Json) -> str:
        path = ("network", "domain")
        domain = self.reader.text(given, path).removesuffix(".")
        if domain and not is_domain(domain):
            self.reader.complain(path, "is not a DNS name")
            return ""
        return domain

    def _units(self, value: Mapping[str, Json]) -> Iterator[_Unit]:
        """Yield every service. A name in both sections is an error."""
        known: dict[str, str] = {}
        for section in _SECTIONS:
            for name, given in self.reader.mapping(value.get(section), (section,)).items():
                path = (section, name)
                where = self.reader.place(path)
                if name in known:
                    self.reader.complain(path, f"is declared twice (the other place: {known[name]})", key=True)
                    continue
                known[name] = where
                fields = self.reader.mapping(given, path)
                enabled = self.reader.flag(fields.get("enable"), (*path, "enable"), default=True)
                machine = self._machine(fields.get("hostname"), path)
                if machine:
                    yield _Unit(name=name, path=path, machine=machine, value=fields, enabled=enabled)

    def _machine(self, given: Json, path: tuple[str, str]) -> str:
        """Return the machine of a service: its `hostname` without the domain, or else its own name."""
        at = (*path, "hostname")
        hostname = self.reader.text(given, at).removesuffix(".") or path[1]
        suffix = f".{self.domain}"
        if self.domain and hostname.casefold().endswith(suffix.casefold()):
            hostname = hostname[: -len(suffix)]
        if not is_name(hostname):
            self.reader.complain(at, "is not a host name", "write the machine's name, such as `nas`")
            return ""
        return hostname

    def _place(self, unit: _Unit) -> None:
        """Declare the machine of a service, and its address."""
        name = self.machines.setdefault(unit.machine.casefold(), unit.machine)
        for host in (name, f"{name}.{self.domain}"):
            self._hosts.setdefault(host.casefold(), name)
        address = self._address(unit)
        if not address:
            return
        where = self.reader.place((*unit.path, "ip"))
        other = self.addresses.setdefault(name, DeclaredAddress(address, "the manifest", where))
        if other.host != address:
            what = f"the machine {name} is at {address} here and at {other.host} at {other.where}"
            self.reader.complain((*unit.path, "ip"), what, "a `hostname` has one `ip`")
        owner = self._hosts.setdefault(address, name)
        if owner != name:
            what = f"{address} is the address of {name} here and of {owner} at {self.addresses[owner].where}"
            self.reader.complain((*unit.path, "ip"), what, "services on one machine have one `hostname`")

    def _address(self, unit: _Unit) -> str:
        """Return the address of a service, without the length of a prefix; empty if it has none that can be used."""
        path = (*unit.path, "ip")
        given = self.reader.text(unit.value.get("ip"), path)
        if given.casefold() in _LEASED:
            return ""
        try:
            address = str(ip_interface(given).ip)
        except ValueError:
            address = "%"
        if "%" in address:
            self.reader.complain(path, "is not an IP address", "write it as 192.0.2.10 or 192.0.2.10/24")
            return ""
        if why := refusal(address):
            what = f"{address} is an address that no target may have ({why}): it is not used"
            self.reader.complain(path, what, severity="problem")
            return ""
        return address

    def _exclude(self, unit: _Unit) -> None:
        detail = f"{unit.because} has enable = false"
        jobs: list[str | None] = [exporter.type for exporter in self.options.exporters.get(unit.name, ())]
        for job in jobs or [None]:
            exclusion = Exclusion(name=unit.machine, reason="disabled", detail=detail, by="inventory", job=job)
            self.excluded.append(exclusion)

    def _check_exporters(self, names: Mapping[str, bool]) -> None:
        """Report services that only the config knows."""
        for service in self.options.exporters:
            if service not in names:
                hint = self.suggester.did_you_mean(service, names) or "name a service of the manifest"
                what = "the manifest has no service of this name"
                self.reader.problems.append(self.options.problem(("exporters", service), what, hint))

    def _read(self, unit: _Unit, names: Mapping[str, bool]) -> None:
        """Read one service: its ports, proxies, checks, dependencies and exporters."""
        path = (*unit.path, "interface")
        interface = self.reader.mapping(unit.value.get("interface"), path)
        machine = self.machines[unit.machine.casefold()]
        for at, port in self._declared_ports(unit):
            self._claim(machine, port, unit.name, self.reader.place(at))
        site = ProxySite(
            name=unit.name,
            path=unit.path,
            machine=machine,
            domain=self.domain,
            because=unit.because,
            machines=self._hosts,
        )
        for front in read_proxies(self.reader, site, interface):
            if front.machine == machine and not front.host:
                self._claim(machine, front.port, unit.name, front.where)
            self.fronts.append(front)
        units, probes = self._checks(unit, interface.get("health"))
        self.services.append(
            DeclaredService(
                name=unit.name,
                machine=machine,
                because=unit.because,
                depends_on=self._dependencies(unit, names),
                units=units,
                probes=probes,
                where=self.reader.place(unit.path),
            )
        )
        for index, given in enumerate(self.options.exporters.get(unit.name, ())):
            config = ("exporters", unit.name, index)
            exporter = self._exporter(given, config)
            if exporter is not None:
                self._expect(unit, exporter, config)
                self._claim(machine, exporter.port, unit.name, self.reader.place(unit.path))

    def _declared_ports(self, unit: _Unit) -> Iterator[tuple[KeyPath, int]]:
        """Yield the numbers in `ports`, a list or an attrset, each with its path."""
        given = unit.value.get("ports")
        path = (*unit.path, "ports")
        entries: list[tuple[str | int, Json]] = []
        if isinstance(given, Mapping):
            entries = list(given.items())
        elif isinstance(given, Sequence) and not isinstance(given, str):
            entries = list(enumerate(given))
        elif is_number(given):
            entries = [("", given)]
        for key, value in entries:
            if is_number(value) and self.reader.port(value, (*path, key)):
                yield (*path, key), value

    def _claim(self, machine: str, port: int, service: str, where: str) -> None:
        """Note that a service listens on a port; two services on one are an error."""
        owners = self._ports.setdefault((machine, port), {})
        if owners and service not in owners:
            owner, other = next(iter(owners.items()))
            what = f"port {port} of {machine} belongs to {service} here and to {owner} at {other}"
            self.reader.problems.append(Problem(where=where, what=what, hint="correct one of the ports"))
        owners.setdefault(service, where)

    def _checks(self, unit: _Unit, given: Json) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the units and the URLs of the health checks. A check that is not understood is reported."""
        path = (*unit.path, "interface", "health")
        units: dict[str, None] = {}
        probes: dict[str, None] = {}
        health = self.reader.mapping(given, path)
        for name in _CHECKS:
            command = self.reader.text(health.get(name), (*path, name))
            if not command:
                continue
            try:
                check = parse_check(command)
            except CheckError as error:
                what = f"{error}, and no command of a manifest is run"
                self.reader.complain((*path, name), what, error.hint, severity="warning")
                continue
            units |= dict.fromkeys(check.units)
            probes |= dict.fromkeys(check.probes)
            if any(_is_old_status(unit.name, probe) for probe in check.probes):
                what = "Alertmanager has no /api/v1/status since 0.27: the check always fails"
                self.reader.complain((*path, name), what, "check /api/v2/status", severity="warning")
        return tuple(units), tuple(probes)

    def _dependencies(self, unit: _Unit, names: Mapping[str, bool]) -> tuple[str, ...]:
        """Return the services that a service depends on; an unknown one is reported."""
        path = (*unit.path, "depends_on")
        given = unit.value.get("depends_on")
        if isinstance(given, str):
            given = [given]
        if given is not None and not isinstance(given, Sequence):
            self.reader.complain(path, f"must be a list of names of services, not {kind_of(given)}")
            return ()
        found: dict[str, None] = {}
        for index, name in enumerate(given or ()):
            at = (*path, index)
            if not isinstance(name, str):
                self.reader.complain(at, f"must be the name of a service, not {kind_of(name)}")
            elif name not in names:
                hint = self.suggester.did_you_mean(name, names)
                self.reader.complain(at, "the manifest has no service of this name", hint, severity="warning")
            else:
                found[name] = None
                if not names[name]:
                    self.reader.complain(at, f"{name} is disabled", severity="warning")
        return tuple(found)

    def _exporter(self, given: ManifestExporter, config: KeyPath) -> Exporter | None:
        """Return an exporter of the config with its defaults; None, with a problem, if it cannot be scraped."""
        found = self.options.lookup(given.type, given.port)
        if found is None:
            hint = unknown_type_hint(given.type, self.suggester)
            self.reader.problems.append(
                self.options.problem(config, f"unknown type {given.type!r} without a port", hint)
            )
            return None
        exporter = msgspec.structs.replace(
            found,
            path=given.path or found.path,
            scheme=given.scheme or found.scheme,
            params=tuple(sorted({**dict(found.params), **dict(given.params)}.items())),
            labels=tuple(sorted({**dict(found.labels), **dict(given.labels)}.items())),
        )
        if idle := idle_complaint(exporter):
            self.reader.problems.append(self.options.problem(config, idle, "add `params: {target: ...}`"))
            return None
        return exporter

    def _expect(self, unit: _Unit, exporter: Exporter, config: KeyPath) -> None:
        """Expect an exporter on the machine of a service, once."""
        machine = self.machines[unit.machine.casefold()]
        served = self._served.get((machine, exporter.port))
        if served is not None:
            known, because = served
            if known != exporter:
                what = f"port {exporter.port} of {machine} serves {known.type} ({because}) and {exporter.type}"
                self.reader.problems.append(self.options.problem(config, what, "correct one of them"))
            return
        self._served[machine, exporter.port] = exporter, unit.because
        self.expected.append(
            Expected(
                machine=Machine(name=machine),
                exporter=exporter,
                because=unit.because,
                where=self.reader.place(unit.path),
            )
        )

    def _defaults(self, live: Sequence[_Unit]) -> None:
        """Expect the exporters that every machine has."""
        for index, given in enumerate(self.options.default):
            config = ("default", index)
            exporter = self._exporter(given, config)
            for unit in live:
                if exporter is not None:
                    self._expect(unit, exporter, config)


def _is_old_status(service: str, probe: str) -> bool:
    """Tell whether a URL is the status of an Alertmanager before 0.27."""
    is_alertmanager = "alertmanager" in service.casefold() or _ALERTMANAGER_PORT.search(probe) is not None
    return is_alertmanager and _OLD_STATUS.fullmatch(probe) is not None
