"""Read a service manifest as a source. Imported only if the config has one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from clan_discovery.assemble.source import configured_exporter
from clan_discovery.config.load import place_in, read_file
from clan_discovery.errors import refuse
from clan_discovery.inventory.manifest.declare import WRITE_MANIFEST, ManifestExporter, ManifestOptions, parse_manifest
from clan_discovery.inventory.merge import Part
from clan_discovery.inventory.nix import named

if TYPE_CHECKING:
    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.config.models import GivenExporter, ManifestSource
    from clan_discovery.model import Problem

_MAX_BYTES: Final = 16 * 1024 * 1024
"""The largest manifest; a service has about 1 KB."""


def read_manifest(loaded: LoadedConfig, source: ManifestSource) -> Part:
    """Read the manifest of a config.

    Raises:
        InputError: it cannot be read, or is not valid.
    """
    where = named(source.file)
    if source.file.suffix == ".nix":
        json = source.file.with_suffix(".json").name
        hint = f"run `nix eval --json -f {source.file.name} > {json}`, and name the JSON here"
        refuse(where, "is Nix, which is never evaluated here", hint)
    body = read_file(source.file, "service manifest", most=_MAX_BYTES, hint=WRITE_MANIFEST)
    is_json = source.file.suffix not in (".yaml", ".yml")
    declared = parse_manifest(body, where, _options(loaded, source), is_json=is_json)
    return Part(source="manifest", declared=declared, place=lambda _: place_in(source.file, ()))


def _options(loaded: LoadedConfig, source: ManifestSource) -> ManifestOptions:
    def problem(path: tuple[str | int, ...], what: str, hint: str | None) -> Problem:
        return loaded.problem(("inventory", "manifest", *path), what, hint)

    return ManifestOptions(
        exporters={service: [_exporter(given) for given in entries] for service, entries in source.exporters.items()},
        default=[_exporter(given) for given in source.default],
        lookup=partial(configured_exporter, loaded.config),
        problem=problem,
    )


def _exporter(given: GivenExporter) -> ManifestExporter:
    return ManifestExporter(
        type=given.type,
        port=given.port,
        path=given.path,
        scheme=given.scheme,
        params=tuple(given.params.items()),
        labels=tuple(given.labels.items()),
    )
