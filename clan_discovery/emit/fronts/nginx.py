"""Write an include for the `http` block of nginx.conf, for nginx 1.19.4 and newer.

What the client says in X-Forwarded-* is not passed on, as in Caddy and Traefik.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from clan_discovery.emit.fronts.sites import (
    MADE,
    OIDC_HEADERS,
    HostPath,
    VirtualHost,
    block,
    comment,
    removed_headers,
    sites,
)
from clan_discovery.model import FRONT_AUTHS
from clan_discovery.syntax.endpoint import is_address, is_nowhere
from clan_discovery.syntax.hosts import OIDC_PATH, OWN_PATH

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from clan_discovery.model import Front, FrontAuth, FrontSettings

_EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - what nginx listens on, by default
_LONGEST_HASHED: Final = 40
"""A longer name does not fit into nginx's hash of names by default: it is written as a regular expression."""
_SYSTEM_CA: Final = "/etc/ssl/certs/ca-certificates.crt"
_FORWARDED: Final = (
    ("X-Real-IP", "$remote_addr"),
    ("X-Forwarded-For", "$remote_addr"),
    ("X-Forwarded-Proto", "$scheme"),
    ("X-Forwarded-Host", "$host$clan_discovery_port"),
)
_PASSED: Final = (
    ("Host", "$host$clan_discovery_port"),
    *_FORWARDED,
    ("Upgrade", "$clan_discovery_upgrade"),
    ("Connection", "$clan_discovery_connection"),
)
_MAPS: Final = """\
# Within a connection of h2c, the requests of a client would reach the service unseen.
map $http_upgrade $clan_discovery_upgrade {
	default $http_upgrade;
	"~*h2c" "";
}
map $clan_discovery_upgrade $clan_discovery_connection {
	default upgrade;
	"" "";
}
# The port that the client names: $host has none, and $http_host may be another host than that of the request line.
map $http_host $clan_discovery_port {
	default "";
	"~(?<clan_discovery_named>:[0-9]+)$" $clan_discovery_named;
}"""


def render_nginx(fronts: Sequence[Front], settings: FrontSettings) -> str:
    """Return the servers of all fronts."""
    lines = [f"# {MADE}", *_MAPS.split("\n")]
    servers = _Servers(settings)
    for site in sites(fronts):
        lines += ["", *servers.of(site)]
    if settings.refuses_unknown:
        lines += ["", "# Other hosts."]
        lines.append(block("server", [*_listen(settings.http_port, " default_server", settings), "return 444;"]))
        if settings.tls != "off":
            listen = _listen(settings.https_port, " ssl default_server", settings)
            lines.append(block("server", [*listen, "ssl_reject_handshake on;", "return 444;"]))
    if settings.metrics:
        status = block("location = /stub_status", ["stub_status;"])
        rest = block("location /", ["return 404;"])
        lines += ["", block("server", [f"listen {settings.metrics};", "access_log off;", status, rest])]
    return "\n".join(lines) + "\n"


def listen_lines(settings: FrontSettings) -> Iterator[str]:
    """Yield where a server of a front listens: with TLS, on the port of https alone, with the certificate."""
    if settings.tls == "off":
        yield from _listen(settings.http_port, "", settings)
        return
    yield from _listen(settings.https_port, " ssl", settings)
    yield f'ssl_certificate "{settings.certificate}";'
    yield f'ssl_certificate_key "{settings.key}";'


def _listen(port: int, options: str, settings: FrontSettings) -> Iterator[str]:
    for host in settings.listen or _EVERYWHERE:
        address = f"[{host}]" if ":" in host else host
        yield f"listen {address}:{port}{options};"


def server_name(domain: str, settings: FrontSettings) -> str:
    """Return the name of a server. `*.example.org` is for one label, as in Caddy.

    nginx prefers a wildcard of the proxy's own config to a regular expression, but a longer wildcard to both.
    """
    is_wildcard = domain.startswith("*.")
    if not is_wildcard and len(domain) <= _LONGEST_HASHED:
        return f"server_name {domain};"
    pattern = f"^[^.]+{re.escape(domain[1:])}$" if is_wildcard else f"^{re.escape(domain)}$"
    if not _is_covered(domain, settings):
        return f'server_name "~{pattern}";'
    name = domain if is_wildcard else f".{domain}"
    return f"server_name {name};\n" + block(f'if ($host !~ "{pattern}")', ["return 404;"])


def _is_covered(domain: str, settings: FrontSettings) -> bool:
    """Tell whether a wildcard of the proxy's own config is for the domain, which fits into the hash of wildcards."""
    fits = all(len(label) <= _LONGEST_HASHED for label in domain.split("."))
    return fits and any(own.startswith("*.") and domain.endswith(own[1:]) for own in settings.own_domains)


