"""What the published files still know of a backend, where nothing else does. Pure.

A state directory can be lost or garbled just when the backend fails, too. The target files that stand were made from
its last good answer: the machines in them, their addresses and their labels are read back from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from clan_discovery.endpoint import split_endpoint
from clan_discovery.model import Node, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

Published: TypeAlias = "Iterable[tuple[str, Mapping[str, str]]]"
"""Targets as they stand in a file: address and labels."""

_META = "__meta_tailscale_"


def recall(backend: str, published: Published, others: AbstractSet[str] | None = None) -> Snapshot | None:
    """Rebuild a backend's snapshot from the targets that it gave an address; None where there is none.

    With `others`, the names of the backends beside it, targets of a backend that is none of them count too: this one
    was called so before.
    """
    nodes: dict[str, Node] = {}
    suffix: str | None = None
    for address, labels in published:
        machine = labels.get("machine")
        gave = labels.get("__meta_clan_backend")
        before = others is not None and gave is not None and gave not in others and gave != "inventory"
        if machine is None or (gave != backend and not before):
            continue
        try:
            host, _ = split_endpoint(address)
        except ValueError:
            continue
        name = labels.get(f"{_META}device_name", "")
        if name.startswith(f"{machine.casefold()}."):
            suffix = name[len(machine) + 1 :]
        nodes.setdefault(machine, _node(machine, host, labels))
    if not nodes:
        return None
    return Snapshot(backend=backend, nodes=tuple(nodes[name] for name in sorted(nodes)), suffix=suffix)


def _node(machine: str, host: str, labels: Mapping[str, str]) -> Node:
    tags = labels.get(f"{_META}device_tags", "").strip(",")
    return Node(
        machine.casefold(),
        (host,),
        tags=tuple(tags.split(",")) if tags else (),
        os=labels.get(f"{_META}device_os", "").casefold(),
        id=labels.get(f"{_META}device_id", ""),
        labels={name: value for name, value in labels.items() if name.startswith(_META)},
    )
