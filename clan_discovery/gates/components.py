"""Find the components of the stack that are in use, and where each program of them is. Pure.

A program is found by its role in a clan, by a target of its type, by a declared service of its name, and by `verify` in
the config.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias, get_args

import msgspec

from clan_discovery.syntax.endpoint import is_loopback, join_endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clan_discovery.model import Declared, DeclaredService, Json, Resolution, Target
    from clan_discovery.verify import VerifySettings

ComponentName: TypeAlias = Literal["metrics", "dashboards", "alerting", "logs", "agents"]
COMPONENTS: Final[tuple[ComponentName, ...]] = get_args(ComponentName)
"""In the order in which they are put into operation."""
MODULE: Final = "prometheus"
AGENT: Final = "clan-discovery-agent"


class _Program(NamedTuple):
    """A program of the stack: its component, port, unit on NixOS, and the path that answers while it is ready."""

    component: ComponentName
    port: int
    unit: str
    health: str


_PROGRAMS: Final[Mapping[str, _Program]] = {
    "prometheus": _Program("metrics", 9090, "prometheus.service", "/-/ready"),
    "victoriametrics": _Program("metrics", 8428, "victoriametrics.service", "/health"),
    "vmagent": _Program("metrics", 8429, "vmagent.service", "/health"),
    "alloy": _Program("metrics", 12345, "alloy.service", "/-/ready"),
    "grafana": _Program("dashboards", 3000, "grafana.service", "/api/health"),
    "alertmanager": _Program("alerting", 9093, "alertmanager.service", "/-/ready"),
    "vmalert": _Program("alerting", 8880, "vmalert-clan-discovery.service", "/health"),
    "victorialogs": _Program("logs", 9428, "victorialogs.service", "/health"),
    "loki": _Program("logs", 3100, "loki.service", "/ready"),
}
_ROLES: Final[Mapping[str, str]] = {
    "server": "prometheus",
    "dashboards": "grafana",
    "alerting": "alertmanager",
    "logs": "victorialogs",
}
"""The roles of the clan service, and the program of each where its settings name no `backend`."""


class ProgramInUse(msgspec.Struct, frozen=True, kw_only=True):
    """A program on a machine. `url` answers while it is ready; empty where it is not known.

    `machine` is empty where only the config names the program. `is_here`: gates run on its machine. `role` is that of
    the clan service, `compose` its name in Compose.
    """

    component: ComponentName
    program: str
    machine: str
    is_here: bool
    url: str = ""
    units: tuple[str, ...] = ()
    role: str = ""
    compose: str = ""


def in_use(declared: Declared, resolution: Resolution, settings: VerifySettings, here: str) -> Sequence[ProgramInUse]:
    """Return the programs in use, in the order of the components. `here` is the machine on which gates run."""
    found = _Search(declared, resolution, here)
    found.roles()
    for service in declared.services:
        if (program := _named(service.name)) in _PROGRAMS:
            found.service(program, service)
    for target in resolution.targets:
        if target.job in _PROGRAMS:
            found.target(target)
    found.config(settings)
    if resolution.targets and all(one.component != "metrics" for one in found.programs.values()):
        found.add("prometheus", here)
    ordered = sorted(found.programs.values(), key=lambda one: COMPONENTS.index(one.component))
    return [*ordered, *map(_agent, declared.agents)]


def _agent(machine: str) -> ProgramInUse:
    units = (f"{AGENT}.service",)
    return ProgramInUse(component="agents", program="agent", machine=machine, is_here=False, units=units, role="agent")


def _of_role(role: str, settings: Mapping[str, Json]) -> str:
    backend = settings.get("backend")
    if isinstance(backend, str) and backend in _PROGRAMS:
        return backend
    return _ROLES[role]


def _named(service: str) -> str:
    """Return the program that a declared service is called after: `victoria-logs` is `victorialogs`."""
    return service.casefold().replace("-", "").replace("_", "")


def _url_of(program: str, base: str) -> str:
    return f"{base}{_PROGRAMS[program].health}"


class _Search:
    """Collects programs, each once on a machine. What is found first stays."""

    def __init__(self, declared: Declared, resolution: Resolution, here: str) -> None:
        self.programs: dict[tuple[str, str], ProgramInUse] = {}
        self._here = here.casefold()
        self._roles = declared.roles
        self._local = {target.machine for target in resolution.targets if is_loopback(_host(target.address))}

    def roles(self) -> None:
        """Add the programs of the clan service."""
        for role in self._roles:
            if role.module == MODULE and role.role in _ROLES:
                for machine, own in role.members.items():
                    if own.get("enable") is not False:
                        self.add(_of_role(role.role, own), machine, role=role.role)

    def config(self, settings: VerifySettings) -> None:
        """Use the URLs of `verify`; one of the scrapers, if there is only one."""
        for access in settings.programs:
            if access.kind in _PROGRAMS:
                self.url(access.kind, access.url)
        scrapers = [program for program, _ in self.programs if _PROGRAMS[program].component == "metrics"]
        named = [access for access in settings.scrapers if not access.is_guess]
        if len(scrapers) == len(named) == 1:
            self.url(scrapers[0], named[0].url)

    def add(self, program: str, machine: str, *, url: str = "", role: str = "") -> None:
        """Add a program of a machine, or its URL to what is known of it."""
        known = _PROGRAMS[program]
        is_here = machine.casefold() == self._here or machine in self._local
        if not url and is_here:
            url = _url_of(program, f"http://{join_endpoint('127.0.0.1', known.port)}")
        made = ProgramInUse(
            component=known.component,
            program=program,
            machine=machine,
            is_here=is_here,
            url=url,
            units=(known.unit,),
            role=role,
        )
        old = self.programs.setdefault((program, machine), made)
        if not old.url and url:
            self.programs[program, machine] = msgspec.structs.replace(old, url=url)

    def target(self, target: Target) -> None:
        """Add a program that is a target. The job of a server's own metrics is `prometheus`, whatever it runs."""
        program = target.job
        if program == "prometheus":
            of_machine = [name for name, machine in self.programs if machine == target.machine]
            program = next((name for name in of_machine if _PROGRAMS[name].component == "metrics"), program)
        self.add(program, target.machine, url=_url_of(program, f"{target.scheme}://{target.address}"))

    def service(self, program: str, service: DeclaredService) -> None:
        """Add a service that a manifest, Compose or an exposed service declares, with its own units and URLs."""
        self.add(program, service.machine)
        key = program, service.machine
        old = self.programs[key]
        url = old.url
        if old.is_here and service.probes:
            url = service.probes[0]
        compose = service.name if service.because.startswith("compose:") else ""
        units = () if compose else service.units or old.units
        self.programs[key] = msgspec.structs.replace(old, url=url, units=units, compose=compose)

    def url(self, program: str, base: str) -> None:
        """Set the URL of the only program of its kind; of several, the config does not say which it is."""
        url = _url_of(program, base)
        keys = [key for key in self.programs if key[0] == program]
        if not keys:
            self.programs[program, ""] = ProgramInUse(
                component=_PROGRAMS[program].component, program=program, machine="", is_here=False, url=url
            )
        elif len(keys) == 1:
            self.programs[keys[0]] = msgspec.structs.replace(self.programs[keys[0]], url=url)


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def of_component(programs: Sequence[ProgramInUse]) -> Iterator[tuple[ComponentName, Sequence[ProgramInUse]]]:
    """Yield each component in use with its programs, in order."""
    for name in COMPONENTS:
        if own := [one for one in programs if one.component == name]:
            yield name, own
