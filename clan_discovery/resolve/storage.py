"""Find the addresses of the nodes that store samples. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from clan_discovery.model import Problem
from clan_discovery.syntax.endpoint import is_host, is_nowhere, join_endpoint, nowhere

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clan_discovery.model import Storage, StorageNode


def located_storage(storage: Storage, host_of: Callable[[str], str]) -> Storage:
    """Return the storage with the address of each node. A node stays in the lists, whether it is seen or not."""
    return msgspec.structs.replace(storage, nodes=tuple(_located(node, host_of) for node in storage.nodes))


def _located(node: StorageNode, host_of: Callable[[str], str]) -> StorageNode:
    if node.host or node.url:
        return node
    host = host_of(node.name)
    if not is_host(host):
        host = nowhere(node.name)
    return msgspec.structs.replace(node, host=host)


def unusable_nodes(storage: Storage) -> Iterator[Problem]:
    """Yield a problem for each node at the address of another one, and for each without an address."""
    first: dict[str, str] = {}
    for node in storage.nodes:
        if is_nowhere(node.host):
            hint = f"give its address: `storage: {{nodes: {{{node.name}: {{address: ADDRESS}}}}}}`"
            what = f"no address of {node.name} is known: nothing can be stored there"
            yield Problem(where="storage.nodes", what=what, hint=hint, severity="warning")
            continue
        place = node.url or join_endpoint(node.host, node.port)
        other = first.setdefault(place, node.name)
        if other != node.name:
            what = f"{other} and {node.name} are both at {place}, so that two copies of a sample would be in one place"
            hint = "give each node a machine, or a port, of its own"
            yield Problem(where="storage.nodes", what=what, hint=hint, severity="problem")
