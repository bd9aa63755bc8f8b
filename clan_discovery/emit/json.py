"""Write a resolution and an inventory as the JSON documents that `data/*.schema.json` describe."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from clan_discovery.model import Snapshot
from clan_discovery.syntax.terminal import escape_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from clan_discovery.model import (
        Belief,
        Declared,
        DeclaredAddress,
        Endpoint,
        Exclusion,
        Expected,
        Exporter,
        Failure,
        Front,
        Frozen,
        Machine,
        Resolution,
    )


def pretty(document: object) -> str:
    """Write a document as indented JSON with sorted keys and a newline at the end, safe for a terminal."""
    return escape_json(msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=2).decode()) + "\n"


def resolution_document(resolution: Resolution) -> Mapping[str, object]:
    """Return the document that `resolution.schema.json` describes. Structs are written with their fields as keys."""
    return {
        "targets": resolution.targets,
        "pushed": resolution.pushed,
        "jobs": resolution.jobs,
        "missing": resolution.missing,
        "unknown": resolution.unknown,
        "expired": resolution.expired,
        "frozen": [_frozen(frozen) for frozen in resolution.frozen],
        "stray": resolution.stray,
        "ambiguous": resolution.ambiguous,
        "excluded": [exclusion_document(exclusion) for exclusion in resolution.excluded],
        "excluded_by_reason": count_reasons(resolution.excluded),
        "backends": [_backend(belief) for belief in resolution.beliefs],
        "problems": resolution.problems,
        "additional_scrape_configs": resolution.additional_scrape_configs,
        "services": resolution.services,
        "limits": resolution.limits,
        "units": resolution.units,
        "needs": resolution.needs,
        "shard": resolution.shard,
        "fronts": [front_document(front) for front in resolution.fronts],
    }


def count_reasons(excluded: Iterable[Exclusion]) -> dict[str, int]:
    """Count exclusions by reason, sorted by reason."""
    return dict(sorted(Counter(exclusion.reason for exclusion in excluded).items()))


def exclusion_document(e: Exclusion) -> Mapping[str, object]:
    """Return an exclusion as it is in the documents, with every key."""
    return {"name": e.name, "reason": e.reason, "detail": e.detail, "by": e.by, "job": e.job}


def front_document(f: Front) -> Mapping[str, object]:
    """Return a front as it is in the documents. The values of headers may be secrets: only their names are shown."""
    return {
        "service": f.service,
        "machine": f.machine,
        "domain": f.domain,
        "path": f.path,
        "auth": f.auth,
        "scheme": f.scheme,
        "port": f.port,
        "host": f.host,
        "address": f.address,
        "loopback": f.loopback,
        "unbuffered": f.unbuffered,
        "insecure": f.insecure,
        "hidden": f.hidden,
        "headers": [name for name, _ in f.headers],
        "because": f.because,
        "where": f.where,
    }


def address_document(address: DeclaredAddress) -> Mapping[str, str]:
    """Return a declared address as it is in the documents."""
    return {"host": address.host, "source": address.words, "where": address.where}


def _backend(belief: Belief) -> Mapping[str, object]:
    known = belief.snapshot or Snapshot(backend=belief.backend)
    return {
        "backend": belief.backend,
        "state": belief.state,
        "why": belief.why,
        "age_seconds": round(belief.age, 1),
        "nodes": len(known.nodes),
        "unanswered": [_unanswered(failure) for failure in known.failures],
    }


def _unanswered(f: Failure) -> Mapping[str, object]:
    age = None if f.age is None else round(f.age, 1)
    return {"name": f.name, "reason": f.reason, "machine": f.machine, "age_seconds": age}


def _frozen(f: Frozen) -> Mapping[str, object]:
    until = None if f.until is None else _time(f.until)
    return {"job": f.job, "backend": f.backend, "since": _time(f.since), "until": until, "why": f.why}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def inventory_document(declared: Declared) -> Mapping[str, object]:
    """Return the document that `inventory.schema.json` describes."""
    tags: defaultdict[str, list[str]] = defaultdict(list)
    for machine in declared.machines:
        for tag in machine.tags:
            tags[tag].append(machine.name)
    return {
        "machines": {machine.name: _machine(machine) for machine in declared.machines},
        "tags": tags,
        "instances": _instances(declared),
        "meta": {"domain": declared.domain},
        "addresses": {name: address_document(address) for name, address in declared.addresses.items()},
        "agents": declared.agents,
        "exporters": [_exporter(expected) for expected in declared.expected],
        "endpoints": [_endpoint(endpoint) for endpoint in declared.endpoints],
        "services": declared.services,
        "limits": declared.limits,
        "units": declared.units,
        "needs": declared.needs,
        "fronts": [front_document(front) for front in declared.fronts],
        "excluded": [exclusion_document(exclusion) for exclusion in declared.excluded],
        "problems": declared.problems,
    }


def _machine(m: Machine) -> Mapping[str, object]:
    return {"name": m.name, "machineClass": m.machine_class, "tags": m.tags, "description": m.description}


def _instances(declared: Declared) -> Mapping[str, object]:
    modules: dict[str, object] = {}
    roles: defaultdict[str, dict[str, object]] = defaultdict(dict)
    for role in declared.roles:
        modules[role.instance] = {"name": role.module, "input": role.source}
        members = {name: {"settings": settings} for name, settings in role.members.items()}
        roles[role.instance][role.role] = {"machines": members}
    return {name: {"module": modules[name], "roles": roles[name]} for name in roles}


def _exporter(expected: Expected) -> Mapping[str, object]:
    return {
        **_served(expected.exporter),
        "machine": expected.machine.name,
        "instance": expected.instance,
        "because": expected.because,
        "host": expected.host,
        "where": expected.where,
        "delivery": expected.delivery,
        "patience": expected.patience,
    }


def _endpoint(endpoint: Endpoint) -> Mapping[str, object]:
    return {
        **_served(endpoint.exporter),
        "machine": endpoint.machine,
        "because": endpoint.because,
        "host": endpoint.host,
    }


def _served(exporter: Exporter) -> dict[str, object]:
    served: dict[str, object] = msgspec.structs.asdict(exporter)
    return served | {"params": dict(exporter.params), "labels": dict(exporter.labels)}
