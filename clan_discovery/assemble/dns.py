"""DNS backends, from the config and from what the service's servers say in their own vocabulary."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from clan_discovery.assemble.source import inventory_name
from clan_discovery.backends.dns.backend import Dns
from clan_discovery.backends.dns.reading import ANY, Reading, Wanted
from clan_discovery.config.models import DnsBackend
from clan_discovery.dnsclient.names import absolute
from clan_discovery.dnsclient.servers import RESOLV_CONF, Server, parse_server
from clan_discovery.inventory.exporters import is_idle, unknown_type_hint
from clan_discovery.model import Declared, DnsJob, Exporter, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from clan_discovery.assemble.source import Lookup
    from clan_discovery.backends.dns.reading import Families
    from clan_discovery.config.load import KeyPath, LoadedConfig

IMPLIED: Final = "dns"
"""The backend that `discoveryMethod = "dns"` asks for, and the entry of the config that says how it asks."""


class _Place(NamedTuple):
    """Where names stand: in the config (`path`), or in the inventory (`where`)."""

    because: str
    where: str = ""
    path: KeyPath = ()


@dataclass(slots=True)
class DnsBackends:
    """Builds the backends; what is wrong is gathered in `problems`."""

    loaded: LoadedConfig
    lookup: Lookup
    declared: Declared
    problems: list[Problem] = field(default_factory=list[Problem])

    def build(self) -> list[Dns]:
        """Return the backends of the config by name, and the one that the servers ask for."""
        config = self.loaded.config.backends.dns
        implied = self.implied()
        found: list[Dns] = []
        for name, dns in sorted((config or {}).items()):
            found += self.one(name, dns, implied if name == IMPLIED else ())
        if config is None and implied:
            found += self.one(IMPLIED, DnsBackend(), implied)
        elif config and implied and IMPLIED not in config:
            found += self.one(IMPLIED, DnsBackend(), implied, book=not any(backend.locates for backend in found))
        if implied and config != {}:
            self.taken()
        return found

    def taken(self) -> None:
        """Complain where another backend has the name of the one that the servers ask for."""
        config = self.loaded.config.backends
        for kind, group in (("static", config.static), ("tailscale", config.tailscale or {})):
            if IMPLIED in group:
                what = f"the name {IMPLIED!r} is that of the backend which discoveryMethod asks for"
                self.problems.append(self.loaded.problem(("backends", kind, IMPLIED), what, "take another one"))

    def implied(self) -> tuple[tuple[DnsJob, _Place], ...]:
        """Return what servers whose `discoveryMethod` has "dns" list; a job without names where they list nothing."""
        found: dict[DnsJob, _Place] = {}
        asking = [s for s in self.declared.servers if "dns" in (s.discovery or ()) and s.auto_discovery]
        for server in asking:
            for job in server.dns:
                because = f"inventory: instance {server.instance}, role server, dnsDiscovery.{job.job}"
                option = f"instances.{server.instance}.roles.server.settings.dnsDiscovery.{job.job}"
                found.setdefault(job, _Place(because, f"{inventory_name(self.loaded)}: {option}"))
        if asking and not found:
            found[DnsJob(job="", names=())] = _Place("")
        return tuple(found.items())

    def one(
        self, name: str, config: DnsBackend, implied: Sequence[tuple[DnsJob, _Place]], *, book: bool = True
    ) -> list[Dns]:
        """Build one backend; none where nothing is to be asked."""
        path: KeyPath = ("backends", "dns", name)
        exporters: dict[str, Exporter] = {}
        wanted: list[Wanted] = []
        own = DnsJob(job=config.job or "", names=tuple(config.names), type=config.type or "SRV", port=config.port)
        jobs = [(own, _Place(f"config: backends.dns.{name}.names", path=path)), *implied]
        for job, place in jobs:
            if job.job and job.names:
                self.exporter(job, place, exporters)
            wanted += self.names(job, place)
        listed = any(text.startswith("*.") for job, _ in jobs for text in job.names)
        if config.domain is not None or (book and not config.names and not listed):
            wanted += self.book(config, path)
        reading = Reading(
            backend=name,
            wanted=tuple(wanted),
            exporters=exporters,
            machines=config.machines,
            declared={machine.name.casefold(): machine.name for machine in self.declared.machines},
            min_ttl=config.min_ttl,
            max_ttl=config.max_ttl,
            max_age=self.loaded.config.policy.max_age,
            allow=tuple(config.allow_networks),
            deny=tuple(config.deny_networks),
        )
        search = self.search(config, path)
        servers = self.servers(config, path)
        if not wanted:
            return []
        return [
            Dns(
                name=name,
                reading=reading,
                resolv_conf=RESOLV_CONF,
                servers=servers,
                search=search,
                budget=config.timeout,
            )
        ]

    def names(self, job: DnsJob, place: _Place) -> Iterator[Wanted]:
        """Yield what is asked for a job's names; one that starts with `*.` stands for every declared machine."""
        service = job.type == "SRV"
        families = _families(job.type)
        for index, text in enumerate(job.names):
            if text.startswith("*."):
                yield from self.expanded(job, place, text, index)
                continue
            if (name := self.name(text, place, index)) is not None:
                yield Wanted(
                    text=text,
                    names=(name,),
                    service=service,
                    families=families,
                    job=job.job or None,
                    because=place.because,
                )

    def expanded(self, job: DnsJob, place: _Place, text: str, index: int) -> Iterator[Wanted]:
        """Yield the name of every declared machine below a domain."""
        domain = text.removeprefix("*.")
        if self.name(domain, place, index) is None:
            return
        if self.loaded.config.inventory is None:
            what = f"no resolver can list a zone, so {text!r} cannot be asked"
            hint = f"write the names themselves, or an SRV name like _{job.job or 'node'}._tcp.{domain}; with an "
            hint += f"`inventory`, each of its machines is asked for as <machine>.{domain}"
            self.complain(place, ("names", index), what, hint)
        aside = f", asked for {text!r}: no resolver can list a zone, so each declared machine is asked for"
        for machine in self.declared.machines:
            if (name := _below(machine.name, domain)) is not None:
                yield Wanted(
                    text=f"{machine.name}.{domain}",
                    names=(name,),
                    service=job.type == "SRV",
                    families=_families(job.type),
                    job=job.job or None,
                    machine=machine.name,
                    because=place.because,
                    aside=aside,
                )

    def book(self, config: DnsBackend, path: KeyPath) -> Iterator[Wanted]:
        """Yield what is asked for the declared machines that have exporters: their names below the domain."""
        domain = config.domain if config.domain is not None else self.declared.domain
        try:
            absolute(domain)
        except ValueError as error:
            self.problems.append(self.loaded.problem((*path, "domain"), str(error)))
            return
        if self.loaded.config.inventory is None:
            what = "without an inventory there is no machine to ask for"
            hint = "give `names` with a `job`, or an `inventory`"
            place = (*path, "domain") if config.domain is not None else path
            self.problems.append(self.loaded.problem(place, what, hint))
        for machine in sorted({expected.machine.name for expected in self.declared.expected}):
            if (name := _below(machine, domain)) is not None:
                families = _families(config.type or "A+AAAA") if not config.names else ANY
                yield Wanted(text=f"{machine}.{domain}", names=(name,), families=families, machine=machine)

    def name(self, text: str, place: _Place, index: int) -> str | None:
        """Return a name as it is asked; None, with a complaint, where it is none."""
        if "*" in text:
            hint = "a star stands for the machines, and only as the first label: `*.domain`"
            self.complain(place, ("names", index), f"{text!r} is no name in DNS", hint)
            return None
        try:
            return absolute(text)
        except ValueError as error:
            self.complain(place, ("names", index), str(error))
            return None

    def exporter(self, job: DnsJob, place: _Place, exporters: dict[str, Exporter]) -> None:
        """Say what is scraped of a job's answers; where SRV gives the port, the job needs none."""
        found = self.lookup(job.job, job.port)
        if found is None and job.type != "SRV":
            what = f"{job.type} answers have no port, and no exporter is called {job.job!r}"
            self.complain(place, ("port",), what, unknown_type_hint(job.job) or "give `port`")
            return
        if found is None:
            base = self.lookup(job.job, 1) or Exporter(type=job.job, port=1)
            found = msgspec.structs.replace(base, port=0)
        if is_idle(found):
            what = f"{job.job} probes others: it serves nothing without a target"
            self.complain(place, ("job",), what, "set it in exporters.<type>.params.target")
        if exporters.setdefault(job.job, found) != found:
            self.complain(place, ("port",), f"the job {job.job} is here with another port already")

    def search(self, config: DnsBackend, path: KeyPath) -> tuple[str, ...] | None:
        """Return the domains that complete names: None for none, empty for those of resolv.conf."""
        if isinstance(config.search, bool):
            return () if config.search else None
        found: list[str] = []
        for index, domain in enumerate(config.search):
            try:
                found.append(absolute(domain))
            except ValueError as error:
                self.problems.append(self.loaded.problem((*path, "search", index), str(error)))
        return tuple(found) or None

    def servers(self, config: DnsBackend, path: KeyPath) -> tuple[Server, ...]:
        """Return the servers that are named; none means those of resolv.conf."""
        found: list[Server] = []
        for index, text in enumerate(config.servers):
            try:
                found.append(parse_server(text))
            except ValueError as error:
                self.problems.append(self.loaded.problem((*path, "servers", index), str(error)))
        return tuple(found)

    def complain(self, place: _Place, key: KeyPath, what: str, hint: str | None = None) -> None:
        """Keep a complaint, with its place in the config or in the inventory."""
        if place.path:
            self.problems.append(self.loaded.problem((*place.path, *key), what, hint))
        else:
            where = ".".join((place.where, *(part for part in key if isinstance(part, str))))
            self.problems.append(Problem(where=where, what=what, hint=hint))


def _families(type_: str) -> Families:
    return ("A",) if type_ == "A" else ("AAAA",) if type_ == "AAAA" else ANY


def _below(machine: str, domain: str) -> str | None:
    """Return the name of a machine below a domain; None where that is no name, and so nothing to ask for."""
    try:
        return absolute(f"{machine}.{domain}")
    except ValueError:
        return None


def jobs_of(backends: Iterable[Dns]) -> set[str]:
    """Return the jobs that these backends list."""
    return {job for backend in backends for job in backend.jobs}
