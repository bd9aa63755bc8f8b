"""What can go wrong, by what the caller does next. Errors carry data and a hint; exiting is the command line's.

ClanDiscoveryError
├── InputError      mend the config, the inventory or the command: exit 2
├── BackendError    a backend could not find out: try again later: exit 3
└── PublishError    mend the disk, the directory or wait for the lock: exit 5
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.model import Problem


class ClanDiscoveryError(Exception):
    """The root of all that this package raises on purpose."""

    hint: str | None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class InputError(ClanDiscoveryError):
    """The config, the inventory or the command line is wrong. `problems` holds all complaints at once."""

    problems: tuple[Problem, ...]

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class BackendError(ClanDiscoveryError):
    """A backend could not find out. A round turns it into an `Outage`; it never means "no machines"."""


class PublishError(ClanDiscoveryError):
    """The target files could not be written; the old ones stand."""
