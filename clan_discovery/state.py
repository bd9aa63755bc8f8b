"""What is remembered between rounds, as files: one snapshot a backend, and beside it when it was taken.

The two are apart so that an unchanged answer writes a few bytes and not ten thousand machines. Nothing here stops
a round: what cannot be read is moved aside and reported, what cannot be written is reported. Nothing secret is in
it; it is 0600 because nobody else needs it.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.counters import Counters
from clan_discovery.model import Problem, Snapshot
from clan_discovery.publish.files import write_file
from clan_discovery.publish.lock import locked
from clan_discovery.resolve.trust import Absence, Held, Memory, Remembered

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

VERSION: Final = 1


class _When(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The small file: about each backend, all but the snapshot."""

    taken_at: float
    fingerprint: str
    held: Held | None = None
    offline: dict[str, Absence] = {}


class _Index(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    version: int = 0
    backends: dict[str, _When] = {}
    counters: Counters = Counters()


_INDEX: Final = msgspec.json.Decoder(_Index)
_SNAPSHOT: Final = msgspec.json.Decoder(Snapshot)
_encode: Final = msgspec.json.encode


@dataclass(slots=True)
class State:
    """The state directory. `problems` gathers what went wrong with it; `read_only` leaves it as it is."""

    directory: Path
    read_only: bool = False
    problems: list[Problem] = field(default_factory=list[Problem])
    _index: _Index | None = None
    _encoded: dict[str, tuple[Snapshot, bytes]] = field(default_factory=dict[str, "tuple[Snapshot, bytes]"])

    @property
    def scratch(self) -> Path:
        """Where files are prepared before they are moved into place."""
        return self.directory / "publishing"

    @contextlib.contextmanager
    def locked(self, wait: float) -> Generator[None]:
        """Hold the state for one round, where it can be held: refreshers of several outputs may share it.

        Raises:
            PublishError: another process holds it for more than `wait` seconds.
        """
        if self.read_only:
            yield
            return
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            held = os.access(self.directory, os.R_OK | os.X_OK)
        except OSError:
            held = False
        if not held:
            yield  # `save` says why
            return
        with locked(self.directory, wait):
            yield

    def prepare(self) -> None:
        """Read what all backends have in common, so that they may be loaded side by side."""
        self._read_index()

    def load(self, backend: str, like: Snapshot | None = None) -> Memory:
        """Return what is remembered of one backend; nothing where there is nothing, or it cannot be read.

        `like` is an answer of now: where the same is remembered, it need not be decoded.
        """
        when = self._read_index().backends.get(backend)
        if when is None:
            return Memory()
        file = self._file(backend)
        try:
            body = file.read_bytes()
            same = like is not None and body == self._lasting(backend, like)
            snapshot = like if same and like is not None else _SNAPSHOT.decode(body)
        except FileNotFoundError:
            return Memory()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._set_aside(file, error)
            return Memory()
        last = Remembered(snapshot=snapshot, taken_at=when.taken_at, fingerprint=when.fingerprint)
        return Memory(last=last, held=when.held, offline=when.offline)

    @property
    def counters(self) -> Counters:
        """What was counted so far."""
        return self._read_index().counters

    def save(self, memories: Mapping[str, Memory], counters: Counters | None = None) -> None:
        """Remember; a failure is a problem, never an exception. What others remember here stays."""
        if self.read_only:
            return
        others = {name: when for name, when in self._read_index().backends.items() if name not in memories}
        index = _Index(
            version=VERSION,
            counters=counters or self.counters,
            backends=others
            | {
                name: _When(taken_at=m.last.taken_at, fingerprint=m.last.fingerprint, held=m.held, offline=m.offline)
                for name, m in sorted(memories.items())
                if m.last is not None
            },
        )
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Snapshots first: an index never speaks of one that is not there.
            for name, memory in memories.items():
                if memory.last is not None:
                    write_file(self._file(name), self._lasting(name, memory.last.snapshot))
            write_file(self.directory / "index.json", _encode(index))
            self._index = index
        except OSError as error:
            self._complain(f"cannot remember this round: {error.strerror or error}")

    def _lasting(self, backend: str, snapshot: Snapshot) -> bytes:
        """Encode what is worth remembering, once a round: not who is online, which is old news at the next one."""
        known = self._encoded.get(backend)
        if known is None or known[0] is not snapshot:
            nodes = tuple(
                msgspec.structs.replace(n, online=None) if n.online is not None else n for n in snapshot.nodes
            )
            lasting = msgspec.structs.replace(
                snapshot, nodes=nodes, unanswered=(), due=None, asked=None, found=None, silent=False
            )
            known = self._encoded[backend] = snapshot, _encode(lasting)
        return known[1]

    def _read_index(self) -> _Index:
        if self._index is None:
            self._index = self._decode_index()
        return self._index

    def _decode_index(self) -> _Index:
        file = self.directory / "index.json"
        try:
            index = _INDEX.decode(file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return _Index()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._set_aside(file, error)
            return _Index()
        if index.version != VERSION:
            self._set_aside(file, ValueError(f"it is of version {index.version}, not {VERSION}"))
            return _Index()
        return index

    def _set_aside(self, file: Path, error: Exception) -> None:
        if self.read_only:
            self._complain(f"{file.name} cannot be read: {error}")
            return
        with contextlib.suppress(OSError):
            file.replace(file.with_name(f"{file.name}.unreadable"))
        self._complain(f"{file.name} cannot be read and is set aside: {error}")

    def _complain(self, what: str) -> None:
        hint = "the round goes on without memory"
        self.problems.append(Problem(where=f"state {self.directory}", what=what, hint=hint, severity="warning"))

    def _file(self, backend: str) -> Path:
        return self.directory / f"backend-{backend}.json"
