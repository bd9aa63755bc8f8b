"""Check remembered state as strictly as any foreign input. Pure.

A state file may be damaged, or written by another program. Invalid values must not reach a target file. A wrong value
that is valid (another digit in an address) cannot be found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clan_discovery.syntax.endpoint import MAX_PORT, is_address, is_domain
from clan_discovery.syntax.labels import is_job, is_meta_label, labels_complaint, parameter_complaint, path_complaint
from clan_discovery.syntax.networks import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clan_discovery.model import Counters, Exporter, Snapshot

_SCHEMES: Final = ("http", "https")
_MOST: Final = 2**63


def check_snapshot(snapshot: Snapshot, backend: str, *, any_address: bool) -> None:
    """Check a snapshot of a backend with this name.

    `any_address`: the backend may have addresses that no target may have by default.

    Raises:
        ValueError: the backend cannot have given one of the values.
    """
    if snapshot.backend != backend:
        raise ValueError(f"it belongs to backend {snapshot.backend[:60]!r}")
    if snapshot.suffix is not None and not is_domain(snapshot.suffix):
        raise ValueError(f"{snapshot.suffix[:60]!r} is not a MagicDNS suffix")
    for endpoint in snapshot.endpoints:
        if endpoint.backend != backend:
            raise ValueError(f"it contains a target of backend {endpoint.backend[:60]!r}")
    for exporter in {endpoint.exporter for endpoint in snapshot.endpoints}:
        _check_exporter(exporter)
    _check_addresses(snapshot, any_address=any_address)
    _check_names(snapshot)
    _check_labels(snapshot)
    for job in _jobs(snapshot):
        if not is_job(job):
            raise ValueError(f"{job[:60]!r} is not a valid job name")


def _check_addresses(snapshot: Snapshot, *, any_address: bool) -> None:
    addresses = [address for node in snapshot.nodes for address in node.addresses]
    for address in addresses:
        if not is_address(address):
            raise ValueError(f"{address[:60]!r} is not an IP address")
    addresses += [endpoint.host for endpoint in snapshot.endpoints if is_address(endpoint.host)]
    for address in addresses:
        if not any_address and (why := refusal(address)):
            raise ValueError(f"it contains the address {address}, which no target may have: {why}")


def _check_names(snapshot: Snapshot) -> None:
    names = [node.dns_name for node in snapshot.nodes] + [endpoint.dns_name for endpoint in snapshot.endpoints]
    for name in filter(None, names):
        if not is_domain(name):
            raise ValueError(f"{name[:60]!r} is not a valid name of a machine")


def _check_labels(snapshot: Snapshot) -> None:
    names: set[str] = set()  # collected first: thousands of nodes share a few label names
    for node in snapshot.nodes:
        names.update(node.labels)
    for endpoint in snapshot.endpoints:
        names.update(endpoint.labels)
    for name in names:
        if not is_meta_label(name):
            raise ValueError(f"{name[:60]!r} is not a label that a backend may set")


def _check_exporter(exporter: Exporter) -> None:
    if not is_job(exporter.type):
        raise ValueError(f"{exporter.type[:60]!r} is not a valid job name")
    if not 1 <= exporter.port <= MAX_PORT:
        raise ValueError(f"{exporter.port} is not a valid port")
    if exporter.scheme not in _SCHEMES:
        raise ValueError(f"{exporter.scheme[:60]!r} is not http or https")
    complaint = path_complaint(exporter.path) or labels_complaint(dict(exporter.labels))
    for name, _ in exporter.params:
        complaint = complaint or parameter_complaint(name)
    if complaint:
        raise ValueError(complaint)


def _jobs(snapshot: Snapshot) -> Iterator[str]:
    """Yield every job name outside the exporters."""
    yield from {group.job for group in snapshot.groups.values() if group.job}
    yield from {excluded.job for excluded in snapshot.excluded if excluded.job is not None}


def check_counters(counters: Counters) -> None:
    """Check the totals.

    Raises:
        ValueError: a total is negative or too large.
    """
    own = counters.rounds, counters.unchanged, counters.writes, counters.failures, counters.front_writes
    totals = *own, *counters.outages.values()
    for total in totals:
        if not 0 <= total < _MOST:
            raise ValueError(f"{total:.3g} is not a valid count")
