"""Config -> the objects of a round. The only place that knows every concrete class."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clan_discovery.assemble.source import Lookup, inventory_name, options_of, read_inventory
from clan_discovery.backends.static import Static
from clan_discovery.backends.tailscale_wire import Reading
from clan_discovery.config.models import DEFAULT_DIRECTORY, DEFAULT_STATE
from clan_discovery.errors import InputError
from clan_discovery.inventory.clan.declare import declare
from clan_discovery.inventory.exporters import is_idle, known_exporters, unknown_type_hint
from clan_discovery.model import Declared, Endpoint, Problem, SelectRule
from clan_discovery.resolve.resolver import Policy
from clan_discovery.resolve.trust import Trust
from clan_discovery.round import Places, Plan
from clan_discovery.syntax.endpoint import split_endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clan_discovery.backends.base import Backend
    from clan_discovery.config.load import KeyPath, LoadedConfig
    from clan_discovery.config.models import Config, StaticBackend, TailscaleBackend
    from clan_discovery.model import Json

DEFAULT_SOCKET: Final = Path("/run/tailscale/tailscaled.sock")
_PROBE_HINT: Final = "set it in exporters.<type>.params.target"


def make_plan(
    loaded: LoadedConfig,
    *,
    accept_shrink: bool = False,
    output: Path | None = None,
    state: Path | None = None,
) -> Plan:
    """Put a round together. `output` and `state` replace the config's directories.

    Raises:
        InputError: something in the config or the inventory is wrong; all complaints at once.
    """
    work = _Building(loaded)
    rules = work.rules()
    backends = work.backends()
    declared = Declared()
    if loaded.config.inventory is not None:
        try:
            declared = declare(read_inventory(loaded), options_of(loaded, work.lookup))
        except InputError as error:
            work.problems += error.problems
    if not work.problems:
        work.unused(declared)
    work.discovery(declared, backends)
    backends += work.dns(declared)
    work.duplicate_jobs(declared)
    if not work.problems and not (declared.roles or rules or work.has_endpoints(declared)):
        work.problems.append(_nothing_declared(loaded, declared))
    if work.problems:
        raise InputError(work.problems)
    places = directories(loaded, output=output, state=state)
    return Plan(
        declared=declared,
        backends=tuple(backends),
        rules=tuple(rules),
        policy=_policy(loaded.config),
        trust=_trust(loaded.config, accept_shrink=accept_shrink),
        directory=places.directory,
        state_directory=places.state_directory,
        lock_wait=places.lock_wait,
    )


def directories(loaded: LoadedConfig, *, output: Path | None = None, state: Path | None = None) -> Places:
    """Return where a round of this config writes, without reading the inventory.

    Raises:
        InputError: the state would be in the output directory.
    """
    config = loaded.config
    directory = output.absolute() if output is not None else config.output.directory
    state_directory = state or _state_directory(config, directory)
    if os.path.realpath(state_directory) == os.path.realpath(directory):
        what = "the state cannot be in the output directory: Prometheus would read it as targets"
        raise InputError([loaded.problem(("state",), what, "give it a directory of its own")])
    return Places(directory, state_directory, config.output.lock_wait)


def sockets_of(loaded: LoadedConfig) -> tuple[Path, ...]:
    """Return the sockets of tailscaled that this config asks, sorted; without a config of its own, the default one.

    Whether the inventory wants the default is known only when it is read; listening to it in vain costs nothing.
    """
    config = loaded.config.backends.tailscale
    if config is None:
        return (DEFAULT_SOCKET,) if loaded.config.inventory is not None else ()
    asked = [backend for backend in config.values() if backend.status_file is None]
    return tuple(sorted({backend.socket or DEFAULT_SOCKET for backend in asked}))


def _policy(config: Config) -> Policy:
    return Policy(
        absent=config.policy.absent,
        labels=tuple(sorted(config.labels.items())),
        offline=config.policy.offline,
        offline_tags={tag.removeprefix("tag:"): p for tag, p in config.policy.offline_tags.items()},
    )


def _trust(config: Config, *, accept_shrink: bool) -> Trust:
    return Trust(
        max_age=config.policy.max_age,
        max_shrink=config.policy.max_shrink,
        shrink_rounds=config.policy.shrink_after.rounds,
        shrink_seconds=config.policy.shrink_after.time,
        accept_shrink=accept_shrink,
    )


def _state_directory(config: Config, directory: Path) -> Path:
    if config.state is not None:
        return config.state
    if directory == DEFAULT_DIRECTORY:
        return DEFAULT_STATE
    directory = Path(os.path.normpath(directory))
    return directory.with_name(f"{directory.name or 'root'}.state")


def _nothing_declared(loaded: LoadedConfig, declared: Declared) -> Problem:
    if loaded.config.inventory is None:
        hint = "give `inventory`, `exporters` with `select`, `backends.static`, or `backends.dns` with a `job`"
        return Problem(where=str(loaded.file), what="nothing is declared: there would be no target", hint=hint)
    why = "; ".join(f"{p.what} ({p.hint})" if p.hint else p.what for p in declared.problems)
    what = "the inventory declares no exporter, and the config no other target"
    return Problem(where=str(loaded.file), what=f"{what}: {why or 'it has no instance of the service'}")


@dataclass(slots=True)
class _Building:
    loaded: LoadedConfig
    problems: list[Problem] = field(default_factory=list[Problem])
    listed: set[str] = field(default_factory=set[str])

    @property
    def lookup(self) -> Lookup:
        return Lookup(self.loaded)

    def complain(self, path: KeyPath, what: str, hint: str | None = None) -> None:
        self.problems.append(self.loaded.problem(path, what, hint))

    def has_endpoints(self, declared: Declared) -> bool:
        return bool(self.listed) or any(server.static_targets for server in declared.servers)

    def rules(self) -> list[SelectRule]:
        """Build the select rules; an unknown type without a port is a complaint."""
        found: list[SelectRule] = []
        default = self.loaded.config.policy.offline
        for type_, rule in self.loaded.config.exporters.items():
            path: KeyPath = ("exporters", type_)
            exporter = self.lookup(type_, None)
            if rule.select is None:
                continue  # settings of a type that the inventory or a list has: `unused` looks after those
            if exporter is None:
                self.complain(path, f"unknown exporter type {type_!r} without a port", unknown_type_hint(type_))
            else:
                if is_idle(exporter):
                    what = f"{type_} probes others: it serves nothing without params.target"
                    self.complain(path, what)
                tags = rule.select.tags
                found.append(
                    SelectRule(
                        exporter=exporter,
                        tags_any=_bare(tags.any),
                        tags_all=_bare(tags.all),
                        tags_none=_bare(tags.none),
                        os=frozenset(name.casefold() for name in rule.select.os),
                        offline=rule.offline if "offline" in rule.model_fields_set else default,
                    )
                )
        return found

    def unused(self, declared: Declared) -> None:
        """Complain about settings of an exporter type that nobody knows and nothing uses: a typo."""
        used = {e.exporter.type for e in declared.expected} | {e.job or "" for e in declared.excluded}
        used |= {e.exporter.type for server in declared.servers for e in server.static_targets}
        used |= {job for static in self.loaded.config.backends.static.values() for job in static.targets}
        used |= {dns.job for dns in (self.loaded.config.backends.dns or {}).values() if dns.job}
        used |= {job.job for server in declared.servers for job in server.dns}
        for type_, rule in self.loaded.config.exporters.items():
            if rule.select is None and type_ not in used and type_ not in known_exporters():
                what = f"unknown exporter type {type_!r}, and nothing uses it"
                self.complain(("exporters", type_), what, unknown_type_hint(type_))

    def backends(self) -> list[Backend]:
        """Build the backends in order of trust: what is written down, then Tailscale."""
        config = self.loaded.config.backends
        self._names()
        found: list[Backend] = [self._static(name, s) for name, s in sorted(config.static.items())]
        for name, tailscale in sorted((config.tailscale or {}).items()):
            found.append(self._tailscale(name, tailscale))
        return found

    def discovery(self, declared: Declared, backends: list[Backend]) -> None:
        """Do as the servers' `discoveryMethod` says, where the config leaves it to them."""
        wanted = {method for s in declared.servers if s.auto_discovery for method in s.discovery or ()}
        if "tailscale" in wanted and self.loaded.config.backends.tailscale is None:
            taken = [b.name for b in backends if b.name == "tailscale"]
            for name in taken:
                path: KeyPath = ("backends", "static", name)
                self.complain(path, f"the name {name!r} is that of the backend which discoveryMethod asks for")
            backends.append(_socket("tailscale", None, Reading(backend="tailscale"), 10.0))

    def dns(self, declared: Declared) -> list[Backend]:
        """Build the DNS backends: they ask for the machines that are declared."""
        asks = any("dns" in (s.discovery or ()) for s in declared.servers)
        if not self.loaded.config.backends.dns and not asks:
            return []
        # DNS is a dozen modules of a start: for those alone who ask it.
        from clan_discovery.assemble.dns import DnsBackends, jobs_of  # noqa: PLC0415

        work = DnsBackends(self.loaded, self.lookup, declared)
        found = work.build()
        self.problems += work.problems
        self.listed |= jobs_of(found)
        return [*found]

    def duplicate_jobs(self, declared: Declared) -> None:
        """Refuse additional scrape configs that bear the name of a job of ours, or of each other: Prometheus would."""
        ours = {e.exporter.type for e in declared.expected} | {e.job for e in declared.excluded if e.job}
        ours |= {e.exporter.type for server in declared.servers for e in server.static_targets}
        ours |= {job for static in self.loaded.config.backends.static.values() for job in static.targets}
        ours |= self.listed
        ours |= {type_ for type_, rule in self.loaded.config.exporters.items() if rule.select is not None}
        seen: dict[str, Mapping[str, Json]] = {}
        for server in declared.servers:
            where = f"{inventory_name(self.loaded)}: instances.{server.instance}.roles.server.machines.{server.machine}"
            for config in server.additional_scrape_configs:
                name = str(config.get("job_name"))
                if name in ours:
                    what = f"duplicate job {name!r}: there is a job of that name for the exporters of this type"
                elif seen.setdefault(name, config) != config:
                    what = f"duplicate job {name!r}: another server has a different one of that name"
                else:
                    continue
                served = any(e.role == "server" and e.exporter.type == name for e in declared.expected)
                hint = "Prometheus refuses two jobs of one name; rename yours"
                hint += ", or set `scrapeServers = false`" if served else ""
                place = f"{where}.settings.additionalScrapeConfigs"
                self.problems.append(Problem(where=place, what=what, hint=hint))

    def _names(self) -> None:
        config = self.loaded.config.backends
        seen: dict[str, str] = {}
        groups = (("tailscale", config.tailscale or {}), ("dns", config.dns or {}), ("static", config.static))
        for kind, group in groups:
            for name in group:
                path: KeyPath = ("backends", kind, name)
                if name == "inventory":
                    self.complain(path, "the name 'inventory' is the inventory's own", "take another one")
                if name in seen:
                    self.complain(path, f"the name {name!r} is taken by backends.{seen[name]}", "names are unique")
                seen[name] = kind

    def _tailscale(self, name: str, config: TailscaleBackend) -> Backend:
        reading = Reading(backend=name, family=config.family, tags=_bare(config.tags), volatile=config.volatile_labels)
        if config.status_file is not None:
            from clan_discovery.backends.tailscale_file import TailscaleFile  # noqa: PLC0415

            return TailscaleFile(name=name, file=config.status_file, reading=reading)
        return _socket(name, config.socket, reading, config.timeout)

    def _static(self, name: str, config: StaticBackend) -> Backend:
        machines = {machine: tuple(addresses) for machine, addresses in config.machines.items()}
        endpoints: list[Endpoint] = []
        for job, targets in config.targets.items():
            for index, target in enumerate(targets):
                endpoints += self._endpoint(name, job, index, target)
        self.listed |= {endpoint.exporter.type for endpoint in endpoints}
        return Static(name=name, machines=machines, endpoints=tuple(endpoints))

    def _endpoint(self, backend: str, job: str, index: int, target: str) -> list[Endpoint]:
        host, port = split_endpoint(target)
        exporter = self.lookup(job, port)
        if exporter is None:
            path: KeyPath = ("backends", "static", backend, "targets", job, index)
            self.complain(path, f"{target!r} has no port", f"no exporter is called {job!r}: write host:port")
            return []
        if is_idle(exporter):
            path = ("backends", "static", backend, "targets", job, index)
            self.complain(path, f"{job} probes others: it serves nothing without a target", _PROBE_HINT)
            return []
        because = f"config: backends.static.{backend}.targets.{job}"
        return [Endpoint(host=host, exporter=exporter, machine=host, because=because, backend=backend)]


def _socket(name: str, path: Path | None, reading: Reading, budget: float) -> Backend:
    # httpx is 40 ms of a start: it is imported where a socket is asked, and nowhere else.
    from clan_discovery.backends.tailscale import TailscaleSocket  # noqa: PLC0415

    return TailscaleSocket(name=name, socket=path or DEFAULT_SOCKET, reading=reading, budget=budget)


def _bare(tags: list[str]) -> frozenset[str]:
    return frozenset(tag.removeprefix("tag:") for tag in tags)
