"""Read the JSON of an inventory, written by clan or by a person.

Two shapes are read. One is `clanInternals.inventoryClass.inventorySerialization`: tags of a role are an object,
settings are wrapped module fragments, machines have their final tags. The other is written by hand like the Nix source:
`tags = ["all"]`, plain settings. Unknown keys are ignored. A value of the wrong type is a problem with its path, and
all problems are reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.errors import InputError, refuse
from clan_discovery.inventory.clan.decode import is_list, kind, parse_json, shown
from clan_discovery.inventory.clan.keys import (
    INSTANCE_KEYS,
    INVENTORY_KEYS,
    MACHINE_KEYS,
    MEMBER_KEYS,
    META_KEYS,
    MODULE_KEYS,
    ROLE_KEYS,
    Keys,
    Misspellings,
)
from clan_discovery.inventory.queries import WRITE_INVENTORY
from clan_discovery.model import Json, MachineClass, Problem, Severity
from clan_discovery.syntax.endpoint import is_host

if TYPE_CHECKING:
    from collections.abc import Iterable

_NO_SETTINGS: Final[Mapping[str, Json]] = {}
_DEFAULT_DOMAIN: Final = "clan"  # clan-core, inventory meta.domain


class WireMachine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine with its own tags, before `inventory.tags` are added."""

    tags: tuple[str, ...] = ()
    machine_class: MachineClass = "nixos"
    description: str = ""


class WireRole(msgspec.Struct, frozen=True, kw_only=True):
    """A role of an instance, with the settings of the role, its machines and its tags."""

    settings: Json = {}
    machines: Mapping[str, Json] = {}
    tags: Mapping[str, Json] = {}


class WireInstance(msgspec.Struct, frozen=True, kw_only=True):
    """An instance of a service: its module and its roles.

    `problems` are reported only if the instance is read.
    """

    module: str
    source: str | None
    roles: Mapping[str, WireRole]
    problems: tuple[Problem, ...]


class InventoryJson(msgspec.Struct, frozen=True, kw_only=True):
    """The content of an inventory's JSON, with checked types."""

    where: str
    machines: Mapping[str, WireMachine]
    instances: Mapping[str, WireInstance]
    tags: Mapping[str, tuple[str, ...]]
    domain: str
    problems: tuple[Problem, ...] = ()


def parse_inventory(body: bytes, where: str) -> InventoryJson:
    """Read the JSON of an inventory; `where` names it in messages.

    Raises:
        InputError: it is not JSON, not an inventory, or holds values of a wrong type.
    """
    return inventory_of(parse_json(body, where, what="inventory", hint=WRITE_INVENTORY), where)


def inventory_of(top: Json, where: str) -> InventoryJson:
    """Read the value of an inventory, from JSON or YAML; `where` names it in messages.

    Raises:
        InputError: it is not an inventory, or holds values of a wrong type.
    """
    if isinstance(top, Mapping) and isinstance(inner := top.get("inventorySerialization"), Mapping):
        top = inner  # the dump contains the whole inventoryClass
    reader = _InventoryReader(where)
    inventory = reader.inventory(_checked_shape(top, where))
    if any(problem.severity == "error" for problem in reader.problems):
        raise InputError(reader.problems)
    return inventory


def _checked_shape(top: Json, where: str) -> Mapping[str, Json]:
    """Return the inventory's object, or refuse a value that is not an inventory."""
    if not isinstance(top, Mapping):
        refuse(where, f"an inventory is an object, not {kind(top)}", WRITE_INVENTORY)
    if not top:
        refuse(where, "the inventory is an empty object", WRITE_INVENTORY)
    if top.get("services") and not top.get("instances"):
        what = "this inventory has the old shape: `services` was removed from clan on 2026-05-29"
        refuse(where, what, f"declare `instances`, then {WRITE_INVENTORY}")
    missing = [key for key in ("machines", "instances") if key not in top]
    if missing == ["instances"]:
        what = (
            "the inventory has `machines` but no `instances`: this is a fragment (clan's own inventory.json holds only "
            "what its API manages)"
        )
        refuse(where, what, WRITE_INVENTORY)
    if missing:
        without = " and no ".join(f"`{key}`" for key in missing)
        refuse(where, f"this is not an inventory: it has no {without}", WRITE_INVENTORY)
    return top


