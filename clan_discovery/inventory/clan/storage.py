"""Read the role `storage` of the prometheus service: which machines store samples, and with which engine. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

import msgspec

from clan_discovery.inventory.clan.decode import shown
from clan_discovery.inventory.clan.keys import STORAGE_OPTIONS
from clan_discovery.inventory.clan.options import SettingsReader
from clan_discovery.model import StorageEngine, StorageMode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clan_discovery.model import DeclaredRole, Json

STORAGE: Final = "storage"
ENGINES: Final[tuple[StorageEngine, ...]] = get_args(StorageEngine)
MODES: Final[tuple[StorageMode, ...]] = get_args(StorageMode)


class StorageMember(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one machine in role `storage`; None or empty where they do not say."""

    machine: str
    instance: str
    engine: StorageEngine | None = None
    replicas: int | None = None
    mode: StorageMode | None = None
    port: int | None = None
    read_port: int | None = None

    @property
    def where(self) -> str:
        """The place of its settings in the inventory."""
        return f"instances.{self.instance}.roles.{STORAGE}.machines.{self.machine}.settings"


def check_storage(reader: SettingsReader) -> None:
    """Check the settings of one machine in role `storage`."""
    reader.warn_of_misspelt(STORAGE_OPTIONS)
    _read(reader, "", "")
    reader.string("listenAddress")


def storage_members(roles: Sequence[DeclaredRole]) -> list[StorageMember]:
    """Return the members of the role, sorted by name. What is wrong in their settings is reported elsewhere."""
    found = [
        _read(SettingsReader(settings, complaints=[]), role.instance, name)
        for role in roles
        if role.role == STORAGE
        for name, settings in role.members.items()
    ]
    return sorted(found, key=lambda member: member.machine)


def is_read_as_one(settings: Sequence[Mapping[str, Json]]) -> bool:
    """Tell whether a program reads the nodes of these members as one: not what the user runs, and no shards."""
    return bool(settings) and not any(
        one.get("engine") == "remote-write" or one.get("mode") == "shard" for one in settings
    )


def _read(reader: SettingsReader, instance: str, machine: str) -> StorageMember:
    return StorageMember(
        machine=machine,
        instance=instance,
        engine=reader.word("engine", ENGINES, "engine"),
        replicas=_replicas(reader),
        mode=reader.word("mode", MODES, "mode"),
        port=reader.port(),
        read_port=reader.port("readPort"),
    )


def _replicas(reader: SettingsReader) -> int | None:
    value = reader.settings.get("replicas")
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    reader.complain("replicas", f"must be a number from 1, not {shown(value)}")
    return None
