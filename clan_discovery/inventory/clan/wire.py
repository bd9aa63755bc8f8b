"""The JSON of an inventory, as clan writes it or as a person does: bytes in, values out.

Two shapes are one here: `clanInternals.inventoryClass.inventorySerialization` (tags of a role are an object,
settings are wrapped module fragments, machines bear their final tags) and an inventory written by hand like the
Nix it comes from (`tags = ["all"]`, plain settings). Unknown keys are clan's business and ignored; a value of the
wrong type is reported with its path, all complaints at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn

from clan_discovery.errors import InputError
from clan_discovery.inventory.clan.settings import kind
from clan_discovery.inventory.queries import WRITE_INVENTORY
from clan_discovery.model import Json, MachineClass, Problem, Severity
from clan_discovery.syntax.endpoint import is_host

_NO_SETTINGS: Final[Mapping[str, Json]] = {}
# Below this a file may be written by hand, and a key given twice is worth the time it takes to look for it.
_BY_HAND: Final = 1 << 17
_DEFAULT_DOMAIN: Final = "clan"  # clan-core, inventory meta.domain


@dataclass(frozen=True, slots=True, kw_only=True)
class WireMachine:
    """A machine with its own tags, before `inventory.tags` are added."""

    tags: tuple[str, ...] = ()
    machine_class: MachineClass = "nixos"


@dataclass(frozen=True, slots=True, kw_only=True)
class WireRole:
    """A role of an instance: settings fragments of the role, of each machine and of each tag."""

    settings: Json = field(default_factory=dict[str, Json])
    machines: Mapping[str, Json] = field(default_factory=dict[str, Json])
    tags: Mapping[str, Json] = field(default_factory=dict[str, Json])


@dataclass(frozen=True, slots=True, kw_only=True)
class WireInstance:
    """An instance of a service: the module it is of, and its roles."""

    module: str
    source: str | None
    roles: Mapping[str, WireRole]


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryJson:
    """An inventory as it stands in the JSON, checked for shape."""

    where: str
    machines: Mapping[str, WireMachine]
    instances: Mapping[str, WireInstance]
    tags: Mapping[str, tuple[str, ...]]
    domain: str
    problems: tuple[Problem, ...] = ()
    by_instance: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict[str, "tuple[Problem, ...]"])


def parse_inventory(body: bytes, where: str) -> InventoryJson:
    """Read the JSON of an inventory; `where` names it in complaints.

    Raises:
        InputError: it is no JSON, no inventory, or holds values of a wrong type.
    """
    top = parse_json(body, where, what="inventory", hint=WRITE_INVENTORY)
    if isinstance(top, Mapping) and isinstance(inner := top.get("inventorySerialization"), Mapping):
        top = inner  # the whole of inventoryClass was dumped
    reader = _InventoryReader(where)
    inventory = reader.inventory(_shaped(top, where))
    if any(problem.severity == "error" for problem in reader.problems):
        raise InputError(reader.problems)
    return inventory


def parse_json(body: bytes, where: str, *, what: str, hint: str) -> Json:
    """Decode JSON; every way in which bytes are no JSON is one complaint with line and column."""
    if not body.strip():
        _refuse(where, f"the {what} is empty", hint)
    text = _text(body, where, what, hint)
    try:
        hook = _unique_keys if len(body) < _BY_HAND else None
        value: Json = json.loads(text, object_pairs_hook=hook, parse_constant=_no_constant, parse_float=_finite)
        if "\\ud" in text or "\\uD" in text:  # a lone surrogate is legal JSON, and no text that can be written
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        _refuse_syntax(error, text, where, what)
    except UnicodeEncodeError:
        _refuse(where, f"the {what} holds text that is no Unicode (half of a surrogate pair)", hint)
    except _DuplicateKeyError as error:
        _refuse(where, f"the key {error.key!r} is given twice in one object of the {what}", "keep one of them")
    except ValueError as error:
        _refuse(where, f"the {what} is no JSON: {error}", hint)
    except RecursionError:
        _refuse(where, f"the {what} is nested too deeply to be one", hint)
    return value


def _text(body: bytes, where: str, what: str, hint: str) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(where, f"the {what} is not UTF-8 (byte {error.start})", hint)


def _refuse_syntax(error: json.JSONDecodeError, text: str, where: str, what: str) -> NoReturn:
    place = f"{where}:{error.lineno}:{error.colno}"
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        _refuse(
            place,
            f"the {what} ends in the middle: it is truncated",
            "Nix prints part of its answer before it fails; look at its exit status and run it again",
        )
    _refuse(place, f"the {what} is no JSON: {error.msg}", None)


def _refuse(where: str, what: str, hint: str | None) -> NoReturn:
    raise InputError([Problem(where=where, what=what, hint=hint)]) from None


class _DuplicateKeyError(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _unique_keys(pairs: list[tuple[str, Json]]) -> Mapping[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(key)
            seen.add(key)
    return found


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large a number")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _shaped(top: Json, where: str) -> Mapping[str, Json]:
    """Recognise what is no inventory, and say what it is instead."""
    hint = WRITE_INVENTORY
    if not isinstance(top, Mapping):
        _refuse(where, f"an inventory is an object, not {kind(top)}", hint)
    if not top:
        _refuse(where, "the inventory is an empty object", hint)
    if top.get("services") and not top.get("instances"):
        _refuse(
            where,
            "this inventory has the old shape: `services` was removed from clan on 2026-05-29",
            f"declare `instances`, then {WRITE_INVENTORY}",
        )
    missing = [key for key in ("machines", "instances") if key not in top]
    if missing == ["instances"]:
        _refuse(
            where,
            "the inventory has `machines` but no `instances`: this is a fragment (clan's own inventory.json holds "
            "only what its API manages)",
            hint,
        )
    if missing:
        _refuse(where, f"this is no inventory: it has no {' and no '.join(f'`{m}`' for m in missing)}", hint)
    return top


@dataclass(slots=True)
class _InventoryReader:
    """Walks the JSON and keeps every complaint."""

    where: str
    problems: list[Problem] = field(default_factory=list[Problem])
    by_instance: dict[str, list[Problem]] = field(default_factory=dict[str, "list[Problem]"])
    within: str | None = None

    def complain(self, path: str, what: str, hint: str | None = None, severity: Severity = "error") -> None:
        where = f"{self.where}: {path}" if path else self.where
        problems = self.problems if self.within is None else self.by_instance.setdefault(self.within, [])
        problems.append(Problem(where=where, what=what, hint=hint, severity=severity))

    def inventory(self, top: Mapping[str, Json]) -> InventoryJson:
        if top.get("services"):
            self.complain("services", "was removed from clan and is not read", severity="warning")
        machines = self.objects(top.get("machines"), "machines")
        self.twins(machines)
        instances = self.objects(top.get("instances"), "instances")
        tags = self.optional_object(top.get("tags"), "tags")
        meta = self.optional_object(top.get("meta"), "meta")
        return InventoryJson(
            where=self.where,
            machines={name: self.machine(name, value) for name, value in machines.items()},
            instances={name: self.instance(name, value) for name, value in instances.items()},
            by_instance={name: tuple(problems) for name, problems in self.by_instance.items()},
            tags={tag: self.strings(names, f"tags.{tag}") for tag, names in tags.items()},
            domain=self.domain(meta),
            problems=tuple(self.problems),
        )

    def machine(self, name: str, value: Mapping[str, Json]) -> WireMachine:
        self.machine_name(name)
        class_ = value.get("machineClass") or "nixos"
        if class_ not in ("nixos", "darwin"):
            path = f"machines.{name}.machineClass"
            self.complain(path, f"must be 'nixos' or 'darwin', not {shown(class_)}")
            class_ = "nixos"
        tags = value.get("tags")
        # The common case without a path being written: ten thousand machines are read at every round.
        own = () if tags is None else self.strings(tags, "machines", name, "tags")
        return WireMachine(tags=own, machine_class="darwin" if class_ == "darwin" else "nixos")

    def twins(self, machines: Mapping[str, Json]) -> None:
        """Refuse names that differ in case alone: DNS has no case, so one node would be both machines."""
        folded: dict[str, str] = {}
        for name in machines:
            first = folded.setdefault(name.casefold(), name)
            if first != name:
                self.complain("machines", f"{first!r} and {name!r} differ in case alone", "DNS cannot tell them apart")

    def machine_name(self, name: str) -> None:
        if name and name.isalnum():
            return
        if not name or "/" in name or ".." in name or name == "." or not name.isprintable():
            self.complain(
                "machines",
                f"{shown(name)} cannot be the name of a machine",
                "a name has no slash, no '..' and no control character",
            )

    def instance(self, name: str, value: Mapping[str, Json]) -> WireInstance:
        # What is wrong within an instance counts only where the instance is ours: others are none of our business.
        self.within = name
        path = f"instances.{name}"
        module = self.optional_object(value.get("module"), f"{path}.module")
        roles = self.optional_object(value.get("roles"), f"{path}.roles")
        found = WireInstance(
            module=self.string(module.get("name"), f"{path}.module.name", default=name),
            source=self.string(module.get("input"), f"{path}.module.input", default="") or None,
            roles={
                role: self.role(self.optional_object(r, f"{path}.roles.{role}"), f"{path}.roles.{role}")
                for role, r in roles.items()
            },
        )
        self.within = None
        return found

    def role(self, value: Mapping[str, Json], path: str) -> WireRole:
        machines = value.get("machines")
        if isinstance(machines, Sequence):
            self.complain(
                f"{path}.machines",
                f"must be an object of machines, not {kind(machines)}",
                'write {"machine": {}} for each; only `tags` may be a list',
            )
            machines = None
        tags = value.get("tags")
        if isinstance(tags, Sequence) and not isinstance(tags, str):
            tags = dict.fromkeys(self.strings(tags, f"{path}.tags"), _NO_SETTINGS)
        return WireRole(
            settings=self.settings(value.get("settings"), f"{path}.settings"),
            machines=self.members(machines, f"{path}.machines"),
            tags=self.members(tags, f"{path}.tags"),
        )

    def members(self, value: Json, path: str) -> Mapping[str, Json]:
        members = self.optional_object(value, path)
        return {
            name: self.settings(
                self.optional_object(member, f"{path}.{name}").get("settings"), f"{path}.{name}.settings"
            )
            for name, member in members.items()
        }

    def settings(self, value: Json, path: str) -> Json:
        return self.optional_object(value, path)

    def domain(self, meta: Mapping[str, Json]) -> str:
        domain = self.string(meta.get("domain"), "meta.domain", default="")
        domain = (domain or self.string(meta.get("tld"), "meta.tld", default="")).strip(".")
        if domain and not is_host(domain):
            self.complain("meta.domain", f"{shown(domain)} is no name in DNS")
        return domain or _DEFAULT_DOMAIN

    def objects(self, value: Json, path: str) -> Mapping[str, Mapping[str, Json]]:
        found = self.optional_object(value, path)
        for name, item in found.items():
            if not isinstance(item, Mapping):
                self.complain(f"{path}.{name}", f"must be an object, not {kind(item)}")
        return {name: item for name, item in found.items() if isinstance(item, Mapping)}

    def optional_object(self, value: Json, path: str) -> Mapping[str, Json]:
        if value is None:
            return _NO_SETTINGS
        if not isinstance(value, Mapping):
            self.complain(path, f"must be an object, not {kind(value)}")
            return _NO_SETTINGS
        return value

    def string(self, value: Json, path: str, *, default: str) -> str:
        if value is None:
            return default
        if not isinstance(value, str):
            self.complain(path, f"must be a string, not {kind(value)}")
            return default
        return value

    def strings(self, value: Json, *path: str) -> tuple[str, ...]:
        if isinstance(value, Sequence) and not isinstance(value, str):
            found = tuple(item for item in value if isinstance(item, str))
            if len(found) == len(value):
                return found
        self.complain(".".join(path), "must be a list of strings")
        return ()


def shown(value: Json) -> str:
    """Write a value into a message: as JSON, on one line, and not for ever."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= 80 else text[:77] + "..."
