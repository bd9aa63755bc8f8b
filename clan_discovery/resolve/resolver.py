"""Resolve expected targets against the fleet. Pure.

The inventory decides which targets exist; the fleet only gives their addresses. A declared machine that no backend sees
stays a target, at its declared address or at one of its names. Everything that is not a target is in the resolution,
too, with its reason. `explain` prints these reasons and decides nothing.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from clan_discovery.model import (
    Absent,
    Belief,
    Declared,
    Endpoint,
    Exclusion,
    Expected,
    Front,
    FrontSettings,
    Json,
    Machine,
    Missing,
    Node,
    Offline,
    Pairs,
    Problem,
    Reason,
    Resolution,
    SelectRule,
    Shard,
    Storage,
    Stray,
    Target,
    Unselected,
)
from clan_discovery.resolve.fleet import merge
from clan_discovery.resolve.names import Ignore, Names
from clan_discovery.resolve.places import Locator
from clan_discovery.resolve.targets import Candidate, Naming, Place, Targets, seen_at
from clan_discovery.syntax.counting import first_names
from clan_discovery.syntax.endpoint import LOOPBACK, is_address, is_loopback
from clan_discovery.syntax.suggest import similar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from clan_discovery.resolve.fleet import Sighting
    from clan_discovery.resolve.targets import TargetCache

_HANDHELD: Final = frozenset({"android", "ios", "tvos"})
"""`OS` of phones and TVs, as Tailscale's clients report it: no select rule selects them."""

_CLAIMS_MOST: Final = 5
_SIMILAR_MOST: Final = 50
"""With more missing machines or strays than this, similar names are not searched: it takes too long to read."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The policy for absent and offline machines, and `labels` for every target.

    `absent`: whether a declared machine that no backend sees stays a target. `offline`: for how many seconds a machine
    may be offline and stay a target. `offline_tags` is the same by tag; the longest value of a machine's tags counts.
    `aliases` maps names of nodes to names of declared machines, all case-folded. `naming` says which targets use names
    as addresses. `front` says how the reverse proxy serves fronts, and `storage` where samples are stored, if there are
    such. Machines with one of `roaming_tags` come and go. `shard` says which servers publish which targets; None: every
    server publishes all.
    """

    absent: Absent = "keep"
    labels: Pairs = ()
    offline: Offline = None
    offline_tags: Mapping[str, Offline] = {}
    aliases: Mapping[str, str] = {}
    ignore: Ignore = msgspec.field(default_factory=Ignore)
    naming: Naming = msgspec.field(default_factory=Naming)
    front: FrontSettings | None = None
    storage: Storage | None = None
    roaming_tags: frozenset[str] = frozenset()
    shard: Shard | None = None

    def patience(self, tags: Iterable[str], default: Offline) -> Offline:
        """Return for how many seconds a machine may be offline: the longest of its tags."""
        longest = 0.0
        given = [self.offline_tags[tag] for tag in tags if tag in self.offline_tags]
        if not given:
            return default
        for patience in given:
            if patience is None:
                return None
            longest = max(longest, patience)
        return longest


def resolve(
    declared: Declared,
    beliefs: Sequence[Belief],
    rules: Sequence[SelectRule],
    policy: Policy,
    *,
    now: datetime,
    jobs: AbstractSet[str] = frozenset(),
    cache: TargetCache | None = None,
) -> Resolution:
    """Resolve one refresh cycle. The same arguments give the same resolution.

    `beliefs` are in order of trust. `jobs` are jobs that exist even if they have no target now. Unchanged targets are
    taken from the `cache`, which then has those of this cycle; the resolution is the same without one.
    """
    if cache is not None:
        cache.keep_for(policy)
    work = _Resolving(declared, beliefs, policy)
    for expected in declared.expected:
        work.expected(expected)
    for endpoint in _endpoints(declared, beliefs):
        work.endpoint(endpoint)
    for rule in rules:
        work.rule(rule)
        work.beside(rule)
    work.undeclared()
    fronts = work.fronts()
    storage = work.storage()
    pushed = _in_order(work.pushed())
    beside = {(target.job, target.machine) for target in pushed}
    targets = _in_order(work.targets.write(beside, cache))
    excluded = [*declared.excluded, *work.excluded, *work.ignored.values(), *work.inexpressible]
    for belief in beliefs:
        excluded += belief.snapshot.excluded if belief.snapshot is not None else ()
    return Resolution(
        jobs=tuple(sorted(work.jobs | jobs)),
        targets=targets,
        missing=work.missing(),
        unknown=work.unknown(),
        stray=tuple(work.stray),
        expired=work.expired(),
        ambiguous=work.fleet.ambiguous,
        excluded=tuple(sorted(excluded, key=lambda e: (e.name, e.job or "", e.reason, e.by))),
        beliefs=tuple(beliefs),
        problems=(
            *declared.problems,
            *work.problems(),
            *(unselected.problem for unselected in work.unselected),
            *work.targets.problems,
            *work.front_problems(fronts),
            *work.storage_problems(storage),
        ),
        additional_scrape_configs=_scrape_configs(declared),
        taken_at=now,
        unselected=tuple(work.unselected),
        aliases=policy.aliases,
        fronts=fronts,
        services=declared.services,
        pushed=pushed,
        machines=declared.machines,
        limits=declared.limits,
        units=declared.units,
        needs=declared.needs,
        shard=policy.shard,
        storage=storage,
    )


