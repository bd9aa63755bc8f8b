"""Write how servers send samples: `remote_write` of Prometheus, and the flags of vmagent. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clan_discovery.syntax.endpoint import is_ipv6, join_endpoint
from clan_discovery.syntax.yaml_block import yaml_block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clan_discovery.model import Json, Storage, StorageNode

HA_LABEL: Final = "replica"
"""What tells the samples of servers that scrape the same targets apart, for Thanos and by custom of Prometheus."""
_MIMIR_LABEL: Final = "__replica__"


def written_urls(storage: Storage) -> list[tuple[str, str]]:
    """Return the name and the URL of each place that servers write to."""
    if storage.write_url:
        return [("storage", storage.write_url)]
    return [(node.name, node.url or _write_url(node)) for node in storage.nodes]


def _write_url(node: StorageNode) -> str:
    return f"http://{join_endpoint(node.host, node.port)}/api/v1/write"


def ha_labels(storage: Storage) -> dict[str, str]:
    """Return the labels of all samples of this server, which readers or Mimir remove; empty where there are none."""
    if not storage.server:
        return {}
    if storage.engine == "thanos":
        return {HA_LABEL: storage.server}
    if storage.cluster:
        return {"cluster": storage.cluster, _MIMIR_LABEL: storage.server}
    return {}


def render_remote_write(storage: Storage) -> str:
    """Return the part of prometheus.yml that writes to the storage.

    The labels are those of written samples alone. External labels would be those of alerts, too, and alerts of servers
    that scrape the same targets must not differ. As with external labels, a label that a sample has stays.
    """
    rules: list[Json] = [
        {"source_labels": [name], "regex": "", "target_label": name, "replacement": value}
        for name, value in ha_labels(storage).items()
    ]
    relabelling: dict[str, Json] = {"write_relabel_configs": rules} if rules else {}
    writes: list[Json] = [{"name": name, "url": url, **relabelling} for name, url in written_urls(storage)]
    return yaml_block({"remote_write": writes})


def vmagent_flags(storage: Storage) -> tuple[str, ...]:
    """Return the flags with which vmagent writes to the storage."""
    return tuple(_vmagent_flags(storage))


def _vmagent_flags(storage: Storage) -> Iterator[str]:
    urls = written_urls(storage)
    yield from (f"-remoteWrite.url={url}" for _, url in urls)
    if storage.mode == "shard":
        yield "-remoteWrite.shardByURL"
        yield f"-remoteWrite.shardByURLReplicas={storage.replicas}"
    if not storage.engine.startswith("victoriametrics"):
        # Other engines refuse samples that are older than the newest one, which concurrent queues would send, and
        # labels that are not sorted. So there is no -remoteWrite.label: vmagent 1.131 appends it to sorted labels.
        yield "-remoteWrite.queues=1"
        yield "-sortLabels"
        yield "-remoteWrite.forcePromProto"
    yield from ipv6_flags(storage)


def ipv6_flags(storage: Storage) -> tuple[str, ...]:
    """Return the flag without which programs of VictoriaMetrics use no IPv6; empty where no address needs it."""
    if any(is_ipv6(node.host) for node in storage.nodes):
        return ("-enableTCP6",)
    return ()
