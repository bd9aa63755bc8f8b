"""The resolver: expected targets meet the fleet. Pure.

The inventory decides which targets exist, the fleet only where they are: a declared machine that nobody sees stays
a target, where the clan's exports have it or at its name. Whatever is no target is in the resolution too, with its
reason; `explain` prints that and thinks nothing of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.model import (
    Absent,
    Belief,
    Declared,
    Endpoint,
    Exclusion,
    Expected,
    Json,
    Machine,
    Missing,
    Node,
    Offline,
    Pairs,
    Reason,
    Resolution,
    SelectRule,
    Stray,
    Target,
)
from clan_discovery.resolve.fleet import Fleet, Sighting, merge
from clan_discovery.resolve.targets import Candidate, Place, Targets, seen_at
from clan_discovery.syntax.suggest import similar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

_HANDHELD: Final = frozenset({"android", "ios", "tvos"})
"""`OS` of phones and TVs, as Tailscale's clients report it: never machines that a select rule means."""

_NO_LABELS: Final[Mapping[str, str]] = {}
_CLAIMS_MOST: Final = 5
_SIMILAR_MOST: Final = 50
"""Names of missing machines are compared with those seen up to so many machines: it is for people to read."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is done about what is not there, and `labels` that go on every target.

    `absent`: whether a declared machine that no backend sees stays a target. `offline`: how long one may be offline
    and stay one; `offline_tags` says so for machines with a tag, the most patient of several counts.
    """

    absent: Absent = "keep"
    labels: Pairs = ()
    offline: Offline = None
    offline_tags: Mapping[str, Offline] = {}


def resolve(
    declared: Declared,
    beliefs: Sequence[Belief],
    rules: Sequence[SelectRule],
    policy: Policy,
    *,
    now: datetime,
    jobs: AbstractSet[str] = frozenset(),
) -> Resolution:
    """Resolve one cycle; `beliefs` are in order of trust. The same arguments give the same resolution.

    `jobs` are jobs that exist whether or not they have a target now.
    """
    work = _Work(declared, merge(beliefs), policy, Targets(policy.labels))
    for expected in declared.expected:
        work.expected(expected)
    for endpoint in _endpoints(declared, beliefs):
        work.endpoint(endpoint)
    for rule in rules:
        work.rule(rule)
    work.look_around()
    targets = sorted(work.targets.write(), key=_target_order)
    excluded = [*declared.excluded, *work.excluded, *work.targets.inexpressible]
    for belief in beliefs:
        excluded += belief.snapshot.excluded if belief.snapshot is not None else ()
    return Resolution(
        jobs=tuple(sorted(work.jobs | jobs)),
        targets=tuple(targets),
        missing=work.missing(),
        unknown=work.unknown(),
        stray=tuple(work.stray),
        expired=work.expired(),
        ambiguous=work.fleet.ambiguous,
        excluded=tuple(sorted(excluded, key=lambda e: (e.name, e.job or "", e.reason, e.by))),
        beliefs=tuple(beliefs),
        problems=declared.problems,
        additional_scrape_configs=_scrape_configs(declared),
        taken_at=now,
    )


def _target_order(target: Target) -> tuple[str, str, str]:
    return target.job, target.labels["instance"], target.address


def _endpoints(declared: Declared, beliefs: Sequence[Belief]) -> Iterator[Endpoint]:
    for server in declared.servers:
        yield from server.static_targets
    for belief in beliefs:
        if belief.snapshot is not None:
            yield from belief.snapshot.endpoints


def _scrape_configs(declared: Declared) -> tuple[Mapping[str, Json], ...]:
    """Carry the additional scrape configs through, each once: several servers mostly say the same."""
    found: list[Mapping[str, Json]] = []
    for server in declared.servers:
        for config in server.additional_scrape_configs:
            if config not in found:
                found.append(config)
    return tuple(found)


