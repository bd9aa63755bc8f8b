"""Write an include for the `http` block of nginx.conf: which machine a token belongs to, and the server for agents."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from clan_discovery.emit.fronts.nginx import listen_lines, server_name, verify_lines
from clan_discovery.emit.fronts.sites import MADE, block
from clan_discovery.emit.receive.stores import paths_without_store, store_paths, writable
from clan_discovery.syntax.endpoint import is_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clan_discovery.emit.receive.stores import StorePath
    from clan_discovery.model import AgentToken, FrontSettings, ReceiveSettings

_LONGEST_HASHED: Final = 46
"""A longer token does not fit into nginx's hash of a map by default: it is written as a regular expression."""
_MACHINE: Final = "$clan_discovery_machine"
_GIVEN: Final = """\
# What a client sends as a bearer token. A hash of nginx ignores the case, so the token itself is compared later.
map $http_authorization $clan_discovery_given {
	default "";
	"~^Bearer (?<clan_discovery_bearer>[A-Za-z0-9._~+/=-]+)$" $clan_discovery_bearer;
}"""
_ZONES: Final = """\
limit_req_zone $clan_discovery_machine zone=clan_discovery_requests:1m rate={requests}r/s;
limit_conn_zone $clan_discovery_machine zone=clan_discovery_connections:1m;"""
_LOKI_TYPE: Final = """\
# A body that calls itself a form could bring query parameters.
map $http_content_type $clan_discovery_type {
	default "application/x-protobuf";
	"~*^application/json(?:;|$)" "application/json";
}"""
_SERVER: Final = """\
access_log off;
client_header_timeout 15s;
client_body_timeout 30s;
client_body_buffer_size 512k;
send_timeout 30s;
lingering_time 5s;
reset_timedout_connection on;
client_max_body_size {body};
limit_req_status 429;
limit_conn_status 429;
limit_req zone=clan_discovery_requests burst={burst};
limit_conn clan_discovery_connections {connections};"""
_PASSED: Final = """\
proxy_http_version 1.1;
proxy_set_header Connection "";
proxy_set_header Content-Encoding $http_content_encoding;
proxy_set_header X-Prometheus-Remote-Write-Version $http_x_prometheus_remote_write_version;
proxy_pass_request_headers off;
proxy_ignore_headers X-Accel-Redirect;"""
_IDLE: Final = 16
"""How many idle connections to a store each worker of nginx keeps."""


def render_nginx_receiver(tokens: Sequence[AgentToken], receive: ReceiveSettings, front: FrontSettings) -> str:
    """Return the maps, the limits and the server."""
    paths = list(store_paths(receive))
    limits = receive.limits
    lines = [f"# {MADE} It holds secrets.", *_GIVEN.split("\n"), *_maps(writable(tokens))]
    lines += _ZONES.format(requests=limits.requests).split("\n")
    if any(path.tenant for path in paths):
        lines += _LOKI_TYPE.split("\n")
    lines += [_upstream(path) for path in paths if _is_fixed(path)]
    server = [*listen_lines(front), server_name(receive.domain, front)]
    server += _SERVER.format(body=limits.body, burst=limits.burst, connections=limits.connections).split("\n")
    if front.resolvers:
        server.append(f"resolver {' '.join(front.resolvers)} valid=30s;")
    server.append(block('if ($clan_discovery_given = "")', ["return 401;"]))
    server.append(block("if ($clan_discovery_token != $clan_discovery_given)", ["return 401;"]))
    server += [block(f"location = {path.path}", _location(path, front)) for path in paths]
    server += [block(f"location = {path}", ["return 503;"]) for path in paths_without_store(receive)]
    server.append(block("location /", ["return 403;"]))  # vlagent drops what is refused with 404
    return "\n".join([*lines, block("server", server), ""])


def _maps(tokens: Sequence[AgentToken]) -> Iterator[str]:
    keys = [(_key(token.token), token) for token in tokens]
    yield block(
        "map $clan_discovery_given $clan_discovery_token",
        ['default "";', *(f'{key} "{token.token}";' for key, token in keys)],
    )
    yield block(
        f"map $clan_discovery_given {_MACHINE}", ['default "";', *(f"{key} {token.machine};" for key, token in keys)]
    )


def _key(token: str) -> str:
    """Return a token as the key of a map, in which `~` would begin a regular expression.

    Not a backslash before every token: in nginx's config, one before `n`, `r` or `t` makes another character.
    """
    if len(token) > _LONGEST_HASHED:
        return f'"~^{re.escape(token)}$"'
    if token.startswith("~"):
        return f'"\\{token}"'
    return f'"{token}"'


def _is_fixed(path: StorePath) -> bool:
    """Tell whether a store is at an address: connections to it are kept. nginx looks a name up for requests."""
    host = urlsplit(path.store).hostname or ""
    return is_address(host) or host == "localhost"


def _upstream(path: StorePath) -> str:
    parts = urlsplit(path.store)
    netloc = parts.netloc
    if parts.port is None:
        netloc = f"{netloc}:{443 if parts.scheme == 'https' else 80}"
    return block(f"upstream clan_discovery_{path.name}", [f"server {netloc} max_fails=0;", f"keepalive {_IDLE};"])


def _location(path: StorePath, front: FrontSettings) -> Iterator[str]:
    parts = urlsplit(path.store)
    yield block("if ($request_method != POST)", ["return 405;"])
    yield f'set $args "{path.query.replace("%s", _MACHINE)}";'
    yield from _PASSED.split("\n")
    yield f"proxy_set_header Host {parts.netloc};"
    yield f"proxy_set_header Content-Type {path.type or '$clan_discovery_type'};"
    if path.tenant:
        yield f"proxy_set_header X-Scope-OrgID {path.tenant.replace('%s', _MACHINE)};"
    if parts.scheme == "https":
        yield from verify_lines(parts.hostname or "", front)
    if _is_fixed(path):
        yield f"proxy_pass {parts.scheme}://clan_discovery_{path.name}{path.path};"
        return
    yield f"set $clan_discovery_store {path.store};"
    yield f"proxy_pass $clan_discovery_store{path.path}$is_args$args;"
