"""What is served: the newest refresh cycle. Bodies are made when they are first asked for, once."""

from __future__ import annotations

import io
import threading
from bisect import bisect_right
from functools import partial
from hashlib import blake2b
from itertools import accumulate
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import msgspec
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from _typeshed import WriteableBuffer

    from clan_discovery.model import Declared, FleetStatus, MachineDetail, MachineStatus, Resolution

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
    """The bytes of a response in one or more parts, and their ETag. Parts of other bodies are not copied."""

    def __init__(self, *parts: bytes | memoryview) -> None:
        self.parts = parts
        self._etag = Lazy(partial(_etag, parts))

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Body) and self.parts == other.parts

    @override
    def __hash__(self) -> int:
        return hash(self.parts)

    @property
    def size(self) -> int:
        """Return the number of bytes."""
        return sum(map(len, self.parts))

    def open(self) -> io.BufferedReader:
        """Return the bytes as a file."""
        return io.BufferedReader(_Joined(self.parts))

    @property
    def etag(self) -> str:
        """Return a value that is different for other bytes."""
        return self._etag.get()


def _etag(parts: Sequence[bytes | memoryview]) -> str:
    found = blake2b(digest_size=16)
    for part in parts:
        found.update(part)
    return found.hexdigest()


class _Joined(io.RawIOBase):
    """Some bytes, one after the other, as a file."""

    def __init__(self, parts: Sequence[bytes | memoryview]) -> None:
        self._parts = parts
        self._ends = list(accumulate(map(len, parts)))
        self._at = 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: sum(map(len, self._parts))}[whence]
        self._at = start + offset
        return self._at

    @override
    def readinto(self, buffer: WriteableBuffer, /) -> int:
        index = bisect_right(self._ends, self._at)
        if index == len(self._parts):
            return 0
        space = memoryview(buffer)
        left = self._ends[index] - self._at
        part = memoryview(self._parts[index])[-left:][: len(space)]
        space[: len(part)] = part
        self._at += len(part)
        return len(part)


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
    `document` is the resolution as JSON.
    """

    declared: Declared
    resolution: Resolution
    jobs: Mapping[str, Body | Unserved]
    every: Lazy[Body | Unserved]
    document: Lazy[Body]


def healthy() -> str:
    """Return no reason to be unhealthy."""
    return ""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is served. The loop replaces it as a whole, so that nothing keeps an older cycle in memory.

    `health` returns why refresh cycles fail; empty while they succeed. `metrics`, `statuses` (what the status page
    shows) and `cycle` are None until a cycle has succeeded.
    """

    health: Callable[[], str] = healthy
    metrics: Lazy[bytes] | None = None
    statuses: Lazy[MachineStatuses] | None = None
    cycle: Cycle | None = None


def join_lists(jobs: Mapping[str, Body | Unserved]) -> Body | Unserved:
    """Return one list with the targets of all jobs; why there is none if one job has none.

    A list is an array of objects, so what is between its first and its last brace is all of its targets.
    """
    parts: list[bytes | memoryview] = []  # not copied: the lists of 10,000 machines have 22 MB
    for body in jobs.values():
        if isinstance(body, Unserved):
            return body
        content = b"".join(body.parts)  # it has one part, which is not copied either
        start, end = content.find(b"{"), content.rfind(b"}")
        if start >= 0:
            parts += (b",\n", memoryview(content)[start : end + 1])
    if not parts:
        return Body(b"[]\n")
    return Body(b"[\n", *parts[1:], b"\n]\n")
