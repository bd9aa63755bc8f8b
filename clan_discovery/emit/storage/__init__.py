"""Write what the programs of a storage must agree on: their flags, and the files that they read. Pure.

Not here is what each machine decides for itself: where a program listens, and where it keeps data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.emit.storage.remote_write import ha_labels, ipv6_flags, render_remote_write, vmagent_flags
from clan_discovery.emit.storage.thanos import query_flags, receive_flags, render_hashring, render_receive_proxy
from clan_discovery.emit.storage.victoria import (
    node_flags,
    render_read_proxy,
    vminsert_flags,
    vmselect_flags,
)
from clan_discovery.errors import refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from clan_discovery.model import Storage

REMOTE_WRITE: Final = "remote-write"
VMAUTH: Final = "vmauth"
HASHRING: Final = "thanos-hashring"
"""The files, as `show --format` names them."""


class StorageProgram(msgspec.Struct, frozen=True, kw_only=True):
    """A program and its flags. `node` is where it runs; empty: beside each server."""

    program: str
    node: str = ""
    flags: tuple[str, ...] = ()


def storage_document(storage: Storage) -> Mapping[str, object]:
    """Return the nodes, the programs with their flags, and the text of each file, for programs.

    `external_labels` are those of `global` in the scrape config of a vmagent.
    """
    return {
        "engine": storage.engine,
        "mode": storage.mode,
        "replicas": storage.replicas,
        "nodes": [_node(node_) for node_ in msgspec.to_builtins(storage.nodes)],
        "external_labels": ha_labels(storage),
        "programs": [msgspec.to_builtins(program) for program in storage_programs(storage)],
        "files": {name: render(storage) for name, render in _RENDERERS.items() if _missing(storage, name) is None},
    }


def _node(node: Mapping[str, object]) -> Mapping[str, object]:
    """Return a node without the address that its URL replaces."""
    if node["url"]:
        return {"name": node["name"], "url": node["url"]}
    return {key: value for key, value in node.items() if key != "url"}


def storage_programs(storage: Storage) -> Iterator[StorageProgram]:
    """Yield the programs of an engine: those of the nodes, then those beside each server."""
    match storage.engine:
        case "victoriametrics":
            for node in storage.nodes:
                yield StorageProgram(program="victoria-metrics", node=node.name, flags=node_flags(storage))
        case "victoriametrics-cluster":
            for node in storage.nodes:
                yield StorageProgram(program="vmstorage", node=node.name, flags=node_flags(storage))
            yield StorageProgram(program="vminsert", flags=vminsert_flags(storage))
            yield StorageProgram(program="vmselect", flags=vmselect_flags(storage))
        case "thanos":
            for node in storage.nodes:
                yield StorageProgram(program="thanos receive", node=node.name, flags=receive_flags(storage, node))
            yield StorageProgram(program="thanos query", flags=query_flags(storage))
        case "remote-write":
            pass
    if _missing(storage, VMAUTH) is None:
        yield StorageProgram(program="vmauth", flags=ipv6_flags(storage))
    yield StorageProgram(program="vmagent", flags=vmagent_flags(storage))


def render_storage_file(storage: Storage, name: str) -> str:
    """Return the text of a file.

    Raises:
        InputError: this storage has no such file; the message says which one it has instead.
    """
    missing = _missing(storage, name)
    if missing is not None:
        what, hint = missing
        refuse(f"--format {name}", what, hint)
    return _RENDERERS[name](storage)


def _render_vmauth(storage: Storage) -> str:
    if storage.engine == "thanos":
        return render_receive_proxy(storage)
    return render_read_proxy(storage)


_RENDERERS: Final[Mapping[str, Callable[[Storage], str]]] = {
    REMOTE_WRITE: render_remote_write,
    VMAUTH: _render_vmauth,
    HASHRING: render_hashring,
}


def _missing(storage: Storage, name: str) -> tuple[str, str] | None:
    """Return why a storage does not have a file, with a hint; None if it has it."""
    engine, is_sharded = storage.engine, storage.mode == "shard"
    if name == REMOTE_WRITE and is_sharded:
        return "Prometheus does not shard series with copies, as `mode: shard` says", "write with vmagent"
    if name == VMAUTH and is_sharded:
        return "vmauth cannot read nodes as one that each have a part of the series", "see docs/storage.md"
    if name == VMAUTH and engine not in ("victoriametrics", "thanos"):
        return f"the engine {engine} needs no vmauth", "see: clan-discovery show --format storage"
    if name == HASHRING and engine != "thanos":
        return f"the engine {engine} has no hashring", "set `engine: thanos`, or see: show --format storage"
    return None
