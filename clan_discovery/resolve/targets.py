"""Candidates become targets: one for each endpoint of a machine, named and labelled. Pure.

A candidate is an exporter of a machine at a place. The same endpoint stands once, whoever asks for it. A label that
Prometheus could not read is left out, and an invalid host is replaced by one below .invalid; the target stays.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from urllib.parse import urlencode

import msgspec

from clan_discovery.model import Exclusion, Exporter, Machine, Node, Pairs, Problem, Target
from clan_discovery.resolve.express import exporter_complaint, is_text, tag_labels
from clan_discovery.syntax.endpoint import is_address, is_host, join_endpoint, nowhere
from clan_discovery.syntax.labels import label_complaint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_Served: TypeAlias = "tuple[int, str, str, Pairs]"
"""What an exporter serves on a machine: port, scheme, path and parameters."""


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a machine is: an address or a name, who says so, and in which words.

    `name` leads to the address `host`, too, and may be used instead; empty where none may.
    """

    host: str
    observed: bool
    backend: str | None
    located: str
    labels: Mapping[str, str] = {}
    online: bool | None = None
    expired: bool = False
    name: str = ""


class Naming(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Which targets are at names instead of IP addresses: those of `backends`, unless `jobs` says otherwise by job."""

    backends: frozenset[str] = frozenset()
    jobs: Mapping[str, bool] = {}

    def __bool__(self) -> bool:
        return bool(self.backends or self.jobs)

    def applies(self, job: str, backend: str | None) -> bool:
        """Tell whether a target of this job, at an address from this backend, is at its name."""
        return self.jobs.get(job, backend in self.backends)


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A target before it is named: an exporter of a machine at a place.

    `instance` and `role` are those of the inventory; empty where the inventory does not declare it.
    """

    machine: Machine
    exporter: Exporter
    place: Place
    because: str
    instance: str = ""
    role: str = ""


def seen_at(
    host: str,
    backend: str,
    located: str,
    labels: Mapping[str, str],
    node: Node | None = None,
    *,
    observed: bool = True,
    name: str = "",
) -> Place:
    """Return the place of a machine that a backend sees, with what the node that it is says of itself."""
    online, expired = (node.online, node.expired) if node is not None else (None, False)
    return Place(
        host,
        observed=observed,
        backend=backend,
        located=located,
        labels=labels,
        online=online,
        expired=expired,
        name=name,
    )


class _Shared(NamedTuple):
    """Labels that targets have in common, and why their exporter cannot be written, if so."""

    labels: Mapping[str, str]
    complaint: str | None


class Targets:
    """Collects candidates; `labels` go on every target, `naming` says which are at names."""

    def __init__(self, labels: Pairs, naming: Naming) -> None:
        self._labels = labels
        self._naming = naming
        self._candidates: dict[tuple[str, str], list[Candidate]] = {}
        self._taken: dict[tuple[str, str], set[_Served]] = {}
        self._shared: dict[tuple[object, ...], _Shared] = {}
        self.inexpressible: list[Exclusion] = []
        self.problems: dict[Problem, None] = {}

    def machines(self, job: str | None = None) -> frozenset[str]:
        """Return the machines that have a candidate (of a job), case-folded."""
        return frozenset(machine.casefold() for of, machine in self._candidates if job in (None, of))

    def offer(self, candidate: Candidate) -> None:
        """Keep a candidate unless the same endpoint of the same machine stands there already."""
        key = candidate.exporter.type, candidate.machine.name
        there = self._candidates.setdefault(key, [])
        if there:
            taken = self._taken.setdefault(key, {_endpoint_of(there[0].exporter)})
            endpoint = _endpoint_of(candidate.exporter)
            if endpoint in taken:
                return
            taken.add(endpoint)
        there.append(candidate)

    def write(self) -> Iterator[Target]:
        """Name and label the candidates; one whose exporter or instance cannot be expressed is excluded."""
        for (job, machine), candidates in self._candidates.items():
            for instance, candidate in _instances(machine, candidates):
                exporter, place = candidate.exporter, candidate.place
                shared = self._shared_of(candidate)
                labels = {**place.labels, **shared.labels, "instance": instance, "machine": machine}
                complaint = shared.complaint
                host, located = place.host, place.located
                if self._naming and self._naming.applies(job, place.backend):
                    host, located = _at_name(place)
                if not is_host(host):
                    host = self._instead_of(host, machine)
                if complaint is None and not is_text(labels):
                    labels, complaint = self._without_bad_values(labels, job)
                if complaint is not None:
                    by = place.backend or "inventory"
                    self.inexpressible.append(
                        Exclusion(name=machine, reason="inexpressible", detail=complaint, by=by, job=job)
                    )
                    continue
                yield Target(
                    job,
                    machine,
                    join_endpoint(host, exporter.port),
                    labels,
                    place.observed,
                    place.backend,
                    candidate.because,
                    located,
                    place.online,
                    place.expired,
                )

    def _instead_of(self, host: str, machine: str) -> str:
        """Return the host of a target whose own cannot be written: one that resolves nowhere."""
        self._warn(machine, f"{host[:80]!r} is no name in DNS and no address: its target is at {nowhere(machine)}")
        return nowhere(machine)

    def _warn(self, where: str, what: str) -> None:
        self.problems[Problem(where=where, what=what, severity="warning")] = None

    def _without_bad_values(self, labels: dict[str, str], job: str) -> tuple[dict[str, str], str | None]:
        """Leave out labels whose value is no Unicode text, or say that the target cannot be named."""
        bad = [name for name, value in labels.items() if not is_text({name: value})]
        for name in ("instance", "machine"):
            if name in bad:
                return labels, f"the value of {name} is no Unicode text"
        self._warn(f"job {job}", f"labels are left out, because their values are no Unicode text: {', '.join(bad)}")
        return {name: value for name, value in labels.items() if name not in bad}, None

    def _shared_of(self, candidate: Candidate) -> _Shared:
        """Return what a target has in common with others: ten thousand machines share a handful."""
        place = candidate.place
        # The exporter by identity: the candidates keep it alive, and hashing it costs more than the look-up saves.
        key = (
            id(candidate.exporter),
            candidate.machine.tags,
            candidate.instance,
            candidate.role,
            place.backend,
            place.observed,
        )
        shared = self._shared.get(key)
        if shared is None:
            shared = _Shared(self._shared_labels(candidate), exporter_complaint(candidate.exporter))
            self._shared[key] = shared
        return shared

    def _shared_labels(self, candidate: Candidate) -> dict[str, str]:
        """Write labels of DESIGN 4.1; only what differs from Prometheus's default where it has one."""
        exporter, place = candidate.exporter, candidate.place
        labels = dict(self._labels)
        for name, value in exporter.labels:
            if complaint := label_complaint(name):
                self._warn(f"job {exporter.type}", f"a label is left out: {complaint}")
            else:
                labels[name] = value
        labels.update(tag_labels(candidate.machine.tags))
        if candidate.role:
            labels["__meta_clan_instance"] = candidate.instance
            labels["__meta_clan_role"] = candidate.role
        if place.backend is not None:
            labels["__meta_clan_backend"] = place.backend
        labels["__meta_clan_exporter"] = exporter.type
        labels["__meta_clan_observed"] = "true" if place.observed else "false"
        if exporter.path != "/metrics":
            labels["__metrics_path__"] = exporter.path
        if exporter.scheme != "http":
            labels["__scheme__"] = exporter.scheme
        for name, value in exporter.params:
            labels[f"__param_{name}"] = value
        return labels


def _at_name(place: Place) -> tuple[str, str]:
    """Return the host of a target that is to be at a name, and the explanation."""
    if place.name:
        return place.name, f"{place.located}; at its name {place.name} (config: address)"
    if place.observed and is_address(place.host):
        return place.host, f"{place.located}; at its address, because no name of it can be used"
    return place.host, place.located


def _endpoint_of(exporter: Exporter) -> _Served:
    return exporter.port, exporter.scheme, exporter.path, exporter.params


def _instances(machine: str, candidates: list[Candidate]) -> list[tuple[str, Candidate]]:
    """Name the instances: the machine; of several, machine and port; of several on one port, path and query too.

    Two targets of a job with one `instance` would write into each other's series.
    """
    if len(candidates) == 1:
        return [(machine, candidates[0])]
    named: list[tuple[str, Candidate]] = []
    ports = Counter(candidate.exporter.port for candidate in candidates)
    for candidate in candidates:
        exporter = candidate.exporter
        name = join_endpoint(machine, exporter.port)
        if ports[exporter.port] > 1:
            query = f"?{urlencode(exporter.params)}" if exporter.params else ""
            scheme = "" if exporter.scheme == "http" else f"{exporter.scheme}://"
            name = f"{scheme}{name}{exporter.path}{query}"
        named.append((name, candidate))
    return named