def _in_order(targets: Iterable[Target]) -> tuple[Target, ...]:
    """Sort targets by job, instance and address. Those of one job mostly are in order, which is fast to sort."""
    by_job: defaultdict[str, list[Target]] = defaultdict(list)
    for target in targets:
        by_job[target.job].append(target)
    for of_job in by_job.values():
        of_job.sort(key=_order_in_job)
    return tuple(target for job in sorted(by_job) for target in by_job[job])


def _order_in_job(target: Target) -> tuple[str, str]:
    return target.labels["instance"], target.address


def _endpoints(declared: Declared, beliefs: Sequence[Belief]) -> Iterator[Endpoint]:
    yield from declared.endpoints
    for server in declared.servers:
        yield from server.static_targets
    for belief in beliefs:
        if belief.snapshot is not None:
            yield from belief.snapshot.endpoints


def _scrape_configs(declared: Declared) -> tuple[Mapping[str, Json], ...]:
    """Return the additional scrape configs without duplicates of other servers."""
    found: dict[bytes, Mapping[str, Json]] = {}
    for server in declared.servers:
        for config in server.additional_scrape_configs:
            found.setdefault(msgspec.json.encode(config, order="deterministic"), config)
    return tuple(found.values())


class _Located(NamedTuple):
    """Where a declared machine is, or why it is excluded, and whether a backend sees it."""

    place: Place | Exclusion
    is_seen: bool


