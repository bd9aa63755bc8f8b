"""Write the first config from what was found on a machine. Pure.

A comment that starts with `#` and one space is a sentence. Every other comment is a setting: remove the `#` to use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.syntax.yaml_text import yaml_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from clan_discovery.cli.surroundings import FoundInventory, Surroundings

_HEAD: Final = (
    "# yaml-language-server: $schema=config.schema.json",
    "#",
    "# The config of clan-discovery. A setting after a # is an example: remove the # to use it.",
    "# All settings: docs/config.md. For an editor: clan-discovery schema config > config.schema.json",
)
_BACKENDS: Final = {
    "tailscale": "tailnet: {}   # asks /run/tailscale/tailscaled.sock",
    "dns": "lan: {domain: home.arpa}   # looks up <machine>.home.arpa",
    "static": "lab: {targets: {node: [10.0.0.5]}, machines: {nas: 10.0.0.7}}",
}
"""An entry for each kind of backend."""
_THIS_MACHINE: Final = 'lab: {targets: {node: ["127.0.0.1:9100"]}}   # this machine: replace it by yours'


class Choices(msgspec.Struct, frozen=True):
    """What the config has in addition to what was found.

    `directory` is where the config is written: paths below it are written relative to it. `output` is the directory for
    target files.
    """

    directory: Path
    output: Path


def first_config(found: Surroundings, choices: Choices) -> str:
    """Return a config in YAML that `check` accepts."""
    parts = [
        _HEAD,
        _inventory(found, choices),
        _backends(found),
        _exporters(found),
        _output(choices),
        _rest(),
    ]
    return "\n".join("\n".join(part) + "\n" for part in parts)


def _inventory(found: Surroundings, choices: Choices) -> Iterator[str]:
    yield "# Which targets exist: the sources. All that are given are read."
    entries = list(_clan(found, choices))
    if found.manifest is not None:
        entries += ["  manifest:", f"    file: {_path(found.manifest, choices)}"]
    if found.compose is not None:
        files = f"{{files: [{_path(found.compose.file, choices)}]}}"
        entries += ["  compose:", f"    {yaml_text(found.compose.machine)}: {files}"]
    if entries:
        yield "inventory:"
        yield from entries
    else:
        yield "#inventory:"
        yield "#  file: clan/inventory.json   # to write it: clan-discovery dump --flake . --output clan"
    yield from _other_sources(found)


def _clan(found: Surroundings, choices: Choices) -> Iterator[str]:
    inventory = found.inventory
    if inventory is not None:
        yield from _inventory_file(inventory, choices)
        yield "  #flake: .   # instead of file: evaluate this flake with Nix"
    elif found.flake is not None:
        yield f"  flake: {_path(found.flake, choices)}   # evaluated with Nix at each refresh"
        yield "  #file: clan/inventory.json   # instead of flake: faster, and needs no Nix"


def _other_sources(found: Surroundings) -> Iterator[str]:
    """Yield an example for each source that was not found."""
    if found.manifest is None:
        yield "#  manifest: {file: service-manifest.json}"
    if found.compose is None:
        yield "#  compose: {nas: {files: [compose.yaml]}}   # by the machine that it runs on"
    yield "#  exposed: exposed.json   # to write it: clan-discovery dump --exposed"


def _inventory_file(inventory: FoundInventory, choices: Choices) -> Iterator[str]:
    """Yield the files of a dump. Settings are needed to be sure of values; exports have addresses."""
    files = {"file": inventory.file, "settings": inventory.settings, "exports": inventory.exports}
    for key, file in files.items():
        if file is not None:
            yield f"  {key}: {_path(file, choices)}"


def _backends(found: Surroundings) -> Iterator[str]:
    yield "# Where machines are. A server with a discoveryMethod in the inventory needs no entry here."
    entries = dict(_BACKENDS)
    used: set[str] = set()
    if found.tailnet is not None:
        used.add("tailscale")
    elif not _declares(found):
        used.add("static")
        entries["static"] = _THIS_MACHINE
    if not used:
        yield "#backends:"
        for kind, entry in entries.items():
            yield f"#  {kind}:\n#    {entry}"
        return
    yield "backends:"
    for kind, entry in entries.items():
        if kind in used:
            yield f"  {kind}:\n    {entry}"
        else:
            yield f"  #{kind}:\n  #  {entry}"


def _exporters(found: Surroundings) -> Iterator[str]:
    yield "# Exporters that no source declares, on machines of the tailnet. Phones and TVs are left out."
    if found.tailnet is not None and not _declares(found):
        yield "exporters:"
        yield "  node:   # each Linux machine of the tailnet has a node exporter on port 9100"
        yield "    select: {os: [linux]}"
        yield "    #labels: {site: home}"
    else:
        yield "#exporters:"
        yield "#  node: {labels: {site: home}}"


def _output(choices: Choices) -> Iterator[str]:
    directory = _path(choices.output, choices)
    yield "# Where target files go: one <job>.json for each job. The directory is for them alone."
    yield "# In the config of Prometheus or vmagent, a job named node reads them with"
    yield f"# file_sd_configs: [{{files: [{yaml_text(str(choices.output / 'node.json'))}]}}]"
    yield "output:"
    yield f"  directory: {directory}"


def _rest() -> Sequence[str]:
    return (
        "# How long the last good answer of a backend is used while it fails, and what happens to machines that are",
        "# offline: keep, drop, or {grace: 30m}.",
        "#policy:",
        "#  max_age: 24h",
        "#  offline: keep",
        "",
        "# Labels on every target.",
        "#labels: {site: home}",
    )


def _declares(found: Surroundings) -> bool:
    """Tell whether a source declares targets. Before they are read, this is not known of a flake and of Compose files.

    A manifest declares node exporters, while the services of a Compose file often have no labels for Prometheus.
    """
    if found.manifest is not None:
        return True
    if found.inventory is not None:
        return found.inventory.targets > 0
    return found.flake is not None


def _path(path: Path, choices: Choices) -> str:
    """Write a path: relative to the config where it is in the same directory or below it."""
    if path.is_relative_to(choices.directory):
        path = path.relative_to(choices.directory)
    return yaml_text(str(path))
