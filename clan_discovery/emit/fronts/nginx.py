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
    OIDC_PATH,
    HostPath,
    VirtualHost,
    comment,
    is_answered,
    is_at_name,
    removed_headers,
    sites,
)
from clan_discovery.syntax.endpoint import is_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from clan_discovery.model import Front, FrontSettings

_EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - what nginx listens on, by default
_LONGEST_HASHED: Final = 40
"""A longer name does not fit into nginx's hash of names by default: it is written as a regular expression."""
_SYSTEM_CA: Final = "/etc/ssl/certs/ca-certificates.crt"
_OWN: Final = "/.clan-discovery"
_FORWARDED: Final = (
    ("X-Real-IP", "$remote_addr"),
    ("X-Forwarded-For", "$remote_addr"),
    ("X-Forwarded-Proto", "$scheme"),
    ("X-Forwarded-Host", "$host$clan_discovery_port"),
)
_MAPS: Final = """\
map $http_upgrade $clan_discovery_connection {
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
    for site in sites(fronts):
        lines += ["", *_site(site, settings)]
    if settings.refuses_unknown:
        lines += ["", "# Other hosts."]
        lines += _block("server", [*_listen(settings.http_port, " default_server", settings), "return 444;"])
        if settings.tls != "off":
            listen = _listen(settings.https_port, " ssl default_server", settings)
            lines += _block("server", [*listen, "ssl_reject_handshake on;", "return 444;"])
    if settings.metrics:
        status = _block("location = /stub_status", ["stub_status;"])
        rest = _block("location /", ["return 404;"])
        lines += ["", *_block("server", [f"listen {settings.metrics};", "access_log off;", *status, *rest])]
    return "\n".join(lines) + "\n"


def _block(head: str, body: Iterable[str]) -> list[str]:
    return [f"{head} {{", *(f"\t{line}" for line in body), "}"]


def _listen(port: int, options: str, settings: FrontSettings) -> Iterator[str]:
    for host in settings.listen or _EVERYWHERE:
        address = f"[{host}]" if ":" in host else host
        yield f"listen {address}:{port}{options};"


def _server_name(domain: str) -> str:
    """Return the name of a server. `*.example.org` is for one label, as in Caddy."""
    if domain.startswith("*."):
        return f'server_name "~^[^.]+{re.escape(domain[1:])}$";'
    if len(domain) > _LONGEST_HASHED:
        return f'server_name "~^{re.escape(domain)}$";'
    return f"server_name {domain};"


def _site(site: VirtualHost, settings: FrontSettings) -> Iterator[str]:
    name = _server_name(site.domain)
    if settings.tls == "off":
        yield from _block("server", [*_listen(settings.http_port, "", settings), name, *_locations(site, settings)])
        return
    port = "" if settings.https_port == 443 else f":{settings.https_port}"
    redirect = f"return 308 https://$host{port}$request_uri;"
    yield from _block("server", [*_listen(settings.http_port, "", settings), name, redirect])
    certificate = [f'ssl_certificate "{settings.certificate}";', f'ssl_certificate_key "{settings.key}";']
    listen = _listen(settings.https_port, " ssl", settings)
    yield from _block("server", [*listen, name, *certificate, *_locations(site, settings)])


def _locations(site: VirtualHost, settings: FrontSettings) -> Iterator[str]:
    yield "client_max_body_size 0;"
    yield "proxy_http_version 1.1;"
    yield "proxy_read_timeout 1h;"
    yield "proxy_send_timeout 1h;"
    if settings.resolvers:
        yield f"resolver {' '.join(settings.resolvers)} valid=30s;"
    asked = {front.auth for front in site.fronts if _is_served(front, settings)}
    if "forward" in asked:
        yield from _forward(settings)
    if "oidc" in asked:
        yield from _oidc(settings)
    for part in site.parts:
        yield from _block(f"location {_matched(part.path)}", _part(part, settings))
    if not site.has_root:
        yield from _block("location /", ["return 404;"])


def _is_served(front: Front, settings: FrontSettings) -> bool:
    """Tell whether nginx can connect to the service. It would not start while a name cannot be looked up."""
    return is_answered(front) and (bool(settings.resolvers) or not is_at_name(front))


def _matched(path: str) -> str:
    if path == "/":
        return "/"
    return f'~* "^{re.escape(path)}(?:/|$)"'


def _part(part: HostPath, settings: FrontSettings) -> Iterator[str]:
    front = part.front
    if front is None:
        yield "# metrics"
        yield "return 404;"
        return
    yield f"# {comment(front)}"
    if not _is_served(front, settings):
        yield "return 503;"
        return
    headers = dict.fromkeys(removed_headers(settings), '""')
    match front.auth:
        case "none":
            pass
        case "basic":
            yield 'auth_basic "Log in";'
            yield f'auth_basic_user_file "{settings.basic}";'
            headers["Authorization"] = '""'
        case "forward":
            yield from _asking(f"{_OWN}/forward", "@clan_discovery_forward")
            copied = settings.forward.headers if settings.forward else ()
            yield from _copied(copied)
            yield "auth_request_set $clan_discovery_location $upstream_http_location;"
            headers |= {header: _variable(number) for number, header in enumerate(copied)}
        case "oidc":
            yield from _asking(f"{_OWN}/oidc", f"{OIDC_PATH}/sign_in")
            yield from _copied(OIDC_HEADERS)
            headers |= {header: _variable(number) for number, header in enumerate(OIDC_HEADERS)}
    yield from _proxy(front, headers, settings)


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


def _proxy(front: Front, headers: dict[str, str], settings: FrontSettings) -> Iterator[str]:
    all_headers = {
        "Host": "$host$clan_discovery_port",
        **dict(_FORWARDED),
        "Upgrade": "$http_upgrade",
        "Connection": "$clan_discovery_connection",
        **headers,
    }
    given = {name.lower(): (name, f'"{value}"') for name, value in front.headers}
    for name, value in all_headers.items():
        given.setdefault(name.lower(), (name, value))
    for name, value in given.values():
        yield f"proxy_set_header {name} {value};"
    # With it, a service would lead nginx to any location of the server, also an internal one.
    yield "proxy_ignore_headers X-Accel-Redirect;"
    if front.unbuffered:
        yield "proxy_buffering off;"
        yield "proxy_request_buffering off;"
    yield from _pass(f"{front.scheme}://{front.address}", settings, insecure=front.insecure)


def _pass(url: str, settings: FrontSettings, *, insecure: bool = False) -> Iterator[str]:
    """Yield where requests are passed to. The certificate of an https server is verified unless `insecure`."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        yield "proxy_ssl_server_name on;"
        yield f"proxy_ssl_name {parts.hostname};"
        if not insecure:
            yield "proxy_ssl_verify on;"
            yield f'proxy_ssl_trusted_certificate "{settings.ca or _SYSTEM_CA}";'
    if is_address(parts.hostname or "") or not settings.resolvers:
        yield f"proxy_pass {url};"
        return
    # A variable: nginx looks the name up for requests, and starts although it cannot be looked up.
    yield f"set $clan_discovery_upstream {url};"
    yield "proxy_pass $clan_discovery_upstream;"


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
    yield from _pass(url, settings)


