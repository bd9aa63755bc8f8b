"""Find ports with metrics that others reach: published by Compose, or open on this machine. Pure.

A target on loopback of this machine needs no other address, nor does a service whose reverse proxy connects to it on
loopback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clan_discovery.gates.judge import Gathered
from clan_discovery.model import placed
from clan_discovery.syntax.counting import first_names, plural
from clan_discovery.syntax.endpoint import is_loopback, join_endpoint, split_endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clan_discovery.gates.sockets import ListeningSocket
    from clan_discovery.model import Declared, Resolution

_NAMES_MOST: Final = 5


def judge_ports(
    declared: Declared, resolution: Resolution, machine: str, listening: Sequence[ListeningSocket] | None
) -> Gathered:
    """Say which ports with metrics are published. Without the sockets of this machine (None) that is not known."""
    open_ports = [
        placed(
            f"port {one.port} of {one.service} on {one.machine} is published on {one.ip or 'all addresses'}", one.where
        )
        for one in declared.published
    ]
    local = dict(_local_ports(resolution, machine))
    open_ports += _open(local, listening or ())
    if open_ports:
        fix = "remove it from `ports` of Compose, or bind it to 127.0.0.1"
        return Gathered("contradicts", first_names(open_ports, _NAMES_MOST), fix)
    if listening is None and local:
        return Gathered("unknown", "the sockets of this machine cannot be read: no /proc/net/tcp", "run it on Linux")
    return Gathered("holds", f"no Compose service publishes metrics; {_looked_at(local)}")


def _looked_at(local: Mapping[int, str]) -> str:
    if not local:
        return "no target is on loopback of this machine"
    return f"{plural(len(local), 'port')} of this machine only on loopback, or closed"


def _local_ports(resolution: Resolution, machine: str) -> Iterator[tuple[int, str]]:
    """Yield the ports with metrics that only this machine needs, and what serves there."""

    def is_this(name: str) -> bool:
        return name.casefold() == machine.casefold()

    fronts = {front.port for front in resolution.fronts if is_loopback(front.upstream) and is_this(front.machine)}
    for target in (*resolution.targets, *resolution.pushed):
        host, port = split_endpoint(target.address)
        if port is None:
            continue
        is_here = is_loopback(host)
        if target.delivery == "push":  # on loopback of its own machine
            is_here = is_this(target.machine)
        if is_here or (is_this(target.machine) and port in fronts):
            yield port, f"{target.job} of {target.machine}"


def _open(local: Mapping[int, str], listening: Sequence[ListeningSocket]) -> list[str]:
    found = {
        f"{local[one.port]} listens on {join_endpoint(one.host, one.port)}": None
        for one in listening
        if one.port in local and not one.is_local
    }
    return list(found)
