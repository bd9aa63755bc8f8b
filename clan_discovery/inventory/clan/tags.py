"""Tags of machines and members of roles. Pure.

clan-core, modules/inventoryClass/inventory.nix: a machine's final tags are its own and every `inventory.tags` entry
that names it; `all`, `nixos` and `darwin` are computed, unless `inventory.tags` says otherwise. A role's members are
the machines it names and those whose final tags hold one of its tags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clan_discovery.model import Machine, Problem
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from clan_discovery.inventory.clan.wire import InventoryJson, WireRole


def resolve_machines(inventory: InventoryJson) -> dict[str, Machine]:
    """Return the machines by name, each with its final tags."""
    named: dict[str, list[str]] = {}
    for tag, names in inventory.tags.items():
        for name in names:
            named.setdefault(name, []).append(tag)
    machines: dict[str, Machine] = {}
    finals: dict[tuple[str, ...], tuple[str, ...]] = {}  # most machines have the same few tags: sort them once
    for name, machine in inventory.machines.items():
        computed = (tag for tag in ("all", machine.machine_class) if tag not in inventory.tags)
        given = (*machine.tags, *computed, *named.get(name, ()))
        final = finals.get(given)
        if final is None:
            final = finals[given] = tuple(sorted(set(given)))
        machines[name] = Machine(name=name, tags=final, machine_class=machine.machine_class)
    return machines


def members(role: WireRole, machines: Mapping[str, Machine]) -> Iterator[tuple[Machine, tuple[str, ...]]]:
    """Yield each member of a role with those of the role's tags that it has (sorted, as Nix sorts them)."""
    wanted = frozenset(role.tags)
    matched: dict[tuple[str, ...], tuple[str, ...]] = {}
    for name in sorted(machines):
        machine = machines[name]
        tags = matched.get(machine.tags)
        if tags is None:
            tags = matched[machine.tags] = tuple(tag for tag in machine.tags if tag in wanted)
        if tags or name in role.machines:
            yield machine, tags


def strangers(role: WireRole, machines: Mapping[str, Machine], where: str) -> Iterator[Problem]:
    """Yield a problem for each machine of the role that does not exist, and each tag that no machine has."""
    known_tags = {tag for machine in machines.values() for tag in machine.tags}
    for name in sorted(role.machines):
        if name not in machines:
            yield Problem(
                where=f"{where}.machines",
                what=f"{name!r} is no machine of the inventory: it gets no target",
                hint=did_you_mean(name, machines),
                severity="problem",
            )
    for tag in sorted(role.tags):
        if tag not in known_tags:
            yield Problem(
                where=f"{where}.tags",
                what=f"no machine bears the tag {tag!r}",
                hint=did_you_mean(tag, known_tags),
                severity="warning",
            )


def unknown_members(inventory: InventoryJson) -> Iterator[Problem]:
    """Yield a problem for each machine that `inventory.tags` names and that does not exist."""
    for tag, names in sorted(inventory.tags.items()):
        for name in sorted(set(names) - inventory.machines.keys()):
            yield Problem(
                where=f"{inventory.where}: tags.{tag}",
                what=f"{name!r} is no machine of the inventory",
                hint=did_you_mean(name, inventory.machines),
                severity="warning",
            )
