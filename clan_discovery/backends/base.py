"""The promise that every backend keeps: one verb, one context argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime

    from clan_discovery.model import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a backend is told when it is asked. It may grow; the verb does not change."""

    now: datetime


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
