"""Read the Compose files of a config, and remember which files they are."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clan_discovery.assemble.source import configured_exporter
from clan_discovery.errors import refuse
from clan_discovery.inventory.compose.declare import ComposeMachine, ComposeOptions, declare_compose
from clan_discovery.inventory.compose.project import ComposeProject
from clan_discovery.inventory.merge import Part
from clan_discovery.reading import UnreadableError, UnusableFileError, read_input

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.config.models import ComposeSource

_SOURCE: Final = "compose"
_MAX_BYTES: Final = 4 * 1024 * 1024
"""The largest file; 500 services have about 250 KB."""


def read_compose(loaded: LoadedConfig, machines: Mapping[str, ComposeSource]) -> Part:
    """Read the Compose files of each machine, and those that they name.

    Raises:
        InputError: a file cannot be read or is not valid.
    """
    loaded.found.clear()
    options = ComposeOptions(
        read=partial(_read, loaded), lookup=partial(configured_exporter, loaded.config), problem=loaded.problem
    )
    declared = declare_compose([_machine(name, source) for name, source in machines.items()], options)
    return Part(source=_SOURCE, declared=declared, place=partial(_place, loaded))


def _machine(name: str, source: ComposeSource) -> ComposeMachine:
    projects = tuple(
        ComposeProject(
            files=tuple(map(str, project.files)),
            env_files=tuple(map(str, project.env_files)),
            profiles=tuple(project.profiles),
        )
        for project in source.all_projects
    )
    return ComposeMachine(name=name, projects=projects, scraper=source.scraper, proxy=source.proxy)


def _read(loaded: LoadedConfig, path: str, what: str) -> bytes | None:
    """Read a file, and remember it, also one that is missing: it is watched."""
    file = Path(path)
    loaded.found[file] = what
    try:
        return read_input(file, _MAX_BYTES)
    except UnreadableError as error:
        if isinstance(error.cause, FileNotFoundError | NotADirectoryError):
            return None
        if isinstance(error.cause, UnusableFileError):
            refuse(path, f"the {what} {error.why}")
        refuse(path, f"cannot read the {what}: {error.why}")


def _place(loaded: LoadedConfig, machine: str) -> str:
    return loaded.source.place(("inventory", _SOURCE, machine), key=True)
