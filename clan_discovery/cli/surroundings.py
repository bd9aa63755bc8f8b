"""Look for what a first config needs: an inventory, tailscaled, Prometheus. Changes nothing."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.cli.config_file import stranger_of
from clan_discovery.errors import BackendError, InputError, refuse
from clan_discovery.reading import UnreadableError, read_input
from clan_discovery.syntax.endpoint import is_host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clan_discovery.model import Json

_MAX_INVENTORY: Final = 128 * 1024 * 1024
_MAX_TEXT: Final = 4 * 1024 * 1024
_MAX_VALUES: Final = 100_000
_INVENTORIES: Final = ("inventory.json", "clan/inventory.json")
"""Where an inventory is looked for: as the docs write it, and as `dump --output clan` does."""
_MANIFESTS: Final = ("service-manifest.json", "service-manifest.yaml", "service-manifest.yml")
_COMPOSE_FILES: Final = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
"""The names that Compose looks for, in its order."""
_SCRAPER_CONFIGS: Final = ("etc/prometheus/prometheus.yml", "etc/prometheus/prometheus.yaml")
_UNITS: Final = ("prometheus.service", "vmagent.service", "victoriametrics.service", "victoria-metrics.service")
_UNIT_DIRECTORIES: Final = ("etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")
_CONFIG_OPTION: Final = re.compile(r"-(?:config\.file|promscrape\.config)[= ]\"?([^\s\"']+)")


class FoundInventory(msgspec.Struct, frozen=True):
    """An inventory file, and the files of the same dump beside it."""

    file: Path
    machines: int
    targets: int
    settings: Path | None = None
    exports: Path | None = None


class FoundCompose(msgspec.Struct, frozen=True):
    """A Compose file that is not read yet, and the name of this machine without its domain."""

    file: Path
    machine: str


class FoundTailnet(msgspec.Struct, frozen=True):
    """The tailscaled of this machine: its state and how many nodes it knows, or why it did not answer."""

    socket: Path
    state: str = ""
    nodes: int = 0
    why: str = ""


class FoundScraper(msgspec.Struct, frozen=True):
    """The config of Prometheus or vmagent, and the directories whose JSON files it reads as targets."""

    file: Path
    directories: tuple[Path, ...] = ()


class Surroundings(msgspec.Struct, frozen=True):
    """What was found. `flake` is the directory of a flake that can be evaluated here; `notes` are problems.

    `manifest` is a file that is not read yet.
    """

    inventory: FoundInventory | None = None
    flake: Path | None = None
    manifest: Path | None = None
    compose: FoundCompose | None = None
    tailnet: FoundTailnet | None = None
    scraper: FoundScraper | None = None
    notes: tuple[str, ...] = ()


def look(directory: Path, root: Path, seconds: float) -> Surroundings:
    """Look for the files of sources and a flake in a directory, and for services below a root.

    `seconds` is how long tailscaled may take to answer.
    """
    notes: list[str] = []
    return Surroundings(
        inventory=_inventory(directory, notes),
        flake=_flake(directory, notes),
        manifest=_first(directory, _MANIFESTS, notes),
        compose=_compose(directory, notes),
        tailnet=_tailnet(root, seconds),
        scraper=_scraper(root),
        notes=tuple(notes),
    )


def _inventory(directory: Path, notes: list[str]) -> FoundInventory | None:
    """Return the first inventory that can be used; note why another one cannot."""
    for name in _INVENTORIES:
        file = directory / name
        if file.is_file() and _is_ours(file, notes):
            try:
                return _read_inventory(file)
            except InputError as error:
                notes.append(f"not used: {error.problems[0]}")
    return None


def _first(directory: Path, names: Sequence[str], notes: list[str]) -> Path | None:
    """Return the first of these files that is there and can be used; note why another one cannot."""
    for name in names:
        file = directory / name
        if file.is_file() and _is_ours(file, notes):
            return file
    return None


def _compose(directory: Path, notes: list[str]) -> FoundCompose | None:
    """Return the Compose file, as that of this machine."""
    file = _first(directory, _COMPOSE_FILES, notes)
    if file is None:
        return None
    name = os.uname().nodename.partition(".")[0]
    if not is_host(name):
        name = "this-machine"
    return FoundCompose(file, name)


def _is_ours(file: Path, notes: list[str]) -> bool:
    """Tell whether a file belongs to this user or root; note why not.

    In a shared directory such as /tmp, anybody can put a file in the way, and it would say what is scraped.
    """
    if why := stranger_of(file):
        notes.append(f"not used: {file}: it {why}")
    return not why


def _read_inventory(file: Path) -> FoundInventory:
    """Read an inventory with the other files of its dump.

    Raises:
        InputError: one of them is not valid.
    """
    from clan_discovery.inventory.clan import declare, exports, wire  # noqa: PLC0415 - only if there is one

    options = declare.Options()
    settings, exported = file.with_name("settings.json"), file.with_name("exports.json")
    if settings.is_file():
        dump = declare.parse_dump(_bytes(settings), str(settings))
        options = msgspec.structs.replace(options, dump=dump, dump_where=str(settings))
    if exported.is_file():
        options = msgspec.structs.replace(options, exports=exports.parse_exports(_bytes(exported), str(exported)))
    declared = declare.declare(wire.parse_inventory(_bytes(file), str(file)), options)
    return FoundInventory(
        file,
        machines=len(declared.machines),
        targets=len(declared.expected),
        settings=_existing(settings),
        exports=_existing(exported),
    )


def _bytes(file: Path) -> bytes:
    try:
        return read_input(file, _MAX_INVENTORY)
    except UnreadableError as error:
        refuse(str(file), error.why)


def _existing(file: Path) -> Path | None:
    if file.is_file():
        return file
    return None


def _flake(directory: Path, notes: list[str]) -> Path | None:
    """Return the directory if its flake mentions clan and Nix is here. Nix is not run: it may take minutes."""
    file = directory / "flake.nix"
    text = _text(file)
    if text is None or not _is_ours(file, notes):
        return None
    if "clan" not in text:
        notes.append(f"not used: {file}: it does not mention clan")
        return None
    if shutil.which("nix") is None:
        notes.append(f"not used: {file}: nix is not on PATH; write its inventory elsewhere: clan-discovery dump")
        return None
    return directory


def _tailnet(root: Path, seconds: float) -> FoundTailnet | None:
    socket = root / "run/tailscale/tailscaled.sock"
    if not os.path.lexists(socket):
        return None
    from clan_discovery.localapi.client import LocalAPI  # noqa: PLC0415 - httpx takes 50 ms to import

    try:
        status = LocalAPI(socket, budget=seconds).status()
    except BackendError as error:
        return FoundTailnet(socket, why=str(error))
    return FoundTailnet(socket, state=status.BackendState or "unknown", nodes=len(status.peers))


def _scraper(root: Path) -> FoundScraper | None:
    """Return the first scraper config that exists."""
    for file in (*(root / name for name in _SCRAPER_CONFIGS), *_named_by_units(root)):
        text = _text(file)
        if text is not None:
            return FoundScraper(file, tuple(dict.fromkeys(_target_directories(text, file.parent))))
    return None


def _named_by_units(root: Path) -> Iterator[Path]:
    """Yield the configs that systemd units name."""
    for directory in _UNIT_DIRECTORIES:
        for unit in _UNITS:
            for name in _CONFIG_OPTION.findall(_text(root / directory / unit) or ""):
                yield root / str(name).lstrip("/")


def _target_directories(text: str, parent: Path) -> Iterator[Path]:
    """Yield the directories of the `file_sd_configs` of a scraper's config."""
    from clan_discovery.syntax.tree import TreeError, parse_yaml  # noqa: PLC0415 - only if there is a config

    try:
        config = parse_yaml(text, most=_MAX_VALUES).value
    except TreeError:
        return
    for job in _list(_get(config, "scrape_configs")):
        for discovery in _list(_get(job, "file_sd_configs")):
            for pattern in _list(_get(discovery, "files")):
                if isinstance(pattern, str) and pattern.endswith(".json"):
                    yield parent / Path(pattern).parent


def _get(value: Json, key: str) -> Json:
    if isinstance(value, Mapping):
        return value.get(key)
    return None


def _list(value: Json) -> Sequence[Json]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return value
    return ()


def _text(file: Path) -> str | None:
    """Return the text of a file; None if it is not there or cannot be read."""
    try:
        return read_input(file, _MAX_TEXT).decode("utf-8", "replace")
    except UnreadableError:
        return None
