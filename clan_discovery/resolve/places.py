"""Find the address of a machine: observed, declared, or one of its names. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clan_discovery.resolve.targets import Place, seen_at
from clan_discovery.syntax.endpoint import NOWHERE, is_domain, is_host, nowhere

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from clan_discovery.model import Absent, Declared, Machine
    from clan_discovery.resolve.fleet import Fleet, Sighting

_NO_LABELS: Final[Mapping[str, str]] = {}


class Locator:
    """Finds the addresses of machines in a fleet.

    `absent` is the policy for a machine that is proven absent. `uses_names`: some targets use names as addresses.
    `unnamed` collects machines whose name cannot be part of a host name, with the address that is used instead.
    """

    def __init__(self, fleet: Fleet, declared: Declared, absent: Absent, *, uses_names: bool) -> None:
        self.fleet = fleet
        self.declared = declared
        self.absent = absent
        self.uses_names = uses_names
        self.unnamed: dict[str, str] = {}
        # The domains of machine names; empty if none can be used.
        self.domain = _domain(declared.domain)
        self.suffix = ""
        if not fleet.without_data:  # while a tailnet has no data, the machine may be in that one
            self.suffix = _domain(fleet.suffix)

    def of(self, machine: Machine, sightings: Sequence[Sighting]) -> Place | None:
        """Locate a declared machine; None if it is proven absent and `absent` is drop."""
        for sighting in sightings:
            if sighting.node.addresses:
                return _at_address(sighting, sightings, self.name_of(machine.name, sighting))
        if not sightings and self.absent == "drop" and self._is_proven_absent(machine.name):
            return None
        labels = _NO_LABELS
        if sightings:
            labels = sightings[0].node.labels or _labels(sightings)
        return self._fallback(machine, sightings[:1], labels)

    def of_selected(self, machine: Machine, selected: Sighting, lists: AbstractSet[str]) -> Place:
        """Locate a machine that a rule selected, by the selected node itself.

        Another node of the same name is not used, except an address from one of these static lists, which comes first.
        """
        chosen = selected
        for sighting in self.fleet.of(machine.name):
            if sighting.node.addresses and sighting.backend in lists:
                chosen = sighting
                break
        if not chosen.node.addresses:
            return self._fallback(machine, (selected,), selected.node.labels)
        located = chosen.words + _expiry(selected)
        name = self.name_of(machine.name, chosen)
        return seen_at(
            chosen.node.addresses[0], chosen.backend, located, selected.node.labels, selected.node, name=name
        )

    def name_of(self, machine: str, sighting: Sighting) -> str:
        """Return a DNS name of a node; empty if none can be used.

        The suffix comes from the node's own snapshot, so the other backends need no data.
        """
        if not self.uses_names:
            return ""
        name = sighting.node.dns_name
        suffix = self.fleet.suffixes.get(sighting.backend)
        if not name and suffix:
            name = f"{sighting.node.name}.{suffix}"
        return self.usable_name(machine, name)

    def usable_name(self, machine: str, name: str) -> str:
        """Return the name if targets use names and no untrusted node has it, else ""."""
        if not self.uses_names or machine.casefold() in self.fleet.refused:
            return ""
        return _domain(name)

    def _fallback(self, machine: Machine, sightings: Sequence[Sighting], labels: Mapping[str, str]) -> Place:
        """Locate a machine without an observed address: declared address or a name."""
        seen = sightings[0] if sightings else None
        if seen is None:
            why = self._why_unseen(machine.name)
        else:
            why = f"{seen.words}, but {seen.node.note}"
        host, words, observed = next(self._hosts(machine.name, is_seen=seen is not None))
        located = f"{why}: at its {words}"
        if seen is None or not observed:
            return Place(host, observed=False, backend=None, located=located, asked=self.fleet.asked)
        return seen_at(host, seen.backend, located, labels, seen.node)

    def _hosts(self, machine: str, *, is_seen: bool) -> Iterator[tuple[str, str, bool]]:
        """Yield possible hosts of a machine, the best first.

        Each comes with its description and whether it counts as observed if the machine is seen. Every host is valid in
        a target.
        """
        folded = machine.casefold()
        is_nowhere = folded in self.fleet.nowhere
        declared = self.declared.addresses.get(machine)
        # If a backend sees the machine, its name is more up to date than the declared address, unless that name
        # resolves to an address that no target may have.
        if declared is not None and (is_nowhere or not is_seen):
            yield declared.host, f"address in {declared.words}", not is_nowhere
        # The scraper would resolve any other name to the refused address.
        if not is_nowhere:
            # If an untrusted node has the MagicDNS name, the name resolves to that node.
            if self.suffix and folded not in self.fleet.refused and is_host(name := f"{machine}.{self.suffix}"):
                yield name, "MagicDNS name", True
            if declared is not None:
                yield declared.host, f"address in {declared.words}", True
            name, words = self._own_name(machine)
            if name:
                yield name, words, True
        host = nowhere(machine)
        if host != f"{machine}.{NOWHERE}":
            self.unnamed[machine] = host
        yield host, "name that resolves nowhere (RFC 6761)", True

    def _own_name(self, machine: str) -> tuple[str, str]:
        """Return the name of a machine in the declared domain, or its bare name, with words; empty if it has none."""
        if not self.declared.domain and is_domain(machine) and machine.casefold() not in self.fleet.refused:
            # The resolver's search domain may be the tailnet's, where an untrusted node would have the name.
            return machine, "bare name"
        if self.domain and is_host(name := f"{machine}.{self.domain}"):
            return name, "name in the declared domain"
        return "", ""

    def _is_proven_absent(self, machine: str) -> bool:
        return self.fleet.asked and not self.fleet.without_data and not self.fleet.unknown_of(machine)

    def _why_unseen(self, machine: str) -> str:
        if refused := self.fleet.refused.get(machine.casefold()):
            return refused
        if unknown := self.fleet.unknown_of(machine):
            return unknown
        if not self.fleet.asked:
            return "no backend is asked"
        if self.fleet.without_data:
            return f"no answer from {', '.join(self.fleet.without_data)}"
        return "no backend sees it"


def _domain(name: str | None) -> str:
    """Return the domain if it is a valid DNS domain, else an empty string."""
    if name and is_domain(name):
        return name
    return ""


def _at_address(sighting: Sighting, sightings: Sequence[Sighting], name: str) -> Place:
    node = sighting.node
    located = sighting.words
    if node.note:
        located += f": {node.note}"
    if len(sightings) > 1:
        others = [other.backend for other in sightings if other.backend != sighting.backend]
        located += f" (so does {', '.join(others)})"
    labels = node.labels or _labels(sightings)
    return seen_at(node.addresses[0], sighting.backend, located + _expiry(sighting), labels, node, name=name)


def _labels(sightings: Sequence[Sighting]) -> Mapping[str, str]:
    """Return the labels of the first node that has any.

    Labels from DNS are left out: they describe only the address that DNS gave.
    """
    for sighting in sightings:
        if sighting.node.labels and "__meta_dns_name" not in sighting.node.labels:
            return sighting.node.labels
    return _NO_LABELS


def _expiry(sighting: Sighting) -> str:
    return "; its key there has expired" if sighting.node.expired else ""
