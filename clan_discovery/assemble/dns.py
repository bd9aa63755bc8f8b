"""Build DNS backends from the config and from the servers' settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import msgspec

from clan_discovery.assemble.source import configured_exporter, inventory_name
from clan_discovery.backends.dns.backend import Dns
from clan_discovery.backends.dns.reading import ANY, Reading, Wanted
from clan_discovery.config.models import DnsBackend
from clan_discovery.dnsclient.names import absolute, domains_of
from clan_discovery.dnsclient.servers import RESOLV_CONF, parse_server
from clan_discovery.inventory.exporters import idle_complaint, probe_hint, unknown_type_hint
from clan_discovery.model import DnsJob, Problem
from clan_discovery.syntax.suggest import Suggester

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from clan_discovery.backends.dns.reading import Families
    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.model import Declared, Exporter
    from clan_discovery.syntax.tree import KeyPath

Parsed = TypeVar("Parsed")

IMPLIED: Final = "dns"
"""The name of the backend that `discoveryMethod = "dns"` implies, and of its settings in the config."""

_FAMILIES: Final[Mapping[str, Families]] = {"A": ("A",), "AAAA": ("AAAA",)}
"""The address family of a record type; other types ask for both families."""


class _Place(NamedTuple):
    """Where the names of a job are written.

    It is a key of the config (`path`) or an option of the inventory (`where`).
    """

    because: str
    where: str = ""
    path: KeyPath = ()


class DnsBackends(msgspec.Struct):
    """Builds the DNS backends, and collects problems.

    `aliases` maps other names of machines to them.
    """

    loaded: LoadedConfig
    declared: Declared
    problems: list[Problem]
    aliases: Mapping[str, str] = {}
    suggester: Suggester = msgspec.field(default_factory=Suggester)

    def build(self) -> list[Dns]:
        """Return the backends of the config by name, then the one for `discoveryMethod`."""
        entries = self.loaded.config.backends.dns or {}
        implied = self.implied()
        found: list[Dns] = []
        for name, dns in sorted(entries.items()):
            found += self.backend(name, dns, implied if name == IMPLIED else ())
        if implied and IMPLIED not in entries:
            locate = not any(dns.locates for dns in found)
            found += self.backend(IMPLIED, DnsBackend(), implied, locate=locate)
        return found

    def implied(self) -> tuple[tuple[DnsJob, _Place], ...]:
        """Return the jobs of servers whose `discoveryMethod` includes "dns".

        If they list no names, it is one job without names, which asks for the declared machines.
        """
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

    def backend(
        self, name: str, config: DnsBackend, implied: Sequence[tuple[DnsJob, _Place]], *, locate: bool = True
    ) -> list[Dns]:
        """Build one backend; an empty list if it has nothing to ask."""
        path: KeyPath = ("backends", "dns", name)
        own = DnsJob(job=config.job or "", names=tuple(config.names), type=config.type or "SRV", port=config.port)
        jobs = [(own, _Place(f"config: backends.dns.{name}.names", path=path)), *implied]
        exporters = self.exporters(jobs)
        own_domains = self.domains(config)
        wanted = [one for job, place in jobs for one in self.names(job, place, own_domains)]
        if config.domain is not None or (locate and not _lists_names(jobs, config)):
            wanted += self.machines(config, path)
        search = self.search(config, path)
        servers = self.parsed(config.servers, parse_server, (*path, "servers"))
        domains: tuple[str, ...] | None = None
        if config.domains is not None:
            domains = self.parsed(config.domains, absolute, (*path, "domains"))
        if not wanted:
            return []
        reading = Reading(
            backend=name,
            wanted=tuple(wanted),
            exporters=exporters,
            machines=config.machines,
            domains=domains,
            declared={machine.name.casefold(): machine.name for machine in self.declared.machines},
            min_ttl=config.min_ttl,
            max_ttl=config.max_ttl,
            max_age=self.loaded.config.policy.max_age,
            allow=tuple(config.allow_networks),
            deny=tuple(config.deny_networks),
        )
        return [
            Dns(
                name=name,
                reading=reading,
                resolv_conf=RESOLV_CONF,
                servers=servers,
                search=search,
                budget=config.timeout,
                rate=config.max_rate,
            )
        ]

    def domains(self, config: DnsBackend) -> tuple[str, ...]:
        """Return the domains whose names are machines: the backend's and the inventory's.

        The domain of a list is added to these.
        """
        found = [config.domain] if config.domain is not None else []
        if self.loaded.config.inventory is not None:
            found.append(self.declared.domain)
        return tuple(domain.removesuffix(".").lower() for domain in found)

    def names(self, job: DnsJob, place: _Place, domains: tuple[str, ...]) -> Iterator[Wanted]:
        """Yield what to ask for the names of a job.

        A name that starts with `*.` is expanded to every declared machine.
        """
        for index, text in enumerate(job.names):
            domain = text.removeprefix("*.")
            name = self.name(domain, place, index)
            if name is None:
                continue
            wanted = Wanted(
                text=text,
                names=(name,),
                service=job.type == "SRV",
                families=_FAMILIES.get(job.type, ANY),
                job=job.job or None,
                domains=tuple(dict.fromkeys((*domains_of(name, is_service=job.type == "SRV"), *domains))),
                because=place.because,
            )
            if domain == text:
                yield wanted
                continue
            if self.loaded.config.inventory is None:
                what = f"no resolver can list a zone, so {text!r} cannot be asked"
                hint = f"write the names themselves, or an SRV name like _{job.job or 'node'}._tcp.{domain}; with an "
                hint += f"`inventory`, each of its machines is asked for as <machine>.{domain}"
                self.complain(place, ("names", index), what, hint)
            yield from self.expanded(wanted, domain)

    def expanded(self, wanted: Wanted, domain: str) -> Iterator[Wanted]:
        """Yield the name of every declared machine below a domain."""
        aside = f", asked for {wanted.text!r}: no resolver can list a zone, so each declared machine is asked for"
        for label, machine in self.labels([machine.name for machine in self.declared.machines]):
            name = _below(label, domain)
            if name is not None:
                text = f"{label}.{domain}"
                yield msgspec.structs.replace(wanted, text=text, names=(name,), machine=machine, aside=aside)

    def labels(self, machines: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield each name by which a machine is looked up, with the machine.

        Aliases are included.
        """
        known = {machine.casefold(): machine for machine in machines}
        yield from ((machine, machine) for machine in machines)
        yield from ((alias, known[folded]) for alias, folded in self.aliases.items() if folded in known)

    def machines(self, config: DnsBackend, path: KeyPath) -> Iterator[Wanted]:
        """Yield the names below the domain of the declared machines with exporters."""
        domain, place = self.declared.domain, path
        if config.domain is not None:
            domain, place = config.domain, (*path, "domain")
        if why := _domain_complaint(domain):
            self.problems.append(self.loaded.problem((*path, "domain"), why))
            return
        if self.loaded.config.inventory is None:
            what = "without a source there are no machines to look up"
            self.problems.append(self.loaded.problem(place, what, "give `names` with a `job`, or an `inventory`"))
        elif not domain:
            what = "no source gives the domain of the machines"
            self.problems.append(self.loaded.problem(place, what, "write `domain: lan.example.org`"))
        families = ANY
        if config.type is not None and not config.names:
            families = _FAMILIES.get(config.type, ANY)
        for label, machine in self.labels(sorted({expected.machine.name for expected in self.declared.expected})):
            name = _below(label, domain)
            if name is not None:
                yield Wanted(text=f"{label}.{domain}", names=(name,), families=families, machine=machine)

    def name(self, text: str, place: _Place, index: int) -> str | None:
        """Return a name in the form to ask; None, with a problem, if it is not a DNS name."""
        if "*" in text:
            hint = "a star means every declared machine, and must be the first label: `*.domain`"
            self.complain(place, ("names", index), f"{text!r} is not a DNS name", hint)
            return None
        try:
            return absolute(text)
        except ValueError as error:
            self.complain(place, ("names", index), str(error))
            return None

    def exporters(self, jobs: Iterable[tuple[DnsJob, _Place]]) -> dict[str, Exporter]:
        """Return the exporter of each job with names."""
        found: dict[str, Exporter] = {}
        for job, place in jobs:
            if not job.job or not job.names:
                continue
            exporter = self.exporter(job, place)
            if exporter is not None and found.setdefault(job.job, exporter) != exporter:
                self.complain(place, ("port",), f"the job {job.job} is already defined with another port")
        return found

    def exporter(self, job: DnsJob, place: _Place) -> Exporter | None:
        """Return the exporter of a job; its port is 0 if SRV records give the port."""
        found = configured_exporter(self.loaded.config, job.job, job.port)
        if found is None and job.type == "SRV":
            found = configured_exporter(self.loaded.config, job.job, 0)
        if found is None:
            what = f"{job.type} answers have no port, and no exporter is called {job.job!r}"
            self.complain(place, ("port",), what, unknown_type_hint(job.job, self.suggester))
            return None
        if complaint := idle_complaint(found):
            self.complain(place, ("job",), complaint, probe_hint(job.job))
        return found

    def search(self, config: DnsBackend, path: KeyPath) -> tuple[str, ...] | None:
        """Return the domains that complete names.

        None for none, empty for those of resolv.conf.
        """
        if config.search is True:
            return ()
        if config.search is False:
            return None
        return self.parsed(config.search, absolute, (*path, "search")) or None

    def parsed(self, texts: Iterable[str], parse: Callable[[str], Parsed], path: KeyPath) -> tuple[Parsed, ...]:
        """Parse each text of a list in the config; report the others."""
        found: list[Parsed] = []
        for index, text in enumerate(texts):
            try:
                found.append(parse(text))
            except ValueError as error:
                self.problems.append(self.loaded.problem((*path, index), str(error)))
        return tuple(found)

    def complain(self, place: _Place, key: KeyPath, what: str, hint: str | None = None) -> None:
        """Add a problem with its position in the config or in the inventory."""
        if place.path:
            self.problems.append(self.loaded.problem((*place.path, *key), what, hint))
            return
        where = ".".join([place.where, *(part for part in key if isinstance(part, str))])
        self.problems.append(Problem(where=where, what=what, hint=hint))


def _lists_names(jobs: Iterable[tuple[DnsJob, _Place]], config: DnsBackend) -> bool:
    """Tell whether the config lists names, or a job asks for each declared machine."""
    return bool(config.names) or any(text.startswith("*.") for job, _ in jobs for text in job.names)


def _below(machine: str, domain: str) -> str | None:
    """Return the name of a machine below a domain; None if it is not a DNS name."""
    try:
        return absolute(f"{machine}.{domain}")
    except ValueError:
        return None


def _domain_complaint(domain: str) -> str:
    """Say why a domain cannot be asked; empty if it can, or if there is none."""
    if not domain:
        return ""
    try:
        absolute(domain)
    except ValueError as error:
        return str(error)
    return ""