def _forward(settings: FrontSettings) -> Iterator[str]:
    forward = settings.forward
    if forward is None:
        return
    # auth_request knows 2xx, 401 and 403 alone: a redirect becomes 401, and the answer to it redirects.
    redirects = ["proxy_intercept_errors on;", "error_page 301 302 303 307 308 = @clan_discovery_redirect;"]
    url = forward.url if urlsplit(forward.url).path else f"{forward.url}/"
    yield from _block(f"location = {_OWN}/forward", _check(url, settings, redirects))
    yield from _block("location @clan_discovery_redirect", ["return 401;"])
    login = [*_block('if ($clan_discovery_location = "")', ["return 401;"]), "return 302 $clan_discovery_location;"]
    if forward.login:
        mark = "&" if "?" in forward.login else "?"
        login = [f"return 302 {forward.login}{mark}rd=$scheme://$host$clan_discovery_port$request_uri;"]
    yield from _block("location @clan_discovery_forward", login)


def _oidc(settings: FrontSettings) -> Iterator[str]:
    redirect = "proxy_set_header X-Auth-Request-Redirect $request_uri;"
    asked = f"{settings.oidc}{OIDC_PATH}/auth"
    yield from _block(f"location = {_OWN}/oidc", _check(asked, settings, [redirect]))
    body = [*_server_headers(settings.oidc), redirect, *_pass(settings.oidc, settings)]
    yield from _block(f"location ^~ {OIDC_PATH}/", body)
