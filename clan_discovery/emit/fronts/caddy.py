"""Write site blocks for a Caddyfile, for Caddy 2.6 and newer.

`route` keeps the order of the directives. Identity headers of the client are removed before `forward_auth` copies those
of the answer. Where the answer has none, newer versions would keep those of the client, and 2.6 sets the name of its
placeholder, which is removed afterwards. A `?` at the end of a URI keeps the client's query out of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from clan_discovery.emit.fronts.sites import (
    MADE,
    OIDC_HEADERS,
    HostPath,
    VirtualHost,
    block,
    comment,
    identity_headers,
    removed_headers,
    sites,
)
from clan_discovery.syntax.endpoint import is_nowhere
from clan_discovery.syntax.hosts import OIDC_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clan_discovery.model import Front, FrontSettings

_IDENTITY: Final = "clan_discovery_identity"
_UNSET: Final = "clan_discovery_unset"
_PORTS: Final = {"http": 80, "https": 443}


def render_caddy(fronts: Sequence[Front], settings: FrontSettings) -> str:
    """Return the sites of all fronts. `import` the file in the Caddyfile, outside of a site."""
    lines = [f"# {MADE}"]
    lines += ["", "# What a client says of itself is not passed on."]
    lines.append(block(f"({_IDENTITY})", _removed(settings)))
    if identity_headers(settings):
        lines.append(block(f"({_UNSET})", _unset(settings)))
    for site in sites(fronts):
        lines += ["", _site(site, settings)]
        if settings.tls != "off":
            lines.append(_redirect(site, settings))
    if settings.refuses_unknown:
        lines += ["", "# Other hosts."]
        lines.append(block("http://" + _port("http", settings), [*_bind(settings), "abort"]))
        if settings.tls != "off":
            lines.append(block("https://" + _port("https", settings), [*_bind(settings), "abort"]))
    if settings.metrics:
        host, _, port = settings.metrics.rpartition(":")
        route = block("route", ["metrics /metrics", "respond 404"])
        lines += ["", block(f"http://:{port}", [f"bind {host.strip('[]')}", route])]
    return "\n".join(lines) + "\n"


def _removed(settings: FrontSettings) -> Iterator[str]:
    # As in nginx: many services do not tell a name with `_` from one with `-`.
    yield "request_header -*_*"
    for header in removed_headers(settings):
        yield f"request_header -{header}"
    yield "request_header X-Real-IP {remote_host}"
    # Within a connection of h2c, the requests of a client would reach the service unseen.
    yield '@h2c header_regexp Upgrade "(?i)h2c"'
    yield "request_header @h2c -Upgrade"


def _unset(settings: FrontSettings) -> Iterator[str]:
    """Yield lines that remove the headers to which Caddy 2.6 gave the name of a placeholder."""
    for header in identity_headers(settings):
        yield f'@unset_{header} header_regexp {header} "^.http[.]reverse_proxy[.]header[.]"'
    for header in identity_headers(settings):
        yield f"request_header @unset_{header} -{header}"


def _port(scheme: str, settings: FrontSettings) -> str:
    """Return `:PORT`; empty for the port of the scheme."""
    port = settings.http_port if scheme == "http" else settings.https_port
    if port == _PORTS[scheme]:
        return ""
    return f":{port}"


def _bind(settings: FrontSettings) -> list[str]:
    return [f"bind {' '.join(settings.listen)}"] if settings.listen else []


def _site(site: VirtualHost, settings: FrontSettings) -> str:
    scheme = "http" if settings.tls == "off" else "https"
    body = [*_bind(settings), *_tls(settings)]
    for number, part in enumerate(site.parts):
        if part.path != "/":
            body.append(f"@path{number} path {part.path} {part.path}/*")
    route = [f"import {_IDENTITY}"]
    if site.has_oidc:
        route.append(block(f"reverse_proxy {OIDC_PATH}/* {settings.oidc}", _for_oidc(settings)))
    for number, part in enumerate(site.parts):
        matcher = f" @path{number}" if part.path != "/" else ""
        route.append(block(f"route{matcher}", _part(part, settings)))
    if not site.has_root:
        route.append("respond 404")
    body.append(block("route", route))
    return block(f"{scheme}://{site.domain}{_port(scheme, settings)}", body)


def _redirect(site: VirtualHost, settings: FrontSettings) -> str:
    """Return the site of plain http: with one for other hosts, Caddy does not redirect by itself."""
    redirect = f"redir https://{{host}}{_port('https', settings)}{{uri}} 308"
    return block(f"http://{site.domain}{_port('http', settings)}", [*_bind(settings), redirect])


def _tls(settings: FrontSettings) -> list[str]:
    match settings.tls:
        case "internal":
            return ["tls internal"]
        case "files":
            return [f'tls "{settings.certificate}" "{settings.key}"']
        case "off" | "acme":
            return []


def _part(part: HostPath, settings: FrontSettings) -> Iterator[str]:
    front = part.front
    if front is None:
        yield "# hidden"
        yield "respond 404"
        return
    yield f"# {comment(front)}"
    if is_nowhere(front.upstream):
        yield "respond 503"
        return
    yield from _auth(front, settings)
    yield _proxy(front, settings)


def _auth(front: Front, settings: FrontSettings) -> Iterator[str]:
    match front.auth:
        case "none":
            return
        case "basic":
            # The name until 2.8; newer versions read it, too.
            yield block("basicauth", [f'import "{settings.basic}"'])
            yield "request_header -Authorization"
        case "forward":
            yield from _forward(settings)
            yield f"import {_UNSET}"
        case "oidc":
            yield block(f"forward_auth {settings.oidc}", _oidc(settings))
            yield f"import {_UNSET}"


def _forward(settings: FrontSettings) -> Iterator[str]:
    forward = settings.forward
    if forward is None:
        return
    url = urlsplit(forward.url)
    path = f"{url.path or '/'}?{url.query}"
    body = [f"uri {path}", *_own_host(forward.url, settings)]
    if forward.headers:
        body.append(f"copy_headers {' '.join(forward.headers)}")
    yield block(f"forward_auth {url.scheme}://{url.netloc}", body)


def _oidc(settings: FrontSettings) -> Iterator[str]:
    """Ask oauth2-proxy; if the user is not logged in, show its login page."""
    yield f"uri {OIDC_PATH}/auth?"
    yield from _for_oidc(settings)
    yield f"copy_headers {' '.join(OIDC_HEADERS)}"
    yield "@unknown status 401"
    login = [
        "method GET",
        f"rewrite * {OIDC_PATH}/sign_in?",
        block(f"reverse_proxy {settings.oidc}", _for_oidc(settings)),
    ]
    yield block("handle_response @unknown", login)


def _for_oidc(settings: FrontSettings) -> list[str]:
    return [
        *_own_host(settings.oidc, settings),
        "header_up X-Real-IP {remote_host}",
        "header_up X-Forwarded-Uri {http.request.orig_uri}",
        "header_up X-Auth-Request-Redirect {http.request.orig_uri}",
    ]


def _own_host(url: str, settings: FrontSettings) -> list[str]:
    """Return the lines for an https server: Host is its own, because it often has several virtual hosts."""
    if not url.startswith("https://"):
        return []
    return ["header_up Host {upstream_hostport}", *_verified(settings)]


def _verified(settings: FrontSettings) -> list[str]:
    if not settings.ca:
        return []
    return [block("transport http", [f'tls_trusted_ca_certs "{settings.ca}"'])]


def _tls_options(front: Front, settings: FrontSettings) -> list[str]:
    """Return how the certificate of an https service is verified, where it is not by the system's CAs."""
    if front.scheme != "https":
        return []
    if front.insecure:
        return ["tls_insecure_skip_verify"]
    if settings.ca:
        return [f'tls_trusted_ca_certs "{settings.ca}"']
    return []


def _proxy(front: Front, settings: FrontSettings) -> str:
    body: list[str] = []
    if front.scheme == "https":
        # Caddy 2.11 replaces Host for https.
        body.append("header_up Host {http.request.hostport}")
    body += [f'header_up {name} "{value}"' for name, value in front.headers]
    if front.unbuffered:
        body.append("flush_interval -1")
    head = f"reverse_proxy {front.scheme}://{front.address}"
    if (front.scheme, front.port) == ("http", 443):  # Caddy refuses the two together; without a scheme, it is http
        head = f"reverse_proxy {front.address}"
    elif (front.scheme, front.port) == ("https", 80):  # as above
        head = f"reverse_proxy {front.address}"
        body.append(block("transport http", ["tls", *_tls_options(front, settings)]))
    elif options := _tls_options(front, settings):
        body.append(block("transport http", options))
    if not body:
        return head
    return block(head, body)
