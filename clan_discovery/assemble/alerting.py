"""Add what alert rules read of machines: limits, units and needs of the config and of declared services. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from clan_discovery.assemble.circles import circles, walk
from clan_discovery.assemble.tags import alerting_tags
from clan_discovery.config.models import others_of
from clan_discovery.model import EVERY_MACHINE, MachineLimit, MachineNeed, MachineUnit, Problem, dependencies, placed
from clan_discovery.syntax.suggest import Suggester
from clan_discovery.syntax.units import unit_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.config.models import Config, LimitValues
    from clan_discovery.model import Declared, Machine
    from clan_discovery.syntax.tree import KeyPath

Given = TypeVar("Given")
_SHOWN: Final = 8
"""How many names of a circle a message has."""


def with_alerting(loaded: LoadedConfig, declared: Declared) -> Declared:
    """Return what is declared, with the limits, units and needs of the config and of the services.

    An unknown machine or tag is a problem, and so are two tags of one machine with different limits. Needs that go in a
    circle are left out.
    """
    adding = _Adding(loaded, declared)
    limits = {(limit.machine, limit.name): limit for limit in adding.limits()}
    units: dict[tuple[str, str], MachineUnit] = {}
    for unit in adding.units():
        units.setdefault((unit.machine, unit.unit), unit)
    needs: dict[tuple[str, str], MachineNeed] = {}
    for need in adding.needs():
        if need.machine != need.on:
            needs.setdefault((need.machine, need.on), need)
    adding.leave_out_circles(needs)
    return msgspec.structs.replace(
        declared,
        limits=tuple(limits.values()),
        units=tuple(units.values()),
        needs=tuple(needs.values()),
        problems=(*declared.problems, *adding.problems, *adding.unknown_machines(), *adding.unknown_tags()),
    )


class _Adding:
    """Reads the limits, units and needs of a config, and collects problems."""

    def __init__(self, loaded: LoadedConfig, declared: Declared) -> None:
        self._loaded = loaded
        self._declared = declared
        self._machines = {machine.name.casefold(): machine.name for machine in declared.machines}
        self._suggester = Suggester()
        self.problems: list[Problem] = []

    def limits(self) -> Iterator[MachineLimit]:
        """Yield the limits; of two for one machine and name, the later one wins."""
        config = self._loaded.config.limits
        for name, value in _values(config.default).items():
            yield MachineLimit(machine=EVERY_MACHINE, name=name, value=value, because="config: limits.default")
        yield from self._limits_of_inventory()
        yield from self._limits_of_tags(config.tags)
        for machine, values in config.machines.items():
            because = f"config: limits.machines.{machine}"
            for name, value in _values(values).items():
                yield MachineLimit(machine=self._name(machine), name=name, value=value, because=because)

    def _limits_of_inventory(self) -> Iterator[MachineLimit]:
        first: dict[tuple[str, str], MachineLimit] = {}
        told: set[tuple[str, str, str]] = set()  # of a role with many members, once
        for limit in self._declared.limits:
            other = first.setdefault((limit.machine, limit.name), limit)
            if other is limit:
                yield limit
            elif other.value != limit.value and (limit.name, limit.because, other.because) not in told:
                told.add((limit.name, limit.because, other.because))
                what = (
                    f"the limit {limit.name} of {limit.machine} is {limit.value:g} here and {other.value:g} in "
                    f"{other.because}; the latter is used"
                )
                self.problems.append(
                    Problem(where=limit.because, what=what, hint="set it in one instance", severity="problem")
                )

    def _limits_of_tags(self, tags: Mapping[str, LimitValues]) -> Iterator[MachineLimit]:
        given = {tag: _values(values) for tag, values in tags.items()}
        told: set[tuple[str, str, str]] = set()
        for machine in self._declared.machines:
            first: dict[str, str] = {}
            for tag, values in _of_tags(machine, given):
                for name, value in values.items():
                    other = first.setdefault(name, tag)
                    if other == tag:
                        because = f"config: limits.tags.{tag}"
                        yield MachineLimit(machine=machine.name, name=name, value=value, because=because)
                    elif given[other][name] != value and (other, tag, name) not in told:
                        told.add((other, tag, name))
                        own = self._loaded.config.limits.machines.get(machine.name)
                        if own is None or name not in _values(own):
                            self._differing(machine, name, (other, tag), (given[other][name], value))

    def _differing(self, machine: Machine, name: str, tags: tuple[str, str], values: tuple[float, float]) -> None:
        what = (
            f"{machine.name} has the tags {tags[0]} and {tags[1]}, and their limits differ: "
            f"{values[0]:g} and {values[1]:g}; the first is used"
        )
        hint = f"make them equal, or set limits.machines.{machine.name}.{name}"
        path = ("limits", "tags", tags[1], name)
        self.problems.append(self._loaded.problem(path, what, hint, severity="problem"))

    def units(self) -> Iterator[MachineUnit]:
        """Yield the units that must be active, as the config, the inventory and the services say."""
        config = self._loaded.config.units
        for machine, names in config.machines.items():
            yield from self._units(self._name(machine), names, f"config: units.machines.{machine}")
        for one in self._declared.machines:
            for tag, names in _of_tags(one, config.tags):
                yield from self._units(one.name, names, f"config: units.tags.{tag}")
        yield from self._declared.units
        for service in self._declared.services:
            yield from self._units(service.machine, service.units, placed(service.because, service.where))

    def _units(self, machine: str, names: Iterable[str], because: str) -> Iterator[MachineUnit]:
        for name in names:
            yield MachineUnit(machine=machine, unit=unit_name(name) or name, because=because)

    def needs(self) -> Iterator[MachineNeed]:
        """Yield which machine needs which, as the config, the inventory and the services say."""
        for machine, others in self._loaded.config.needs.items():
            for other in others:
                because = f"config: needs.{machine}"
                yield MachineNeed(machine=self._name(machine), on=self._name(other), because=because)
        yield from self._needs_of_inventory()
        for service, on in dependencies(self._declared.services):
            because = f"{placed(service.because, service.where)} depends on {on.name}"
            yield MachineNeed(machine=service.machine, on=on.machine, because=because)

    def _needs_of_inventory(self) -> Iterator[MachineNeed]:
        """Yield the needs in the inventory; a machine that no source declares is a problem."""
        told: set[str] = set()
        for need in self._declared.needs:
            if need.on.casefold() in self._machines:
                yield msgspec.structs.replace(need, on=self._name(need.on))
            elif need.on not in told:
                told.add(need.on)
                what = f"no source declares a machine {need.on!r}"
                hint = self._suggester.did_you_mean(need.on, self._machines.values())
                self.problems.append(Problem(where=need.where, what=what, hint=hint, severity="problem"))

    def leave_out_circles(self, needs: dict[tuple[str, str], MachineNeed]) -> None:
        """Remove the needs within each circle, and warn.

        While all machines of a circle are down, they would inhibit the alerts of each other, and no mail would be sent.
        """
        for pairs in circles(needs):
            names = walk(pairs)
            shown = " needs ".join(names[:_SHOWN])
            if len(names) > _SHOWN:
                shown += f" needs ... ({len(names) - 1} machines)"
            first = needs[names[0], names[1]]
            what = f"needs go in a circle: {shown}; while they do, they inhibit no alert"
            where, hint = first.where or first.because, "remove one of them"
            self.problems.append(Problem(where=where, what=what, hint=hint, severity="warning"))
            for pair in pairs:
                del needs[pair]

    def _name(self, machine: str) -> str:
        """Return the name of a machine as its source writes it."""
        return self._machines.get(machine.casefold(), machine)

    def unknown_machines(self) -> Iterator[Problem]:
        """Yield a problem for each machine in these keys that nothing declares or lists."""
        config = self._loaded.config
        if finds_machines(config, self._declared):
            return
        static = config.backends.static.values()
        known = {*self._machines, *(name.casefold() for lists in static for name in lists.machines)}
        known |= {text.rpartition(":")[0] or text for lists in static for of in lists.targets.values() for text in of}
        for path, name in _named_machines(config):
            if name.casefold() not in known:
                hint = self._suggester.did_you_mean(name, self._machines.values()) or "name a declared machine"
                yield self._loaded.problem(path, f"no source declares a machine {name!r}", hint, severity="problem")

    def unknown_tags(self) -> Iterator[Problem]:
        """Yield a problem for each tag in these keys that no machine has. A clan's tags are checked with the clan."""
        sources = self._loaded.config.inventory
        if sources is not None and sources.has_clan:
            return
        known = {tag for machine in self._declared.machines for tag in machine.tags}
        for path, tag in alerting_tags(self._loaded.config):
            if tag not in known:
                hint = self._suggester.did_you_mean(tag, known)
                yield self._loaded.problem(path, f"no machine has the tag {tag!r}", hint, severity="problem")


def _named_machines(config: Config) -> Iterator[tuple[KeyPath, str]]:
    for key, machines in (("limits", config.limits.machines), ("units", config.units.machines)):
        for machine in machines:
            yield (key, "machines", machine), machine
    for machine, others in config.needs.items():
        yield ("needs", machine), machine
        for index, other in enumerate(others):
            yield ("needs", machine, index), other


def finds_machines(config: Config, declared: Declared) -> bool:
    """Tell whether machines may be targets that only a backend knows."""
    return bool(
        any(rule.select is not None for rule in config.exporters.values())
        or config.backends.dns
        or others_of(config.backends)
        or any(server.dns or server.static_targets for server in declared.servers)
    )


def _values(limits: LimitValues) -> dict[str, float]:
    return limits.model_dump(exclude_none=True)


def _of_tags(machine: Machine, given: Mapping[str, Given]) -> Iterator[tuple[str, Given]]:
    for tag in machine.tags:
        if tag in given:
            yield tag, given[tag]
