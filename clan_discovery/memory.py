"""Load and save the memory between refresh cycles.

The values are those of `resolve.memory`. The files are in the state directory (`State`): `index.json`, a
`backend-<name>.json` for each last good answer, a `memory-<name>` for each backend's own memory (such as a DNS cache),
and a `history-<number>.json` for each output directory.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from clan_discovery.backends.base import Reusing
from clan_discovery.errors import PublishError
from clan_discovery.resolve.changes import Changes
from clan_discovery.resolve.decoded import DecodedFile
from clan_discovery.resolve.history import advance, decode_history
from clan_discovery.resolve.memory import (
    VERSION,
    Index,
    IndexEntry,
    Memory,
    decode_index,
    decode_snapshot,
    encode_index,
    encode_snapshot,
    renamed,
    storable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from clan_discovery.backends.base import Backend
    from clan_discovery.model import Counters, Resolution, Snapshot
    from clan_discovery.publish.state import State
    from clan_discovery.resolve.history import History

_INDEX = "index.json"


class _Encoded(NamedTuple):
    """A snapshot, what is stored of it, and the bytes of that."""

    snapshot: Snapshot
    stored: Snapshot
    body: bytes


class Memories(msgspec.Struct):
    """The memory of all backends of a plan. `lost` are the backends whose memory should exist but does not."""

    state: State
    lost: set[str] = set()
    _backends: dict[str, Backend] = {}
    _index: Index = msgspec.field(default_factory=Index)
    _sources: dict[str, str] = {}
    _encoded: dict[str, _Encoded] = {}
    _decoded: dict[str, DecodedFile[Snapshot]] | None = None

    @classmethod
    def read(
        cls, state: State, backends: Sequence[Backend], decoded: dict[str, DecodedFile[Snapshot]] | None = None
    ) -> Memories:
        """Read the index; if it is missing, the memory of every backend that has one is lost.

        The snapshots in `decoded`, by backend, are not decoded again; it then has those of this cycle.
        Files that this user may not read do not count as lost: the owner of the state can read them.
        """
        found = cls(state, _backends={b.name: b for b in backends if b.fingerprint is not None}, _decoded=decoded)
        body = state.read(_INDEX)
        if state.hidden:
            return found
        index = None
        if body is not None:
            try:
                index = decode_index(body)
            except ValueError as error:
                state.set_aside(_INDEX, str(error))
        if index is None:
            found.lost = set(found._backends)
            return found
        found._index = index
        found._sources = _sources(index.backends, found._backends)
        return found

    @property
    def counters(self) -> Counters:
        """Return the totals since the state was made."""
        return self._index.counters

    def own(self, backend: str) -> bytes:
        """Return a backend's own memory; empty if there is none."""
        source = self._sources.get(backend)
        if source is None or not self._index.backends[source].own:
            return b""
        body = self.state.read(_own_file(source))
        if body is None and not self.state.hidden:
            self.lost.add(backend)
        return body or b""

    def forget_own(self, backend: str, why: str) -> None:
        """Set aside a backend's own memory, which it cannot use; `why` is the reason."""
        self.state.set_aside(_own_file(self._sources.get(backend, backend)), why)
        self.lost.add(backend)

    def load(self, backend: str, answer: Snapshot | None) -> Memory:
        """Return the memory of a backend; it is empty if there is none or it cannot be read.

        `answer` is the newest answer. If the stored answer has the same bytes, it is not decoded again.
        """
        source = self._sources.get(backend)
        if source is None:
            return Memory()
        entry = self._index.backends[source]
        if entry.taken_at is None:
            return entry.memory(None)
        body = self.state.read(_snapshot_file(source))
        if body is not None:
            known = self._known(backend, body, answer) if source == backend else None
            if known is not None:
                return entry.memory(known)
            try:
                snapshot = decode_snapshot(body, source, any_address=self._backends[backend].any_address)
            except ValueError as error:
                self.state.set_aside(_snapshot_file(source), str(error))
            else:
                return entry.memory(snapshot if source == backend else renamed(snapshot, backend))
        if not self.state.hidden:
            self.lost.add(backend)
        return entry.memory(None)

    def _known(self, backend: str, body: bytes, answer: Snapshot | None) -> Snapshot | None:
        """Return the snapshot with these bytes if it is the answer, or that of the last cycle."""
        if answer is not None and body == self._encode(backend, answer):
            return answer
        last = None if self._decoded is None else self._decoded.get(backend)
        return None if last is None else last.of(body)

    def save(self, memories: Mapping[str, Memory], own: Mapping[str, bytes], counters: Counters) -> None:
        """Save the memory of all backends of the plan; entries of other backends are kept.

        A failure is reported as a problem of the state, never raised.
        """
        others = {name: entry for name, entry in self._index.backends.items() if name not in memories}
        # A backend that never answered also gets an entry. Without one, its memory would count as lost.
        entries: dict[str, IndexEntry] = {}
        for name, memory in sorted(memories.items()):
            backend = self._backends[name]
            entries[name] = IndexEntry.of(memory, backend.fingerprint or "", backend.jobs, own=bool(own.get(name)))
        index = Index(version=VERSION, counters=counters, backends=others | entries)
        files: dict[str, bytes] = {}
        for name, memory in memories.items():
            if memory.last is not None:
                files[_snapshot_file(name)] = self._encode(name, memory.last.snapshot)
        files |= {_own_file(name): body for name, body in own.items() if body}
        files[_INDEX] = encode_index(index)  # last, so that it never names a missing snapshot
        if self.state.write(files):
            self._index = index
            self._keep()

    def _encode(self, backend: str, snapshot: Snapshot) -> bytes:
        """Encode a snapshot; the result is reused within a cycle."""
        known = self._encoded.get(backend)
        if known is None or known.snapshot is not snapshot:
            stored = storable(snapshot)
            known = self._encoded[backend] = _Encoded(snapshot, stored, encode_snapshot(stored))
        return known.body

    def _keep(self) -> None:
        """Keep the snapshots for the next cycle. Those of other authors' backends are decoded and checked in each."""
        if self._decoded is None:
            return
        for name, encoded in self._encoded.items():
            if isinstance(self._backends[name], Reusing):
                self._decoded[name] = DecodedFile(encoded.body, encoded.stored)


