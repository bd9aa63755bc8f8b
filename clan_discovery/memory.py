"""Load and save what is remembered between refresh cycles: the values of `resolve.memory`, the files of `State`.

Files: `index.json`, one `backend-<name>.json` for each last good answer, one `memory-<name>` for what a backend
remembers by itself, one `history-<number>.json` for each output directory.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING

import msgspec

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
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from clan_discovery.backends.base import Backend
    from clan_discovery.model import Counters, Resolution, Snapshot
    from clan_discovery.publish.state import State
    from clan_discovery.resolve.changes import Changes
    from clan_discovery.resolve.history import History

_INDEX = "index.json"


class Memories(msgspec.Struct):
    """What is remembered of all backends of a plan. `lost` are those whose memory should be there and is not."""

    state: State
    lost: set[str] = set()
    _backends: dict[str, Backend] = {}
    _index: Index = msgspec.field(default_factory=Index)
    _sources: dict[str, str] = {}
    _encoded: dict[str, tuple[Snapshot, bytes]] = {}

    @classmethod
    def read(cls, state: State, backends: Sequence[Backend]) -> Memories:
        """Read the index; without one, the memory of every backend that remembers anything is lost.

        What this user may not read is not lost: the owner of the state can.
        """
        found = cls(state, _backends={b.name: b for b in backends if b.fingerprint is not None})
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
        """Return the totals so far."""
        return self._index.counters

    def own(self, backend: str) -> bytes:
        """Return what a backend remembers by itself; empty where there is nothing."""
        source = self._sources.get(backend)
        if source is None or not self._index.backends[source].own:
            return b""
        body = self.state.read(_own_file(source))
        if body is None and not self.state.hidden:
            self.lost.add(backend)
        return body or b""

    def forget_own(self, backend: str, why: str) -> None:
        """Set aside what a backend cannot use of its own memory."""
        self.state.set_aside(_own_file(self._sources.get(backend, backend)), why)
        self.lost.add(backend)

    def load(self, backend: str, answer: Snapshot | None) -> Memory:
        """Return what is remembered of a backend; nothing where there is nothing, or where it cannot be read.

        `answer` is the newest answer: where the same one is remembered, it need not be decoded.
        """
        source = self._sources.get(backend)
        if source is None:
            return Memory()
        entry = self._index.backends[source]
        if entry.taken_at is None:
            return entry.memory(None)
        body = self.state.read(_snapshot_file(source))
        if body is not None:
            if answer is not None and source == backend and body == self._encode(backend, answer):
                return entry.memory(answer)
            try:
                snapshot = decode_snapshot(body, source, any_address=self._backends[backend].any_address)
            except ValueError as error:
                self.state.set_aside(_snapshot_file(source), str(error))
            else:
                return entry.memory(snapshot if source == backend else renamed(snapshot, backend))
        if not self.state.hidden:
            self.lost.add(backend)
        return entry.memory(None)

    def save(self, memories: Mapping[str, Memory], own: Mapping[str, bytes], counters: Counters) -> None:
        """Remember. A failure is a problem of the state, never an exception. What others remember there stays."""
        others = {name: entry for name, entry in self._index.backends.items() if name not in memories}
        # An entry also where nothing was answered: this backend's memory is not lost, there is none yet.
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
        files[_INDEX] = encode_index(index)  # last: it never names a snapshot that is not there
        if self.state.write(files):
            self._index = index

    def _encode(self, backend: str, snapshot: Snapshot) -> bytes:
        """Encode a snapshot, once in a cycle."""
        known = self._encoded.get(backend)
        if known is None or known[0] is not snapshot:
            known = self._encoded[backend] = snapshot, encode_snapshot(snapshot)
        return known[1]


def _sources(entries: Mapping[str, IndexEntry], backends: Mapping[str, Backend]) -> dict[str, str]:
    """Return under which name each backend is remembered.

    What asked the same is the same backend, also where the config gives it another name; of several, the one that
    listed most of its jobs, then the newest. Else a backend whose settings were edited is known by its name. One whose
    name and settings were edited at once is a new one: the old memory may be that of another config.
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
    """Compare with what was asked last, and with what the last good answer was given to."""
    return backend.fingerprint in (entry.asked, entry.fingerprint)


def _snapshot_file(backend: str) -> str:
    return f"backend-{backend}.json"


def _own_file(backend: str) -> str:
    return f"memory-{backend}"


def read_counters(state: State) -> Counters:
    """Return the totals that the state holds."""
    return Memories.read(state, ()).counters


class HistoryFile(msgspec.Struct, frozen=True):
    """The history of one output directory, as it was read. A state may be shared by several output directories."""

    state: State
    name: str
    body: bytes | None

    @classmethod
    def read(cls, state: State, directory: Path) -> HistoryFile:
        """Read it before anything is written: what cannot be read for the moment must not be overwritten.

        Raises:
            PublishError: the file could not be read.
        """
        name = _history_file(state.directory, directory)
        return cls(state, name, state.read(name))

    def record(self, resolution: Resolution) -> Changes:
        """Write what a cycle changed after it was published, and return it; an unchanged cycle writes nothing.

        A process that is killed in between leaves the old history: the next cycle finds the same changes.
        """
        try:
            advanced = advance(self.body, resolution)
        except ValueError as error:
            self.state.set_aside(self.name, str(error))
            advanced = advance(None, resolution)
        if advanced.body is not None:
            self.state.write({self.name: advanced.body})
        return advanced.changes


def read_history(state: State, directory: Path) -> History | None:
    """Return the history of an output directory; None where there is none, or where it is no history."""
    name = _history_file(state.directory, directory)
    body = state.read(name)
    if body is None:
        return None
    try:
        return decode_history(body)
    except ValueError as error:
        state.set_aside(name, str(error))
        return None


def _history_file(state: Path, directory: Path) -> str:
    """Name the file of an output directory, by the way there: both may be moved together."""
    way = os.path.relpath(os.path.realpath(directory), os.path.realpath(state))
    return f"history-{zlib.crc32(os.fsencode(way)):08x}.json"
