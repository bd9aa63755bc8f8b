"""Compute what an inventory declares. Pure.

This is the members of each role, their settings, and the expected targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from clan_discovery.errors import InputError, refuse
from clan_discovery.inventory.clan import tags
from clan_discovery.inventory.clan.agents import own_exporters, read_agent, read_logs
from clan_discovery.inventory.clan.alerting import AlertingSettings, Origins, read_alerting
from clan_discovery.inventory.clan.components import SERVER, check_alerting, check_dashboards, components_of
from clan_discovery.inventory.clan.decode import attributes, parse_json, shown
from clan_discovery.inventory.clan.keys import FRONT_OPTIONS, SERVER_OPTIONS, Misspellings
from clan_discovery.inventory.clan.options import SettingsReader
from clan_discovery.inventory.clan.service import (
    LISTS,
    ExporterSettings,
    is_server,
    read_exporters,
    read_front,
    read_own_metrics,
    read_server,
)
from clan_discovery.inventory.clan.settings import MalformedSettingsError, merge_settings
from clan_discovery.inventory.clan.storage import STORAGE, check_storage
from clan_discovery.inventory.exporters import default_exporter, idle_complaint
from clan_discovery.inventory.exposed.service import read_services
from clan_discovery.inventory.queries import DUMP, WRITE_DUMP
from clan_discovery.model import (
    COMPUTED_TAGS,
    DarwinPolicy,
    Declared,
    DeclaredAddress,
    DeclaredRole,
    Exclusion,
    Expected,
    Exporter,
    Front,
    Json,
    Machine,
    MachineLimit,
    MachineNeed,
    MachineUnit,
    Pairs,
    Problem,
    Reason,
    ServerSettings,
    Severity,
)
from clan_discovery.syntax.counting import first_names
from clan_discovery.syntax.endpoint import LOOPBACK
from clan_discovery.syntax.suggest import Suggester, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from clan_discovery.inventory.clan.agents import LogsBackend
    from clan_discovery.inventory.clan.components import Component
    from clan_discovery.inventory.clan.exports import Exports
    from clan_discovery.inventory.clan.wire import InventoryJson, WireInstance, WireRole
    from clan_discovery.inventory.exporters import ExporterLookup
    from clan_discovery.inventory.exposed.service import Exposed

_NAMED_MOST: Final = 20

Dump: TypeAlias = Mapping[str, Json]
"""Merged settings (`finalSettings`): service -> instance -> role -> machine -> settings."""


def _option_problem(path: tuple[str | int, ...], what: str, hint: str | None) -> Problem:
    return Problem(where=".".join(map(str, path)), what=what, hint=hint)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to read of an inventory, and what the config adds to it.

    `darwin` selects NixOS exporters of darwin machines. `dump` holds merged settings, which replace the merge done
    here. `tags` are the inventory's tags that the config names, each with its path there. `problem` makes a problem of
    a value in the config, from its path, what is wrong and a hint.
    """

    modules: frozenset[str] = frozenset({"prometheus"})
    instances: Sequence[str] | None = None
    server: str | None = None
    tags: Sequence[tuple[tuple[str | int, ...], str]] = ()
    darwin: DarwinPolicy = "exclude"
    lookup: ExporterLookup = default_exporter
    dump: Dump | None = None
    dump_where: str = "settings dump"
    exports: Exports | None = None
    problem: Callable[[tuple[str | int, ...], str, str | None], Problem] = _option_problem


def parse_dump(body: bytes, where: str) -> Dump:
    """Read the JSON of merged settings.

    Raises:
        InputError: it is not JSON, or not an object of objects.
    """
    top = parse_json(body, where, what="settings dump", hint=WRITE_DUMP)
    if not isinstance(top, Mapping) or not all(isinstance(service, Mapping) for service in top.values()):
        refuse(where, "a settings dump is an object: service, instance, role, machine, settings", WRITE_DUMP)
    return top