def _sources(entries: Mapping[str, IndexEntry], backends: Mapping[str, Backend]) -> dict[str, str]:
    """Return the stored name of each backend.

    A backend is recognised by its fingerprint (what it asks), even under another name. Of several entries with this
    fingerprint, the one that shares most jobs wins, then the newest. A backend whose settings were edited is recognised
    by its name. If both its name and its settings changed, it is a new backend: the old memory may be that of another
    config.
    """
    unchanged = {name for name in backends.keys() & entries.keys() if _asks_the_same(entries[name], backends[name])}
    pairs: list[tuple[tuple[bool, int, float, bool], str, str]] = []
    for name, backend in backends.items():
        for source, entry in entries.items():
            same = _asks_the_same(entry, backend)
            if source == name or (same and source not in unchanged):
                resemblance = same, len(backend.jobs.intersection(entry.jobs)), entry.taken_at or 0.0, source == name
                pairs.append((resemblance, name, source))
    found: dict[str, str] = {}
    for _, name, source in sorted(pairs, reverse=True):
        if name not in found and source not in found.values():
            found[name] = source
    return found


def _asks_the_same(entry: IndexEntry, backend: Backend) -> bool:
    """Tell whether a backend asks what was asked last, or what the last good answer was an answer to."""
    return backend.fingerprint in (entry.asked, entry.fingerprint)


def _snapshot_file(backend: str) -> str:
    return f"backend-{backend}.json"


def _own_file(backend: str) -> str:
    return f"memory-{backend}"


def read_counters(state: State) -> Counters:
    """Return the totals that are stored in the state."""
    return Memories.read(state, ()).counters


class HistoryFile(msgspec.Struct, frozen=True):
    """The history of one output directory, as read. Several output directories may share a state."""

    state: State
    name: str
    body: bytes | None
    is_readable: bool = True

    @classmethod
    def read(cls, state: State, directory: Path) -> HistoryFile:
        """Read the history, before anything is written.

        A file that cannot be read is reported and never overwritten; targets are published without it.
        """
        name = history_path(state.directory, directory).name
        try:
            return cls(state, name, state.read(name))
        except PublishError as error:
            state.report(str(error), "this cycle's changes are not recorded")
            return cls(state, name, None, is_readable=False)

    def record(self, resolution: Resolution, cache: DecodedFile[History] | None = None) -> Changes:
        """Write the changes of a published cycle, and return them; a cycle without changes writes nothing.

        For the `cache`, see `advance`.
        If the process is killed before the write, the next cycle finds the same changes again.
        """
        if not self.is_readable:
            return Changes()
        try:
            advanced = advance(self.body, resolution, cache)
        except ValueError as error:
            self.state.set_aside(self.name, str(error))
            advanced = advance(None, resolution, cache)
        if advanced.body is not None:
            self.state.write({self.name: advanced.body})
        return advanced.changes


def read_history(state: State, directory: Path) -> History | None:
    """Return the history of an output directory; None if there is none or it is damaged."""
    name = history_path(state.directory, directory).name
    body = state.read(name)
    if body is None:
        return None
    try:
        return decode_history(body)
    except ValueError as error:
        state.set_aside(name, str(error))
        return None


def history_path(state: Path, directory: Path) -> Path:
    """Return the file with the history of an output directory. A cycle without changes does not write it.

    Its name is made from the relative path, so that it stays the same if both directories are moved together.
    """
    way = os.path.relpath(os.path.realpath(directory), os.path.realpath(state))
    return state / f"history-{zlib.crc32(os.fsencode(way)):08x}.json"
