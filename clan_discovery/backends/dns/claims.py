"""Combine the names of one machine into nodes. Pure.

Names that agree become one node; names that disagree become several, so the machine is ambiguous.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from clan_discovery.model import Endpoint, Exporter, Node

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.backends.dns.reading import Reading, Wanted


class Claim(NamedTuple):
    """A host whose name belongs to a machine, with its addresses.

    `dns_name` resolves to these addresses only.
    """

    machine: str
    host: str
    addresses: tuple[str, ...]
    labels: dict[str, str]
    what: str
    group: str
    dns_name: str = ""


class Listed(NamedTuple):
    """A target of a list: its host, its full name, and its machine, if any."""

    wanted: Wanted
    host: str
    name: str
    machine: str
    exporter: Exporter
    labels: dict[str, str]
    what: str
    dns_name: str = ""


def settle(
    reading: Reading, claims: Sequence[Claim], listed: Sequence[Listed]
) -> tuple[tuple[Node, ...], tuple[Endpoint, ...]]:
    """Turn claims into nodes, and listed targets into endpoints.

    If two hosts without a common address claim a machine, both nodes are kept: the fleet reports the name as ambiguous.
    Listed targets of such a machine are named by their full names.
    """
    by_machine: dict[str, list[Claim]] = {}
    for claim in claims:
        by_machine.setdefault(claim.machine.casefold(), []).append(claim)
    nodes: list[Node] = []
    contested: set[str] = set()
    for machine, own in by_machine.items():
        merged = _merged(own)
        if len(merged) > 1:
            contested.add(machine)
        nodes += [
            Node(machine, c.addresses, labels=c.labels, note=c.what, group=c.group, dns_name=c.dns_name) for c in merged
        ]
    endpoints: dict[tuple[str, str, Exporter], Endpoint] = {}
    for item in listed:
        mapped = item.machine.casefold()
        machine = reading.declared.get(mapped, item.name) if mapped and mapped not in contested else item.name
        key = machine, item.host, item.exporter
        if key not in endpoints:
            endpoints[key] = Endpoint(
                host=item.host,
                exporter=item.exporter,
                machine=machine,
                because=item.wanted.because,
                backend=reading.backend,
                labels=item.labels,
                located=f"{reading.backend}: {item.what}",
                observed=not item.host.endswith(".invalid"),
                group=item.wanted.group,
                dns_name=item.dns_name,
            )
    return tuple(nodes), tuple(endpoints.values())


def _merged(claims: Sequence[Claim]) -> list[Claim]:
    """Merge claims of one host, and of hosts that share an address.

    Claims without an address count only if no claim has one.
    """
    found: list[Claim] = []
    for claim in [c for c in claims if c.addresses] or claims[:1]:
        same = [other for other in found if _is_same_host(claim, other)]
        if not same:
            found.append(claim)
            continue
        addresses = set(claim.addresses).union(*(other.addresses for other in same))
        for other in same[1:]:
            found.remove(other)
        found[found.index(same[0])] = same[0]._replace(addresses=tuple(sorted(addresses, key=_order)))
    return found


def _is_same_host(one: Claim, other: Claim) -> bool:
    return one.host == other.host or not set(one.addresses).isdisjoint(other.addresses)


def _order(address: str) -> tuple[int, int]:
    parsed = ip_address(address)
    return parsed.version, int(parsed)