@dataclass(slots=True)
class _Work:
    declared: Declared
    fleet: Fleet
    policy: Policy
    targets: Targets
    by_name: dict[str, Machine] = field(default_factory=dict[str, Machine])
    places: dict[str, Place | None] = field(default_factory=dict[str, "Place | None"])
    unseen: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    excluded: list[Exclusion] = field(default_factory=list[Exclusion])
    stray: list[Stray] = field(default_factory=list[Stray])
    jobs: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        self.by_name = {machine.name.casefold(): machine for machine in self.declared.machines}

    def expected(self, expected: Expected) -> None:
        """Place one expected target; a machine that nobody sees stands where the clan's exports say, or at its name."""
        machine, exporter = expected.machine, expected.exporter
        self.jobs.add(exporter.type)
        if machine.name not in self.places:
            self.places[machine.name] = self.place(machine)
        place = self.places[machine.name]
        if place is None or not place.observed:
            self.unseen.setdefault(machine.name, []).append(exporter.type)
        if place is None:
            detail = "no backend sees it, and policy.absent is drop"
            self.exclude(machine.name, "absent", detail, "inventory", exporter.type)
            return
        if self.gone_offline(machine, self.policy.offline, exporter.type):
            return
        labels = (("__meta_clan_instance", expected.instance), ("__meta_clan_role", expected.role))
        self.targets.offer(Candidate(machine, exporter, place, expected.because, labels))

    def place(self, machine: Machine) -> Place | None:
        """Say where a declared machine is: the first address of the most trusted backend, its home, or its name."""
        sightings = self.fleet.of(machine.name)
        for sighting in sightings:
            if sighting.node.addresses:
                node, backend = sighting.node, sighting.backend
                others = [s.backend for s in sightings if s.backend != backend]
                named = f": {node.note}" if node.note else ""
                located = sighting.words + named + (f" (so does {', '.join(others)})" if others else "") + _expiry(node)
                return seen_at(node.addresses[0], backend, located, _labels_of(sightings, sighting), node)
        proven = self.fleet.asked and not self.fleet.blind and not self.fleet.unclear_of(machine.name)
        if not sightings and self.policy.absent == "drop" and proven:
            return None
        if (home := self.home_of(machine, sightings)) is not None:
            return home
        host, named = self.name_of(machine.name)
        if sightings:
            first = sightings[0]
            located = f"{first.words}, but {first.node.note}: at its {named}"
            return seen_at(host, first.backend, located, _labels_of(sightings, first), first.node)
        located = f"{self.why_unseen(machine.name)}: at its {named}"
        return Place(host, observed=False, backend=None, located=located)

    def place_of(self, machine: Machine, picked: Sighting, sightings: tuple[Sighting, ...]) -> Place:
        """Say where a machine is that a rule picked: where the node is that was picked, and no namesake of it.

        An address that is written down goes before, as ever: a person said where that machine is.
        """
        written = next((s for s in sightings if s.node.addresses and not s.node.id and not s.node.labels), None)
        chosen = written or picked
        if not chosen.node.addresses:
            if (home := self.home_of(machine, sightings)) is not None:
                return home
            host, named = self.name_of(machine.name)
            located = f"{picked.words}, but {picked.node.note}: at its {named}"
            return seen_at(host, picked.backend, located, picked.node.labels, picked.node)
        located = chosen.words + _expiry(picked.node)
        return seen_at(chosen.node.addresses[0], chosen.backend, located, picked.node.labels, picked.node)

    def home_of(self, machine: Machine, sightings: tuple[Sighting, ...]) -> Place | None:
        """Return where the clan's exports have a machine that nobody sees, or sees where no target may be.

        That is no observation: it is written down, as its name is.
        """
        home = self.declared.homes.get(machine.name)
        if home is None or (sightings and machine.name.casefold() not in self.fleet.nowhere):
            return None
        seen = f"{sightings[0].words}, but {sightings[0].node.note}" if sightings else self.why_unseen(machine.name)
        located = f"{seen}: at its address in the clan's {home.words}"
        return Place(home.host, observed=False, backend=None, located=located)

    def gone_offline(self, machine: Machine, patience: Offline, job: str) -> bool:
        """Exclude a machine that is offline for longer than it may; a flag that nobody knows counts for nothing."""
        sightings = self.fleet.of(machine.name)
        away = [s.offline for s in sightings if s.offline is not None]
        if not away or len(away) < len(sightings):
            return False
        tags = machine.tags or sightings[0].node.tags
        given = [self.policy.offline_tags[tag] for tag in tags if tag in self.policy.offline_tags]
        if given:
            patience = None if None in given else max(p for p in given if p is not None)
        if patience is None or min(away) < patience:
            return False
        why = "its key there has expired, " if any(s.node.expired for s in sightings) else ""
        detail = f"{why}offline for {min(away):.0f} s, and policy.offline gives it {patience:.0f} s"
        self.exclude(machine.name, "offline", detail, sightings[0].backend, job)
        return True

    def name_of(self, machine: str) -> tuple[str, str]:
        # An address that DNS gives and no target may have would be the scraper's at any name of the machine's.
        if machine.casefold() in self.fleet.nowhere:
            return f"{machine}.invalid", "name where nothing is (RFC 6761)"
        # A MagicDNS name that is borne by a node which is not believed leads to that very node.
        # Nor is it known of which tailnet the name would be while one of them could not be asked.
        if self.fleet.suffix and not self.fleet.blind and machine.casefold() not in self.fleet.refused:
            return f"{machine}.{self.fleet.suffix}", "MagicDNS name"
        return f"{machine}.{self.declared.domain}", "name in the clan's domain"

    def why_unseen(self, machine: str) -> str:
        if refused := self.fleet.refused.get(machine.casefold()):
            return refused
        if unclear := self.fleet.unclear_of(machine):
            return unclear
        if not self.fleet.asked:
            return "no backend is asked"
        if self.fleet.blind:
            return f"nobody could ask {', '.join(self.fleet.blind)}"
        return "no backend sees it"

    def endpoint(self, endpoint: Endpoint) -> None:
        """Take a target that somebody wrote down whole; a declared machine of that name is that machine."""
        self.jobs.add(endpoint.exporter.type)
        machine = self.by_name.get(endpoint.machine.casefold()) or Machine(name=endpoint.machine)
        located = endpoint.located or f"written down in {endpoint.backend}"
        place = seen_at(endpoint.host, endpoint.backend, located, endpoint.labels, observed=endpoint.observed)
        self.targets.offer(Candidate(machine, endpoint.exporter, place, endpoint.because, ()))

    def rule(self, rule: SelectRule) -> None:
        """Pick machines from the fleet; phones and TVs are never meant."""
        self.jobs.add(rule.exporter.type)
        because = f"config: exporters.{rule.exporter.type}.select"
        for sightings in self.fleet.sightings.values():
            picking = [s for s in sightings if _picks(rule, s.node)]
            if not picking:
                continue
            picked = next((s for s in picking if s.node.addresses), picking[0])
            machine = self.by_name.get(picked.node.name.casefold())
            if machine is None:
                machine = Machine(name=picked.node.name)
                if not picked.node.addresses:
                    self.exclude(machine.name, "no_address", picked.node.note, picked.backend, rule.exporter.type)
                    continue
            place = self.place_of(machine, picked, sightings)
            if not self.gone_offline(machine, rule.offline, rule.exporter.type):
                self.targets.offer(Candidate(machine, rule.exporter, place, because, ()))

    def look_around(self) -> None:
        """Find what is seen and not declared: strays, and the phones and TVs that are none."""
        for ambiguous in self.fleet.ambiguous:
            claims = ", ".join(ambiguous.claims[:_CLAIMS_MOST]) + (
                ", ..." if len(ambiguous.claims) > _CLAIMS_MOST else ""
            )
            detail = f"{len(ambiguous.claims)} nodes claim the name: {claims}"
            self.exclude(ambiguous.name, "ambiguous", detail, ambiguous.backend)
        for name in sorted(self.fleet.sightings.keys() - self.by_name.keys() - self.targets.machines):
            sighting = self.fleet.sightings[name][0]
            node = sighting.node
            if node.os in _HANDHELD:
                self.exclude(node.name, "phone_or_tv", f"its OS is {node.os}", sighting.backend)
            else:
                alias = self.alias_of(node)
                self.stray.append(Stray(name=node.name, backend=sighting.backend, tags=node.tags, alias=alias))

    def alias_of(self, node: Node) -> str:
        """Return the declared machine that a stray calls itself, where that one is not there itself.

        Many nodes call themselves alike, and nobody vouches for it: it is a hint for who looks for a machine.
        """
        machine = self.by_name.get(node.alias.casefold()) if node.alias else None
        if machine is None or any(s.node.online is not False for s in self.fleet.of(machine.name)):
            return ""
        return machine.name

    def missing(self) -> tuple[Missing, ...]:
        """List the declared machines that are proven to be nowhere; with a blind backend nothing is proven."""
        if self.fleet.blind or not self.fleet.asked:
            return ()
        strays = [stray.name for stray in self.stray]
        few = len(strays) <= _SIMILAR_MOST and len(self.unseen) <= _SIMILAR_MOST
        return tuple(
            Missing(
                machine=name,
                jobs=tuple(sorted(set(jobs))),
                similar=similar(name, strays, 3) if few else (),
            )
            for name, jobs in sorted(self.unseen.items())
            if name.casefold() not in self.fleet.refused and not self.fleet.unclear_of(name)
        )

    def unknown(self) -> tuple[str, ...]:
        """List the declared machines of which nobody can say whether they are there."""
        if self.fleet.blind:
            return tuple(sorted(self.unseen))
        return tuple(sorted(name for name in self.unseen if self.fleet.unclear_of(name)))

    def expired(self) -> tuple[str, ...]:
        """List the machines whose key has expired, targets or not: declared ones, and those that a rule picked."""
        gone = [s for s in self.fleet.sightings.values() if s[0].node.expired or any(o.node.expired for o in s[1:])]
        found: set[str] = set()
        for sightings in gone:
            name = sightings[0].node.name
            machine = self.by_name.get(name.casefold())
            if machine is not None or name.casefold() in self.targets.machines:
                found.add(machine.name if machine is not None else name)
        return tuple(sorted(found))

    def exclude(self, name: str, reason: Reason, detail: str, by: str, job: str | None = None) -> None:
        self.excluded.append(Exclusion(name=name, reason=reason, detail=detail, by=by, job=job))


def _expiry(node: Node) -> str:
    return "; its key there has expired" if node.expired else ""


def _labels_of(sightings: tuple[Sighting, ...], chosen: Sighting) -> Mapping[str, str]:
    """Return the labels of the node that gave the address; of one that is written down, those of its best sighting."""
    # What DNS says of a name is of the address that it gave, and of no other.
    others = (s.node.labels for s in sightings if s.node.labels and "__meta_dns_name" not in s.node.labels)
    return chosen.node.labels or next(others, _NO_LABELS)


def _picks(rule: SelectRule, node: Node) -> bool:
    if node.os in _HANDHELD:
        return False
    tags = frozenset(node.tags)
    return (
        (not rule.tags_any or not rule.tags_any.isdisjoint(tags))
        and rule.tags_all <= tags
        and rule.tags_none.isdisjoint(tags)
        and (not rule.os or node.os in rule.os)
    )
