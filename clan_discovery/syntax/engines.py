"""The engines that store samples: default ports and copies, and what vmauth passes on (data/storage.json)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec


class EngineWriter(msgspec.Struct, frozen=True, kw_only=True):
    """The program beside each server that takes its samples: the port on loopback, and the path of remote writes."""

    port: int
    path: str

    @property
    def url(self) -> str:
        """Return where servers write."""
        return f"http://127.0.0.1:{self.port}{self.path}"


class KnownEngine(msgspec.Struct, frozen=True, kw_only=True):
    """The default ports of a node, for writes and for queries.

    `replicas` is the default number of copies; None: one for each node. `writer` is None where servers write to the
    nodes themselves.
    """

    write: int
    read: int
    replicas: int | None = None
    writer: EngineWriter | None = None


class DedupBounds(msgspec.Struct, frozen=True, kw_only=True):
    """The least and the most that a dedup interval may be, as durations of Prometheus."""

    least: str
    most: str


class KnownStorage(msgspec.Struct, frozen=True, kw_only=True):
    """What Nix and Python both know of engines.

    `shard_replicas` is the default number of copies where vmagent shards. `read_paths` are regular expressions for the
    paths that read: a write would reach one node alone. vmauth removes a lone `/` before it compares a path. After the
    `retry_status_codes`, it asks the next node.
    """

    engines: dict[str, KnownEngine]
    dedup_interval: DedupBounds
    modes: tuple[str, ...]
    read_paths: tuple[str, ...]
    retry_status_codes: tuple[int, ...]
    shard_replicas: int


@cache
def known_storage() -> KnownStorage:
    """Return the table."""
    file = Path(__file__).parent.parent / "data/storage.json"
    return msgspec.json.decode(file.read_bytes(), type=KnownStorage)
