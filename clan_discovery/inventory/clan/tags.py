"""Compute the tags of machines and the members of roles. Pure.

Source: clan-core, modules/inventoryClass/inventory.nix. A machine's final tags are its own tags and every
`inventory.tags` entry that names it. `all`, `nixos` and `darwin` are computed, unless `inventory.tags` defines them. A
role's members are the machines that it names, and the machines that have one of its tags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clan_discovery.model import Machine, Problem
from clan_discovery.syntax.suggest import Suggester

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from clan_discovery.inventory.clan.wire import InventoryJson, WireRole


def resolve_machines(inventory: InventoryJson) -> dict[str, Machine]:
    """Return the machines by name, each with its final tags."""
    named: dict[str, list[str]] = {}
    for tag, names in inventory.tags.items():
        for name in names:
            named.setdefault(name, []).append(tag)
    machines: dict[str, Machine] = {}
    computed = {
        class_: tuple(tag for tag in ("all", class_) if tag not in inventory.tags) for class_ in ("nixos", "darwin")
    }
    finals: dict[tuple[str, ...], tuple[str, ...]] = {}  # most machines have the same few tags: sort them once
    for name, machine in inventory.machines.items():
        given = machine.tags + computed[machine.machine_class]
        if name in named:
            given += tuple(named[name])
        final = finals.get(given)
        if final is None:
            final = finals[given] = tuple(sorted(set(given)))
        machines[name] = Machine(
            name=name, tags=final, machine_class=machine.machine_class, description=machine.description
        )
    return machines


class Members:
    """Finds the members of roles. The machines of each tag are collected once."""

    def __init__(self, machines: Mapping[str, Machine]) -> None:
        self._machines = machines
        self._by_tag: dict[str, list[str]] = {}
        for name, machine in machines.items():
            for tag in machine.tags:
                self._by_tag.setdefault(tag, []).append(name)
        self._suggester = Suggester()

    @property
    def tags(self) -> AbstractSet[str]:
        """Return every tag that a machine has."""
        return self._by_tag.keys()

    def of(self, role: WireRole) -> Iterator[tuple[Machine, tuple[str, ...]]]:
        """Yield each member of a role with the tags that it shares with the role.

        They are sorted, as Nix sorts them.
        """
        names = {name for name in role.machines if name in self._machines}
        for tag in role.tags:
            names.update(self._by_tag.get(tag, ()))
        matched: dict[tuple[str, ...], tuple[str, ...]] = {}
        for name in sorted(names):
            machine = self._machines[name]
            tags = matched.get(machine.tags)
            if tags is None:
                tags = matched[machine.tags] = tuple(tag for tag in machine.tags if tag in role.tags)
            yield machine, tags

    def strangers(self, role: WireRole, where: str) -> Iterator[Problem]:
        """Yield a problem for each machine and tag of the role that does not exist."""
        for name in sorted(role.machines):
            if name not in self._machines:
                yield Problem(
                    where=f"{where}.machines",
                    what=f"{name!r} is not a machine of the inventory: it gets no target",
                    hint=self._suggester.did_you_mean(name, self._machines),
                    severity="problem",
                )
        for tag in sorted(role.tags):
            if tag not in self._by_tag:
                yield Problem(
                    where=f"{where}.tags",
                    what=f"no machine has the tag {tag!r}",
                    hint=self._suggester.did_you_mean(tag, self._by_tag),
                    severity="warning",
                )

    def unknown(self, inventory: InventoryJson) -> Iterator[Problem]:
        """Yield a problem for each unknown machine in `inventory.tags`."""
        for tag, names in sorted(inventory.tags.items()):
            for name in sorted(set(names) - inventory.machines.keys()):
                yield Problem(
                    where=f"{inventory.where}: tags.{tag}",
                    what=f"{name!r} is not a machine of the inventory",
                    hint=self._suggester.did_you_mean(name, inventory.machines),
                    severity="warning",
                )
