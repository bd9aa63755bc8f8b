"""The promise that every backend keeps: one verb, one context argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from clan_discovery.model import Snapshot


def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a backend is told when it is asked. It may grow; the verb does not change.

    `last` gives its last good answer, where one is remembered: for a backend that asks only what is due. `recall`
    gives what the published files know of it.
    """

    now: datetime
    last: Callable[[], Snapshot | None] = _nothing
    recall: Callable[[], Snapshot | None] = _nothing


class Health(NamedTuple):
    """One thing that a backend stands on: how it is, and, where it is not well, how it is mended."""

    about: str
    well: bool
    what: str
    mend: str = ""


@runtime_checkable
class Examinable(Protocol):
    """A backend that can be looked at, live, apart from a round."""

    def examine(self) -> list[Health]:
        """Look at everything that it stands on. Bounded in time; raises nothing."""
        ...


@runtime_checkable
class Naming(Protocol):
    """A backend that asks name by name, and remembers each by itself: its snapshots carry `answers`."""

    @property
    def jobs(self) -> tuple[str, ...]:
        """The jobs that it lists targets of, also those of which it lists none now."""
        ...

    @property
    def names(self) -> frozenset[str]:
        """The names that it asks, as they stand in the config."""
        ...

    @property
    def locates(self) -> bool:
        """Whether it tells where machines are, or only lists targets."""
        ...


class Backend(Protocol):
    """Something that knows where machines are."""

    @property
    def name(self) -> str:
        """The backend's name in the config: unique, and the value of `__meta_clan_backend`."""
        ...

    @property
    def fingerprint(self) -> str | None:
        """Whatever of the settings decides what is seen: an answer under another one is not comparable.

        None where nothing needs to be remembered, because the backend cannot fail.
        """
        ...

    def ask(self, ask: Ask, /) -> Snapshot:
        """Return everything that the source knows now, whole.

        An empty snapshot is a claim: the source has none. Time and size are bounded by the backend's settings.

        Raises:
            BackendError: it could not find out. Nothing else escapes.
        """
        ...
