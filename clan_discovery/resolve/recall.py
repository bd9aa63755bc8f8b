"""What the published files still know of a backend, where nothing else does. Pure.

A state directory can be lost or garbled just when the backend fails, too. The target files that stand were made from
its last good answer: the machines in them, their addresses and their labels are read back from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from clan_discovery.endpoint import split_endpoint
from clan_discovery.model import DnsAnswer, Node, RecordType, Snapshot

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
        if machine is None or (gave != backend and not before) or "__meta_dns_name" in labels:
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


def recall_answers(backend: str, published: Published, now: float) -> Snapshot | None:
    """Rebuild what DNS said of each name from the targets that were made of it, whichever backend asked.

    Each of them is due at once, and is as old as it is at `now` (seconds since the epoch): nobody knows since when it
    stands. None where there is none.
    """
    records: dict[tuple[str, RecordType], dict[str, None]] = {}
    extra: dict[str, dict[str, tuple[str, ...]]] = {}
    for address, labels in published:
        name = labels.get("__meta_dns_name", "").removesuffix(".").lower()
        target = labels.get("__meta_dns_srv_record_target", "").removesuffix(".")
        try:
            host, _ = split_endpoint(address)
        except ValueError:
            continue
        is_address = ":" in host or host.replace(".", "").isdigit()
        if target:
            record = f"0 0 {labels.get('__meta_dns_srv_record_port', '0')} {target}"
            records.setdefault((name, "SRV"), {})[record] = None
            if is_address:
                extra.setdefault(name, {})[target] = (host,)
        elif name and is_address:
            records.setdefault((name, "AAAA" if ":" in host else "A"), {})[host] = None
    answers = tuple(
        DnsAnswer(name, type_, now, 0.0, tuple(sorted(found)), extra=extra.get(name, {}) if type_ == "SRV" else {})
        for (name, type_), found in sorted(records.items())
    )
    return Snapshot(backend=backend, answers=answers) if answers else None


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
