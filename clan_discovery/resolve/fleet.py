"""Merge the snapshots of all backends into one fleet. Pure.

Machines are merged by name, case-folded. Backends are in order of trust, static lists first; the first backend with an
address gives the address. Within one backend, a name belongs to one node. If several nodes have the name, none of them
gets it, and the name is reported as ambiguous.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.model import Ambiguous, Belief, BeliefState, Exclusion, Node, span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from clan_discovery.resolve.names import Names

_UNTRUSTED: Final = frozenset({"missing_tag", "mullvad_exit", "refused_address", "sharee"})
"""Reasons to exclude a node because its name must not be used to reach it."""


class Sighting(msgspec.Struct, frozen=True, gc=False):
    """A node as one backend sees it.

    `offline` is for how many seconds it has been offline; None if it is not known to be offline. `words` name the
    backend and, for an old answer, its age.
    """

    node: Node
    backend: str
    offline: float | None = None
    words: str = ""


class Fleet(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All nodes that `backends` see.

    `refused` are names of untrusted nodes (ambiguous, without a required tag, shared from another tailnet), each with
    the reason; `nowhere` are those of them with an address that no target may have. `unknown` are machines whose lookup
    failed, each with the reason; `*` means any machine. `without_data` are the backends without any usable answer.
    `asked`: at least one backend locates machines. `ignored` are the nodes that the config ignores, by name. `suffixes`
    are the MagicDNS suffixes by backend; `suffix` is the first of them.
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
    ignored: Mapping[str, Exclusion] = {}
    suffixes: Mapping[str, str] = {}

    def unknown_of(self, machine: str) -> str:
        """Return why the lookup of this machine failed; empty if it did not fail."""
        return self.unknown.get(machine.casefold()) or self.unknown.get("*", "")

    def of(self, machine: str) -> tuple[Sighting, ...]:
        """Return the sightings of this machine, the most trusted first."""
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


def merge(beliefs: Sequence[Belief], names: Names) -> Fleet:
    """Merge the snapshots of all backends, given in order of trust.

    `names` maps the names of nodes to machines.
    """
    sightings: dict[str, tuple[Sighting, ...]] = {}
    ambiguous: list[Ambiguous] = []
    ignored: dict[str, Exclusion] = {}
    suffixes: dict[str, str] = {}
    backends: list[str] = []
    for belief in beliefs:
        if belief.snapshot is None:
            continue
        backends.append(belief.backend)
        if belief.snapshot.suffix:
            suffixes[belief.backend] = belief.snapshot.suffix
        nodes: Iterable[Node] = belief.snapshot.nodes
        if names.hides_nodes:
            nodes = _not_ignored(nodes, names, belief.backend, ignored)
        own = _own(nodes, belief, names, ambiguous)
        # A less trusted backend may see the node, and know neither tags nor OS. What a more trusted one says stays: a
        # node must not take a machine out of the config's own list by its name.
        for name in ignored.keys() & own.keys():
            del own[name]
        if not sightings:
            sightings = own
            continue
        for name, sighting in own.items():
            sightings[name] = (*sightings.get(name, ()), *sighting)
    return Fleet(
        sightings=sightings,
        backends=frozenset(backends),
        ambiguous=tuple(ambiguous),
        refused=_refused(beliefs, names, ambiguous),
        nowhere=_nowhere(beliefs, names),
        unknown=_unknown(beliefs, names),
        suffix=next(iter(suffixes.values()), None),
        suffixes=suffixes,
        without_data=tuple(b.backend for b in beliefs if b.snapshot is None and b.locates),
        asked=any(b.locates for b in beliefs),
        ignored=ignored,
    )


def _not_ignored(nodes: Iterable[Node], names: Names, backend: str, ignored: dict[str, Exclusion]) -> Iterator[Node]:
    """Yield the nodes that the config does not ignore; add the others to `ignored`."""
    for node in nodes:
        why = names.why_hidden(node)
        if not why:
            yield node
            continue
        exclusion = Exclusion(name=node.name, reason="ignored", detail=why, by=backend)
        ignored.setdefault(node.name.casefold(), exclusion)


def _refused(beliefs: Sequence[Belief], names: Names, ambiguous: Sequence[Ambiguous]) -> dict[str, str]:
    refused = {a.name: f"{a.backend} has the name {len(a.claims)} times" for a in ambiguous}
    for excluded in _excluded(beliefs):
        if excluded.reason in _UNTRUSTED:
            machine, name = names.machine_of(excluded.name), excluded.name.casefold()
            of = "the name" if machine == name else f"the name {excluded.name}"
            refused[machine] = f"{excluded.by} has a node of {of}, but {excluded.detail}"
    return refused


def _nowhere(beliefs: Sequence[Belief], names: Names) -> frozenset[str]:
    return frozenset(names.machine_of(e.name) for e in _excluded(beliefs) if e.reason == "refused_address")


def _excluded(beliefs: Sequence[Belief]) -> Iterator[Exclusion]:
    for belief in beliefs:
        if belief.snapshot is not None:
            yield from belief.snapshot.excluded


def _unknown(beliefs: Sequence[Belief], names: Names) -> dict[str, str]:
    return {
        names.machine_of(failure.machine): f"{belief.backend} could not look up {failure.name}: {failure.reason}"
        for belief in beliefs
        if belief.snapshot is not None
        for failure in belief.snapshot.failures
        if failure.machine
    }


def _own(
    nodes: Iterable[Node], belief: Belief, names: Names, ambiguous: list[Ambiguous]
) -> dict[str, tuple[Sighting, ...]]:
    backend = belief.backend
    words = f"{backend} saw it {span(belief.age)} ago"
    if belief.state in (BeliefState.FRESH, BeliefState.PARTIAL):
        words = f"{backend} sees it"
    found: dict[str, tuple[Sighting, ...]] = {}
    twice: dict[str, list[Node]] = {}
    for node in nodes:
        name = names.machine_of(node.name)
        if name in found:
            twice.setdefault(name, [found[name][0].node]).append(node)
            continue
        said = words
        if name != node.name and name != node.name.casefold():
            said = f"{words} as {node.name} (config: aliases)"
        found[name] = (Sighting(node, backend, belief.offline.get(node.name), said),)
    for name, claimants in sorted(twice.items()):
        del found[name]
        claims = tuple(sorted(_claim(node, name) for node in claimants))
        ambiguous.append(Ambiguous(name=name, backend=backend, claims=claims))
    return found


def _claim(node: Node, name: str) -> str:
    where = node.addresses[0] if node.addresses else "no address"
    if node.id and node.name.casefold() != name:
        return f"{node.name} {node.id} ({where})"
    return f"{node.id or node.name} ({where})"
