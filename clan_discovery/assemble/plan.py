"""Builds the objects of a refresh cycle from a config. The only place that knows every concrete class."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clan_discovery.assemble.jobs import duplicate_jobs, jobs_of, reserved_jobs, unused_types
from clan_discovery.assemble.names import implied_name_problems, name_problems
from clan_discovery.assemble.source import Lookup, inventory_name, options_of, read_inventory
from clan_discovery.backends.static import Static
from clan_discovery.backends.tailscale_wire import TailscaleOptions
from clan_discovery.config.models import DEFAULT_DIRECTORY, DEFAULT_STATE
from clan_discovery.errors import InputError
from clan_discovery.inventory.clan.declare import declare
from clan_discovery.inventory.exporters import (
    TargetError,
    idle_complaint,
    listed_target,
    probe_hint,
    unknown_type_hint,
)
from clan_discovery.model import Declared, Endpoint, Problem, SelectRule
from clan_discovery.resolve.resolver import Policy
from clan_discovery.resolve.trust import Trust
from clan_discovery.round import OutputPaths, Plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from clan_discovery.backends.base import Backend
    from clan_discovery.config.load import KeyPath, LoadedConfig
    from clan_discovery.config.models import Config, ExporterRule, Select, StaticBackend, TailscaleBackend

DEFAULT_SOCKET: Final = Path("/run/tailscale/tailscaled.sock")


def make_plan(
    loaded: LoadedConfig,
    *,
    accept_shrink: bool = False,
    output: Path | None = None,
    state: Path | None = None,
) -> Plan:
    """Read the inventory and build everything that a refresh cycle needs.

    `output` and `state` replace the config's directories.

    Raises:
        InputError: something in the config or the inventory is wrong; all problems at once.
    """
    building = _Building(loaded)
    rules = list(building.rules())
    backends = building.configured()
    declared = building.declared()
    sound = not building.problems
    backends += building.implied_tailscale(declared)
    backends += building.dns(declared)
    jobs = jobs_of(declared, rules, building.listed)
    reserved = reserved_jobs(loaded, declared, jobs)
    if sound:  # what is used is known
        building.problems += unused_types(loaded, reserved)
    building.problems += duplicate_jobs(declared, reserved, inventory_name(loaded))
    if not building.problems and not declared.roles and not jobs:
        building.problems.append(_nothing_declared(loaded, declared))
    if building.problems:
        raise InputError(building.problems)
    places = directories(loaded, output=output, state=state)
    return Plan(
        declared=declared,
        backends=tuple(backends),
        rules=tuple(rules),
        jobs=jobs,
        policy=_policy(loaded.config),
        trust=_trust(loaded.config, accept_shrink=accept_shrink),
        directory=places.directory,
        state_directory=places.state_directory,
        lock_wait=places.lock_wait,
    )


def directories(loaded: LoadedConfig, *, output: Path | None = None, state: Path | None = None) -> OutputPaths:
    """Return where a refresh cycle of this config writes, without reading the inventory.

    Raises:
        InputError: the state would be in the output directory.
    """
    config = loaded.config
    directory = config.output.directory if output is None else output.absolute()
    state_directory = state or _state_directory(config, directory)
    if os.path.realpath(state_directory) == os.path.realpath(directory):
        what = "the state cannot be in the output directory: Prometheus would read it as targets"
        raise InputError([loaded.problem(("state",), what, "give it a directory of its own")])
    return OutputPaths(directory, state_directory, config.output.lock_wait)


def sockets_of(loaded: LoadedConfig) -> tuple[Path, ...]:
    """Return the sockets of tailscaled that this config asks, sorted.

    Without `backends.tailscale` it is the default one: the inventory, which is not read here, may ask for it.
    """
    config = loaded.config.backends.tailscale
    if config is None and loaded.config.inventory is None:
        return ()
    if config is None:
        return (DEFAULT_SOCKET,)
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
    """Builds the parts, and keeps every problem; `listed` are the jobs that backends list."""

    loaded: LoadedConfig
    problems: list[Problem] = field(default_factory=list[Problem])
    listed: set[str] = field(default_factory=set[str])

    @property
    def lookup(self) -> Lookup:
        return Lookup(self.loaded)

    def complain(self, path: KeyPath, what: str, hint: str | None = None) -> None:
        self.problems.append(self.loaded.problem(path, what, hint))

    def declared(self) -> Declared:
        """Read the inventory; nothing is declared where there is none, or where it is wrong."""
        if self.loaded.config.inventory is None:
            return Declared()
        try:
            return declare(read_inventory(self.loaded), options_of(self.loaded, self.lookup))
        except InputError as error:
            self.problems += error.problems
            return Declared()

    def rules(self) -> Iterator[SelectRule]:
        """Build the select rules. An exporter without `select` is only settings: see `unused_types`."""
        for type_, rule in self.loaded.config.exporters.items():
            if rule.select is not None:
                yield from self._rule(type_, rule, rule.select)

    def _rule(self, type_: str, rule: ExporterRule, select: Select) -> Iterator[SelectRule]:
        exporter = self.lookup(type_, None)
        path: KeyPath = ("exporters", type_)
        if exporter is None:
            self.complain(path, f"unknown exporter type {type_!r} without a port", unknown_type_hint(type_))
            return
        if complaint := idle_complaint(exporter):
            self.complain(path, complaint, probe_hint(type_))
        offline = self.loaded.config.policy.offline
        if "offline" in rule.model_fields_set:
            offline = rule.offline
        yield SelectRule(
            exporter=exporter,
            tags_any=_bare(select.tags.any),
            tags_all=_bare(select.tags.all),
            tags_none=_bare(select.tags.none),
            os=frozenset(name.casefold() for name in select.os),
            offline=offline,
        )

    def configured(self) -> list[Backend]:
        """Build the static and Tailscale backends of the config, the most trusted first."""
        config = self.loaded.config.backends
        self.problems += name_problems(self.loaded)
        found: list[Backend] = [self._static(name, static) for name, static in sorted(config.static.items())]
        found += [_tailscale(name, tailscale) for name, tailscale in sorted((config.tailscale or {}).items())]
        return found

    def implied_tailscale(self, declared: Declared) -> list[Backend]:
        """Build the Tailscale backend that a server's `discoveryMethod` asks for, if the config has none."""
        asked = any("tailscale" in (s.discovery or ()) for s in declared.servers if s.auto_discovery)
        if not asked or self.loaded.config.backends.tailscale is not None:
            return []
        self.problems += implied_name_problems(self.loaded, "tailscale")
        return [_socket("tailscale", None, TailscaleOptions(backend="tailscale"), 10.0)]

    def dns(self, declared: Declared) -> list[Backend]:
        """Build the DNS backends: they ask for the declared machines."""
        asked = any("dns" in (server.discovery or ()) for server in declared.servers)
        if not asked and not self.loaded.config.backends.dns:
            return []
        # DNS is a dozen modules of a start: imported only where it is asked.
        from clan_discovery.assemble.dns import DnsBackends  # noqa: PLC0415

        work = DnsBackends(self.loaded, self.lookup, declared)
        found = work.build()
        self.problems += work.problems
        self.listed |= work.listed
        return [*found]

    def _static(self, name: str, config: StaticBackend) -> Backend:
        endpoints: list[Endpoint] = []
        for job, targets in config.targets.items():
            because = f"config: backends.static.{name}.targets.{job}"
            for index, target in enumerate(targets):
                try:
                    host, exporter = listed_target(job, target, self.lookup)
                except TargetError as error:
                    self.complain(("backends", "static", name, "targets", job, index), str(error), error.hint)
                    continue
                self.listed.add(job)
                endpoint = Endpoint(host=host, exporter=exporter, machine=host, because=because, backend=name)
                endpoints.append(endpoint)
        machines = {machine: tuple(addresses) for machine, addresses in config.machines.items()}
        return Static(name=name, machines=machines, endpoints=tuple(endpoints))


def _tailscale(name: str, config: TailscaleBackend) -> Backend:
    tags = _bare(config.tags)
    options = TailscaleOptions(backend=name, family=config.family, tags=tags, volatile=config.volatile_labels)
    if config.status_file is None:
        return _socket(name, config.socket, options, config.timeout)
    from clan_discovery.backends.tailscale_file import TailscaleFile  # noqa: PLC0415

    return TailscaleFile(name=name, file=config.status_file, options=options)


def _socket(name: str, path: Path | None, options: TailscaleOptions, budget: float) -> Backend:
    # httpx is 40 ms of a start: imported only where a socket is asked.
    from clan_discovery.backends.tailscale import TailscaleSocket  # noqa: PLC0415

    return TailscaleSocket(name=name, socket=path or DEFAULT_SOCKET, options=options, budget=budget)


def _bare(tags: Iterable[str]) -> frozenset[str]:
    return frozenset(tag.removeprefix("tag:") for tag in tags)
