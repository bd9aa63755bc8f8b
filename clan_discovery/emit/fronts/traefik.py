"""Write YAML for Traefik's file provider, for Traefik 3.

Names are checked before: no scalar here needs more than quotes, and `{{` cannot occur, which Traefik would expand.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Final

from clan_discovery.emit.fronts.sites import (
    MADE,
    OIDC_HEADERS,
    VirtualHost,
    comment,
    removed_headers,
    sites,
)
from clan_discovery.syntax.endpoint import is_nowhere
from clan_discovery.syntax.hosts import OIDC_PATH

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from clan_discovery.model import Front, FrontSettings

_PREFIX: Final = "clan-discovery"
_STRIP: Final = f"{_PREFIX}-strip"
_BASIC: Final = f"{_PREFIX}-basic"
_FORWARD: Final = f"{_PREFIX}-forward"
_OIDC_AUTH: Final = f"{_PREFIX}-oidc"
_OIDC_LOGIN: Final = f"{_PREFIX}-oidc-login"
_OIDC_SERVICE: Final = f"{_PREFIX}-oidc"
_NOWHERE: Final = f"{_PREFIX}-nowhere"
_INSECURE: Final = f"{_PREFIX}-insecure"
_VERIFIED: Final = f"{_PREFIX}-verified"
_OWN_HEADERS: Final = ("X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Server")
_MOST_SPELLED: Final = 5
"""The `-` of a header that may be `_`."""
_EXACT: Final = 20_000
_OIDC: Final = 10_000
_ENCODED: Final = 9_000
"""Priorities: an exact domain before a wildcard, oauth2-proxy before fronts, a longer path before a shorter one."""


def render_traefik(fronts: Sequence[Front], settings: FrontSettings) -> str:
    """Return the dynamic config of all fronts. Sections without an entry are left out: Traefik refuses them."""
    found = _Sections()
    for site in sites(fronts):
        _site(site, settings, found)
    if not found.routers:
        return f"# {MADE}\n"
    _shared(fronts, settings, found)
    lines = [f"# {MADE}", "http:"]
    for name, section in found.by_name().items():
        if section:
            lines += (f"  {line}" for line in _entry(name, section))
    if settings.tls == "files":
        lines += ["tls:", "  certificates:"]
        lines += [f'    - certFile: "{settings.certificate}"', f'      keyFile: "{settings.key}"']
    return "\n".join(lines) + "\n"


class _Sections:
    """The lines of each section below `http`."""

    def __init__(self) -> None:
        self.routers: list[str] = []
        self.services: list[str] = []
        self.middlewares: list[str] = []
        self.transports: list[str] = []

    def by_name(self) -> dict[str, list[str]]:
        """Return the lines by the name of the section."""
        return {
            "routers": self.routers,
            "services": self.services,
            "middlewares": self.middlewares,
            "serversTransports": self.transports,
        }


def _entry(name: str, body: Iterable[str]) -> list[str]:
    return [f"{name}:", *(f"  {line}" for line in body)]


def _site(site: VirtualHost, settings: FrontSettings, found: _Sections) -> None:
    # No other domain has upper case. A name must not hold `@`, which is followed by a provider.
    name = f"{_PREFIX}-{site.domain.replace('*', 'ANY')}"
    base = 0 if site.domain.startswith("*.") else _EXACT
    if site.has_oidc:
        rule = f"{_host(site.domain)} && PathPrefix(`{OIDC_PATH}/`)"
        found.routers += _entry(f"{name}-oidc", _router(rule, _OIDC_SERVICE, [_STRIP], base + _OIDC, settings))
    if any(part.path != "/" for part in site.parts):
        # Traefik does not compare these with the path of a front, but services do.
        rule = f"{_host(site.domain)} && PathRegexp(`(?i)%(?:2f|5c)`)"
        found.routers += _entry(f"{name}-encoded", _router(rule, _NOWHERE, (), base + _ENCODED, settings))
    for number, part in enumerate(site.parts):
        rule = _host(site.domain)
        if part.path != "/":
            rule += f" && PathRegexp(`(?i)^{re.escape(part.path)}(?:/|$)`)"
        own, priority = f"{name}-{number}", base + len(part.path)
        front = part.front
        if front is None or is_nowhere(front.upstream):
            found.routers += _entry(own, _router(rule, _NOWHERE, (), priority, settings))
            continue
        found.routers.append(f"# {comment(front)}")
        found.routers += _entry(own, _router(rule, own, _middlewares_of(front, own), priority, settings))
        found.services += _entry(own, _service(front, settings))
        if front.headers:
            found.middlewares += _entry(own, _set_headers(front.headers))


def _host(domain: str) -> str:
    if domain.startswith("*."):
        return f"HostRegexp(`^[^.]+{re.escape(domain[1:])}$`)"
    return f"Host(`{domain}`)"


def _router(
    rule: str, service: str, middlewares: Iterable[str], priority: int, settings: FrontSettings
) -> Iterator[str]:
    yield f"rule: '{rule}'"
    yield f'entryPoints: ["{_entry_point(settings)}"]'
    yield f"service: {service}"
    yield f"priority: {priority}"
    if names := ", ".join(middlewares):
        yield f"middlewares: [{names}]"
    match settings.tls:
        case "off":
            return
        case "acme":
            yield f'tls: {{certResolver: "{settings.cert_resolver}"}}'
        case "internal" | "files":
            yield "tls: {}"


def _entry_point(settings: FrontSettings) -> str:
    if settings.entry_point:
        return settings.entry_point
    return "web" if settings.tls == "off" else "websecure"


def _middlewares_of(front: Front, own: str) -> Iterator[str]:
    """Yield the names of the middlewares of a front, in their order."""
    yield _STRIP
    match front.auth:
        case "none":
            pass
        case "basic":
            yield _BASIC
        case "forward":
            yield _FORWARD
        case "oidc":
            yield _OIDC_LOGIN
            yield _OIDC_AUTH
    if front.headers:
        yield own


def _service(front: Front, settings: FrontSettings) -> Iterator[str]:
    yield "loadBalancer:"
    yield "  servers:"
    yield f'    - url: "{front.scheme}://{front.address}"'
    if front.unbuffered:
        yield "  responseForwarding: {flushInterval: -1ms}"
    if front.scheme == "https" and front.insecure:
        yield f"  serversTransport: {_INSECURE}"
    elif front.scheme == "https" and settings.ca:
        yield f"  serversTransport: {_VERIFIED}"


def _set_headers(headers: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield "headers:"
    yield "  customRequestHeaders:"
    for name, value in headers:
        yield f'    {name}: "{value}"'


def _shared(fronts: Iterable[Front], settings: FrontSettings, found: _Sections) -> None:
    """Add what the routers share: Traefik refuses a router whose service or middleware does not exist."""
    found.middlewares += _entry(_STRIP, _set_headers((name, "") for name in _removed(settings)))
    if settings.basic:
        basic = ["basicAuth:", f'  usersFile: "{settings.basic}"', "  removeHeader: true"]
        found.middlewares += _entry(_BASIC, basic)
    if settings.forward is not None:
        found.middlewares += _entry(_FORWARD, _ask(settings.forward.url, settings.forward.headers, settings))
    if settings.oidc:
        asked = f"{settings.oidc}{OIDC_PATH}/auth"
        found.middlewares += _entry(_OIDC_AUTH, _ask(asked, OIDC_HEADERS, settings))
        # A browser follows a redirect only with its own status.
        login = ["errors:", '  status: ["401"]', '  statusRewrites: {"401": 302}', f"  service: {_OIDC_SERVICE}"]
        found.middlewares += _entry(_OIDC_LOGIN, [*login, f'  query: "{OIDC_PATH}/sign_in?rd={{url}}"'])
        server = ["loadBalancer:", "  servers:", f'    - url: "{settings.oidc}"']
        found.services += _entry(_OIDC_SERVICE, server)
    found.services += _entry(_NOWHERE, ["loadBalancer:", "  servers: []"])
    if any(front.insecure for front in fronts):
        found.transports += _entry(_INSECURE, ["insecureSkipVerify: true"])
    if settings.ca:
        found.transports += _entry(_VERIFIED, [f'rootCAs: ["{settings.ca}"]'])


def _removed(settings: FrontSettings) -> Iterator[str]:
    """Yield the headers to remove, in each spelling with `_`: many services do not tell it from `-`.

    Traefik sets those of `_OWN_HEADERS` itself.
    """
    for header in removed_headers(settings):
        words = header.split("-")
        most = 2 ** min(len(words) - 1, _MOST_SPELLED)
        for number in range(most):
            marks = ("_" if number >> at & 1 else "-" for at in range(len(words) - 1))
            spelled = "".join(itertools.chain.from_iterable(zip(words, (*marks, ""), strict=True)))
            if spelled not in _OWN_HEADERS:
                yield spelled


def _ask(url: str, headers: Iterable[str], settings: FrontSettings) -> Iterator[str]:
    yield "forwardAuth:"
    yield f'  address: "{url}"'
    if copied := ", ".join(f'"{header}"' for header in headers):
        yield f"  authResponseHeaders: [{copied}]"
    if settings.ca and url.startswith("https://"):
        yield f'  tls: {{ca: "{settings.ca}"}}'
