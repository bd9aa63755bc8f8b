"""Resolution and inventory as JSON documents, for programs."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clan_discovery.emit.documents import (
        BackendDocument,
        ExclusionDocument,
        FrozenDocument,
        InventoryDocument,
        InventoryExporter,
        InventoryInstance,
        InventoryModule,
        InventoryRole,
        ProblemDocument,
        ResolutionDocument,
        TargetDocument,
        UnansweredDocument,
    )
    from clan_discovery.model import Belief, Declared, Exclusion, Expected, Failure, Frozen, Problem, Resolution, Target


def pretty(document: object) -> str:
    """Write a document as indented JSON with sorted keys and a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=2).decode() + "\n"


def resolution_document(resolution: Resolution) -> ResolutionDocument:
    """Return the document that `resolution.schema.json` describes."""
    return {
        "targets": [_target(target) for target in resolution.targets],
        "jobs": list(resolution.jobs),
        "missing": [
            {"machine": m.machine, "jobs": list(m.jobs), "similar": list(m.similar)} for m in resolution.missing
        ],
        "unknown": list(resolution.unknown),
        "expired": list(resolution.expired),
        "frozen": [_frozen(f) for f in resolution.frozen],
        "stray": [
            {"name": s.name, "backend": s.backend, "tags": list(s.tags), "alias": s.alias} for s in resolution.stray
        ],
        "ambiguous": [{"name": a.name, "backend": a.backend, "claims": list(a.claims)} for a in resolution.ambiguous],
        "excluded": [_exclusion(e) for e in resolution.excluded],
        "excluded_by_reason": count_reasons(resolution.excluded),
        "backends": [_backend(b) for b in resolution.beliefs],
        "problems": [_problem(p) for p in resolution.problems],
        "additional_scrape_configs": [dict(c) for c in resolution.additional_scrape_configs],
    }


def count_reasons(excluded: Iterable[Exclusion]) -> dict[str, int]:
    """Count exclusions by reason, sorted by reason."""
    return dict(sorted(Counter(e.reason for e in excluded).items()))


def _target(target: Target) -> TargetDocument:
    return {
        "job": target.job,
        "machine": target.machine,
        "address": target.address,
        "observed": target.observed,
        "online": target.online,
        "expired": target.expired,
        "backend": target.backend,
        "because": target.because,
        "located": target.located,
        "labels": dict(target.labels),
    }


def _exclusion(e: Exclusion) -> ExclusionDocument:
    return {"name": e.name, "reason": e.reason, "detail": e.detail, "by": e.by, "job": e.job}


def _backend(belief: Belief) -> BackendDocument:
    return {
        "backend": belief.backend,
        "state": belief.state.value,
        "why": belief.why,
        "age_seconds": round(belief.age, 1),
        "nodes": len(belief.snapshot.nodes) if belief.snapshot is not None else 0,
        "unanswered": [_unanswered(u) for u in belief.snapshot.failures] if belief.snapshot is not None else [],
    }


def _unanswered(u: Failure) -> UnansweredDocument:
    age = None if u.age is None else round(u.age, 1)
    return {"name": u.name, "reason": u.reason, "machine": u.machine, "age_seconds": age}


def _frozen(f: Frozen) -> FrozenDocument:
    since = datetime.fromtimestamp(f.since, UTC).isoformat(timespec="seconds")
    return {"job": f.job, "backend": f.backend, "since": since, "why": f.why}


def _problem(p: Problem) -> ProblemDocument:
    return {"where": p.where, "what": p.what, "hint": p.hint, "severity": p.severity}


def inventory_document(declared: Declared) -> InventoryDocument:
    """Return the document that `inventory.schema.json` describes."""
    return {
        "machines": {
            m.name: {"name": m.name, "machineClass": m.machine_class, "tags": list(m.tags)} for m in declared.machines
        },
        "tags": _tags(declared),
        "instances": _instances(declared),
        "meta": {"domain": declared.domain},
        "exporters": [_exporter(expected) for expected in declared.expected],
        "excluded": [_exclusion(e) for e in declared.excluded],
        "problems": [_problem(p) for p in declared.problems],
    }


def _tags(declared: Declared) -> dict[str, list[str]]:
    tags: dict[str, list[str]] = {}
    for machine in declared.machines:
        for tag in machine.tags:
            tags.setdefault(tag, []).append(machine.name)
    return tags


def _instances(declared: Declared) -> dict[str, InventoryInstance]:
    modules: dict[str, InventoryModule] = {}
    roles: dict[str, dict[str, InventoryRole | None]] = {}
    for role in declared.roles:
        modules[role.instance] = {"name": role.module, "input": role.source}
        roles.setdefault(role.instance, {})[role.role] = {
            "machines": {name: {"settings": dict(settings)} for name, settings in role.members.items()}
        }
    return {name: {"module": modules[name], "roles": roles[name]} for name in roles}


def _exporter(expected: Expected) -> InventoryExporter:
    exporter = expected.exporter
    return {
        "machine": expected.machine.name,
        "type": exporter.type,
        "port": exporter.port,
        "path": exporter.path,
        "scheme": exporter.scheme,
        "params": dict(exporter.params),
        "labels": dict(exporter.labels),
        "instance": expected.instance,
        "because": expected.because,
    }
