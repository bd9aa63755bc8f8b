"""Read which domains lead to a service, from Traefik's labels and from `x-clan-discovery.front`. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.inventory.compose.metrics import read_port
from clan_discovery.inventory.compose.service import OWN_KEY, Label
from clan_discovery.inventory.compose.traefik import (
    Middlewares,
    Route,
    RuleError,
    hosts_in,
    routers_of,
    routes_of,
    stricter,
)
from clan_discovery.model import FRONT_AUTHS, Front
from clan_discovery.syntax.endpoint import is_host
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clan_discovery.inventory.compose.project import ComposeFindings
    from clan_discovery.inventory.compose.service import ComposeService
    from clan_discovery.inventory.compose.traefik import Router
    from clan_discovery.model import FrontAuth

_KEYS: Final = ("domain", "path", "port", "auth")
_AUTHS: Final[Mapping[str, FrontAuth]] = {auth: auth for auth in FRONT_AUTHS}
_OWN_FRONT: Final = f"write {OWN_KEY}.front with an `auth`"


class FrontReader:
    """Reads the fronts of services. Their machine and address are still empty, their port is that of the container.

    `refused` are the places of routers that no front is made from.
    """

    def __init__(self, services: Sequence[ComposeService], findings: ComposeFindings) -> None:
        self.refused: list[Front] = []
        self._findings = findings
        arguments = [text for service in services if service.software == "traefik" for text in service.arguments]
        self._middlewares = Middlewares([service.labels for service in services], arguments)

    def read(self, service: ComposeService, findings: ComposeFindings | None = None) -> list[Front]:
        """Return the fronts of a service, each domain and path once; port 0 where it is not known."""
        findings = findings or self._findings
        found: dict[tuple[str, str], Front] = {}
        refused: list[Front] = []
        enabled = service.labels.get("traefik.enable")
        if enabled is None or enabled.text.lower() != "false":
            for router in routers_of(service.labels, self._middlewares):
                fronts = self._of_router(service, router, findings)
                for front in fronts or ():
                    _add(found, front)
                if fronts is None:
                    refused += _refused(service, router)
        own = self._own(service, findings)
        if own is not None:
            found[own.domain, own.path] = own
            refused = [front for front in refused if (front.domain, front.path) != (own.domain, own.path)]
        if findings is self._findings:
            self.refused += refused
        return list(found.values())

    def _of_router(self, service: ComposeService, router: Router, findings: ComposeFindings) -> list[Front] | None:
        """Return the fronts of a router; None if it cannot be written as fronts."""
        where = router.rule.part.where
        name = f"services.{service.name}: router {router.name}"
        if router.elsewhere:
            if not router.elsewhere.endswith("@internal"):  # Traefik's own dashboard is not behind a port
                what = f"{name} leads to {router.elsewhere}, which is not a service of this container"
                findings.add(where, f"{what}: no front is made of it", None, "warning")
            return None
        if router.rule.unset:
            findings.refuse_unset(where, name, router.rule.unset[0])
            return None
        try:
            routes = routes_of(router.rule.text)
        except RuleError as error:
            findings.add(where, f"{name}: {error}: no front is made of it", None, "warning")
            return None
        if router.limit:
            what = f"{name}: the middleware {router.limit[:60]} limits which clients may connect, and a front cannot"
            findings.add(where, f"{what}: no front is made of it", _OWN_FRONT, "warning")
            return None
        if router.unknown and router.auth == "none":
            what = f"{name}: the middleware {router.unknown[:60]} is in no label: the front demands no login"
            findings.add(where, what, f"if it demands one, {_OWN_FRONT}", "warning")
        return [*self._of_routes(service, router, routes, findings)]

    def _of_routes(
        self, service: ComposeService, router: Router, routes: Sequence[Route], findings: ComposeFindings
    ) -> Iterator[Front]:
        where = router.rule.part.where
        port = self._port(service, router.port, findings)
        for domain, path in routes:
            if not is_host(domain) or not path.startswith("/"):
                what = f"services.{service.name}: router {router.name}: {domain + path!r} is not a domain with a path"
                findings.add(where, f"{what}: no front is made of it", None, "warning")
                continue
            yield Front(
                service=service.name,
                domain=domain,
                machine="",
                port=port,
                because="",
                path=path,
                scheme="https" if router.scheme == "https" else "http",
                auth=router.auth,
                where=where,
            )

    def _port(self, service: ComposeService, label: Label | None, findings: ComposeFindings) -> int:
        """Return the port of the container: the one in the label, or its lowest one, as Traefik does. 0: not known."""
        if label is not None:
            return read_port(findings, "traefik: loadbalancer.server.port", label) or 0
        return min(service.ports, default=0)

    def _own(self, service: ComposeService, findings: ComposeFindings) -> Front | None:
        """Return the front that `x-clan-discovery` declares."""
        if "front" not in service.own:
            return None
        part, variables = service.own["front"]
        name = f"{OWN_KEY}.front"
        pairs = part.pairs()
        labels: dict[str, Label] = {}
        for key, value in pairs.items():
            if key not in _KEYS:
                hint = did_you_mean(key, _KEYS) or f"write one of: {', '.join(_KEYS)}"
                findings.add(value.where_key, f"{name}.{key}: unknown key", hint)
            expanded = service.fields.expanded(value, variables)
            labels[key] = Label(expanded.text, value, expanded.unset)
        return self._checked(service, labels, part.where, findings)

    def _checked(
        self, service: ComposeService, labels: Mapping[str, Label], where: str, findings: ComposeFindings
    ) -> Front | None:
        name = f"{OWN_KEY}.front"
        texts = {key: label.text for key, label in labels.items()}
        for key, label in labels.items():
            if label.unset:
                findings.refuse_unset(label.part.where, f"{name}.{key}", label.unset[0])
                return None
        domain, path = texts.get("domain", "").lower(), texts.get("path", "/")
        auth = _AUTHS.get(texts.get("auth", "none"))
        if not is_host(domain):
            findings.add(where, f"{name}: {domain[:60]!r} is not a domain", "write domain: app.example.org")
        elif not path.startswith("/"):
            findings.add(where, f"{name}: the path {path[:60]!r} does not begin with a slash", "write path: /")
        elif auth is None:
            findings.add(where, f"{name}: unknown auth {texts['auth'][:60]!r}", f"write one of: {', '.join(_AUTHS)}")
        else:
            port = self._port(service, labels.get("port"), findings)
            return Front(
                service=service.name,
                domain=domain,
                machine="",
                port=port,
                because="",
                path=path,
                auth=auth,
                where=where,
            )
        return None


def _refused(service: ComposeService, router: Router) -> list[Front]:
    """Return the places of a router that no front is made from; if its rule is not understood, its domains."""
    try:
        routes = [*routes_of(router.rule.text)]
    except RuleError:
        routes = [Route(host, "/") for host in hosts_in(router.rule.text)]
    auth = router.auth
    if router.limit:
        auth = stricter(auth, "forward")
    return [
        Front(
            service=service.name,
            domain=route.domain,
            path=route.path,
            machine="",
            port=0,
            because="",
            auth=auth,
            where=router.rule.part.where,
        )
        for route in routes
    ]


def _add(found: dict[tuple[str, str], Front], front: Front) -> None:
    """Add a front. Of two routers for one domain, such as those for http and https, the stricter one counts."""
    key = front.domain, front.path
    other = found.get(key)
    if other is None:
        found[key] = front
        return
    found[key] = msgspec.structs.replace(other, auth=stricter(other.auth, front.auth), port=other.port or front.port)
