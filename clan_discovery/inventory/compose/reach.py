"""Find out at which address a scraper or a reverse proxy reaches a port of a service. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from clan_discovery.syntax.endpoint import LOOPBACK, is_host, is_loopback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.inventory.compose.service import ComposeService, PublishedPort

_MAX_STEPS: Final = 20


class Client(msgspec.Struct, frozen=True):
    """The program that connects to services: a service in a network, a program on the same machine, or elsewhere."""

    kind: Literal["service", "host", "elsewhere"]
    service: ComposeService | None = None

    @property
    def name(self) -> str:
        """The name of the service; empty if it is none."""
        if self.service is None:
            return ""
        return self.service.name


def client_of(service: ComposeService) -> Client:
    """Return a service as a client; one in the network of the machine resolves no names of other services."""
    if service.mode == "host":
        return Client("host", service)
    return Client("service", service)


class Reached(msgspec.Struct, frozen=True):
    """Where a port is reached: at `host`, or at the address of the machine if that is empty.

    `is_loopback`: only from the machine itself.
    """

    host: str
    port: int
    is_loopback: bool = False


class Unreachable(msgspec.Struct, frozen=True):
    """Why a port is not reached, and what to do about it."""

    why: str
    fix: str


class Reach:
    """The services of one machine, and the names that they have in their networks."""

    def __init__(self, services: Sequence[ComposeService]) -> None:
        self._services = {(service.project.name, service.name): service for service in services}
        self._containers = {service.container_name: service for service in services if service.container_name}
        self._claims: dict[tuple[str, str], set[int]] = {}
        for service in services:
            for network, aliases in service.networks.items():
                for name in (service.name, service.container_name, *aliases):
                    self._claims.setdefault((network, name), set()).add(id(service))

    def owner(self, service: ComposeService) -> ComposeService | None:
        """Return the service whose network this one uses: itself, or that of `network_mode: service:x`."""
        for _ in range(_MAX_STEPS):
            kind, _, name = service.mode.partition(":")
            if kind == "service":
                other = self._services.get((service.project.name, name))
            elif kind == "container":
                other = self._containers.get(name)
            else:
                return service
            if other is None:
                return None
            service = other
        return None

    def binding(self, service: ComposeService, port: int) -> PublishedPort | None:
        """Return how a port is published: on all addresses rather than on one, on loopback last."""
        owner = self.owner(service)
        if owner is None or owner.mode in ("host", "none"):
            return None
        found = [
            published
            for published in owner.published
            if published.first is not None and published.target <= port < published.target + published.count
        ]
        return min(found, key=lambda published: (bool(published.ip), is_loopback(published.ip)), default=None)

    def place(self, service: ComposeService, port: int, client: Client) -> Reached | Unreachable:
        """Return where a client reaches a port of a service: in a shared network, or published on the machine."""
        owner = self.owner(service)
        if owner is None:
            why = f"its network_mode {service.mode!r} names a service or container that is not in the files"
            return Unreachable(why, "add the file that has it")
        if owner.mode == "host":
            return Reached("", port)
        if owner.mode == "none":
            return Unreachable("its network_mode is none", "put it into a network")
        if client.kind == "service" and client.service is not None:
            shared = self._shared(owner, client.service)
            if shared:
                return self._in_network(owner, port, shared)
        return self._published(owner, port, client)

    def _shared(self, owner: ComposeService, client: ComposeService) -> list[str]:
        of_client = self.owner(client)
        if of_client is None:
            return []
        return sorted(owner.networks.keys() & of_client.networks.keys())

    def _in_network(self, owner: ComposeService, port: int, shared: Sequence[str]) -> Reached | Unreachable:
        """Return the first name that only this service has, in a network that both share."""
        for network in shared:
            for name in (owner.name, owner.container_name, *owner.networks[network]):
                if len(self._claims.get((network, name), ())) == 1 and is_host(name):
                    return Reached(name, port)
        why = f"other services have its names in the network {shared[0]}, too"
        return Unreachable(why, "give it a container_name")

    def _published(self, owner: ComposeService, port: int, client: Client) -> Reached | Unreachable:
        binding = self.binding(owner, port)
        if binding is None or binding.first is None:
            if client.kind == "service":
                why = f"it shares no network with {client.name}, and does not publish port {port}"
                return Unreachable(why, f"put both into one network, or publish the port: ADDRESS:{port}:{port}")
            fix = f"publish it on one address: ADDRESS:{port}:{port}"
            if owner.networks:
                fix += ", or add the files of what connects to it"
            return Unreachable(f"it does not publish port {port}", fix)
        published = binding.first + port - binding.target
        if not is_loopback(binding.ip):
            return Reached(binding.ip, published)
        if client.kind == "service":
            why = f"it shares no network with {client.name}, and publishes port {port} on loopback only"
            return Unreachable(why, "put both into one network")
        return Reached(LOOPBACK, published, is_loopback=True)
