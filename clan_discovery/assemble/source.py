"""Read the inputs of an inventory.

These are a file or a flake, the settings dump, the exports, and settings of the config.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.assemble.tags import inventory_tags
from clan_discovery.config.load import read_file, read_yaml
from clan_discovery.config.models import ExporterRule
from clan_discovery.config.values import ScrapeConfig
from clan_discovery.errors import refuse
from clan_discovery.inventory.clan.declare import Options, parse_dump
from clan_discovery.inventory.clan.exports import parse_exports
from clan_discovery.inventory.clan.wire import inventory_of, parse_inventory
from clan_discovery.inventory.compose import ENV_FILE
from clan_discovery.inventory.exporters import default_exporter
from clan_discovery.inventory.nix import Evaluation, evaluate, named, secret_warning
from clan_discovery.inventory.queries import INVENTORY, WRITE_DUMP, WRITE_INVENTORY
from clan_discovery.model import Exporter
from clan_discovery.publish.evaluations import begin
from clan_discovery.publish.user import check_user
from clan_discovery.reading import is_closed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.config.models import Config
    from clan_discovery.inventory.clan.wire import InventoryJson
    from clan_discovery.round import OutputPaths

_MAX_BYTES: Final = 128 * 1024 * 1024
"""The largest inventory; one with 100,000 machines has about 2 MB. Bytes and text are in memory together."""


def inventory_name(loaded: LoadedConfig) -> str:
    """Name the inventory as messages about it do."""
    source = loaded.config.inventory
    if source is None:
        return "the inventory"
    return named(source.file or source.flake or ".")


def evaluate_flake(reference: str, places: OutputPaths, cancelled: Callable[[], bool] | None = None) -> Evaluation:
    """Evaluate the inventory of a flake, for a refresh cycle with these output paths.

    Raises:
        InputError: Nix failed.
        PublishError: this user may not refresh there, or the evaluation cannot be numbered at the moment.
        CancelledError: `cancelled` returned true.
    """
    check_user(places.directory, places.state_directory)
    number = begin(places.state_directory)
    return Evaluation(evaluate(reference, INVENTORY, cancelled), number)


def read_inventory(loaded: LoadedConfig, evaluation: Evaluation | None = None) -> InventoryJson:
    """Read the config's inventory; use the evaluation of a flake if there is one.

    Raises:
        InputError: the config has no inventory, or it cannot be read or is not valid.
    """
    source = loaded.config.inventory
    if source is None:
        refuse(str(loaded.file), "the config has no `inventory`")
    return inventory_at(source.file or source.flake or ".", evaluation)


def inventory_at(reference: Path | str, evaluation: Evaluation | None = None) -> InventoryJson:
    """Read an inventory from a file of JSON or YAML, or from a flake.

    The flake is evaluated unless its evaluation is given.

    Raises:
        InputError: the file cannot be read, Nix failed, or the document is not an inventory.
    """
    if isinstance(reference, str):
        body = evaluation.body if evaluation is not None else evaluate(reference, INVENTORY)
        inventory = parse_inventory(body, named(reference))
        if warning := secret_warning(reference):
            inventory = msgspec.structs.replace(inventory, problems=(*inventory.problems, warning))
        return inventory
    if reference.suffix in (".yaml", ".yml"):
        return inventory_of(read_yaml(reference, "inventory", WRITE_INVENTORY), named(reference))
    return parse_inventory(read_source(reference, "inventory", WRITE_INVENTORY), named(reference))


def options_of(loaded: LoadedConfig) -> Options:
    """Return what to read of the inventory, and what the config adds to it.

    Raises:
        InputError: the settings dump or the exports cannot be read.
    """
    config = loaded.config
    source = config.inventory
    options = Options(
        instances=config.instances,
        server=config.server,
        tags=tuple(inventory_tags(config)),
        darwin=config.policy.darwin,
        lookup=partial(configured_exporter, config),
        problem=loaded.problem,
    )
    if source is None:
        return options
    options = msgspec.structs.replace(options, modules=frozenset(source.modules))
    if source.exports is not None:
        body = read_source(source.exports, "exports file", WRITE_DUMP)
        options = msgspec.structs.replace(options, exports=parse_exports(body, named(source.exports)))
    if source.settings is not None:
        options = with_dump(options, source.settings)
    return options


def with_dump(options: Options, file: Path) -> Options:
    """Return the options with a settings dump.

    Raises:
        InputError: the dump cannot be read.
    """
    dump = parse_dump(read_source(file, "settings dump", "see docs/inventory.md"), named(file))
    return msgspec.structs.replace(options, dump=dump, dump_where=named(file))


def configured_exporter(config: Config, type_: str, port: int | None) -> Exporter | None:
    """Return the exporter of a type; None if its port is unknown.

    The scrape config of its job (`jobs`) overrides its defaults, and its settings in `exporters` override both.
    """
    if type_ not in config.exporters and type_ not in config.jobs:
        return default_exporter(type_, port)
    rule = config.exporters.get(type_) or ExporterRule()
    job = config.jobs.get(type_) or ScrapeConfig()
    base = default_exporter(type_, rule.port if port is None else port)
    if base is None:
        return None
    scheme = rule.scheme
    if job.scheme is not None and "scheme" not in rule.model_fields_set:
        scheme = job.scheme
    return Exporter(
        type=type_,
        port=base.port,
        path=rule.path or job.metrics_path or base.path,
        scheme=scheme,
        params=tuple(sorted({**dict(base.params), **job.params, **rule.params}.items())),
        labels=tuple(sorted(rule.labels.items())),
    )


def read_source(file: Path, what: str, hint: str) -> bytes:
    """Read a file of a source.

    Raises:
        InputError: it cannot be read.
    """
    return read_file(file, what, most=_MAX_BYTES, hint=hint)


def closed_inputs(loaded: LoadedConfig) -> tuple[Path, ...]:
    """Return the input files that other users may not read, including the config.

    They may hold secrets. A status file holds none: its content is in the target files. Nothing of an env file is but
    names, ports and domains.
    """
    files = [loaded.file, *(file for file, kind in watched_files(loaded) if kind not in ("status", ENV_FILE))]
    return tuple(file for file in files if is_closed(file))


def watched_files(loaded: LoadedConfig) -> tuple[tuple[Path, str], ...]:
    """Return the input files besides the config, each with its name in the log.

    Those that other files name are known when the sources have been read.
    """
    config = loaded.config
    source = config.inventory
    found: list[tuple[Path, str]] = []
    if source is not None:
        files = (source.file, source.settings, source.exports, source.exposed)
        found += [(file, "inventory") for file in files if file]
        if source.manifest is not None:
            found.append((source.manifest.file, "manifest"))
    for backend in (config.backends.tailscale or {}).values():
        if backend.status_file is not None:
            found.append((backend.status_file, "status"))
    return (*found, *loaded.found.items())