class _Servers:
    """Writes the servers of virtual hosts. What they share is made once: there may be thousands."""

    def __init__(self, settings: FrontSettings) -> None:
        self._settings = settings
        self._http = "\n".join(_listen(settings.http_port, "", settings))
        self._served = "\n".join(listen_lines(settings))
        self._limits = "\n".join(_limits(settings))
        self._login = {"forward": "\n".join(_forward(settings)), "oidc": "\n".join(_oidc(settings))}
        self._auth: dict[FrontAuth, list[str]] = {auth: list(_auth(auth, settings)) for auth in FRONT_AUTHS}
        self._headers = {auth: _headers(auth, settings) for auth in FRONT_AUTHS}
        self._header_lines = {auth: _header_lines(headers) for auth, headers in self._headers.items()}

    def of(self, site: VirtualHost) -> Iterator[str]:
        """Yield the server of a virtual host; with TLS, also one that redirects http."""
        settings, name = self._settings, server_name(site.domain, self._settings)
        if settings.tls == "off":
            yield block("server", [self._served, name, *self._locations(site)])
            return
        port = "" if settings.https_port == 443 else f":{settings.https_port}"
        yield block("server", [self._http, name, f"return 308 https://$host{port}$request_uri;"])
        yield block("server", [self._served, name, *self._locations(site)])

    def _locations(self, site: VirtualHost) -> Iterator[str]:
        yield self._limits
        asked = {front.auth for front in site.fronts if _is_served(front, self._settings)}
        for auth in sorted(asked & self._login.keys()):
            yield self._login[auth]
        for part in site.parts:
            yield block(f"location {_matched(part.path)}", self._path(part))
        if not site.has_root:
            yield block("location /", ["return 404;"])

    def _path(self, part: HostPath) -> Iterator[str]:
        front = part.front
        if front is None:
            yield "# hidden"
            yield "return 404;"
            return
        yield f"# {comment(front)}"
        if not _is_served(front, self._settings):
            yield "return 503;"
            return
        yield from self._auth[front.auth]
        if front.headers:
            own = {name.lower(): (name, f'"{value}"') for name, value in front.headers}
            yield _header_lines({**self._headers[front.auth], **own})
        else:
            yield self._header_lines[front.auth]
        # With it, a service would lead nginx to any location of the server, also an internal one.
        yield "proxy_ignore_headers X-Accel-Redirect;"
        if front.unbuffered:
            yield "proxy_buffering off;"
            yield "proxy_request_buffering off;"
        url = f"{front.scheme}://{front.address}"
        yield from _pass(url, "upstream", self._settings, insecure=front.insecure)


def _limits(settings: FrontSettings) -> Iterator[str]:
    """Yield lines for uploads of any size, and for long polling."""
    yield "client_max_body_size 0;"
    yield "proxy_http_version 1.1;"
    yield "proxy_read_timeout 1h;"
    yield "proxy_send_timeout 1h;"
    if settings.resolvers:
        yield f"resolver {' '.join(settings.resolvers)} valid=30s;"


def _is_served(front: Front, settings: FrontSettings) -> bool:
    """Tell whether nginx can connect to the service. It would not start while a name cannot be looked up."""
    return not is_nowhere(front.upstream) and (bool(settings.resolvers) or is_address(front.upstream))


def _matched(path: str) -> str:
    if path == "/":
        return "/"
    return f'~* "^{re.escape(path)}(?:/|$)"'


def _auth(auth: FrontAuth, settings: FrontSettings) -> Iterator[str]:
    match auth:
        case "none":
            return
        case "basic":
            yield 'auth_basic "Log in";'
            yield f'auth_basic_user_file "{settings.basic}";'
        case "forward":
            yield from _asking(f"{OWN_PATH}/forward", "@clan_discovery_forward")
            yield "auth_request_set $clan_discovery_location $upstream_http_location;"
            yield from _copied(_copied_headers(auth, settings))
        case "oidc":
            yield from _asking(f"{OWN_PATH}/oidc", f"{OIDC_PATH}/sign_in")
            yield from _copied(_copied_headers(auth, settings))


def _copied_headers(auth: FrontAuth, settings: FrontSettings) -> tuple[str, ...]:
    """Return the headers of the login server's answer that the service gets."""
    if auth == "oidc":
        return OIDC_HEADERS
    if auth == "forward" and settings.forward is not None:
        return settings.forward.headers
    return ()


def _asking(location: str, login: str) -> Iterator[str]:
    yield f"auth_request {location};"
    yield f"error_page 401 = {login};"
    yield "auth_request_set $clan_discovery_cookie $upstream_http_set_cookie;"
    yield "add_header Set-Cookie $clan_discovery_cookie;"


