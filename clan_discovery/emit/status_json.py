"""Write the status of machines as the JSON documents that `machines.schema.json` and `machine.schema.json` describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from clan_discovery.emit.changes import changes_json
from clan_discovery.emit.explain import documents
from clan_discovery.model import one_line
from clan_discovery.syntax.instant import rfc3339

if TYPE_CHECKING:
    from clan_discovery.model import Attention, FleetStatus, Json, MachineDetail, MachineStatus, TargetStatus


def fleet_json(fleet: FleetStatus, machines: Sequence[MachineStatus], total: int) -> bytes:
    """Return the status of some of `total` machines, with what needs attention of all machines."""
    verified_at = None
    if fleet.verified_at is not None:
        verified_at = rfc3339(fleet.verified_at)
    return _encoded(
        {
            "as_of": rfc3339(fleet.at),
            "verified_at": verified_at,
            "total": total,
            "states": fleet.states,
            "verdicts": fleet.verdicts,
            "attention": list(map(_attention, fleet.attention)),
            "machines": list(map(_machine, machines)),
        }
    )


def machine_json(detail: MachineDetail) -> bytes:
    """Return everything that is known of one machine."""
    return _encoded(
        {
            **_machine(detail.status),
            "explanation": documents([detail.explanation])[0],
            "changes": changes_json(detail.changes),
            "links": detail.links,
            "scrapes": detail.scrapes,
        }
    )


def _attention(attention: Attention) -> Mapping[str, object]:
    return {
        "kind": attention.kind,
        "level": attention.level,
        "title": attention.title,
        "total": attention.total,
        "items": attention.items,
    }


def _machine(machine: MachineStatus) -> dict[str, object]:
    since, is_exact = None, True
    if machine.since is not None:
        since, is_exact = rfc3339(machine.since.at), machine.since.is_exact
    return {
        "name": machine.name,
        "declared": machine.declared,
        "state": machine.state,
        "reason": machine.reason,
        "since": since,
        "since_is_exact": is_exact,
        "targets": list(map(_target, machine.targets)),
    }


def _target(target: TargetStatus) -> Mapping[str, object]:
    return {
        "job": target.job,
        "instance": target.instance,
        "address": target.address,
        "backend": target.backend or None,
        "state": target.state,
        "verdict": target.verdict,
        "reason": target.reason,
        "fix": target.fix,
        "scraper": target.scraper or None,
    }


def _encoded(document: Mapping[str, object]) -> bytes:
    """Encode a document; surrogates, which UTF-8 cannot hold, are escaped."""
    try:
        return msgspec.json.encode(document) + b"\n"
    except UnicodeEncodeError:
        plain: Json = msgspec.to_builtins(document)
        return msgspec.json.encode(_escaped(plain)) + b"\n"


def _escaped(value: Json) -> Json:
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, Mapping):
        return {one_line(key): _escaped(inner) for key, inner in value.items()}
    if isinstance(value, Sequence):
        return list(map(_escaped, value))
    return value
