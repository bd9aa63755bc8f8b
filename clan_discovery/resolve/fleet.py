"""Many backends, one fleet: which machines are seen, by whom, at which address. Pure.

Machines are merged by name, case-folded. Backends are asked in an order of trust (what a person wrote down first),
and the first that has an address gives it. Within one backend a name belongs to one node: claimed twice, it
belongs to none, and both claims are reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.model import Ambiguous, Belief, BeliefState, Node, span

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from clan_discovery.model import Exclusion

_UNTRUSTED: Final = frozenset({"missing_tag", "mullvad_exit", "refused_address", "sharee"})
"""Reasons of nodes that bear a name of this network, but must not be reached by it."""


class Sighting(msgspec.Struct, frozen=True, gc=False):
    """A node, the backend that sees it, and for how many seconds it is known to be offline (None: it is not).

    `words` say who sees it, and of an answer that is an old one, when.
    """

    node: Node
    backend: str
    offline: float | None = None
    words: str = ""


class Fleet(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All that is seen, by `backends`.

    `refused` are names of untrusted nodes (claimed twice, without a demanded tag, a sharee's), each with the reason;
    `nowhere` are those of them that resolve to an address that no target may have. `unknown` are machines whose lookup
    failed, each with the reason; `*` is any machine. `without_data` are the backends of which nothing is known.
    `asked`: at least one backend says where machines are.
    """

    sightings: Mapping[str, tuple[Sighting, ...]]
    backends: frozenset[str] = frozenset()
    ambiguous: tuple[Ambiguous, ...] = ()
    suffix: str | None = None
    refused: Mapping[str, str] = {}
    nowhere: frozenset[str] = frozenset()
    unknown: Mapping[str, str] = {}
    without_data: tuple[str, ...] = ()
    asked: bool = False

    def unknown_of(self, machine: str) -> str:
        """Return why it is unknown whether this machine is there; empty where it is known."""
        return self.unknown.get(machine.casefold()) or self.unknown.get("*", "")

    def of(self, machine: str) -> tuple[Sighting, ...]:
        """Return who sees this machine, the most trusted first."""
        return self.sightings.get(machine.casefold(), ())

    def seen_by(self, backends: AbstractSet[str]) -> Iterator[tuple[Sighting, ...]]:
        """Yield the sightings of each machine by these backends."""
        if backends >= self.backends:
            yield from self.sightings.values()
            return
        for sightings in self.sightings.values():
            own = tuple(sighting for sighting in sightings if sighting.backend in backends)
            if own:
                yield own


def merge(beliefs: Sequence[Belief]) -> Fleet:
    """Merge what is believed of each backend, given in order of trust."""
    sightings: dict[str, tuple[Sighting, ...]] = {}
    ambiguous: list[Ambiguous] = []
    suffix: str | None = None
    backends: list[str] = []
    for belief in beliefs:
        if belief.snapshot is None:
            continue
        backends.append(belief.backend)
        suffix = suffix or belief.snapshot.suffix
        own = _own(belief.snapshot.nodes, belief, ambiguous)
        if not sightings:
            sightings = own
            continue
        for name, sighting in own.items():
            sightings[name] = (*sightings.get(name, ()), *sighting)
    return Fleet(
        sightings=sightings,
        backends=frozenset(backends),
        ambiguous=tuple(ambiguous),
        refused=_refused(beliefs, ambiguous),
        nowhere=frozenset(e.name.casefold() for e in _excluded(beliefs) if e.reason == "refused_address"),
        unknown=_unknown(beliefs),
        suffix=suffix,
        without_data=tuple(b.backend for b in beliefs if b.snapshot is None and b.locates),
        asked=any(b.locates for b in beliefs),
    )


def _refused(beliefs: Sequence[Belief], ambiguous: Sequence[Ambiguous]) -> dict[str, str]:
    refused = {a.name: f"{a.backend} has the name {len(a.claims)} times" for a in ambiguous}
    for excluded in _excluded(beliefs):
        if excluded.reason in _UNTRUSTED:
            refused[excluded.name.casefold()] = f"{excluded.by} has a node of the name, but {excluded.detail}"
    return refused


def _excluded(beliefs: Sequence[Belief]) -> Iterator[Exclusion]:
    for belief in beliefs:
        if belief.snapshot is not None:
            yield from belief.snapshot.excluded


def _unknown(beliefs: Sequence[Belief]) -> dict[str, str]:
    return {
        failure.machine.casefold(): f"{belief.backend} could not look up {failure.name}: {failure.reason}"
        for belief in beliefs
        if belief.snapshot is not None
        for failure in belief.snapshot.failures
        if failure.machine
    }


def _own(nodes: Sequence[Node], belief: Belief, ambiguous: list[Ambiguous]) -> dict[str, tuple[Sighting, ...]]:
    backend = belief.backend
    words = f"{backend} saw it {span(belief.age)} ago"
    if belief.state in (BeliefState.FRESH, BeliefState.PARTIAL):
        words = f"{backend} sees it"
    found: dict[str, tuple[Sighting, ...]] = {}
    twice: dict[str, list[Node]] = {}
    for node in nodes:
        name = node.name.casefold()
        if name in found:
            twice.setdefault(name, [found[name][0].node]).append(node)
        else:
            found[name] = (Sighting(node, backend, belief.offline.get(node.name), words),)
    for name, claimants in sorted(twice.items()):
        del found[name]
        claims = tuple(sorted(_claim(node) for node in claimants))
        ambiguous.append(Ambiguous(name=name, backend=backend, claims=claims))
    return found


def _claim(node: Node) -> str:
    where = node.addresses[0] if node.addresses else "no address"
    return f"{node.id or node.name} ({where})"
