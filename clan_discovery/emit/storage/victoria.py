"""Write flags and files for VictoriaMetrics: single nodes behind vmauth, and the cluster. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clan_discovery.emit.storage.remote_write import ipv6_flags
from clan_discovery.syntax.endpoint import join_endpoint
from clan_discovery.syntax.engines import known_storage
from clan_discovery.syntax.yaml_block import yaml_block

if TYPE_CHECKING:
    from clan_discovery.model import Json, Storage


def node_flags(storage: Storage) -> tuple[str, ...]:
    """Return the flags of a node: of several samples of a series within a time, it keeps one."""
    return (f"-dedup.minScrapeInterval={storage.dedup}ms", *ipv6_flags(storage))


def vminsert_flags(storage: Storage) -> tuple[str, ...]:
    """Return the flags of vminsert: the nodes to write to, and how many of them get each sample."""
    nodes = [f"-storageNode={join_endpoint(node.host, node.port)}" for node in storage.nodes]
    return (*nodes, f"-replicationFactor={storage.replicas}", *ipv6_flags(storage))


def vmselect_flags(storage: Storage) -> tuple[str, ...]:
    """Return the flags of vmselect: the nodes to read, and how many may be down before an answer is partial."""
    nodes = [f"-storageNode={join_endpoint(node.host, node.read_port)}" for node in storage.nodes]
    return (*nodes, f"-replicationFactor={storage.replicas}", *node_flags(storage))


def render_read_proxy(storage: Storage) -> str:
    """Return the config of vmauth for reading: the first node that is up answers.

    Not the least loaded one: a node that was down lacks samples until vmagent has caught up, and answers would differ.
    """
    urls: list[Json] = [f"http://{join_endpoint(node.host, node.read_port)}/" for node in storage.nodes]
    route: Json = {"src_paths": [*known_storage().read_paths], "url_prefix": urls}
    user: Json = {
        "url_map": [route],
        "load_balancing_policy": "first_available",
        "retry_status_codes": [*known_storage().retry_status_codes],
    }
    return yaml_block({"unauthorized_user": user})
