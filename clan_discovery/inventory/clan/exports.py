"""The clan's exports as an address book: where its own networks say that machines are. Pure.

Services that make a network (wireguard, zerotier, yggdrasil, mycelium, internet, ...) export it under keys of four
parts, `SERVICE:INSTANCE:ROLE:MACHINE`, each of which may be empty: `networking` with its priority at
`SERVICE:INSTANCE::`, `peer` with its hosts at each machine (clan-core, lib/exports, modules/clan/export-modules):

    {"clan-core/wireguard:wg::": {"networking": {"priority": 1000, "module": "clan_lib.network.direct"}, "peer": null},
     "clan-core/wireguard:wg:peer:db": {"networking": null, "peer": {"hosts": [{"plain": "db.wg"}]}}}

Nobody has seen the machine there: it is where one stands while nobody sees it. Exports are clan's, and read leniently:
what is not there is null, and what is unknown is ignored.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from clan_discovery.errors import InputError
from clan_discovery.inventory.clan.settings import kind
from clan_discovery.inventory.clan.wire import parse_json, shown
from clan_discovery.inventory.queries import WRITE_DUMP
from clan_discovery.model import Home, Problem
from clan_discovery.syntax.endpoint import is_host

if TYPE_CHECKING:
    from clan_discovery.model import Json

_DEFAULT_PRIORITY: Final = 1000  # clan-core, modules/clan/export-modules/networking.nix
# Networks that are reached through a proxy of their own (clan-core, clan_lib/network): no scraper goes there.
_PROXIED: Final = ("clan_lib.network.tor", "clan_lib.network.p2p_ssh_iroh")
# No overlay network: its hosts are where ssh gets in from everywhere (clan-core, clanServices/internet), and its
# priority is the highest of all. No port of an exporter is open there.
_PUBLIC: Final = "internet"
_TOLD_MOST: Final = 20
_THIS_NETWORK: Final = ipaddress.ip_network("0.0.0.0/8")
_NOTHING: Final[Mapping[str, Json]] = {}


@dataclass(frozen=True, slots=True)
class Exports:
    """Where machines are by the word of the clan, by machine; and what of it could not be read."""

    homes: Mapping[str, Home]
    problems: tuple[Problem, ...] = ()


def parse_exports(body: bytes, where: str) -> Exports:
    """Read the JSON of a clan's exports; `where` names it in complaints.

    Of the networks that give a machine a host, that of the highest priority does, and of several the one with the
    smallest key.

    Raises:
        InputError: it is no JSON, or no object.
    """
    top = parse_json(body, where, what="exports file", hint=WRITE_DUMP)
    if not isinstance(top, Mapping):
        raise InputError(
            [Problem(where=where, what=f"exports are an object of scopes, not {kind(top)}", hint=WRITE_DUMP)]
        )
    problems: list[Problem] = []
    best: dict[str, tuple[int, str, str]] = {}
    for scope in sorted(top):
        parts = scope.split(":")
        if len(parts) != 4:
            what = f"{shown(scope)} is no scope: a scope is SERVICE:INSTANCE:ROLE:MACHINE"
            problems.append(Problem(where=where, what=what, hint=WRITE_DUMP, severity="warning"))
            continue
        service, instance, _, machine = parts
        network = _part(top.get(f"{service}:{instance}::"), "networking")
        if not machine or network.get("module") in _PROXIED or service.rpartition("/")[2] == _PUBLIC:
            continue
        host = _host(_part(top[scope], "peer"), f"{where}: {scope}", problems)
        if host is not None:
            offer = (-_priority(network), scope, host)
            best[machine] = min(best.get(machine, offer), offer)
    shared = _shared(best, where, problems)
    homes = {
        machine: Home(host, f"exports: {scope} (priority {-behind})")
        for machine, (behind, scope, host) in best.items()
        if host not in shared
    }
    return Exports(homes, _few(problems, where))


def _few(problems: list[Problem], where: str) -> tuple[Problem, ...]:
    """Return the first of them, and how many there are more: a wrong prefix would be told once for every machine."""
    if len(problems) <= _TOLD_MOST:
        return tuple(problems)
    what = f"and {len(problems) - _TOLD_MOST} more of its scopes are passed over"
    return (*problems[:_TOLD_MOST], Problem(where=where, what=what, severity="warning"))


def _shared(best: Mapping[str, tuple[int, str, str]], where: str, problems: list[Problem]) -> frozenset[str]:
    """Return the hosts that more than one machine has: they are nobody's, for one would be scraped under two names."""
    claims: dict[str, list[str]] = {}
    for machine, (_, _, host) in sorted(best.items()):
        claims.setdefault(host, []).append(machine)
    shared = {host: machines for host, machines in claims.items() if len(machines) > 1}
    for host, machines in shared.items():
        what = f"{host} is the address of {', '.join(machines)}: none of them stands there"
        problems.append(Problem(where=where, what=what, severity="warning"))
    return frozenset(shared)


def _leads_elsewhere(host: str) -> bool:
    """Tell whether this may be another machine: the loopback, addresses of one link and of groups are not."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.rstrip(".").casefold() != "localhost" and not host.startswith(("127.", "0.", "169.254."))
    mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
    here = address.is_loopback or address.is_unspecified or address.is_link_local or address.is_multicast
    return not (here or mapped or address in _THIS_NETWORK)


def _part(scope: Json, name: str) -> Mapping[str, Json]:
    found = scope.get(name) if isinstance(scope, Mapping) else None
    return found if isinstance(found, Mapping) else _NOTHING


def _priority(network: Mapping[str, Json]) -> int:
    found = network.get("priority")
    return found if isinstance(found, int) and not isinstance(found, bool) else _DEFAULT_PRIORITY


def _host(peer: Mapping[str, Json], where: str, problems: list[Problem]) -> str | None:
    """Return the first host that is written down; one by `var` is in a file that clan's own tools read (tor)."""
    hosts = peer.get("hosts")
    for entry in hosts if isinstance(hosts, Sequence) else ():
        plain = entry.get("plain") if isinstance(entry, Mapping) else None
        if not isinstance(plain, str):
            continue
        host = plain.strip()  # generated files end in a newline
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not host:
            continue  # the default of an option that nobody set
        if is_host(host) and _leads_elsewhere(host):
            return host
        hint = "a zone (%) means something on one machine alone" if "%" in host else None
        what = f"{shown(plain)} is no address of another machine and no name in DNS: the machine does not stand there"
        problems.append(Problem(where=where, what=what, hint=hint, severity="warning"))
    return None
