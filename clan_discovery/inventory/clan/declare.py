"""Puts the inventory together: who is a member, with which settings, and so which targets are expected. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from clan_discovery.errors import InputError
from clan_discovery.inventory.clan import tags
from clan_discovery.inventory.clan.service import (
    LISTS,
    Complaints,
    ExporterSettings,
    read_exporters,
    read_own_metrics,
    read_server,
)
from clan_discovery.inventory.clan.settings import MalformedSettingsError, merge_settings
from clan_discovery.inventory.clan.wire import InventoryJson, WireInstance, WireRole, parse_json, shown
from clan_discovery.inventory.exporters import default_exporter
from clan_discovery.inventory.queries import DUMP, WRITE_DUMP
from clan_discovery.model import (
    Declared,
    DeclaredRole,
    Exclusion,
    Expected,
    Exporter,
    Json,
    Machine,
    Pairs,
    Problem,
    ServerSettings,
    Severity,
)
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clan_discovery.inventory.clan.exports import Exports

_Reason: TypeAlias = Literal["auto_discovery_off", "darwin", "disabled", "probe_without_target"]

Dump: TypeAlias = Mapping[str, Json]
"""Merged settings (`finalSettings`): service -> instance -> role -> machine -> settings."""

_SEVERITIES: Final[tuple[Severity, ...]] = ("error", "problem", "warning")


def _anywhere(key: str, value: str) -> str:
    return f"{key} {value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What of an inventory is wanted, and what the config adds to it.

    `lookup` gives the exporter of a type and port with its defaults; `darwin` says whether darwin machines may
    bear NixOS exporters; `dump` holds merged settings, which win over merging here; `exports` say where machines
    are. `where` names the place of one of these in the config (the key, and the value that is wrong).
    """

    modules: frozenset[str] = frozenset({"prometheus"})
    instances: tuple[str, ...] | None = None
    server: str | None = None
    darwin: bool = False
    lookup: Callable[[str, int | None], Exporter | None] = default_exporter
    dump: Dump | None = None
    dump_where: str = "settings dump"
    exports: Exports | None = None
    where: Callable[[str, str], str] = _anywhere


def parse_dump(body: bytes, where: str) -> Dump:
    """Read the JSON of a merged settings dump.

    Raises:
        InputError: it is no JSON or no object of objects.
    """
    hint = WRITE_DUMP
    top = parse_json(body, where, what="settings dump", hint=hint)
    if not isinstance(top, Mapping) or not all(isinstance(service, Mapping) for service in top.values()):
        what = "a settings dump is an object: service, instance, role, machine, settings"
        raise InputError([Problem(where=where, what=what, hint=hint)])
    return top


def declare(inventory: InventoryJson, options: Options) -> Declared:
    """Read what the inventory declares.

    Raises:
        InputError: settings conflict or are wrong, or the options name what is not there; all complaints at once.
    """
    machines = tags.resolve_machines(inventory)
    work = _Declaring(inventory, options, machines)
    instances = work.wanted()
    work.problems += [*inventory.problems, *tags.unknown_members(inventory)]
    for name, instance in instances.items():
        work.problems += inventory.by_instance.get(name, ())
        work.instance(name, instance)
    work.check_server(instances)
    work.check_labels()
    work.heed_servers()
    exports = options.exports
    work.problems += exports.problems if exports is not None else ()
    if any(problem.severity == "error" for problem in work.problems):
        # With the warnings: what stands in one is often why there is an error.
        raise InputError(sorted(work.problems, key=lambda p: _SEVERITIES.index(p.severity)))
    return Declared(
        machines=tuple(machines[name] for name in sorted(machines)),
        # After the exporters: where one of them is the server's own, it is as the role `exporter` says.
        expected=(*work.expected, *work.serving),
        servers=tuple(work.servers),
        excluded=tuple(work.excluded),
        problems=tuple(work.problems),
        domain=inventory.domain,
        roles=tuple(work.roles),
        homes={} if exports is None else {name: home for name, home in exports.homes.items() if name in machines},
    )


