"""Write flags and files for Thanos: receivers with a hashring, and the query in front. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from clan_discovery.emit.storage.remote_write import HA_LABEL
from clan_discovery.syntax.endpoint import join_endpoint
from clan_discovery.syntax.engines import known_storage
from clan_discovery.syntax.yaml_block import yaml_block

if TYPE_CHECKING:
    from clan_discovery.model import Json, Storage, StorageNode

_RECEIVER_LABEL: Final = "receive_replica"
_WRITE_PATH: Final = "/api/v1/receive"


def render_hashring(storage: Storage) -> str:
    """Return the hashring file: one ring of all receivers, at the addresses where they take copies."""
    endpoints: list[Json] = [{"address": _grpc(node)} for node in storage.nodes]
    ring: Json = [{"hashring": "default", "algorithm": "ketama", "endpoints": endpoints}]
    return json.dumps(ring, indent=2) + "\n"


def receive_flags(storage: Storage, node: StorageNode) -> tuple[str, ...]:
    """Return the flags of one receiver. Its own address must be the one in the hashring."""
    return (
        f"--receive.local-endpoint={_grpc(node)}",
        "--receive.hashrings-algorithm=ketama",
        f"--receive.replication-factor={storage.replicas}",
        f"--label={_RECEIVER_LABEL}={json.dumps(node.name, ensure_ascii=False)}",
    )


def query_flags(storage: Storage) -> tuple[str, ...]:
    """Return the flags of the query: the receivers, and the labels that only tell copies apart.

    Copies of one scrape are merged sample by sample (`chain`). Scrapes of several servers differ in time, and Thanos's
    default reads one of them until it has a gap.
    """
    flags = [f"--endpoint={_grpc(node)}" for node in storage.nodes]
    flags += [f"--query.replica-label={label}" for label in (_RECEIVER_LABEL, HA_LABEL)]
    if not storage.is_scraped_twice:
        flags.append("--deduplication.func=chain")
    return tuple(flags)


def render_receive_proxy(storage: Storage) -> str:
    """Return the config of vmauth for writing: any receiver that is up takes a write, and passes the copies on."""
    urls: list[Json] = [f"http://{join_endpoint(node.host, node.port)}/" for node in storage.nodes]
    route: Json = {"src_paths": [_WRITE_PATH], "url_prefix": urls}
    retried: Json = [*known_storage().retry_status_codes]
    return yaml_block({"unauthorized_user": {"url_map": [route], "retry_status_codes": retried}})


def _grpc(node: StorageNode) -> str:
    return join_endpoint(node.host, node.read_port)
