"""Read the addresses that a clan's own networks give to machines. Pure.

Services that make a network (wireguard, zerotier, yggdrasil, mycelium, internet, ...) export it under keys of four
parts, `SERVICE:INSTANCE:ROLE:MACHINE`, each of which may be empty: `networking` with its priority at
`SERVICE:INSTANCE::`, `peer` with its hosts at each machine (clan-core, lib/exports, modules/clan/export-modules):

    {"clan-core/wireguard:wg::": {"networking": {"priority": 1000, "module": "clan_lib.network.direct"}, "peer": null},
     "clan-core/wireguard:wg:peer:db": {"networking": null, "peer": {"hosts": [{"plain": "db.wg"}]}}}

An exported address is used while no backend sees the machine. Missing keys count as null, and unknown keys are ignored,
because the format belongs to clan.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from clan_discovery.errors import refuse
from clan_discovery.inventory.clan.decode import attributes, is_list, kind, parse_json, shown
from clan_discovery.inventory.queries import WRITE_DUMP
from clan_discovery.model import DeclaredAddress, Problem
from clan_discovery.syntax.counting import first_names
from clan_discovery.syntax.endpoint import is_address, is_domain
from clan_discovery.syntax.networks import refusal

if TYPE_CHECKING:
    from clan_discovery.model import Json

_DEFAULT_PRIORITY: Final = 1000  # clan-core, modules/clan/export-modules/networking.nix
# Networks that need a proxy of their own (clan-core, clan_lib/network): a scraper cannot use them.
_PROXIED: Final = ("clan_lib.network.tor", "clan_lib.network.p2p_ssh_iroh")
# Not an overlay network: its hosts are public ssh addresses (clan-core, clanServices/internet) without an open exporter
# port, and its priority is the highest of all.
_PUBLIC: Final = "internet"
_ZONE_HINT: Final = "a zone (%) is valid on one machine only"


class Exports(msgspec.Struct, frozen=True):
    """The exported address of each machine, and problems with unusable ones."""

    addresses: Mapping[str, DeclaredAddress]
    problems: tuple[Problem, ...] = ()


class _Offer(NamedTuple):
    """A host that a scope gives to a machine.

    The smallest offer is used: the highest priority, then the smallest key.
    """

    negated_priority: int
    scope: str
    host: str


def parse_exports(body: bytes, where: str) -> Exports:
    """Read the JSON of a clan's exports; `where` names it in messages.

    A machine's host is that of the network with the highest priority; if several have it, that of the smallest key.

    Raises:
        InputError: it is not JSON, or not an object.
    """
    top = parse_json(body, where, what="exports file", hint=WRITE_DUMP)
    if not isinstance(top, Mapping):
        refuse(where, f"exports are an object of scopes, not {kind(top)}", WRITE_DUMP)
    reader = _ExportsReader(where, top)
    for scope in sorted(top):
        reader.scope(scope)
    shared = reader.shared()
    addresses = {
        machine: DeclaredAddress(offer.host, f"the clan's exports: {offer.scope} (priority {-offer.negated_priority})")
        for machine, offer in reader.best.items()
        if offer.host not in shared
    }
    return Exports(addresses, tuple(reader.problems))


class _ExportsReader(msgspec.Struct):
    """Collects each machine's best offer, and problems."""

    where: str
    exports: Mapping[str, Json]
    best: dict[str, _Offer] = {}
    problems: list[Problem] = []

    def warn(self, where: str, what: str, hint: str | None = None) -> None:
        self.problems.append(Problem(where=where, what=what, hint=hint, severity="warning"))

    def scope(self, scope: str) -> None:
        """Read one scope; it is an offer if it gives a host to a machine."""
        parts = scope.split(":")
        if len(parts) != 4:
            self.warn(self.where, f"{shown(scope)} is not a scope: write SERVICE:INSTANCE:ROLE:MACHINE", WRITE_DUMP)
            return
        service, instance, _, machine = parts
        network = attributes(attributes(self.exports.get(f"{service}:{instance}::")).get("networking"))
        is_public = service.rpartition("/")[2] == _PUBLIC
        if not machine or is_public or network.get("module") in _PROXIED:
            return
        host = self.host(attributes(self.exports[scope]).get("peer"), f"{self.where}: {scope}")
        if host is not None:
            offer = _Offer(-_priority(network), scope, host)
            self.best[machine] = min(self.best.get(machine, offer), offer)

    def host(self, peer: Json, where: str) -> str | None:
        """Return the first usable host that is written in the exports.

        A host by `var` is in a file that only clan's tools read (tor).
        """
        hosts = attributes(peer).get("hosts")
        if not is_list(hosts):
            return None
        for entry in hosts:
            plain = attributes(entry).get("plain")
            if not isinstance(plain, str) or not plain.strip():
                continue  # empty: the default of an option that is not set
            host = plain.strip()  # generated files end in a newline
            if host.startswith("[") and host.endswith("]"):
                host = host[1:-1]
            complaint, hint = _complaint(host)
            if not complaint:
                return host
            self.warn(where, f"{shown(plain)} is {complaint}: it is not used", hint)
        return None

    def shared(self) -> frozenset[str]:
        """Return the hosts of several machines, which are not used.

        Each would be scraped under two names.
        """
        claims: dict[str, list[str]] = {}
        for machine, offer in sorted(self.best.items()):
            claims.setdefault(offer.host, []).append(machine)
        shared = {host: machines for host, machines in claims.items() if len(machines) > 1}
        for host, machines in shared.items():
            self.warn(self.where, f"{host} is the address of {first_names(machines, 5)}: it is used for none of them")
        return frozenset(shared)


def _complaint(host: str) -> tuple[str, str | None]:
    """Return what is wrong with a host, empty if nothing is, and a hint."""
    if is_address(host):
        why = refusal(host)
        return (f"an address that no target may have ({why})" if why else ""), None
    if is_domain(host):
        return "", None
    return "neither an address nor a machine name", _ZONE_HINT if "%" in host else None


def _priority(network: Mapping[str, Json]) -> int:
    found = network.get("priority")
    if isinstance(found, int) and not isinstance(found, bool):
        return found
    return _DEFAULT_PRIORITY