def declare(inventory: InventoryJson, options: Options) -> Declared:
    """Read what the inventory declares.

    Raises:
        InputError: settings conflict or are wrong, or the options name something that does not exist. It has all
            problems.
    """
    machines = tags.resolve_machines(inventory)
    members = tags.Members(machines)
    work = _Declaring(inventory, options, machines, members)
    instances = work.chosen()
    work.problems += [*inventory.problems, *members.unknown(inventory)]
    work.read_agents(instances)
    for name, instance in instances.items():
        work.instance(name, instance)
    work.expect_components()
    if instances:
        work.check_server()
    work.check_tags()
    work.check_labels()
    work.apply_auto_discovery()
    addresses: Mapping[str, DeclaredAddress] = {}
    if options.exports is not None:
        work.problems += options.exports.problems
        addresses = {name: address for name, address in options.exports.addresses.items() if name in machines}
    if any(problem.severity == "error" for problem in work.problems):
        # Include the warnings: one of them often explains the error. Severities sort by their names.
        raise InputError(sorted(work.problems, key=lambda problem: problem.severity))
    return Declared(
        machines=tuple(machines[name] for name in sorted(machines)),
        # Servers last: if a server is also declared as an exporter, the exporter's settings are used.
        expected=(*work.expected, *work.serving),
        servers=tuple(work.servers),
        excluded=tuple(work.excluded),
        problems=tuple(work.problems),
        domain=inventory.domain,
        roles=tuple(work.roles),
        addresses=addresses,
        fronts=tuple(work.fronts),
        agents=tuple(sorted(work.agents)),
        limits=tuple(work.limits),
        units=tuple(work.units),
        needs=tuple(work.needs),
    )


class _Site(msgspec.Struct, frozen=True):
    """A role of an instance.

    `dump`: the settings of its members in the dump; None if the dump lacks the instance.
    """

    instance: str
    role: str
    wire: WireRole
    source: WireInstance
    dump: Mapping[str, Mapping[str, Json]] | None

    @property
    def path(self) -> str:
        return f"instances.{self.instance}.roles.{self.role}"