def _copied(headers: Iterable[str]) -> Iterator[str]:
    for number, header in enumerate(headers):
        yield f"auth_request_set {_variable(number)} $upstream_http_{header.lower().replace('-', '_')};"


def _variable(number: int) -> str:
    """Return the variable of a copied header. A number, because nginx has a limit for the names of variables."""
    return f"$clan_discovery_header{number}"


def _headers(auth: FrontAuth, settings: FrontSettings) -> dict[str, tuple[str, str]]:
    """Return the headers that a service gets, by their names in lower case."""
    headers = dict(_PASSED)
    headers |= dict.fromkeys(removed_headers(settings), '""')
    if auth == "basic":
        headers["Authorization"] = '""'
    headers |= {header: _variable(number) for number, header in enumerate(_copied_headers(auth, settings))}
    return {name.lower(): (name, value) for name, value in headers.items()}


def _header_lines(headers: Mapping[str, tuple[str, str]]) -> str:
    return "\n".join(f"proxy_set_header {name} {value};" for name, value in headers.values())


def _pass(url: str, variable: str, settings: FrontSettings, *, insecure: bool = False) -> Iterator[str]:
    """Yield where requests are passed to. The certificate of an https server is verified unless `insecure`.

    The login servers need a `variable` of their own: a request and the one that asks about it share their variables.
    """
    parts = urlsplit(url)
    if parts.scheme == "https":
        yield from verify_lines(parts.hostname or "", settings, insecure=insecure)
    if is_address(parts.hostname or "") or not settings.resolvers:
        yield f"proxy_pass {url};"
        return
    # A variable: nginx looks the name up for requests, and starts although it cannot be looked up.
    yield f"set $clan_discovery_{variable} {url};"
    yield f"proxy_pass $clan_discovery_{variable};"


def verify_lines(host: str, settings: FrontSettings, *, insecure: bool = False) -> Iterator[str]:
    """Yield how the certificate of an https server is verified: for this name, unless `insecure`."""
    yield "proxy_ssl_server_name on;"
    yield f"proxy_ssl_name {host};"
    if not insecure:
        yield "proxy_ssl_verify on;"
        yield f'proxy_ssl_trusted_certificate "{settings.ca or _SYSTEM_CA}";'


def _server_headers(url: str) -> Iterator[str]:
    """Yield the headers for a server that logs users in; an https one gets its own name as Host."""
    host = "$host$clan_discovery_port"
    if url.startswith("https://"):
        host = urlsplit(url).netloc
    yield f"proxy_set_header Host {host};"
    for name, value in _FORWARDED:
        yield f"proxy_set_header {name} {value};"
    yield "proxy_set_header X-Forwarded-Uri $request_uri;"


def _check(url: str, settings: FrontSettings, more: Iterable[str]) -> Iterator[str]:
    """Yield a location that asks a server about the request, without its body."""
    yield "internal;"
    yield "proxy_pass_request_body off;"
    yield 'proxy_set_header Content-Length "";'
    yield from _server_headers(url)
    yield "proxy_set_header X-Forwarded-Method $request_method;"
    yield "proxy_set_header X-Original-URL $scheme://$host$clan_discovery_port$request_uri;"
    yield "proxy_set_header X-Original-Method $request_method;"
    yield from more
    yield from _pass(url, "login", settings)


def _forward(settings: FrontSettings) -> Iterator[str]:
    forward = settings.forward
    if forward is None:
        return
    # auth_request knows 2xx, 401 and 403 alone: a redirect becomes 401, and the answer to it redirects.
    redirects = ["proxy_intercept_errors on;", "error_page 301 302 303 307 308 = @clan_discovery_redirect;"]
    url = forward.url if urlsplit(forward.url).path else f"{forward.url}/"
    yield block(f"location = {OWN_PATH}/forward", _check(url, settings, redirects))
    yield block("location @clan_discovery_redirect", ["return 401;"])
    login = [block('if ($clan_discovery_location = "")', ["return 401;"]), "return 302 $clan_discovery_location;"]
    if forward.login:
        mark = "&" if "?" in forward.login else "?"
        login = [f"return 302 {forward.login}{mark}rd=$scheme://$host$clan_discovery_port$request_uri;"]
    yield block("location @clan_discovery_forward", login)


def _oidc(settings: FrontSettings) -> Iterator[str]:
    if not settings.oidc:
        return
    redirect = "proxy_set_header X-Auth-Request-Redirect $request_uri;"
    asked = f"{settings.oidc}{OIDC_PATH}/auth"
    yield block(f"location = {OWN_PATH}/oidc", _check(asked, settings, [redirect]))
    body = [*_server_headers(settings.oidc), redirect, *_pass(settings.oidc, "login", settings)]
    yield block(f"location ^~ {OIDC_PATH}/", body)
