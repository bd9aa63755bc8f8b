"""Reads the inputs of an inventory: a file or a flake, the settings dump, the exports, and what the config adds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from clan_discovery.inventory.clan.declare import Options, parse_dump
from clan_discovery.inventory.clan.decode import refuse
from clan_discovery.inventory.clan.exports import parse_exports
from clan_discovery.inventory.clan.wire import parse_inventory
from clan_discovery.inventory.exporters import default_exporter
from clan_discovery.inventory.nix import evaluate, named
from clan_discovery.inventory.queries import INVENTORY, WRITE_DUMP, WRITE_INVENTORY
from clan_discovery.model import Exporter

if TYPE_CHECKING:
    from pathlib import Path

    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.inventory.clan.wire import InventoryJson

MAX_INVENTORY: Final = 256 * 1024 * 1024


def inventory_name(loaded: LoadedConfig) -> str:
    """Name the inventory as messages about it do."""
    source = loaded.config.inventory
    if source is None:
        return "the inventory"
    return named(source.flake or "") if source.file is None else str(source.file)


def read_inventory(loaded: LoadedConfig) -> InventoryJson:
    """Read the config's inventory.

    Raises:
        InputError: the config has none, it cannot be read, or it is none.
    """
    source = loaded.config.inventory
    if source is None:
        refuse(str(loaded.file), "the config has no `inventory`")
    if source.file is not None:
        return file_inventory(source.file)
    return flake_inventory(source.flake or ".")


def file_inventory(file: Path) -> InventoryJson:
    """Read an inventory from a file of JSON.

    Raises:
        InputError: it cannot be read, or is no inventory.
    """
    return parse_inventory(read_input(file, "inventory", WRITE_INVENTORY), str(file))


def flake_inventory(reference: str) -> InventoryJson:
    """Evaluate a flake's inventory.

    Raises:
        InputError: Nix failed, or what it printed is no inventory.
    """
    return parse_inventory(evaluate(reference, INVENTORY), named(reference))


def read_input(file: Path, what: str, hint: str) -> bytes:
    """Read a file that the user named.

    Raises:
        InputError: it cannot be read, or is larger than 256 MiB.
    """
    try:
        if not file.is_file() and file.exists():
            refuse(str(file), f"the {what} is no regular file")
        with file.open("rb") as opened:
            body = opened.read(MAX_INVENTORY + 1)
    except OSError as error:
        refuse(str(file), f"cannot read the {what}: {error.strerror}", hint)
    if len(body) > MAX_INVENTORY:
        refuse(str(file), f"the {what} is larger than {MAX_INVENTORY >> 20} MiB")
    return body


def options_of(loaded: LoadedConfig, lookup: Lookup) -> Options:
    """Return what to read of the inventory, and what the config adds to it.

    Raises:
        InputError: the settings dump or the exports cannot be read.
    """
    config = loaded.config
    source = config.inventory
    options = Options(
        instances=config.instances,
        server=config.server,
        darwin=config.policy.darwin == "include",
        lookup=lookup,
        problem=loaded.problem,
    )
    if source is None:
        return options
    options = replace(options, modules=frozenset(source.modules))
    if source.exports is not None:
        body = read_input(source.exports, "exports file", WRITE_DUMP)
        options = replace(options, exports=parse_exports(body, str(source.exports)))
    if source.settings is not None:
        options = with_dump(options, source.settings)
    return options


def with_dump(options: Options, file: Path) -> Options:
    """Return the options with a settings dump.

    Raises:
        InputError: the dump cannot be read.
    """
    dump = parse_dump(read_input(file, "settings dump", "see docs/inventory.md"), str(file))
    return replace(options, dump=dump, dump_where=str(file))


@dataclass(frozen=True, slots=True)
class Lookup:
    """Gives the exporter of a type: its defaults, overridden by the config."""

    loaded: LoadedConfig

    def __call__(self, type_: str, port: int | None) -> Exporter | None:
        """Return the exporter, or None where its port is unknown."""
        rule = self.loaded.config.exporters.get(type_)
        if rule is None:
            return default_exporter(type_, port)
        base = default_exporter(type_, port or rule.port)
        if base is None:
            return None
        return Exporter(
            type=type_,
            port=base.port,
            path=rule.path or base.path,
            scheme=rule.scheme,
            params=tuple(sorted({**dict(base.params), **rule.params}.items())),
            labels=tuple(sorted(rule.labels.items())),
        )


def watched_files(loaded: LoadedConfig) -> tuple[tuple[Path, str], ...]:
    """Return the files besides the config that a refresh cycle reads, each with what it is called in the log."""
    config = loaded.config
    source = config.inventory
    found: list[tuple[Path, str]] = []
    if source is not None:
        found += [(file, "inventory") for file in (source.file, source.settings, source.exports) if file]
    for backend in (config.backends.tailscale or {}).values():
        if backend.status_file is not None:
            found.append((backend.status_file, "status"))
    return tuple(found)
