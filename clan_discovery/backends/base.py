"""Define the protocol of every backend: `ask`, with a memory of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from clan_discovery.model import Answer, Declared, Exporter

ConfigT = TypeVar("ConfigT")


class Asked(NamedTuple):
    """The result of asking a backend.

    `memory` is handed in at the next call: bytes that only the backend itself reads. `next_due` says when to ask again,
    in seconds since the epoch; None: at the next interval. `unusable` says why the memory that was handed in could not
    be used; empty if it could.
    """

    answer: Answer
    memory: bytes = b""
    next_due: float | None = None
    unusable: str = ""


class Health(NamedTuple):
    """One thing that a backend depends on: its state, and the fix if it is not well."""

    about: str
    well: bool
    what: str
    fix: str = ""


@runtime_checkable
class Examinable(Protocol):
    """A backend that `doctor` can examine outside a refresh cycle."""

    def examine(self) -> list[Health]:
        """Check everything that the backend depends on. Bounded in time; raises nothing."""
        ...


@runtime_checkable
class Timed(Protocol):
    """A backend that waits for a response: what it asks, and its time limit."""

    @property
    def asks(self) -> str:
        """Name what is asked, for a line of progress."""
        ...

    @property
    def budget(self) -> float:
        """Return the time limit of one call of `ask`, in seconds."""
        ...


@runtime_checkable
class Reusing(Protocol):
    """A backend that can reuse the parts of its last answer that have not changed."""

    def ask_reusing(self, now: datetime, memory: bytes, last: object, /) -> tuple[Asked, object]:
        """Ask as `Backend.ask`, with the same result; also return what the next call gets as `last` (None at first).

        It is never saved, and never used by two calls at once.
        """
        ...


class Backend(Protocol):
    """A source that locates machines or lists targets."""

    @property
    def name(self) -> str:
        """Return the name in the config: unique, and the value of `__meta_clan_backend`."""
        ...

    @property
    def fingerprint(self) -> str | None:
        """Return the settings that decide the answer.

        Answers with different fingerprints are not compared. None if nothing needs to be remembered, because the
        backend cannot fail.
        """
        ...

    @property
    def jobs(self) -> frozenset[str]:
        """Return the jobs that it lists targets for, including jobs without targets now."""
        ...

    @property
    def locates(self) -> bool:
        """Tell whether it locates machines; otherwise it only lists targets."""
        ...

    @property
    def any_address(self) -> bool:
        """Tell whether the config may allow addresses that are refused by default."""
        ...

    def ask(self, now: datetime, memory: bytes, /) -> Asked:
        """Return everything that the source knows now.

        `memory` is what the last call returned, or empty. An empty snapshot means that the source has nothing. Time and
        size are bounded by the backend's settings.

        Raises:
            BackendError: no answer; the memory stays unchanged. No other exception is raised.
        """
        ...


class BackendContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend can be built from, besides its own config.

    `declared` is the inventory. `exporter` returns the exporter of a type with the settings of the config. Its second
    argument is the port; None means the type's own port. It returns None if the port is unknown.
    """

    declared: Declared
    exporter: Callable[[str, int | None], Exporter | None]


class BackendKind(msgspec.Struct, Generic[ConfigT], frozen=True, kw_only=True):
    """A kind of backend that another distribution adds: the object of an entry point.

    `model` checks an entry `backends.<kind>.<name>` of the config. `build` makes the backend with this name. It does no
    I/O, and raises ValueError if the config is wrong; the message is shown with its position in the config.
    """

    model: type[ConfigT]
    build: Callable[[str, ConfigT, BackendContext], Backend]