class _Resolving:
    """Collects the parts of one resolution."""

    def __init__(self, declared: Declared, beliefs: Sequence[Belief], policy: Policy) -> None:
        self._by_name = {machine.name.casefold(): machine for machine in declared.machines}
        self._names = Names(self._by_name.keys(), policy.aliases, policy.ignore)
        self.fleet = merge(beliefs, self._names)
        # Ignored machines of the inventory are already excluded (`without_ignored`).
        self.ignored = {name: e for name, e in self.fleet.ignored.items() if name not in self._by_name}
        self.policy = policy
        self.targets = Targets(policy.labels, policy.naming, policy.shard)
        self._pushed = Targets(policy.labels, Naming())
        self.jobs: set[str] = set()
        self.excluded: list[Exclusion] = []
        self.stray: list[Stray] = []
        self.unselected: list[Unselected] = []
        self._locator = Locator(self.fleet, declared, policy.absent, uses_names=bool(policy.naming))
        self._declared_fronts = declared.fronts
        self._places: dict[str, Place | None] = {}
        self._found: dict[str, _Located] = {}
        self._unseen: dict[str, list[str]] = {}

    def expected(self, expected: Expected) -> None:
        """Resolve one expected target; it stays a target if no backend sees the machine."""
        machine, job = expected.machine, expected.exporter.type
        if expected.delivery == "push":
            self._push(expected)
            return
        self.jobs.add(job)
        if expected.host:
            self._in_shared_network(expected)
            return
        found = self._found.get(machine.name) or self._find(machine)
        if not found.is_seen:
            self._unseen.setdefault(machine.name, []).append(job)
        if isinstance(found.place, Exclusion):
            self.excluded.append(msgspec.structs.replace(found.place, job=job))
        else:
            self.targets.offer(_candidate(expected, found.place))

    def _find(self, machine: Machine) -> _Located:
        """Find a declared machine, once for all its exporters."""
        place = self._place_of(machine)
        is_seen = place is not None and place.observed
        sightings = self.fleet.of(machine.name)
        if place is None:
            detail = "no backend sees it, and policy.absent is drop"
            excluded = Exclusion(name=machine.name, reason="absent", detail=detail, by="inventory")
            found = _Located(excluded, is_seen)
        else:
            found = _Located(self._offline(machine, sightings, self.policy.offline) or place, is_seen)
        self._found[machine.name] = found
        return found

    def _push(self, expected: Expected) -> None:
        """Add a target of the agent on its machine: the server needs no address of the machine."""
        located = "on its machine, where the agent scrapes it"
        place = Place(expected.host or LOOPBACK, observed=False, backend=None, located=located, asked=False)
        self._pushed.offer(_candidate(expected, place))

    def pushed(self) -> Iterator[Target]:
        """Write the pushed targets: one for each type on a machine.

        The receiver forces the label `instance` to the name of the machine, so a second one would write into the series
        of the first.
        """
        first: dict[tuple[str, str], Target] = {}
        for target in self._pushed.write():
            known = first.setdefault((target.machine, target.job), target)
            if known is target:
                yield msgspec.structs.replace(target, labels={**target.labels, "instance": target.machine})
                continue
            detail = f"{known.address} is the {target.job} of this agent, and only one of a type can be told apart"
            self._exclude(target.machine, "inexpressible", f"{target.address}: {detail}", "inventory", target.job)

    @property
    def inexpressible(self) -> list[Exclusion]:
        """The candidates that cannot be written."""
        return [*self.targets.inexpressible, *self._pushed.inexpressible]

    def _place_of(self, machine: Machine) -> Place | None:
        """Locate a declared machine once; None if it is proven absent and `absent` is drop."""
        if machine.name not in self._places:
            self._places[machine.name] = self._locator.of(machine, self.fleet.of(machine.name))
        return self._places[machine.name]

    def fronts(self) -> tuple[Front, ...]:
        """Give each declared front the address where the proxy connects."""
        if not self._declared_fronts:
            return ()
        from clan_discovery.resolve.fronts import located_front  # noqa: PLC0415 - only for fronts

        proxy = ""
        if self.policy.front is not None:
            proxy = self._names.machine_of(self.policy.front.machine)
        return tuple(located_front(front, self._host_of(front.machine), proxy) for front in self._declared_fronts)

    def front_problems(self, fronts: Sequence[Front]) -> Iterator[Problem]:
        """Report fronts whose address the proxy cannot use."""
        if self.policy.front is None or not fronts:
            return
        from clan_discovery.resolve.fronts import unanswered_fronts  # noqa: PLC0415 - as above

        yield from unanswered_fronts(fronts, self.policy.front)

    def storage(self) -> Storage | None:
        """Give each node that stores samples its address."""
        if self.policy.storage is None:
            return None
        from clan_discovery.resolve.storage import located_storage  # noqa: PLC0415 - only for storage

        return located_storage(self.policy.storage, self._host_of)

    def storage_problems(self, storage: Storage | None) -> Iterator[Problem]:
        """Report nodes that cannot be told apart, or whose address is not known."""
        if storage is None:
            return
        from clan_discovery.resolve.storage import unusable_nodes  # noqa: PLC0415 - as above

        yield from unusable_nodes(storage)

    def _host_of(self, name: str) -> str:
        """Return the address of a machine, declared or not; empty if it is proven absent and `absent` is drop."""
        place = self._place_of(self._machine_of(name) or Machine(name=name))
        return "" if place is None else place.host

    def _in_shared_network(self, expected: Expected) -> None:
        """Add a target at its name in a network that the scraper shares: its machine need not be seen."""
        located = "at its name in a network that the scraper shares"
        if is_loopback(expected.host):
            located = "on loopback of the machine that scrapes it"
        elif is_address(expected.host):
            located = "at the address that its source gives it"
        place = Place(expected.host, observed=False, backend=None, located=located, asked=False)
        self.targets.offer(_candidate(expected, place))

    def endpoint(self, endpoint: Endpoint) -> None:
        """Add a target that a list gives; its name may be that of a declared machine."""
        self.jobs.add(endpoint.exporter.type)
        if why := self._names.why_ignored(endpoint.machine):
            self._ignore(endpoint, why)
            return
        machine = self._machine_of(endpoint.machine) or Machine(name=endpoint.machine)
        located = endpoint.located or f"listed in {endpoint.backend}"
        name = self._locator.usable_name(machine.name, endpoint.dns_name)
        labels, observed = endpoint.labels, endpoint.observed
        place = seen_at(endpoint.host, endpoint.backend, located, labels, observed=observed, name=name)
        self._offer(Candidate(machine, endpoint.exporter, place, endpoint.because))

    def rule(self, rule: SelectRule) -> None:
        """Select machines of the fleet.

        A selected node without an address becomes a target only if it is declared.
        """
        job = rule.exporter.type
        self.jobs.add(job)
        for sightings in self.fleet.seen_by(rule.backends):
            selected = _selected(rule, sightings)
            if selected is None:
                continue
            machine = self._machine_of(selected.node.name)
            if machine is None:
                machine = Machine(name=selected.node.name)
                if not selected.node.addresses:
                    self._exclude(machine.name, "no_address", selected.node.note, selected.backend, job)
                    continue
            place = self._locator.of_selected(machine, selected, rule.lists)
            offline = self._offline(machine, sightings, rule.offline, job)
            if offline is not None:
                self.excluded.append(offline)
                continue
            because = f"config: exporters.{job}.select"
            self._offer(Candidate(machine, rule.exporter, place, because))

    def _offer(self, candidate: Candidate) -> None:
        """Add a target that a rule or a list gives, unless the agent on its machine sends it.

        The machine may be declared, and may come and go.
        """
        if self._pushed.has(candidate.machine.name, candidate.exporter):
            return
        if not self.policy.roaming_tags.isdisjoint(candidate.machine.tags):
            candidate = msgspec.structs.replace(candidate, patience="roaming")
        self.targets.offer(candidate)

    def beside(self, rule: SelectRule) -> None:
        """Note machines on other backends that match a rule without `backends`."""
        if not rule.by_default or not rule.backends < self.fleet.backends:  # a backend without data may see them, too
            return
        there = self.targets.machines(rule.exporter.type)
        beside: list[Sighting] = []
        for name, sightings in self.fleet.sightings.items():
            if name not in there and rule.backends.isdisjoint(sighting.backend for sighting in sightings):
                chosen = _selected(rule, sightings)
                if chosen is not None and chosen.node.addresses:
                    beside.append(chosen)
        if beside:
            self.unselected.append(_unselected(rule, beside))

    def _offline(
        self, machine: Machine, sightings: Sequence[Sighting], patience: Offline, job: str | None = None
    ) -> Exclusion | None:
        """Exclude a machine that has been offline for too long.

        If one backend does not report it as offline, it is not excluded.
        """
        offline: list[float] = []
        for sighting in sightings:
            if sighting.offline is None:
                return None
            offline.append(sighting.offline)
        if not offline:
            return None
        patience = self.policy.patience(machine.tags or sightings[0].node.tags, patience)
        if patience is None or min(offline) < patience:
            return None
        detail = f"offline for {min(offline):.0f} s, and policy.offline gives it {patience:.0f} s"
        if _has_expired(sightings):
            detail = f"its key there has expired, {detail}"
        return Exclusion(name=machine.name, reason="offline", detail=detail, by=sightings[0].backend, job=job)

    def undeclared(self) -> None:
        """Report undeclared nodes: strays, ambiguous names, phones and TVs."""
        for ambiguous in self.fleet.ambiguous:
            detail = f"{len(ambiguous.claims)} nodes claim the name: {first_names(ambiguous.claims, _CLAIMS_MOST)}"
            self._exclude(ambiguous.name, "ambiguous", detail, ambiguous.backend)
        others = self.fleet.sightings.keys() - self._by_name.keys() - self.ignored.keys()
        if others:
            others -= self.targets.machines()
        for name in sorted(others):
            sighting = self.fleet.sightings[name][0]
            node = sighting.node
            if node.os in _HANDHELD:
                self._exclude(node.name, "phone_or_tv", f"its OS is {node.os}", sighting.backend)
            else:
                alias = self._alias(node)
                self.stray.append(Stray(name=node.name, backend=sighting.backend, tags=node.tags, alias=alias))

    def _alias(self, node: Node) -> str:
        """Return the declared machine whose name a stray reports as its own.

        Empty if that machine is online. The control plane does not confirm this name: it is a hint for a person who
        looks for the machine.
        """
        machine = self._by_name.get(node.alias.casefold()) if node.alias else None
        if machine is None or any(s.node.online is not False for s in self.fleet.of(machine.name)):
            return ""
        return machine.name

    def missing(self) -> tuple[Missing, ...]:
        """List the declared machines that are proven absent.

        While a backend has no data, no absence is proven.
        """
        if self.fleet.without_data or not self.fleet.asked:
            return ()
        strays = [stray.name for stray in self.stray]
        few = len(strays) <= _SIMILAR_MOST and len(self._unseen) <= _SIMILAR_MOST
        found: list[Missing] = []
        for name, jobs in sorted(self._unseen.items()):
            if name.casefold() not in self.fleet.refused and not self.fleet.unknown_of(name):
                resembling = similar(name, strays, 3) if few else ()
                found.append(Missing(machine=name, jobs=tuple(sorted(set(jobs))), similar=resembling))
        return tuple(found)

    def unknown(self) -> tuple[str, ...]:
        """List the unseen declared machines whose absence is not proven."""
        if self.fleet.without_data:
            return tuple(sorted(self._unseen))
        return tuple(sorted(name for name in self._unseen if self.fleet.unknown_of(name)))

    def problems(self) -> Iterator[Problem]:
        """Warn about machines that need a name as address but have no valid host name, and about pushed targets."""
        yield from self._pushed.problems
        if self._locator.unnamed:
            named = [f"{machine!r} at {host}" for machine, host in self._locator.unnamed.items()]
            what = f"these machine names are not DNS names, so their targets are down: {first_names(named, 3)}"
            hint = "rename the machine, or give its address: backends.static"
            yield Problem(where="inventory", what=what, hint=hint, severity="warning")

    def expired(self) -> tuple[str, ...]:
        """List the machines whose key has expired, even if they are not targets.

        Declared machines and machines that a rule selected are included.
        """
        expired = {folded for folded, seen in self.fleet.sightings.items() for s in seen if s.node.expired}
        found = {self._by_name[folded].name for folded in expired & self._by_name.keys()}
        if undeclared := expired - self._by_name.keys():
            selected = undeclared & self.targets.machines()
            found |= {self.fleet.sightings[folded][0].node.name for folded in selected}
        return tuple(sorted(found))

    def _machine_of(self, name: str) -> Machine | None:
        """Return the declared machine with this name or alias, or None."""
        return self._by_name.get(self._names.machine_of(name))

    def _ignore(self, endpoint: Endpoint, why: str) -> None:
        if endpoint.machine.casefold() not in self._by_name:  # declared machines are already excluded
            exclusion = Exclusion(name=endpoint.machine, reason="ignored", detail=why, by=endpoint.backend)
            self.ignored.setdefault(endpoint.machine.casefold(), exclusion)

    def _exclude(self, name: str, reason: Reason, detail: str, by: str, job: str | None = None) -> None:
        self.excluded.append(Exclusion(name=name, reason=reason, detail=detail, by=by, job=job))


