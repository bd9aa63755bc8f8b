"""What is served: the newest refresh cycle. Bodies are made when they are first asked for, once."""

from __future__ import annotations

import threading
from hashlib import blake2b
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from clan_discovery.model import ChangeRecord, Declared, Resolution, Verification

T = TypeVar("T")


class Lazy(Generic[T]):
    """A value that is made when it is first asked for; other threads wait for it. A failure is tried again."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: list[T] = []
        self._lock = threading.Lock()

    def get(self) -> T:
        """Return the value."""
        with self._lock:
            if not self._made:
                self._made.append(self._make())
            return self._made[0]


class Body:
    """The bytes of a response, and their ETag."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._etag = Lazy(lambda: blake2b(content, digest_size=16).hexdigest())

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Body) and self.content == other.content

    @override
    def __hash__(self) -> int:
        return hash(self.content)

    @property
    def etag(self) -> str:
        """Return a value that is different for other bytes."""
        return self._etag.get()


class Unserved(msgspec.Struct, frozen=True):
    """Why there is no list for a job now."""

    reason: str


class Cycle(msgspec.Struct, frozen=True, kw_only=True):
    """The newest refresh cycle that succeeded.

    `jobs` has the target list of each job, or why there is none. `every` is one list with the targets of all jobs, and
    `document` is the resolution as JSON. `changes` are those of the history, oldest first.
    """

    declared: Declared
    resolution: Resolution
    jobs: Mapping[str, Body | Unserved]
    every: Lazy[Body | Unserved]
    document: Lazy[Body]
    changes: Lazy[Sequence[ChangeRecord]]


def healthy() -> str:
    """Return no reason to be unhealthy."""
    return ""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is served. The loop replaces it as a whole.

    `health` returns why refresh cycles fail; empty while they succeed. `metrics` is None, and `cycle` too, until a
    cycle has succeeded. `verification` is the newest one of `run --verify-interval`.
    """

    health: Callable[[], str] = healthy
    metrics: Lazy[bytes] | None = None
    cycle: Cycle | None = None
    verification: Verification | None = None


def join_lists(jobs: Mapping[str, Body | Unserved]) -> Body | Unserved:
    """Return one list with the targets of all jobs; why there is none if one job has none.

    Each list is `[]`, or has its brackets in lines of their own (`emit.file_sd`).
    """
    parts: list[bytes] = []
    for body in jobs.values():
        if isinstance(body, Unserved):
            return body
        inner = body.content.strip()[1:-1].strip()
        if inner:
            parts.append(inner)
    if not parts:
        return Body(b"[]\n")
    return Body(b"[\n" + b",\n".join(parts) + b"\n]\n")