@dataclass(frozen=True, slots=True)
class _Site:
    """The place of a role in the inventory, for messages."""

    instance: str
    role: str
    wire: WireRole
    source: WireInstance

    @property
    def path(self) -> str:
        return f"instances.{self.instance}.roles.{self.role}"


@dataclass(slots=True)
class _Declaring:
    inventory: InventoryJson
    options: Options
    machines: Mapping[str, Machine]
    expected: list[Expected] = field(default_factory=list[Expected])
    serving: list[Expected] = field(default_factory=list[Expected])
    servers: list[ServerSettings] = field(default_factory=list[ServerSettings])
    all_servers: set[str] = field(default_factory=set[str])
    excluded: list[Exclusion] = field(default_factory=list[Exclusion])
    problems: list[Problem] = field(default_factory=list[Problem])
    roles: list[DeclaredRole] = field(default_factory=list[DeclaredRole])
    borne: frozenset[str] = frozenset()
    told: set[tuple[str, str, str, str]] = field(default_factory=set[tuple[str, str, str, str]])

    def complain(self, path: str, what: str, hint: str | None = None, *, severity: Severity = "error") -> None:
        where = f"{self.inventory.where}: {path}" if path else self.inventory.where
        self.problems.append(Problem(where=where, what=what, hint=hint, severity=severity))

    def wanted(self) -> dict[str, WireInstance]:
        """Pick the instances: those that the config names, else every one of the wanted modules."""
        present, wanted = self.inventory.instances, self.options.instances
        self.borne = frozenset(tag for machine in self.machines.values() for tag in machine.tags)
        if wanted is not None:
            for name in wanted:
                if name not in present:
                    hint = did_you_mean(name, present) or f"there are: {', '.join(sorted(present)) or 'none'}"
                    what = f"the inventory has no instance {name!r}"
                    self.problems.append(Problem(where=self.options.where("instances", name), what=what, hint=hint))
            return {name: present[name] for name in sorted(wanted) if name in present}
        chosen = {name: i for name, i in sorted(present.items()) if i.module in self.options.modules}
        if not chosen:
            modules = ", ".join(sorted(self.options.modules))
            there = ", ".join(f"{n} ({i.module})" for n, i in sorted(present.items())) or "none"
            what = f"no instance is of the module {modules}; there are: {there}"
            self.complain("instances", what, "set inventory.modules or instances", severity="warning")
        return chosen

    def instance(self, name: str, instance: WireInstance) -> None:
        for role_name in ("server", "exporter"):
            if role_name not in instance.roles:
                continue
            site = _Site(name, role_name, instance.roles[role_name], instance)
            place = f"{self.inventory.where}: {site.path}"
            self.problems += tags.strangers(site.wire, self.machines, self.borne, place)
            if role_name == "server":
                self.server_role(site)
            else:
                self.exporter_role(site)
        for role_name in sorted(instance.roles.keys() - {"server", "exporter"}):
            # Another role is the module's own business; one that is nearly ours is a typo.
            if hint := did_you_mean(role_name, ("server", "exporter")):
                self.complain(f"instances.{name}.roles", f"unknown role {role_name!r}", hint, severity="problem")

    def server_role(self, site: _Site) -> None:
        because = f"inventory: instance {site.instance}, role {site.role}, scrapeServers"
        for machine, settings, _ in self.settled(site):
            self.all_servers.add(machine.name)
            complaints = Complaints()
            own = read_own_metrics(settings, complaints, self.options.lookup)
            if own is not None:
                self.expect(site, machine, own, because)
            # The wishes are those of the machine that scrapes; what it scrapes are all servers.
            if self.options.server in (None, machine.name):
                server = read_server(
                    settings,
                    complaints,
                    instance=site.instance,
                    machine=machine.name,
                    lookup=self.options.lookup,
                )
                self.servers.append(server)
            self.report(site, machine, complaints)

    def exporter_role(self, site: _Site) -> None:
        # The settings stand beside what was read of them: an id names an object only while it lives.
        read: dict[int, tuple[Mapping[str, Json], tuple[ExporterSettings, ...]]] = {}
        for machine, settings, first in self.settled(site):
            if id(settings) not in read:
                complaints = Complaints()
                read[id(settings)] = settings, read_exporters(settings, complaints, self.options.lookup)
                if first:
                    self.report(site, machine, complaints)
            how = "named" if machine.name in site.wire.machines else f"tag {self.tag_of(site, machine)}"
            because = f"inventory: instance {site.instance}, role {site.role}, {how}"
            for found in read[id(settings)][1]:
                self.expect(site, machine, found, because)

    def expect(self, site: _Site, machine: Machine, found: ExporterSettings, because: str) -> None:
        if found.disabled:
            detail = f"its settings say exporters.{found.type}.enable = false"
            self.exclude(machine, "disabled", detail, found.type)
        elif machine.machine_class == "darwin" and found.nixos and not self.options.darwin:
            detail = f"a darwin machine has no NixOS exporter {found.type!r} (policy.darwin: include)"
            self.exclude(machine, "darwin", detail, found.type)
        elif found.exporter is None:
            detail = f"{found.type} probes others: it serves nothing without a `target` setting"
            self.exclude(machine, "probe_without_target", detail, found.type)
        else:
            (self.serving if site.role == "server" else self.expected).append(
                Expected(
                    machine=machine,
                    exporter=found.exporter,
                    instance=site.instance,
                    role=site.role,
                    because=because,
                )
            )

    def tag_of(self, site: _Site, machine: Machine) -> str:
        return next((tag for tag in machine.tags if tag in site.wire.tags), "")

    def exclude(self, machine: Machine, reason: _Reason, detail: str, job: str) -> None:
        self.excluded.append(Exclusion(name=machine.name, reason=reason, detail=detail, by="inventory", job=job))

    def settled(self, site: _Site) -> Iterator[tuple[Machine, Mapping[str, Json], bool]]:
        """Yield each member with its merged settings; True with the first of those that share them.

        Members without settings of their own and with the same tags have the same settings: they are merged once.
        """
        found: dict[str, Mapping[str, Json]] = {}
        for machine, settings, first in self._settled(site):
            found[machine.name] = settings
            yield machine, settings, first
        self.roles.append(
            DeclaredRole(
                instance=site.instance,
                module=site.source.module,
                source=site.source.source,
                role=site.role,
                members=found,
            )
        )

    def _settled(self, site: _Site) -> Iterator[tuple[Machine, Mapping[str, Json], bool]]:
        shared: dict[tuple[str, ...], Mapping[str, Json]] = {}
        dump = self.dump_of(site)
        unknown: list[str] = []
        for machine, matched in tags.members(site.wire, self.machines):
            final = None if dump is None else dump.get(machine.name)
            if isinstance(final, Mapping):
                yield machine, final, True
                continue
            if dump is not None:
                unknown.append(machine.name)
            own = site.wire.machines.get(machine.name)
            if own:
                yield machine, self.merge(site, machine, own, matched), True
            elif matched in shared:
                yield machine, shared[matched], False
            else:
                shared[matched] = self.merge(site, machine, None, matched)
                yield machine, shared[matched], True
        if unknown:
            names = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
            what = f"the settings dump does not know {names}: settings are merged here"
            self.complain(site.path, what, "write the dump again", severity="warning")

    def dump_of(self, site: _Site) -> Mapping[str, Json] | None:
        """Find the role of this instance in the dump, under clan's key `<input>-<module>` or wherever it is."""
        found = self._dumped(site)
        if found is not None or self.options.dump is None:
            return found
        what = f"the settings dump does not know the instance {site.instance!r}"
        self.complain(site.path, what, f"write it again: {DUMP}", severity="problem")
        return None

    def _dumped(self, site: _Site) -> Mapping[str, Json] | None:
        dump = self.options.dump or {}
        key = f"{site.source.source or '<clan-core>'}-{site.source.module}"
        for service in (dump.get(key), *dump.values()):
            if isinstance(service, Mapping) and isinstance(instance := service.get(site.instance), Mapping):
                role = instance.get(site.role)
                return role if isinstance(role, Mapping) else {}
        return None

    def merge(self, site: _Site, machine: Machine, own: Json, matched: tuple[str, ...]) -> Mapping[str, Json]:
        """Merge as clan-core does: the role's module, then one that imports the machine's and its tags'."""
        nested: Json = {"imports": [own or {}, *(site.wire.tags[tag] for tag in matched)]}
        try:
            merged = merge_settings([{"imports": [site.wire.settings]}, nested], LISTS[site.role])
        except (MalformedSettingsError, RecursionError) as error:
            what = str(error) if isinstance(error, MalformedSettingsError) else "is nested too deeply"
            self.complain(f"{site.path} (machine {machine.name}).settings", what)
            return {}
        for conflict in merged.conflicts:
            left, right = map(shown, conflict.values)
            self.complain(
                f"instances.{site.instance}.roles.{site.role}.machines.{machine.name}.settings."
                f"{'.'.join(conflict.option)}",
                f"conflicting definitions: {left} and {right} (role, tags and machine have equal priority)",
                "lib.mkForce on the one that should win, or lib.mkDefault on the other",
            )
        return merged.values

    def report(self, site: _Site, machine: Machine, complaints: Complaints) -> None:
        for option, what, hint in complaints.found:
            # What the role says is wrong for every machine: it is told once, with the first of them.
            if (site.instance, site.role, option, what) not in self.told:
                self.told.add((site.instance, site.role, option, what))
                path = f"{site.path}.machines.{machine.name}.settings.{option}"
                in_dump = self.options.dump_where if self.from_dump(site, machine) else None
                where = in_dump or self.inventory.where
                self.problems.append(Problem(where=f"{where}: {path}", what=what, hint=hint))

    def from_dump(self, site: _Site, machine: Machine) -> bool:
        """Tell whether a machine's settings came from the dump."""
        role = self._dumped(site)
        return role is not None and isinstance(role.get(machine.name), Mapping)

    def check_server(self, instances: Mapping[str, WireInstance]) -> None:
        """Say so when the machine that the config calls the server is none."""
        server = self.options.server
        if server is None or server in self.all_servers or not instances:
            return
        if server in self.machines:
            there = ", ".join(sorted(self.all_servers)) or "none"
            what = f"{server!r} has no server role in the inventory; servers are: {there}"
            hint = None
        else:
            what = f"the server {server!r} is no machine of the inventory"
            hint = did_you_mean(server, self.all_servers) or did_you_mean(server, self.machines)
        # Where the inventory has no server at all, the config alone says who scrapes: nothing is contradicted.
        alone = server in self.machines and not self.all_servers
        where = self.options.where("server", server)
        self.problems.append(Problem(where=where, what=what, hint=hint, severity="warning" if alone else "error"))

    def heed_servers(self) -> None:
        """Take the exporters off the list where all servers have `enableAutoDiscovery = false`; servers stay on it."""
        if not self.servers or any(server.auto_discovery for server in self.servers):
            return
        detail = "every server has enableAutoDiscovery = false"
        for expected in self.expected:
            self.exclude(expected.machine, "auto_discovery_off", detail, expected.exporter.type)
        self.expected.clear()

    def check_labels(self) -> None:
        """Tell where one endpoint is declared twice with different labels: the first stands."""
        first: dict[tuple[str, str, int, str, Pairs], Expected] = {}
        for expected in self.expected:
            exporter = expected.exporter
            key = expected.machine.name, exporter.type, exporter.port, exporter.path, exporter.params
            other = first.setdefault(key, expected)
            if other.exporter.labels != exporter.labels:
                what = f"{exporter.type} on {expected.machine.name} is declared by {other.instance} with other labels"
                self.complain(f"instances.{expected.instance}", what, "those of the first stand", severity="warning")
