"""Where an inventory comes from: a file or a flake, a settings dump and exports beside it, and what the config adds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from clan_discovery.errors import InputError
from clan_discovery.inventory.clan.declare import Options, parse_dump
from clan_discovery.inventory.clan.exports import parse_exports
from clan_discovery.inventory.clan.wire import parse_inventory
from clan_discovery.inventory.exporters import default_exporter
from clan_discovery.inventory.nix import evaluate, named
from clan_discovery.inventory.queries import INVENTORY, WRITE_DUMP, WRITE_INVENTORY
from clan_discovery.model import Exporter, Problem

if TYPE_CHECKING:
    from pathlib import Path

    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.inventory.clan.wire import InventoryJson

MAX_INVENTORY: Final = 256 * 1024 * 1024


def inventory_name(loaded: LoadedConfig) -> str:
    """Name the inventory as complaints about it do."""
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
        raise InputError([Problem(where=str(loaded.file), what="the config has no `inventory`")])
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
            raise InputError([Problem(where=str(file), what=f"the {what} is no regular file")])
        with file.open("rb") as opened:
            body = opened.read(MAX_INVENTORY + 1)
    except OSError as error:
        problem = Problem(where=str(file), what=f"cannot read the {what}: {error.strerror}", hint=hint)
        raise InputError([problem]) from None
    if len(body) > MAX_INVENTORY:
        raise InputError([Problem(where=str(file), what=f"the {what} is larger than {MAX_INVENTORY >> 20} MiB")])
    return body


def options_of(loaded: LoadedConfig, lookup: Lookup) -> Options:
    """Return what of the inventory the config wants.

    Raises:
        InputError: the settings dump or the exports cannot be read.
    """
    config = loaded.config
    source = config.inventory
    options = Options(
        modules=frozenset(source.modules if source is not None else ()),
        instances=None if config.instances is None else tuple(config.instances),
        server=config.server,
        darwin=config.policy.darwin == "include",
        lookup=lookup,
        where=loaded.where,
    )
    if source is not None and source.exports is not None:
        body = read_input(source.exports, "exports file", WRITE_DUMP)
        options = replace(options, exports=parse_exports(body, str(source.exports)))
    if source is None or source.settings is None:
        return options
    return with_dump(options, source.settings)


def with_dump(options: Options, file: Path) -> Options:
    """Return the options with a settings dump.

    Raises:
        InputError: the dump cannot be read.
    """
    dump = parse_dump(read_input(file, "settings dump", "see docs/inventory.md"), str(file))
    return replace(options, dump=dump, dump_where=str(file))


@dataclass(frozen=True, slots=True)
class Lookup:
    """The exporter of a type: what the config says of it over what is known of it."""

    loaded: LoadedConfig

    def __call__(self, type_: str, port: int | None) -> Exporter | None:
        """Return the exporter with its defaults, or None where nobody knows its port."""
        rule = self.loaded.config.exporters.get(type_)
        base = default_exporter(type_, port or (rule.port if rule is not None else None))
        if base is None or rule is None:
            return base
        return Exporter(
            type=type_,
            port=base.port,
            path=rule.path or base.path,
            scheme=rule.scheme,
            params=tuple(sorted({**dict(base.params), **rule.params}.items())),
            labels=tuple(sorted(rule.labels.items())),
        )


def watched_files(loaded: LoadedConfig) -> tuple[tuple[Path, str], ...]:
    """Return the files besides the config that a round reads, each with what a change of it is called."""
    config = loaded.config
    source = config.inventory
    found: list[tuple[Path, str]] = []
    if source is not None:
        files = (source.file, source.settings, source.exports)
        found += [(file, "inventory") for file in files if file is not None]
    for backend in (config.backends.tailscale or {}).values():
        if backend.status_file is not None:
            found.append((backend.status_file, "status"))
    return tuple(found)