class _InventoryReader(msgspec.Struct):
    """Reads the JSON and collects problems."""

    where: str
    problems: list[Problem] = []
    misspellings: Misspellings = msgspec.field(default_factory=Misspellings)

    def complain(self, path: str, what: str, hint: str | None = None, severity: Severity = "error") -> None:
        self.problems.append(Problem(where=f"{self.where}: {path}", what=what, hint=hint, severity=severity))

    def warn_of_misspelt(self, given: Mapping[str, Json], keys: Keys, *path: str) -> None:
        """Warn about each key that is probably misspelt."""
        for key, hint in self.misspellings.among(given, keys):
            self.complain(".".join([*path, key]), "unknown key, ignored", hint, "warning")

    def inventory(self, top: Mapping[str, Json]) -> InventoryJson:
        if top.get("services"):
            self.complain("services", "was removed from clan and is not read", severity="warning")
        self.warn_of_misspelt(top, INVENTORY_KEYS)
        machines = self.objects(top.get("machines"), "machines")
        self.check_case(machines)
        instances = self.objects(top.get("instances"), "instances")
        tags = self.object(top.get("tags"), "tags")
        meta = self.object(top.get("meta"), "meta")
        self.warn_of_misspelt(meta, META_KEYS, "meta")
        return InventoryJson(
            where=self.where,
            machines={name: self.machine(name, value) for name, value in machines.items()},
            instances={name: self.instance(name, value) for name, value in instances.items()},
            tags={tag: self.strings(names, f"tags.{tag}") for tag, names in tags.items()},
            domain=self.domain(meta),
            problems=tuple(self.problems),
        )

    def machine(self, name: str, value: Mapping[str, Json]) -> WireMachine:
        self.check_name(name)
        self.warn_of_misspelt(value, MACHINE_KEYS, "machines", name)
        tags = value.get("tags")
        if tags is None:
            tags = ()
        given = value.get("machineClass")
        if given and given not in ("nixos", "darwin"):
            self.complain(f"machines.{name}.machineClass", f"must be 'nixos' or 'darwin', not {shown(given)}")
        machine_class: MachineClass = "darwin" if given == "darwin" else "nixos"
        description = value.get("description") or ""
        if not isinstance(description, str):
            self.complain(f"machines.{name}.description", f"must be a string, not {kind(description)}")
            description = ""
        own = self.strings(tags, "machines", name, "tags")
        return WireMachine(tags=own, machine_class=machine_class, description=description)

    def check_case(self, machines: Iterable[str]) -> None:
        """Refuse names that differ only in case, because DNS cannot tell them apart."""
        folded: dict[str, str] = {}
        for name in machines:
            first = folded.setdefault(name.casefold(), name)
            if first != name:
                what = f"{first!r} and {name!r} differ only in case"
                self.complain("machines", what, "DNS cannot tell them apart")

    def check_name(self, name: str) -> None:
        """Refuse a machine's name that could be a path or could break a line."""
        if name.isalnum():
            return
        is_path = "/" in name or ".." in name or name in ("", ".")
        if is_path or not name.isprintable():
            hint = "a name has no slash, no '..' and no control character"
            self.complain("machines", f"{shown(name)} cannot be the name of a machine", hint)

    def instance(self, name: str, value: Mapping[str, Json]) -> WireInstance:
        path = f"instances.{name}"
        own = _InventoryReader(self.where, misspellings=self.misspellings)
        own.warn_of_misspelt(value, INSTANCE_KEYS, path)
        module = own.object(value.get("module"), f"{path}.module")
        own.warn_of_misspelt(module, MODULE_KEYS, path, "module")
        roles = own.object(value.get("roles"), f"{path}.roles")
        return WireInstance(
            module=own.string(module.get("name"), f"{path}.module.name") or name,
            source=own.string(module.get("input"), f"{path}.module.input"),
            roles={role: own.role(value, f"{path}.roles.{role}") for role, value in roles.items()},
            problems=tuple(own.problems),
        )

    def role(self, value: Json, path: str) -> WireRole:
        role = self.object(value, path)
        self.warn_of_misspelt(role, ROLE_KEYS, path)
        machines, tags = role.get("machines"), role.get("tags")
        if is_list(machines):
            hint = 'write {"machine": {}} for each; only `tags` may be a list'
            self.complain(f"{path}.machines", "must be an object of machines, not a list", hint)
            machines = None
        if is_list(tags):
            tags = dict.fromkeys(self.strings(tags, f"{path}.tags"), _NO_SETTINGS)
        return WireRole(
            settings=self.object(role.get("settings"), f"{path}.settings"),
            machines=self.members(machines, f"{path}.machines"),
            tags=self.members(tags, f"{path}.tags"),
        )

    def members(self, value: Json, path: str) -> Mapping[str, Json]:
        found: dict[str, Json] = {}
        for name, member in self.object(value, path).items():
            wrapped = self.object(member, f"{path}.{name}")
            self.warn_of_misspelt(wrapped, MEMBER_KEYS, path, name)
            found[name] = self.object(wrapped.get("settings"), f"{path}.{name}.settings")
        return found

    def domain(self, meta: Mapping[str, Json]) -> str:
        """Return the clan's domain; `tld` is its former name."""
        named = self.string(meta.get("domain"), "meta.domain") or self.string(meta.get("tld"), "meta.tld") or ""
        domain = named.strip(".") or _DEFAULT_DOMAIN
        if not is_host(domain):
            self.complain("meta.domain", f"{shown(domain)} is not a DNS name")
        return domain

    def objects(self, value: Json, path: str) -> Mapping[str, Mapping[str, Json]]:
        """Return an object of objects; other values are reported and left out."""
        found: dict[str, Mapping[str, Json]] = {}
        for name, item in self.object(value, path).items():
            if isinstance(item, dict):  # json makes no other; Mapping takes five times as long to test
                found[name] = item
            else:
                hint = "write {} for the defaults" if item is None else None
                self.complain(f"{path}.{name}", f"must be an object, not {kind(item)}", hint)
        return found

    def object(self, value: Json, path: str) -> Mapping[str, Json]:
        """Return an object; null counts as an empty one."""
        if isinstance(value, Mapping):
            return value
        if value is not None:
            self.complain(path, f"must be an object, not {kind(value)}")
        return _NO_SETTINGS

    def string(self, value: Json, path: str) -> str | None:
        """Return a string; None if it is null or empty."""
        if value is not None and not isinstance(value, str):
            self.complain(path, f"must be a string, not {kind(value)}")
            return None
        return value or None

    def strings(self, value: Json, *path: str) -> tuple[str, ...]:
        """Return a list of strings; the parts of `path` are joined only for a message."""
        if is_list(value):
            found = [item for item in value if isinstance(item, str)]
            if len(found) == len(value):
                return tuple(found)
        self.complain(".".join(path), "must be a list of strings")
        return ()
