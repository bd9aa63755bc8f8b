"""Build the objects of a refresh cycle from a config.

No other module knows every concrete class.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from clan_discovery.assemble.jobs import (
    duplicate_jobs,
    exposed_admin_ports,
    exposed_secrets,
    indistinct_exporters,
    jobs_of,
    pushed_jobs,
    reserved_jobs,
    shared_patterns,
    unused_scrape_configs,
    unused_splits,
    unused_types,
)
from clan_discovery.assemble.source import configured_exporter, inventory_name
from clan_discovery.assemble.sources import read_declared
from clan_discovery.backends.static import Static
from clan_discovery.backends.tailscale_wire import TailscaleOptions
from clan_discovery.config.models import DEFAULT_DIRECTORY, DEFAULT_STATE, TailscaleBackend, others_of
from clan_discovery.errors import InputError
from clan_discovery.inventory.exporters import (
    TargetError,
    idle_complaint,
    listed_target,
    probe_hint,
    unknown_type_hint,
)
from clan_discovery.model import Declared, Endpoint, Problem, SelectRule, one_line
from clan_discovery.resolve.names import Ignore, usable_aliases, without_ignored
from clan_discovery.resolve.resolver import Policy
from clan_discovery.resolve.targets import Naming
from clan_discovery.resolve.trust import Trust
from clan_discovery.round import OutputPaths, Plan
from clan_discovery.syntax.counting import and_more
from clan_discovery.syntax.suggest import Suggester, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from clan_discovery.backends.base import Backend
    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.config.models import Backends, Config, Select, StaticBackend
    from clan_discovery.inventory.nix import Evaluation
    from clan_discovery.model import FrontKind, FrontSettings, Shard, Storage
    from clan_discovery.syntax.tree import KeyPath

DEFAULT_SOCKET: Final = Path("/run/tailscale/tailscaled.sock")
_TOLD_MOST: Final = 5
_DEFAULT_TAILNET: Final = {"tailscale": TailscaleBackend.model_construct()}
"""The backend that `discoveryMethod` implies if the config has no `backends.tailscale`."""


def make_plan(
    loaded: LoadedConfig,
    *,
    accept_shrink: bool = False,
    output: Path | None = None,
    state: Path | None = None,
    evaluation: Evaluation | None = None,
    front: FrontKind | None = None,
) -> Plan:
    """Read the inventory and build everything that a refresh cycle needs.

    `output` and `state` replace the config's directories, `front` its kind of reverse proxy. `evaluation` is that of
    the config's flake (see `evaluate_flake`); without it, the flake is evaluated now.

    Raises:
        InputError: something in the config or the inventory is wrong. It has all problems.
    """
    building = _Building(loaded, evaluation)
    static = building.static()
    declared = building.declared()
    ignore = _ignore(loaded.config)
    wanted = without_ignored(declared, ignore)
    wanted, proxy = building.fronts(wanted, front)
    aliases, complaints = _aliases(loaded, declared)
    rules = list(building.rules(declared))
    is_known = not building.problems
    backends = [*static, *building.asked(wanted, aliases)]
    jobs = jobs_of(declared, rules, backends)
    shard = building.shard()
    storage = building.storage(declared, shard)
    reserved = reserved_jobs(loaded, declared, jobs)
    used = reserved | pushed_jobs(declared)
    if is_known:
        building.problems += unused_types(loaded, used)
    building.problems += duplicate_jobs(declared, reserved, inventory_name(loaded))
    building.problems += shared_patterns(loaded, reserved)
    if not building.problems and not _declares_something(declared, jobs):
        building.problems.append(_nothing_declared(loaded, declared))
    if building.problems:
        raise InputError(building.problems)
    complaints += exposed_secrets(loaded, declared)
    complaints += [*unused_scrape_configs(loaded, used), *unused_splits(loaded, reserved)]
    complaints += building.shard_warnings(declared, used)
    complaints += exposed_admin_ports(declared)
    complaints += indistinct_exporters(wanted)
    complaints += building.complaints
    if complaints:
        wanted = msgspec.structs.replace(wanted, problems=(*wanted.problems, *complaints))
    places = directories(loaded, output=output, state=state)
    policy = loaded.config.policy
    return Plan(
        declared=wanted,
        backends=backends,
        rules=rules,
        jobs=jobs,
        policy=Policy(
            absent=policy.absent,
            labels=tuple(sorted(loaded.config.labels.items())),
            offline=policy.offline,
            offline_tags={tag.removeprefix("tag:"): p for tag, p in policy.offline_tags.items()},
            aliases=aliases,
            ignore=ignore,
            naming=_naming(loaded.config),
            front=proxy,
            storage=storage,
            roaming_tags=frozenset(policy.roaming_tags),
            shard=shard,
        ),
        trust=Trust(
            max_age=policy.max_age,
            max_shrink=policy.max_shrink,
            shrink_rounds=policy.shrink_after.rounds,
            shrink_seconds=policy.shrink_after.time,
            accept_shrink=accept_shrink,
        ),
        directory=places.directory,
        state_directory=places.state_directory,
        lock_wait=places.lock_wait,
        static=loaded.config.output.static,
        no_files=places.no_files,
        evaluation=evaluation.number if evaluation is not None else None,
        owner=places.owner,
        front_file=_front_file(loaded.config, output),
        split=loaded.config.output.split,
        shared_targets=_shared_targets(shard, wanted, static),
        relabel={
            job: given.rest["relabel_configs"]
            for job, given in loaded.config.jobs.items()
            if given.rest.get("relabel_configs")
        },
    )


def _shared_targets(shard: Shard | None, declared: Declared, lists: Iterable[Static]) -> str:
    """Return a hash of what servers share; empty without a shard."""
    if shard is None:
        return ""
    from clan_discovery.assemble.shard import shared_targets  # noqa: PLC0415 - only for a shard

    return shared_targets(shard, declared, lists)


def _declares_something(declared: Declared, jobs: AbstractSet[str]) -> bool:
    return bool(declared.roles or declared.fronts or declared.agents or jobs)


def _front_file(config: Config, output: Path | None) -> Path | None:
    """Return the file of the reverse proxy; None where the targets go elsewhere than the config says."""
    if config.front is None or output is not None:
        return None
    return config.front.file


def _ignore(config: Config) -> Ignore:
    systems = frozenset(name.casefold() for name in config.ignore.os)
    return Ignore(names=tuple(config.ignore.names), tags=_bare(config.ignore.tags), os=systems)


def _naming(config: Config) -> Naming:
    tailnets, dns = config.backends.tailscale or {}, config.backends.dns or {}
    backends = [name for name, tailnet in tailnets.items() if tailnet.address == "name"]
    backends += [name for name, asked in dns.items() if asked.address == "name"]
    jobs = {type_: rule.address == "name" for type_, rule in config.exporters.items() if rule.address is not None}
    return Naming(backends=frozenset(backends), jobs=jobs)


def _aliases(loaded: LoadedConfig, declared: Declared) -> tuple[dict[str, str], list[Problem]]:
    """Return the usable aliases, and a problem with its position for each other one."""
    usable, problems = usable_aliases(loaded.config.aliases, declared.machines)
    placed = [loaded.problem(("aliases", p.where), p.what, p.hint, severity=p.severity) for p in problems]
    return usable, placed


def directories(loaded: LoadedConfig, *, output: Path | None = None, state: Path | None = None) -> OutputPaths:
    """Return the output paths of this config, without reading the inventory.

    Raises:
        InputError: the state would be in the output directory, or there are neither files nor `web`.
    """
    config = loaded.config
    directory = config.output.directory if output is None else output.absolute()
    state_directory = state or _state_directory(config, directory)
    if output is None and not config.output.files:
        _check_no_files(loaded)
        return OutputPaths(state_directory, state_directory, config.output.lock_wait, no_files=True)
    if os.path.realpath(state_directory) == os.path.realpath(directory):
        what = "the state cannot be in the output directory: Prometheus would read it as targets"
        raise InputError([loaded.problem(("state",), what, "give it a directory of its own")])
    # Absolute, so that the owner does not depend on the current directory. Symlinks are not followed, because the
    # config of a NixOS system links to another file after each rebuild. A file name may contain newlines, but the
    # owner is one line.
    owner = config.output.owner or one_line(os.path.abspath(loaded.file))  # noqa: PTH100 - resolve() would follow symlinks
    return OutputPaths(directory, state_directory, config.output.lock_wait, owner)


def _check_no_files(loaded: LoadedConfig) -> None:
    """Refuse a config without target files that serves none, or whose files Nix builds."""
    path: KeyPath = ("output", "files")
    if loaded.config.output.static:
        what = "is false, and `output.static` says that Nix builds target files"
        raise InputError([loaded.problem(path, what, "remove one of them")])
    if loaded.config.web is None:
        what = "is false, and without `web` nothing serves the targets"
        raise InputError([loaded.problem(path, what, "remove it, or write `web: {}`")])


def sockets_of(loaded: LoadedConfig) -> tuple[Path, ...]:
    """Return the tailscaled sockets that this config asks, sorted.

    Without `backends.tailscale` it is the default socket: the inventory, which is not read here, may ask for it.
    """
    tailnets = loaded.config.backends.tailscale
    if tailnets is None:
        sources = loaded.config.inventory
        tailnets = {} if sources is None or not sources.has_clan else _DEFAULT_TAILNET
    asked = (backend for backend in tailnets.values() if backend.status_file is None)
    return tuple(sorted({backend.socket or DEFAULT_SOCKET for backend in asked}))


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
        return Problem(where=str(loaded.file), what="nothing is declared, so there would be no targets", hint=hint)
    told = declared.problems[:_TOLD_MOST]
    reasons = [f"{p.what} ({p.hint})" if p.hint else p.what for p in told]
    if more := and_more(len(declared.problems), _TOLD_MOST):
        reasons.append(more)
    reasons += [f"{excluded.name}: {excluded.detail}" for excluded in declared.excluded[:_TOLD_MOST]]
    if more := and_more(len(declared.excluded), _TOLD_MOST):
        reasons.append(f"excluded: {more}")
    why = "; ".join(reasons)
    if not why and loaded.config.inventory.has_clan:
        why = "the clan inventory has no instance of the service"
    elif not why and loaded.config.inventory.compose:
        why = 'no service has the label `prometheus.io/scrape: "true"`, and none a rule of Traefik'
    what = "the sources declare no exporter, and the config has no other targets"
    if why:
        what = f"{what}: {why}"
    return Problem(where=str(loaded.file), what=what)


class _Names(NamedTuple):
    """The names of the Tailscale backends, of the static lists, and of all backends."""

    tailnets: frozenset[str]
    lists: frozenset[str]
    every: frozenset[str]

    @classmethod
    def of(cls, config: Backends, declared: Declared) -> _Names:
        """Return the names of the backends in a config and of the implied ones.

        A server's `discoveryMethod` implies a backend.
        """
        implied = _implied(config, declared)
        tailnets = frozenset(config.tailscale or ()) | (implied & {"tailscale"})
        lists = frozenset(config.static)
        added = frozenset[str]().union(*others_of(config).values())
        return cls(tailnets, lists, tailnets | lists | frozenset(config.dns or ()) | added | implied)


class _Building(msgspec.Struct):
    """Builds the parts of a plan, and collects problems.

    `is_read`: the inventory could be read, or there is none. `problems` are errors, and `complaints` are not.
    """

    loaded: LoadedConfig
    evaluation: Evaluation | None = None
    is_read: bool = True
    problems: list[Problem] = []
    complaints: list[Problem] = []
    suggester: Suggester = msgspec.field(default_factory=Suggester)

    def complain(self, path: KeyPath, what: str, hint: str | None = None) -> None:
        self.problems.append(self.loaded.problem(path, what, hint))

    def declared(self) -> Declared:
        """Read the sources; an empty result if there is none or if one is wrong."""
        try:
            return read_declared(self.loaded, self.evaluation)
        except InputError as error:
            self.problems += error.problems
            self.is_read = False
            return Declared()

    def shard(self) -> Shard | None:
        """Build the shard of this server; None without one, or if it is wrong."""
        if self.loaded.config.shard is None:
            return None
        from clan_discovery.assemble.shard import shard_of  # noqa: PLC0415 - only for a shard

        shard, problems = shard_of(self.loaded, self.loaded.config.shard)
        self.problems += problems
        return shard

    def shard_warnings(self, declared: Declared, jobs: AbstractSet[str]) -> Iterator[Problem]:
        """Yield a warning for each name in the shard that may be misspelt."""
        if self.loaded.config.shard is not None:
            from clan_discovery.assemble.shard import shard_warnings  # noqa: PLC0415 - only for a shard

            yield from shard_warnings(self.loaded, self.loaded.config.shard, declared, jobs)

    def fronts(self, declared: Declared, kind: FrontKind | None) -> tuple[Declared, FrontSettings | None]:
        """Return what is declared with the fronts that can be served, and how the proxy serves them."""
        if kind is None and self.loaded.config.front is None and not declared.fronts:
            return declared, None
        from clan_discovery.assemble.fronts import checked_fronts, front_settings  # noqa: PLC0415 - only for fronts

        settings, problems = front_settings(self.loaded, kind)
        self.problems += problems
        return checked_fronts(self.loaded, declared, settings), settings

    def storage(self, declared: Declared, shard: Shard | None) -> Storage | None:
        """Return where samples are stored, if the config or the inventory says so."""
        has_role = any(role.role == "storage" for role in declared.roles)
        if not self.is_read or (self.loaded.config.storage is None and not has_role):
            return None
        from clan_discovery.assemble.storage import read_storage  # noqa: PLC0415 - only for storage

        storage, problems = read_storage(self.loaded, declared, shard)
        self.problems += [problem for problem in problems if problem.severity == "error"]
        self.complaints += [problem for problem in problems if problem.severity != "error"]
        return storage

    def rules(self, declared: Declared) -> Iterator[SelectRule]:
        """Build the select rules.

        An exporter without `select` has only settings; see `unused_types`.
        """
        names = _Names.of(self.loaded.config.backends, declared)
        for type_, rule in self.loaded.config.exporters.items():
            if rule.select is None:
                continue
            path: KeyPath = ("exporters", type_)
            exporter = configured_exporter(self.loaded.config, type_, None)
            if exporter is None:
                hint = unknown_type_hint(type_, self.suggester)
                self.complain(path, f"unknown exporter type {type_!r} without a port", hint)
                continue
            if complaint := idle_complaint(exporter):
                self.complain(path, complaint, probe_hint(type_))
            backends = self.selecting(rule.select, names, (*path, "select"))
            offline = self.loaded.config.policy.offline
            if "offline" in rule.model_fields_set:
                offline = rule.offline
            yield SelectRule(
                exporter=exporter,
                backends=backends,
                by_default=rule.select.backends is None,
                lists=names.lists,
                tags_any=_bare(rule.select.tags.any),
                tags_all=_bare(rule.select.tags.all),
                tags_none=_bare(rule.select.tags.none),
                os=frozenset(name.casefold() for name in rule.select.os),
                offline=offline,
            )

    def selecting(self, select: Select, names: _Names, path: KeyPath) -> frozenset[str]:
        """Return the backends that a rule selects from; report unknown and missing ones."""
        if select.backends is None:
            if self.is_read and not names.tailnets:
                what = "there is no Tailscale backend to select machines from"
                there = ", ".join(sorted(names.every)) or "none"
                where = ".".join(map(str, path))
                hint = f"give `backends.tailscale`, or name others in {where}.backends (there are: {there})"
                self.complain(path, what, hint)
            return names.tailnets
        if not select.backends:
            self.complain((*path, "backends"), "no backend to select machines from", "name one, or remove `backends`")
        for index, name in enumerate(select.backends):
            if self.is_read and name not in names.every:
                hint = did_you_mean(name, names.every) or f"there are: {', '.join(sorted(names.every)) or 'none'}"
                self.complain((*path, "backends", index), f"there is no backend {name!r}", hint)
        return frozenset(select.backends)

    def static(self) -> list[Static]:
        """Build the static backends, which come first in the order of trust."""
        return [self._static(name, static) for name, static in sorted(self.loaded.config.backends.static.items())]

    def _static(self, name: str, config: StaticBackend) -> Static:
        lookup = partial(configured_exporter, self.loaded.config)
        endpoints: list[Endpoint] = []
        for job, targets in config.targets.items():
            because = f"config: backends.static.{name}.targets.{job}"
            for index, target in enumerate(targets):
                try:
                    host, exporter = listed_target(job, target, lookup)
                except TargetError as error:
                    self.complain(("backends", "static", name, "targets", job, index), str(error), error.hint)
                    continue
                endpoint = Endpoint(host=host, exporter=exporter, machine=host, because=because, backend=name)
                endpoints.append(endpoint)
        machines = {machine: tuple(addresses) for machine, addresses in config.machines.items()}
        return Static(name=name, machines=machines, endpoints=tuple(endpoints))

    def asked(self, declared: Declared, aliases: Mapping[str, str]) -> Iterator[Backend]:
        """Build the other backends: those of the config and the implied ones."""
        config = self.loaded.config.backends
        implied = _implied(config, declared)
        self.problems += _name_problems(self.loaded, implied)
        tailnets = _DEFAULT_TAILNET if "tailscale" in implied else config.tailscale or {}
        for name, tailnet in sorted(tailnets.items()):
            yield _tailscale(name, tailnet)
        if config.dns or "dns" in implied:
            # DNS is a dozen modules, so it is imported only if it is used.
            from clan_discovery.assemble.dns import DnsBackends  # noqa: PLC0415

            yield from DnsBackends(self.loaded, declared, self.problems, aliases).build()
        if self.loaded.kinds:
            from clan_discovery.assemble.kinds import added_backends  # noqa: PLC0415 - most configs have none

            yield from added_backends(self.loaded, declared, self.problems)


def _implied(config: Backends, declared: Declared) -> set[str]:
    """Return the kinds of backends that a server's `discoveryMethod` implies.

    Kinds that the config sets itself are left out.
    """
    methods = {m for server in declared.servers if server.auto_discovery for m in server.discovery or ()}
    switched_off = {"tailscale": config.tailscale is not None, "dns": config.dns == {}}
    return {kind for kind, is_off in switched_off.items() if kind in methods and not is_off}


def _name_problems(loaded: LoadedConfig, implied: Iterable[str]) -> Iterator[Problem]:
    """Yield a problem for each name of a backend that is already used.

    The name is the value of a label, and names the backend's memory.
    """
    backends = loaded.config.backends
    taken = {"inventory": ("inventory", "is taken by the inventory itself")}
    taken |= {kind: (kind, "is taken by the backend that discoveryMethod implies") for kind in implied}
    added = others_of(backends).items()
    for kind, names in (
        ("tailscale", backends.tailscale),
        ("dns", backends.dns),
        ("static", backends.static),
        *added,
    ):
        for name in names or ():
            owner, why = taken.setdefault(name, (kind, f"is taken by backends.{kind}"))
            if owner != kind:
                yield loaded.problem(("backends", kind, name), f"the name {name!r} {why}", "choose another name")


def _tailscale(name: str, config: TailscaleBackend) -> Backend:
    tags = _bare(config.tags)
    options = TailscaleOptions(backend=name, family=config.family, tags=tags, volatile=config.volatile_labels)
    if config.status_file is not None:
        from clan_discovery.backends.tailscale_file import TailscaleFile  # noqa: PLC0415

        return TailscaleFile(name=name, file=config.status_file, options=options)
    # Importing httpx takes 40 ms, so it is imported only if a socket is asked.
    from clan_discovery.backends.tailscale import TailscaleSocket  # noqa: PLC0415

    socket = config.socket or DEFAULT_SOCKET
    return TailscaleSocket(name=name, socket=socket, options=options, budget=config.timeout)


def _bare(tags: Iterable[str]) -> frozenset[str]:
    return frozenset(tag.removeprefix("tag:") for tag in tags)
