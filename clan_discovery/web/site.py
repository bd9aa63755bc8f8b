"""What is served: the newest refresh cycle. Bodies are made when they are first asked for, once."""

from __future__ import annotations

import threading
from hashlib import blake2b
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import msgspec
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from clan_discovery.model import (
        Declared,
        FleetStatus,
        MachineDetail,
        MachineStatus,
        Report,
        Resolution,
        Verification,
    )

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


class MachineStatuses(Protocol):
    """What the status page shows: of all machines, and of one."""

    @property
    def fleet(self) -> FleetStatus:
        """The status of all machines."""
        ...

    def machine(self, name: str) -> MachineDetail | None:
        """Return everything that is known of a machine; None if it is unknown."""
        ...

    def fleet_json(self, machines: Sequence[MachineStatus], total: int) -> bytes:
        """Return the status of some of `total` machines as JSON."""
        ...

    def machine_json(self, detail: MachineDetail) -> bytes:
        """Return everything that is known of one machine as JSON."""
        ...


class Cycle(msgspec.Struct, frozen=True, kw_only=True):
    """The newest refresh cycle that succeeded.

    `jobs` has the target list of each job, or why there is none. `every` is one list with the targets of all jobs, and
    `document` is the resolution as JSON. `statuses` makes what the status page shows.
    """

    declared: Declared
    resolution: Resolution
    jobs: Mapping[str, Body | Unserved]
    every: Lazy[Body | Unserved]
    document: Lazy[Body]
    statuses: Callable[[Report, Verification | None], MachineStatuses]


def healthy() -> str:
    """Return no reason to be unhealthy."""
    return ""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is served. The loop replaces it as a whole.

    `health` returns why refresh cycles fail; empty while they succeed. `metrics`, `report` and `cycle` are None until a
    cycle has succeeded. `verification` is the newest one of `run --verify-interval`.
    """

    health: Callable[[], str] = healthy
    metrics: Lazy[bytes] | None = None
    report: Report | None = None
    cycle: Cycle | None = None
    verification: Verification | None = None


class NewestStatuses:
    """Makes the statuses of the newest site, once for each cycle and each verification."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: tuple[object, ...] = ()
        self._made: MachineStatuses | None = None

    def get(self, site: Site) -> MachineStatuses | None:
        """Return the statuses of this site; None before the first cycle."""
        cycle, report = site.cycle, site.report
        if cycle is None or report is None:
            return None
        now = (cycle, report, site.verification)
        with self._lock:
            if self._made is None or any(old is not new for old, new in zip(self._of, now, strict=True)):
                self._made = cycle.statuses(report, site.verification)
                self._of = now
            return self._made


def join_lists(jobs: Mapping[str, Body | Unserved]) -> Body | Unserved:
    """Return one list with the targets of all jobs; why there is none if one job has none.

    A list is an array of objects, so what is between its first and its last brace is all of its targets.
    """
    parts: list[memoryview] = []  # not copied: the lists of 10,000 machines have 22 MB
    for body in jobs.values():
        if isinstance(body, Unserved):
            return body
        start, end = body.content.find(b"{"), body.content.rfind(b"}")
        if start >= 0:
            parts.append(memoryview(body.content)[start : end + 1])
    if not parts:
        return Body(b"[]\n")
    return Body(b"[\n" + b",\n".join(parts) + b"\n]\n")
