"""Keep the loaded config and the plan made from it, and the last good plan if the config becomes invalid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from clan_discovery.resident.triggers import identity

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.resident.events import Events
    from clan_discovery.round import OutputPaths, Plan


_INVALID: Final = "the inventory is invalid; the last good one is used"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A loaded config: its output paths, how to make a plan, and what to watch: files with a reason, and sockets."""

    places: OutputPaths
    plan: Callable[[], Plan]
    files: tuple[tuple[Path, str], ...]
    sockets: tuple[Path, ...]


class Plans:
    """The newest good config and plan. `load` reads the config.

    Raises:
        InputError: the config or the inventory is invalid.
    """

    def __init__(self, load: Callable[[], Loaded], events: Events) -> None:
        self._load = load
        self._events = events
        self.loaded = load()
        self._files = _identities(self.loaded)
        self._plan = self.loaded.plan()

    def reload(self) -> None:
        """Load the config and make the plan again; if that fails, both stay as they are.

        Raises:
            InputError: the config or the inventory is invalid.
        """
        self._make(self._load())

    def newest(self) -> Plan:
        """Return the plan, made again if a file has changed; if that fails, the last good one."""
        if self._files == _identities(self.loaded):
            return self._plan
        try:
            self._make(self.loaded)
        except Exception as error:  # noqa: BLE001 - law 11: a file must not stop the process
            self._events.failed(_INVALID, error)
        return self._plan

    def _make(self, loaded: Loaded) -> None:
        files = _identities(loaded)  # before the files are read: a change meanwhile makes the next plan
        plan = loaded.plan()
        self.loaded, self._plan, self._files = loaded, plan, files
        self._events.succeeded(_INVALID)


def _identities(loaded: Loaded) -> tuple[object, ...]:
    """Identify the files of a plan, which status files are not part of."""
    return tuple(identity(file) for file, reason in loaded.files if reason != "status")
