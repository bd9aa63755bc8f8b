"""Parse DNS servers from the config or resolv.conf, and open their transports."""

from __future__ import annotations

import re
import socket
import ssl
import time
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from typing_extensions import override

from clan_discovery.dnsclient.pace import DEFAULT_RATE, Pace
from clan_discovery.dnsclient.stream import StreamTransport
from clan_discovery.dnsclient.transport import NoResponse, Received, Transport
from clan_discovery.dnsclient.udp import UdpTransport
from clan_discovery.errors import BackendError
from clan_discovery.syntax.endpoint import is_host, split_endpoint
from clan_discovery.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.dnsclient.wire import EncodedQuestion

RESOLV_CONF: Final = Path("/etc/resolv.conf")
_PORTS: Final = {"udp": 53, "tcp": 53, "tls": 853, "https": 443}
_MAX_BYTES: Final = 1 << 20
_MAX_NDOTS: Final = 15
_SYSTEM_LOOKUP_S: Final = 3.0


class Server(NamedTuple):
    """A server: protocol, address, and the name in its certificate.

    `text` is the server as written in the config.
    """

    text: str
    kind: Literal["udp", "tcp", "tls", "https"]
    host: str
    port: int
    server_name: str | None = None


def parse_server(text: str) -> Server:
    """Parse a server as written in the config.

    The forms are `host`, `host:port`, `[v6]:port`, `tcp://...`, `tls://host:port#name` and `https://host/path`.

    Raises:
        ValueError: the message says what is wrong and what to write.
    """
    kind, slashes, rest = text.partition("://")
    if not slashes:
        return _server(text, "udp", text, None)
    match kind:
        case "tcp":
            return _server(text, "tcp", rest, None)
        case "tls":
            where, mark, name = rest.partition("#")
            if mark and not is_host(name):
                raise ValueError(f"{text!r} has no host name after `#`: write the name in its certificate")
            return _server(text, "tls", where, name if mark else None)
        case "https":
            return _https(text)
        case _:
            raise ValueError(
                f"{text!r} is not a DNS server: write host, host:port, tls://host or https://host/dns-query"
            )


def _server(text: str, kind: Literal["udp", "tcp", "tls"], where: str, name: str | None) -> Server:
    host, port = split_endpoint(where)
    return Server(text, kind, host, port or _PORTS[kind], name)


def _https(text: str) -> Server:
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError as error:
        raise ValueError(f"{text!r} is not a URL: {error}") from None
    is_plain = text.isascii() and text.isprintable() and " " not in text
    has_more = url.username is not None or url.fragment or url.query
    if has_more or not is_plain or not is_host(host):
        raise ValueError(f"{text!r} is not the URL of a DNS server: write https://host/dns-query")
    full = text if url.path else f"{text}/dns-query"
    return Server(full, "https", host, port or _PORTS["https"])


class Resolv(NamedTuple):
    """The settings of resolv.conf(5).

    A name with at least `ndots` dots is first looked up unchanged.
    """

    servers: tuple[Server, ...]
    search: tuple[str, ...]
    ndots: int


def read_resolv(file: Path) -> Resolv:
    """Read a resolv.conf.

    Raises:
        BackendError: the file cannot be read.
    """
    try:
        with file.open("rb") as opened:
            text = opened.read(_MAX_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        text = ""  # resolv.conf(5): without the file, the server is on this machine
    except OSError as error:
        raise BackendError(f"cannot read {file}: {error.strerror}", hint="or set `servers` in the config") from None
    return parse_resolv(text)


def parse_resolv(text: str) -> Resolv:
    """Parse the text of a resolv.conf; invalid lines are ignored."""
    servers: dict[str, Server] = {}
    search: tuple[str, ...] = ()
    ndots = 1
    for line in text.splitlines():
        words = re.split("[#;]", line)[0].split()
        match words:
            case ["nameserver", address, *_]:
                with suppress(ValueError):
                    servers[address] = Server(address, "udp", str(ip_address(address)), _PORTS["udp"])
            case ["search" | "domain", *domains]:
                search = tuple(domain.removesuffix(".").lower() for domain in domains if domain != ".")
            case ["options", *options]:
                for value in re.findall(r"(?<!\S)ndots:([0-9]+)(?!\S)", " ".join(options)):
                    ndots = min(int(value[-6:]), _MAX_NDOTS)
            case _:
                continue
    local = Server("127.0.0.1", "udp", "127.0.0.1", _PORTS["udp"])
    return Resolv(tuple(servers.values()) or (local,), search, ndots)


def open_transports(servers: Sequence[Server], until: float, rate: float = DEFAULT_RATE) -> list[Transport]:
    """Return a transport for each server, in the same order. `rate` limits the questions per second to each of them.

    Nothing is sent to the servers yet. The system looks up host names of servers, until `until` (monotonic) at the
    latest.
    """
    addresses = _look_up(servers, until)
    return [_transport(server, addresses.get(server.host), Pace(rate)) for server in servers]


def _transport(server: Server, address: str | None, pace: Pace) -> Transport:
    if address is None:
        return UnresolvedTransport(name=server.text)
    match server.kind:
        case "udp":
            return UdpTransport(host=address, port=server.port, name=server.text, pace=pace)
        case "tcp":
            return StreamTransport(host=address, port=server.port, name=server.text, pace=pace)
        case "tls":
            return StreamTransport(
                host=address,
                port=server.port,
                name=server.text,
                pace=pace,
                context=_context(["dot"]),
                server_name=server.server_name or server.host,
            )
        case "https":
            # Importing httpcore and h2 takes 0.1 s, and few configs need them.
            from clan_discovery.dnsclient.https import HttpsTransport  # noqa: PLC0415

            return HttpsTransport(server.text, address, _context(["h2", "http/1.1"]), pace)


def _context(protocols: list[str]) -> ssl.SSLContext:
    """Return a TLS context with the system's trusted certificates.

    SSL_CERT_FILE and SSL_CERT_DIR may name others.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(protocols)
    return context


def _look_up(servers: Sequence[Server], until: float) -> dict[str, str]:
    """Return the address of each host that the system resolves in time."""
    found: dict[str, str] = {}
    workers: list[Worker] = []
    for host in dict.fromkeys(server.host for server in servers):
        try:
            found[host] = str(ip_address(host))
        except ValueError:
            worker = Worker(partial(_look_up_host, host, found))
            with suppress(RuntimeError):  # no thread can be started: the host has no address this time
                worker.start()
                workers.append(worker)
    end = min(until, time.monotonic() + _SYSTEM_LOOKUP_S)
    for worker in workers:
        worker.join(max(end - time.monotonic(), 0.0))
    return dict(found)


def _look_up_host(host: str, found: dict[str, str]) -> None:
    with suppress(OSError, UnicodeError, ValueError):
        results = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        # IPv4 first, because more networks have it.
        first = min(results, key=lambda result: result[0] != socket.AF_INET)
        found[host] = str(first[4][0])


class UnresolvedTransport(Transport):
    """Replaces a server whose host name has no address: every question fails."""

    @override
    def exchange(self, questions: Sequence[EncodedQuestion], patience: float, until: float) -> list[Received]:
        return [NoResponse("the system cannot resolve the host name of this server")] * len(questions)