class _ExporterRole(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one machine in role `exporter`."""

    exporters: tuple[ExporterSettings, ...]
    services: tuple[Exposed, ...]
    alerting: AlertingSettings


class _Declaring(msgspec.Struct):
    """Collects what is declared, instance by instance. `agents` has the instance and settings of each agent."""

    inventory: InventoryJson
    options: Options
    machines: Mapping[str, Machine]
    members: tags.Members
    suggester: Suggester = msgspec.field(default_factory=Suggester)
    misspellings: Misspellings = msgspec.field(default_factory=Misspellings)
    expected: list[Expected] = []
    serving: list[Expected] = []
    servers: list[ServerSettings] = []
    excluded: list[Exclusion] = []
    fronts: list[Front] = []
    problems: list[Problem] = []
    roles: list[DeclaredRole] = []
    reported: set[tuple[str, str, str, str]] = set()
    agents: dict[str, tuple[str, Mapping[str, Json]]] = {}
    limits: list[MachineLimit] = []
    units: list[MachineUnit] = []
    needs: list[MachineNeed] = []

    def complain(self, path: str, what: str, hint: str | None = None, *, severity: Severity = "error") -> None:
        where = f"{self.inventory.where}: {path}"
        self.problems.append(Problem(where=where, what=what, hint=hint, severity=severity))

    def chosen(self) -> dict[str, WireInstance]:
        """Return the instances to read: those in the config, or all of the wanted modules."""
        present, named = self.inventory.instances, self.options.instances
        if named is None:
            chosen = {name: i for name, i in sorted(present.items()) if i.module in self.options.modules}
            if not chosen:
                self.complain_no_instance()
            return chosen
        for index, name in enumerate(named):
            if name not in present:
                there = first_names(sorted(present), _NAMED_MOST) or "none"
                hint = self.suggester.did_you_mean(name, present) or f"there are: {there}"
                what = f"the inventory has no instance {name!r}"
                self.problems.append(self.options.problem(("instances", index), what, hint))
        return {name: present[name] for name in sorted(named) if name in present}

    def complain_no_instance(self) -> None:
        modules = ", ".join(sorted(self.options.modules))
        instances = [f"{name} ({i.module})" for name, i in sorted(self.inventory.instances.items())]
        there = first_names(instances, _NAMED_MOST) or "none"
        what = f"no instance is of the module {modules}; there are: {there}"
        self.complain("instances", what, "set inventory.modules or instances", severity="warning")

    def instance(self, name: str, instance: WireInstance) -> None:
        """Read the roles of one instance."""
        self.problems += instance.problems
        readers = (
            ("server", self.server_role),
            ("exporter", self.exporter_role),
            ("front", self.front_role),
            ("alerting", partial(self.checked_role, check_alerting)),
            ("dashboards", partial(self.checked_role, check_dashboards)),
            (STORAGE, partial(self.checked_role, check_storage)),
        )
        for role, read in readers:
            for site in self.sites(role, {name: instance}):
                read(site)
        for role in sorted(instance.roles.keys() - LISTS.keys()):
            # Other roles belong to the module; a role with a similar name is a typo.
            if hint := did_you_mean(role, LISTS):
                self.complain(f"instances.{name}.roles", f"unknown role {role!r}", hint, severity="problem")

    def sites(self, role: str, instances: Mapping[str, WireInstance]) -> Iterator[_Site]:
        """Yield a role of each instance that has it; report members that do not exist."""
        for name, instance in instances.items():
            if role in instance.roles:
                dump = _role_in_dump(self.options.dump or {}, name, role, instance)
                site = _Site(name, role, instance.roles[role], instance, dump)
                self.problems += self.members.strangers(site.wire, f"{self.inventory.where}: {site.path}")
                yield site

    def read_agents(self, instances: Mapping[str, WireInstance]) -> None:
        """Read who sends metrics and logs, before the exporters of these machines.

        Of several stores of logs, the first says how agents send them, as in the clan service.
        """
        stores = [backend for site in self.sites("logs", instances) for backend in self.logs_role(site)]
        for site in self.sites("agent", instances):
            for name, sends_logs in self.agent_role(site, has_store=bool(stores)):
                exporters = own_exporters(vlagent=sends_logs and stores[:1] != ["loki"])
                self.expected += [self.expected_on(site, self.machines[name], exporter) for exporter in exporters]

    def logs_role(self, site: _Site) -> Iterator[LogsBackend]:
        for name, settings in self.settled(site).items():
            reader = self.reader(settings)
            yield read_logs(reader)
            self.report(site, name, reader)

    def agent_role(self, site: _Site, *, has_store: bool) -> Iterator[tuple[str, bool]]:
        """Yield each agent, and whether it sends its logs: if its settings do not say, where the clan has a store."""
        for name, settings in self.settled(site).items():
            reader = self.reader(settings)
            sends_logs = read_agent(reader)
            if sends_logs is None:
                sends_logs = has_store
            self.report(site, name, reader)
            path = f"{site.path} (machine {name})"
            first, first_settings = self.agents.setdefault(name, (site.instance, settings))
            if first != site.instance:
                if first_settings != settings:
                    what = f"{name} has other settings in the role agent of the instance {first}, but one agent"
                    self.complain(path, what, "make them equal, or remove it from one instance", severity="problem")
            elif self.machines[name].machine_class == "darwin":
                del self.agents[name]
                hint = "remove it from the role: its exporters are scraped"
                what = "a darwin machine cannot be an agent: its units are of NixOS"
                self.complain(path, what, hint, severity="problem")
            else:
                yield name, sends_logs

    def expected_on(self, site: _Site, machine: Machine, exporter: Exporter) -> Expected:
        because = f"inventory: instance {site.instance}, role {site.role}"
        return Expected(machine=machine, exporter=exporter, instance=site.instance, role=site.role, because=because)

    def server_role(self, site: _Site) -> None:
        because = f"inventory: instance {site.instance}, role {site.role}, scrapeServers"
        lookup = self.options.lookup
        for name, settings in self.settled(site).items():
            reader = self.reader(settings)
            reader.warn_of_misspelt(SERVER_OPTIONS)
            if is_server(reader):
                own = read_own_metrics(reader, lookup)
                if own is not None:
                    self.expect(site, self.machines[name], own, because)
                # Only the settings of the machine that scrapes are used; it scrapes all servers.
                if self.options.server in (None, name):
                    self.servers.append(read_server(reader, lookup, instance=site.instance, machine=name))
            self.report(site, name, reader)

    def exporter_role(self, site: _Site) -> None:
        # By the settings' id: members share settings objects.
        known: dict[tuple[int, bool], _ExporterRole] = {}
        origins = Origins(site.wire, LISTS[site.role])
        by_tags: dict[tuple[str, ...], str] = {}
        for name, settings in self.settled(site).items():
            machine = self.machines[name]
            key = id(settings), name in self.agents
            if key not in known:
                reader = self.reader(settings)
                known[key] = _ExporterRole(
                    exporters=read_exporters(reader, self.options.lookup, is_agent=name in self.agents),
                    services=read_services(reader, self.options.lookup),
                    alerting=read_alerting(reader),
                )
                self.report(site, name, reader)
            if name in site.wire.machines:
                because = f"inventory: instance {site.instance}, role {site.role}, named"
            else:
                if machine.tags not in by_tags:
                    tag = next(tag for tag in machine.tags if tag in site.wire.tags)
                    by_tags[machine.tags] = f"inventory: instance {site.instance}, role {site.role}, tag {tag}"
                because = by_tags[machine.tags]
            role = known[key]
            for found in role.exporters:
                self.expect(site, machine, found, because)
            for service in role.services:
                self.expose(site, machine, service)
            self.alert(site, machine, role.alerting, origins)

    def alert(self, site: _Site, machine: Machine, settings: AlertingSettings, origins: Origins) -> None:
        """Add the limits, units and needs of a machine, each with the part of the role that sets it."""
        because = f"inventory: instance {site.instance}, role {site.role}"
        name = machine.name
        for limit, value in settings.limits.items():
            origin = because + origins.of(machine, "limits", limit)
            self.limits.append(MachineLimit(machine=name, name=limit, value=value, because=origin))
        for unit in settings.units:
            origin = because + origins.of(machine, "units", unit)
            self.units.append(MachineUnit(machine=name, unit=unit, because=origin))
        where = f"{self.inventory.where}: {site.path}.machines.{name}.settings.needs"
        for on in settings.needs:
            origin = because + origins.of(machine, "needs", on)
            self.needs.append(MachineNeed(machine=name, on=on, because=origin, where=where))

    def front_role(self, site: _Site) -> None:
        because = f"inventory: instance {site.instance}, role {site.role}, metrics"
        for name, settings in self.settled(site).items():
            reader = self.reader(settings)
            reader.warn_of_misspelt(FRONT_OPTIONS)
            own = read_front(reader, self.options.lookup)
            if own is not None:
                self.expect(site, self.machines[name], own, because)
            self.report(site, name, reader)

    def checked_role(self, check: Callable[[SettingsReader], None], site: _Site) -> None:
        """Check the settings of a role without exporters; its own metrics are components."""
        for name, settings in self.settled(site).items():
            reader = self.reader(settings)
            check(reader)
            self.report(site, name, reader)

    def expect_components(self) -> None:
        """Expect the programs of the roles, or exclude them with the reason, but those that are expected already."""
        known = {(e.machine.name, e.exporter.type, e.exporter.port) for e in (*self.expected, *self.serving)}
        for component in components_of(self.roles):
            key = component.machine, component.type, component.port
            if key not in known:
                known.add(key)
                self.component(component)

    def component(self, component: Component) -> None:
        """Expect a program, or exclude it with the reason."""
        machine = self.machines[component.machine]
        # The metrics of servers are not sent by an agent.
        is_agent = machine.name in self.agents and component.role != SERVER
        exporter = self.options.lookup(component.type, component.port)
        if machine.machine_class == "darwin" and self.options.darwin not in ("include", component.type):
            self.exclude(machine, "darwin", _darwin_detail(component.type), component.type)
        elif component.is_local and not is_agent and machine.name != self.options.server:
            detail = f"{component.type} listens on {component.address}, which no other machine can reach"
            self.exclude(machine, "loopback", detail, component.type)
        elif exporter is not None:
            host = LOOPBACK
            if not component.is_local:
                host = component.address if is_agent else ""
            because = f"inventory: instance {component.instance}, role {component.role}"
            expected = Expected(
                machine=machine,
                exporter=exporter,
                instance=component.instance,
                role=component.role,
                because=because,
                host=host,
            )
            self.expected.append(expected)

    def reader(self, settings: Mapping[str, Json]) -> SettingsReader:
        return SettingsReader(settings, suggester=self.suggester, misspellings=self.misspellings)

    def expect(self, site: _Site, machine: Machine, found: ExporterSettings, because: str) -> None:
        """Expect an exporter on a machine, or exclude it with the reason."""
        exporter = found.exporter
        is_agent = machine.name in self.agents
        if exporter is None:
            detail = f"its settings say exporters.{found.type}.enable = false"
            self.exclude(machine, "disabled", detail, found.type)
        elif machine.machine_class == "darwin" and found.nixos and self.options.darwin not in ("include", found.type):
            self.exclude(machine, "darwin", _darwin_detail(found.type), found.type)
        elif found.loopback is not None and not is_agent:
            detail = f"listenAddress is {found.loopback!r}, which no other machine can reach"
            self.exclude(machine, "loopback", detail, found.type)
        elif idle := idle_complaint(exporter):
            self.exclude(machine, "probe_without_target", idle, found.type)
        else:
            host = found.host if is_agent else ""
            expected = Expected(
                machine=machine, exporter=exporter, instance=site.instance, role=site.role, because=because, host=host
            )
            into = self.serving if site.role == "server" else self.expected
            into.append(expected)

    def expose(self, site: _Site, machine: Machine, service: Exposed) -> None:
        """Expect what a machine exposes, or exclude it with the reason, and add its front."""
        because = f"inventory: instance {site.instance}, role {site.role}, expose.{service.name}"
        where = f"{self.inventory.where}: {site.path}.machines.{machine.name}.settings.expose.{service.name}"
        self.fronts += service.front_of(machine.name, because, where)
        is_local = machine.name in (self.options.server, *self.agents)
        target = service.target_of(machine, because, where, is_local=is_local)
        if isinstance(target, Exclusion):
            self.excluded.append(target)
        elif target is not None:
            self.expected.append(msgspec.structs.replace(target, instance=site.instance, role=site.role))

    def exclude(self, machine: Machine, reason: Reason, detail: str, job: str) -> None:
        self.excluded.append(Exclusion(name=machine.name, reason=reason, detail=detail, by="inventory", job=job))

    def settled(self, site: _Site) -> Mapping[str, Mapping[str, Json]]:
        """Return the merged settings of each member.

        Members with the same tags and without settings of their own share one object, which is merged once.
        """
        dump = site.dump or {}
        found: dict[str, Mapping[str, Json]] = {}
        shared: dict[tuple[str, ...], Mapping[str, Json]] = {}
        for machine, matched in self.members.of(site.wire):
            own = site.wire.machines.get(machine.name)
            if machine.name in dump:
                found[machine.name] = dump[machine.name]
            elif own:
                found[machine.name] = self.merge(site, machine, own, matched)
            else:
                if matched not in shared:
                    shared[matched] = self.merge(site, machine, {}, matched)
                found[machine.name] = shared[matched]
        self.check_dump(site, found)
        role = DeclaredRole(
            instance=site.instance, module=site.source.module, source=site.source.source, role=site.role, members=found
        )
        self.roles.append(role)
        return found

    def check_dump(self, site: _Site, members: Iterable[str]) -> None:
        """Report an instance or members of the role that the dump lacks."""
        if self.options.dump is None:
            return
        if site.dump is None:
            what = f"the settings dump lacks the instance {site.instance!r}"
            self.complain(site.path, what, f"write it again: {DUMP}", severity="problem")
        elif unknown := [name for name in members if name not in site.dump]:
            what = f"the settings dump lacks {first_names(unknown, 5)}: their settings are merged without Nix"
            self.complain(site.path, what, "write the dump again", severity="warning")

    def merge(self, site: _Site, machine: Machine, own: Json, matched: tuple[str, ...]) -> Mapping[str, Json]:
        """Merge settings as clan-core does.

        The role's settings are merged with a module that imports the settings of the machine and its tags.
        """
        nested: Json = {"imports": [own, *(site.wire.tags[tag] for tag in matched)]}
        try:
            merged = merge_settings([{"imports": [site.wire.settings]}, nested], LISTS[site.role])
        except (MalformedSettingsError, RecursionError) as error:
            what = str(error) if isinstance(error, MalformedSettingsError) else "is nested too deeply"
            self.complain(f"{site.path} (machine {machine.name}).settings", what)
            return {}
        for conflict in merged.conflicts:
            left, right = (shown(value, conflict.option) for value in conflict.values)
            self.complain(
                f"{site.path}.machines.{machine.name}.settings.{'.'.join(conflict.option)}",
                f"conflicting definitions: {left} and {right} (role, tags and machine have equal priority)",
                "lib.mkForce on the one that should win, or lib.mkDefault on the other",
            )
        return merged.values

    def report(self, site: _Site, machine: str, reader: SettingsReader) -> None:
        """Report wrong settings.

        A mistake in the role's own settings occurs for every member, and is reported once.
        """
        file = self.options.dump_where if machine in (site.dump or {}) else self.inventory.where
        for option, what, hint, severity in reader.complaints:
            key = site.instance, site.role, option, what
            if key not in self.reported:
                self.reported.add(key)
                where = f"{file}: {site.path}.machines.{machine}.settings.{option}"
                self.problems.append(Problem(where=where, what=what, hint=hint, severity=severity))

    def check_server(self) -> None:
        """Report a `server` in the config that has no server role in the inventory."""
        server = self.options.server
        servers = {name for role in self.roles if role.role == "server" for name in role.members}
        if server is None or server in servers:
            return
        if server not in self.machines:
            what = f"the server {server!r} is not a machine of the inventory"
            hint = did_you_mean(server, servers) or did_you_mean(server, self.machines)
            self.problems.append(self.options.problem(("server",), what, hint))
            return
        what = f"{server!r} has no server role in the inventory; servers are: {', '.join(sorted(servers)) or 'none'}"
        problem = self.options.problem(("server",), what, None)
        if not servers:  # the inventory declares no server, so the config does not contradict it
            problem = msgspec.structs.replace(problem, severity="warning")
        self.problems.append(problem)

    def check_tags(self) -> None:
        """Report each tag in the config that the inventory does not have.

        Only `check` fails because of it: the last machine with a tag may leave the clan, and the others must stay
        monitored.
        """
        known = self.members.tags | self.inventory.tags.keys() | COMPUTED_TAGS
        for path, tag in self.options.tags:
            if tag not in known:
                what = f"the inventory has no tag {tag!r}"
                hint = self.suggester.did_you_mean(tag, known)
                if hint is None and path[:2] == ("policy", "offline_tags"):
                    hint = f"if it is an ACL tag, write 'tag:{tag}'"
                problem = self.options.problem(path, what, hint)
                self.problems.append(msgspec.structs.replace(problem, severity="problem"))

    def apply_auto_discovery(self) -> None:
        """Exclude the exporters if all servers have `enableAutoDiscovery = false`.

        The servers themselves and what agents send stay expected.
        """
        if not self.servers or any(server.auto_discovery for server in self.servers):
            return
        detail = "every server has enableAutoDiscovery = false"
        for expected in self.expected:
            if expected.machine.name not in self.agents:
                self.exclude(expected.machine, "auto_discovery_off", detail, expected.exporter.type)
        self.expected = [expected for expected in self.expected if expected.machine.name in self.agents]

    def check_labels(self) -> None:
        """Warn about an exporter that is declared twice with different labels.

        The first declaration is used.
        """
        first: dict[tuple[str, str, int, str, Pairs], Expected] = {}
        for expected in self.expected:
            exporter = expected.exporter
            key = expected.machine.name, exporter.type, exporter.port, exporter.path, exporter.params
            other = first.setdefault(key, expected)
            if other.exporter.labels != exporter.labels:
                what = f"{exporter.type} on {expected.machine.name} is declared by {other.instance} with other labels"
                self.complain(
                    f"instances.{expected.instance}", what, "the labels of the first are used", severity="warning"
                )


def _darwin_detail(type_: str) -> str:
    """Tell why an exporter of a darwin machine is no target, and what would make it one."""
    if type_ == "node":
        return "policy.darwin is exclude: set it to node for the node exporter of nix-darwin"
    return f"nix-darwin has no exporter {type_!r} (policy.darwin: include)"


def _role_in_dump(dump: Dump, name: str, role: str, instance: WireInstance) -> Mapping[str, Mapping[str, Json]] | None:
    """Return the role's members in a dump.

    They are under clan's key `<input>-<module>`, or under any other key that has the instance.
    """
    key = f"{instance.source or '<clan-core>'}-{instance.module}"
    for service in (dump.get(key), *dump.values()):
        roles = attributes(service).get(name)
        if isinstance(roles, Mapping):
            members = attributes(roles.get(role))
            return {name: settings for name, settings in members.items() if isinstance(settings, Mapping)}
    return None
