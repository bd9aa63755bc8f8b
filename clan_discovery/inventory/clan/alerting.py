"""Read the limits, units and needs of the role `exporter`, and which part of an instance sets each. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.inventory.clan.decode import is_list, shown
from clan_discovery.inventory.clan.settings import MalformedSettingsError, merge_settings
from clan_discovery.syntax.counting import first_names
from clan_discovery.syntax.limits import UNKNOWN_LIMIT, known_limits, limit_complaint
from clan_discovery.syntax.units import unit_complaint, unit_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clan_discovery.inventory.clan.options import SettingsReader
    from clan_discovery.inventory.clan.settings import Lists
    from clan_discovery.inventory.clan.wire import WireRole
    from clan_discovery.model import Json, Machine

OPTIONS: Final = ("limits", "needs", "units")
_NAMED_MOST: Final = 20


class AlertingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The limits, units and needs of one machine in role `exporter`."""

    limits: Mapping[str, float] = {}
    units: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


def read_alerting(reader: SettingsReader) -> AlertingSettings:
    """Read the limits, units and needs of one machine in role `exporter`."""
    if not any(option in reader.settings for option in OPTIONS):
        return AlertingSettings()
    return AlertingSettings(
        limits=dict(_limits(reader)),
        units=tuple(dict.fromkeys(_units(reader))),
        needs=tuple(dict.fromkeys(_strings(reader, "needs", "machines"))),
    )


def _limits(reader: SettingsReader) -> Iterator[tuple[str, float]]:
    known = known_limits()
    for name, value in reader.attributes("limits", "numbers", "for example: limits.disk_percent = 95").items():
        option = f"limits.{name}"
        if name not in known:
            hint = reader.suggester.did_you_mean(name, known) or f"known: {first_names(sorted(known), _NAMED_MOST)}"
            reader.complain(option, UNKNOWN_LIMIT, hint)
        elif value is None:
            continue
        elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            reader.complain(option, f"must be a number, not {shown(value)}")
        elif complaint := limit_complaint(known[name], value):
            reader.complain(option, complaint)
        else:
            yield name, float(value)


def _units(reader: SettingsReader) -> Iterator[str]:
    for text in _strings(reader, "units", "systemd units"):
        unit = unit_name(text)
        if unit is not None:
            yield unit
        else:
            reader.complain("units", unit_complaint(text) or "")


def _strings(reader: SettingsReader, option: str, of: str) -> Iterator[str]:
    for value in reader.elements(option, reader.settings.get(option), of):
        if isinstance(value, str):
            yield value
        else:
            reader.complain(option, f"must be a list of {of}, and {shown(value)} is not a string")


class Origins:
    """Finds which part of a role sets a value: the machine, one of its tags, or the role.

    A merged value does not say so. Each part is merged by itself, once.
    """

    def __init__(self, role: WireRole, lists: Mapping[str, Lists]) -> None:
        self._role = role
        self._lists = lists
        self._shared: dict[str, Mapping[str, Json]] = {}

    def of(self, machine: Machine, option: str, name: str) -> str:
        """Name the part that sets an entry of an option, such as `, tag storage`; empty if no part does."""
        own = self._role.machines.get(machine.name)
        if own and _has(self._merged(own), option, name):
            return f", machine {machine.name}"
        for tag in machine.tags:
            if tag in self._role.tags and _has(self._of_tag(tag), option, name):
                return f", tag {tag}"
        return ""

    def _of_tag(self, tag: str) -> Mapping[str, Json]:
        if tag not in self._shared:
            self._shared[tag] = self._merged(self._role.tags[tag])
        return self._shared[tag]

    def _merged(self, fragment: Json) -> Mapping[str, Json]:
        try:
            return merge_settings([{"imports": [fragment]}], self._lists).values
        except (MalformedSettingsError, RecursionError):  # reported where all parts are merged
            return {}


def _has(settings: Mapping[str, Json], option: str, name: str) -> bool:
    value = settings.get(option)
    if isinstance(value, Mapping):
        return value.get(name) is not None
    if not is_list(value):
        return False
    return name in value or any(isinstance(given, str) and unit_name(given) == name for given in value)
