"""Turn candidates into targets with instance names and labels. Pure.

A candidate is an exporter of a machine, with an address. Each endpoint of a machine becomes one target, even if several
rules ask for it. A label that Prometheus cannot read is left out, and an invalid host is replaced by one below
.invalid; the target stays.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from urllib.parse import urlencode

import msgspec

from clan_discovery.model import (
    Delivery,
    Exclusion,
    Exporter,
    Machine,
    Node,
    Pairs,
    Patience,
    Problem,
    Shard,
    Target,
)
from clan_discovery.resolve.express import exporter_complaint, is_text, tag_labels
from clan_discovery.resolve.shard import Assignment
from clan_discovery.syntax.endpoint import is_address, is_host, is_loopback, join_endpoint, nowhere
from clan_discovery.syntax.labels import label_complaint

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

_Served: TypeAlias = "tuple[str, int, str, str, Pairs]"
"""The endpoint of an exporter on a machine: host (empty: the machine's), port, scheme, path and parameters."""


class Place(msgspec.Struct, frozen=True, gc=False):
    """The address of a machine, the backend that gives it, and how it was found.

    `host` is an IP address or a name. `name` is a DNS name that resolves to `host` and may be used instead; empty if
    there is none. `asked`: a backend is asked where the machine is.
    """

    host: str
    observed: bool
    backend: str | None
    located: str
    labels: Mapping[str, str] = {}
    online: bool | None = None
    expired: bool = False
    name: str = ""
    asked: bool = True


class Naming(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Which targets use names instead of IP addresses as their address.

    These are the targets of `backends`; `jobs` overrides this for single jobs.
    """

    backends: frozenset[str] = frozenset()
    jobs: Mapping[str, bool] = {}

    def __bool__(self) -> bool:
        return bool(self.backends or self.jobs)

    def applies(self, job: str, backend: str | None) -> bool:
        """Tell whether a target of this job and backend uses a name as its address."""
        return self.jobs.get(job, backend in self.backends)


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A target before it has its `instance` label: an exporter, and where it is.

    `instance` and `role` are those of the inventory; empty if the inventory does not declare the exporter. `host` is
    the name of the exporter in a network that the scraper shares; empty if its address is that of the machine. `where`
    is the place of the declaration.
    """

    machine: Machine
    exporter: Exporter
    place: Place
    because: str
    instance: str = ""
    role: str = ""
    host: str = ""
    where: str = ""
    delivery: Delivery = "pull"
    patience: Patience = "always"


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
    """Return the place of a machine that a backend sees, with the node's flags."""
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
    """Labels shared by several targets, and why their exporter cannot be written; `is_plain`: nothing was left out."""

    labels: Mapping[str, str]
    complaint: str | None
    is_plain: bool


class _ReusableTarget(msgspec.Struct, frozen=True, gc=False):
    """A candidate, and the target that it became, without any remark.

    Its key in the cache is kept with it: 300,000 new keys in each cycle would be 300,000 objects for the garbage
    collector to look at.
    """

    key: tuple[str, str]
    candidate: Candidate
    target: Target


class TargetCache(msgspec.Struct):
    """The targets of the last cycle, by job and machine; only those that are the one target of a job on a machine.

    `context` is all that decides a target beside its candidates.
    """

    context: object = None
    written: dict[tuple[str, str], _ReusableTarget] = {}

    def keep_for(self, context: object) -> None:
        """Forget the targets unless they were made in an equal context."""
        if self.context != context:
            self.context, self.written = context, {}


class Targets:
    """Collects candidates and writes targets.

    `labels` go on every target. `naming` says which targets use names as addresses, `shard` which servers publish them.
    """

    def __init__(self, labels: Pairs, naming: Naming, shard: Shard | None = None) -> None:
        self._labels = labels
        self._naming = naming
        self._assignment = Assignment(shard) if shard is not None else None
        self._candidates: dict[tuple[str, str], list[Candidate]] = {}
        self._taken: dict[tuple[str, str], set[_Served]] = {}
        self._shared: dict[tuple[object, ...], _Shared] = {}
        self._remarks = 0
        self.inexpressible: list[Exclusion] = []
        self.problems: dict[Problem, None] = {}

    def machines(self, job: str | None = None) -> frozenset[str]:
        """Return the machines that have a candidate (in this job), case-folded."""
        return frozenset(machine.casefold() for of, machine in self._candidates if job in (None, of))

    def has(self, machine: str, exporter: Exporter) -> bool:
        """Tell whether the machine has a candidate of this type on this port."""
        there = self._candidates.get((exporter.type, machine), ())
        return any(candidate.exporter.port == exporter.port for candidate in there)

    def offer(self, candidate: Candidate) -> None:
        """Add a candidate unless the machine already has one with the same endpoint."""
        key = candidate.exporter.type, candidate.machine.name
        there = self._candidates.setdefault(key, [])
        if there:
            taken = self._taken.setdefault(key, {_endpoint_of(there[0])})
            endpoint = _endpoint_of(candidate)
            if endpoint in taken:
                return
            taken.add(endpoint)
        there.append(candidate)

    def write(self, beside: Collection[tuple[str, str]] = (), cache: TargetCache | None = None) -> Iterator[Target]:
        """Name and label the candidates.

        `beside` are the jobs and machines of other targets, whose instance is the name of the machine. A candidate is
        excluded if its exporter or its instance cannot be written. Targets of equal candidates are taken from the
        `cache`, which then has the targets of this call.
        """
        known: dict[tuple[str, str], _ReusableTarget] = {}
        found: dict[tuple[str, str], _ReusableTarget] = {}
        if cache is not None:
            known, cache.written = cache.written, found
        for key, candidates in self._candidates.items():
            job, machine = key
            alone = key not in beside
            same = known.get(key)
            if same is not None and alone and len(candidates) == 1 and candidates[0] == same.candidate:
                found[same.key] = same
                yield same.target
                continue
            for instance, candidate in _instances(machine, candidates, alone=alone):
                remarks = self._remarks
                target = self._target(job, machine, instance, candidate)
                if target is None:
                    continue
                yield target
                # Only the one target of a machine is its own instance.
                if cache is not None and instance == machine and self._remarks == remarks:
                    found[key] = _ReusableTarget(key, candidate, target)

    def _target(self, job: str, machine: str, instance: str, candidate: Candidate) -> Target | None:
        """Label a candidate; None if it is excluded."""
        exporter, place = candidate.exporter, candidate.place
        shared = self._shared_of(candidate)
        labels = {**place.labels, **shared.labels, "instance": instance, "machine": machine}
        complaint = shared.complaint
        self._remarks += not shared.is_plain
        host, located = place.host, place.located
        if self._naming and self._naming.applies(job, place.backend):
            host, located = _at_name(place)
        if not is_host(host):
            host = self._instead_of(host, machine)
        if complaint is None and not is_text(labels):
            labels, complaint = self._without_bad_values(labels, job)
        if complaint is not None:
            by = place.backend or "inventory"
            self.inexpressible.append(Exclusion(name=machine, reason="inexpressible", detail=complaint, by=by, job=job))
            return None
        return Target(
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
            place.asked,
            candidate.where,
            candidate.delivery,
            candidate.patience,
            self._servers(candidate),
        )

    def _servers(self, candidate: Candidate) -> tuple[str, ...]:
        """Return the members of the shard that publish a target; empty: every server does."""
        if self._assignment is None or _is_local(candidate):
            return ()
        return self._assignment.of(candidate.exporter.type, candidate.machine.name)

    def _instead_of(self, host: str, machine: str) -> str:
        """Return a host that resolves nowhere, to replace one that cannot be written."""
        self._warn(machine, f"{host[:80]!r} is neither a DNS name nor an IP address: using {nowhere(machine)} instead")
        return nowhere(machine)

    def _warn(self, where: str, what: str) -> None:
        self._remarks += 1
        self.problems[Problem(where=where, what=what, severity="warning")] = None

    def _without_bad_values(self, labels: dict[str, str], job: str) -> tuple[dict[str, str], str | None]:
        """Leave out labels whose value is not Unicode text.

        The second value says why the target cannot be written, or is None.
        """
        bad = [name for name, value in labels.items() if not is_text({name: value})]
        for name in ("instance", "machine"):
            if name in bad:
                return labels, f"the value of {name} is not valid Unicode"
        self._warn(f"job {job}", f"labels left out because their values are not valid Unicode: {', '.join(bad)}")
        return {name: value for name, value in labels.items() if name not in bad}, None

    def _shared_of(self, candidate: Candidate) -> _Shared:
        """Return the labels that several targets share, built once."""
        place = candidate.place
        # By id: the candidates keep the exporter alive, and hashing it costs more than the cache saves.
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
            remarks = self._remarks
            labels = self._shared_labels(candidate)
            shared = _Shared(labels, exporter_complaint(candidate.exporter), self._remarks == remarks)
            self._shared[key] = shared
        return shared

    def _shared_labels(self, candidate: Candidate) -> dict[str, str]:
        """Return the labels of docs/labels.md that do not depend on the address.

        Scrape labels are written only if they differ from Prometheus's defaults.
        """
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
    """Return the name as host if there is one, and the explanation."""
    if place.name:
        return place.name, f"{place.located}; at its name {place.name} (config: address)"
    if place.observed and is_address(place.host):
        return place.host, f"{place.located}; at its address, because none of its names can be used"
    return place.host, place.located


def _is_local(candidate: Candidate) -> bool:
    """Tell whether only the scraper beside the target reaches it."""
    if candidate.host:
        return is_beside(candidate.host)
    return is_loopback(candidate.place.host)


def is_beside(host: str) -> bool:
    """Tell whether a host of a declaration is on loopback, or a name in a network that the scraper shares."""
    return not is_address(host) or is_loopback(host)


def _endpoint_of(candidate: Candidate) -> _Served:
    exporter = candidate.exporter
    return candidate.host, exporter.port, exporter.scheme, exporter.path, exporter.params


def _instances(machine: str, candidates: list[Candidate], *, alone: bool) -> list[tuple[str, Candidate]]:
    """Give each candidate its `instance`, unique within the job.

    It is the machine's name. Several candidates of a machine, and those that are not `alone`, also get the port;
    several on one port also get path and query, and their host in a shared network. Two targets of a job with the same
    `instance` would write into each other's series.
    """
    if alone and len(candidates) == 1:
        return [(machine, candidates[0])]
    named: list[tuple[str, Candidate]] = []
    ports = Counter(candidate.exporter.port for candidate in candidates)
    for candidate in candidates:
        exporter = candidate.exporter
        name = join_endpoint(machine, exporter.port)
        if ports[exporter.port] > 1:
            query = f"?{urlencode(exporter.params)}" if exporter.params else ""
            scheme = "" if exporter.scheme == "http" else f"{exporter.scheme}://"
            host = f" ({candidate.host})" if candidate.host else ""
            name = f"{scheme}{name}{exporter.path}{query}{host}"
        named.append((name, candidate))
    return named
