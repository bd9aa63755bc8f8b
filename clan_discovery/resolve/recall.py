"""What the published files still know of a backend, where nothing else does. Pure.

A state directory can be lost or garbled just when the backend fails, too. The target files that stand were made from
its last good answer: the machines in them, their addresses and their labels are read back from there.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from clan_discovery.model import Endpoint, Exporter, Node, Snapshot
from clan_discovery.syntax.endpoint import split_endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

Published: TypeAlias = "Iterable[tuple[str, Mapping[str, str]]]"
"""Targets as they stand in a file: address and labels."""

_META: Final = "__meta_tailscale_"
_DNS: Final = "__meta_dns_"


def recall(
    backend: str,
    published: Published,
    others: Mapping[str, AbstractSet[str]] | None = None,
    *,
    by_name: bool = False,
) -> Snapshot | None:
    """Rebuild a backend's snapshot from the targets that it gave an address; None where there is none.

    With `others`, the backends beside it and the names in DNS that each asks, targets of a backend that is none of them
    count too, and of one that does not ask the name any more: this one was called so, or its names were moved. Those
    that DNS gave are of a backend that asks `by_name`, and of no other; what such a one lists, and the inventory does
    not declare, is a target by itself.
    """
    nodes: dict[tuple[str, str], Node] = {}
    endpoints: list[Endpoint] = []
    suffix: str | None = None
    for address, labels in published:
        machine = labels.get("machine")
        gave = labels.get("__meta_clan_backend")
        before = others is not None and gave is not None and _left(gave, labels, others)
        if machine is None or (gave != backend and not before) or ("__meta_dns_name" in labels) != by_name:
            continue
        try:
            host, port = split_endpoint(address)
        except ValueError:
            continue
        name = labels.get(f"{_META}device_name", "")
        if name.startswith(f"{machine.casefold()}."):
            suffix = name[len(machine) + 1 :]
        if by_name and not _is_address(host) and not host.endswith(".invalid"):
            continue  # a name: nobody had an address for it
        if by_name and "__meta_clan_instance" not in labels:
            endpoints += _endpoint(backend, machine, host, port, labels)
        elif not by_name or _is_address(host):
            nodes.setdefault((machine, labels.get("__meta_dns_name", "")), _node(machine, host, labels))
    if not nodes and not endpoints:
        return None
    return Snapshot(
        backend=backend,
        nodes=tuple(nodes[key] for key in sorted(nodes)),
        endpoints=tuple(endpoints),
        suffix=suffix,
    )


def _left(gave: str, labels: Mapping[str, str], others: Mapping[str, AbstractSet[str]]) -> bool:
    """Tell whether nobody stands any more for a target that another backend gave."""
    name = labels.get("__meta_dns_name")
    return gave != "inventory" and (gave not in others or (name is not None and name not in others[gave]))


def _endpoint(backend: str, machine: str, host: str, port: int | None, labels: Mapping[str, str]) -> list[Endpoint]:
    """Read a target that was listed: what DNS gave. How it is scraped, the config of now says."""
    job = labels.get("__meta_clan_exporter")
    if job is None or port is None:
        return []
    exporter = Exporter(type=job, port=port, path=labels.get("__metrics_path__", "/metrics"))
    meta = {name: value for name, value in labels.items() if name.startswith(_DNS)}
    observed = labels.get("__meta_clan_observed") != "false"
    found = Endpoint(host=host, exporter=exporter, machine=machine, because="", backend=backend, labels=meta)
    return [msgspec.structs.replace(found, observed=observed)]


def _is_address(host: str) -> bool:
    """Tell whether DNS gave this: where it gave none, the target stands at a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _node(machine: str, host: str, labels: Mapping[str, str]) -> Node:
    tags = labels.get(f"{_META}device_tags", "").strip(",")
    return Node(
        machine.casefold(),
        (host,),
        tags=tuple(tags.split(",")) if tags else (),
        os=labels.get(f"{_META}device_os", "").casefold(),
        id=labels.get(f"{_META}device_id", ""),
        labels={name: value for name, value in labels.items() if name.startswith((_META, _DNS))},
    )