def _candidate(expected: Expected, place: Place) -> Candidate:
    return Candidate(
        expected.machine,
        expected.exporter,
        place,
        expected.because,
        expected.instance,
        expected.role,
        expected.host,
        expected.where,
        expected.delivery,
        expected.patience,
    )


def _has_expired(sightings: Sequence[Sighting]) -> bool:
    return any(sighting.node.expired for sighting in sightings)


def _selected(rule: SelectRule, sightings: Sequence[Sighting]) -> Sighting | None:
    """Return the node that a rule selects, preferably with an address, or None."""
    selected = [sighting for sighting in sightings if _selects(rule, sighting.node)]
    for sighting in selected:
        if sighting.node.addresses:
            return sighting
    return selected[0] if selected else None


def _unselected(rule: SelectRule, beside: Sequence[Sighting]) -> Unselected:
    machines = tuple(sighting.node.name for sighting in beside)
    others = sorted({sighting.backend for sighting in beside})
    what = f"machines that only {' or '.join(others)} sees are not selected: {first_names(machines, 3)}"
    every, own = ", ".join(sorted(rule.backends.union(others))), ", ".join(sorted(rule.backends))
    hint = f"to select them, too: `backends: [{every}]`; to leave them out: `backends: [{own}]`"
    where = f"exporters.{rule.exporter.type}.select"
    return Unselected(machines, Problem(where=where, what=what, hint=hint, severity="warning"))


def _selects(rule: SelectRule, node: Node) -> bool:
    if node.os in _HANDHELD:
        return False
    tags = frozenset(node.tags)
    if rule.tags_any and rule.tags_any.isdisjoint(tags):
        return False
    if rule.os and node.os not in rule.os:
        return False
    return rule.tags_all <= tags and rule.tags_none.isdisjoint(tags)
