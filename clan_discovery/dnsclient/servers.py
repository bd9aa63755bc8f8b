"""Which servers are asked: as the config names them, or as the system's resolv.conf does."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from clan_discovery.dnsclient.stream import Stream
from clan_discovery.dnsclient.transport import Came, NoResponse
from clan_discovery.dnsclient.udp import Datagrams
from clan_discovery.errors import BackendError
from clan_discovery.syntax.endpoint import is_host, split_endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.dnsclient.transport import Transport
    from clan_discovery.dnsclient.wire import EncodedQuestion

RESOLV_CONF: Final = Path("/etc/resolv.conf")
_PORTS: Final = {"udp": 53, "tcp": 53, "tls": 853, "https": 443}
_LARGEST: Final = 1 << 20
_BOOTSTRAP_S: Final = 3.0


class Server(NamedTuple):
    """A server: how it is spoken to, where, and how its certificate calls it. `text` is how people write it."""

    text: str
    kind: Literal["udp", "tcp", "tls", "https"]
    host: str
    port: int
    server_name: str | None = None


def parse_server(text: str) -> Server:
    """Read `host`, `host:port`, `[v6]:port`, `tcp://...`, `tls://host:port#name` or `https://host/path`.

    Raises:
        ValueError: with a sentence that says what is wrong and what to write.
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
                raise ValueError(f"{text!r} names nobody after the `#`: write the name that is in its certificate")
            return _server(text, "tls", where, name if mark else None)
        case "https":
            return _https(text)
        case _:
            raise ValueError(f"{text!r} is no DNS server: write host, host:port, tls://host or https://host/dns-query")


def _server(text: str, kind: Literal["udp", "tcp", "tls"], where: str, name: str | None) -> Server:
    host, port = split_endpoint(where)
    return Server(text, kind, host, port or _PORTS[kind], name)


def _https(text: str) -> Server:
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError as error:
        raise ValueError(f"{text!r} is no URL: {error}") from None
    odd = url.username is not None or url.fragment or url.query or not text.isascii() or not text.isprintable()
    if not host or odd or not is_host(host):
        raise ValueError(f"{text!r} is no URL of a DNS server: write https://host/dns-query")
    full = text if url.path else f"{text}/dns-query"
    return Server(full, "https", host, port or _PORTS["https"])


class Resolv(NamedTuple):
    """What resolv.conf(5) says: servers, search list, and from how many dots on a name is tried as it stands."""

    servers: tuple[Server, ...]
    search: tuple[str, ...]
    ndots: int


def read_resolv(file: Path = RESOLV_CONF) -> Resolv:
    """Read the system's resolv.conf.

    Raises:
        BackendError: it cannot be read.
    """
    try:
        with file.open("rb") as opened:
            text = opened.read(_LARGEST).decode("utf-8", "replace")
    except FileNotFoundError:
        text = ""  # resolv.conf(5): then the server is on this machine
    except OSError as error:
        raise BackendError(f"cannot read {file}: {error.strerror}", hint="or name `servers` in the config") from None
    return parse_resolv(text)


def parse_resolv(text: str) -> Resolv:
    """Read the text of a resolv.conf; what is not understood is ignored, as everybody does. Raises nothing."""
    servers: dict[str, Server] = {}
    search: tuple[str, ...] = ()
    ndots = 1
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        match words:
            case ["nameserver", address, *_]:
                try:
                    servers[address] = Server(address, "udp", str(ip_address(address)), 53)
                except ValueError:
                    continue
            case ["search" | "domain", *domains]:
                search = tuple(domain.removesuffix(".").lower() for domain in domains if domain != ".")
            case ["options", *options]:
                for option in options:
                    name, _, value = option.partition(":")
                    if name == "ndots" and value.isascii() and value.isdigit():
                        ndots = min(int(value[-6:]), 15)
            case _:
                continue
    found = tuple(servers.values()) or (Server("127.0.0.1", "udp", "127.0.0.1", 53),)
    return Resolv(found, search, ndots)


def open_transports(servers: Sequence[Server], until: float) -> list[Transport]:
    """Return what carries questions to these servers, in their order; nothing is sent to them yet.

    `until` (monotonic) ends the wait for the addresses of those that are given by name.
    """
    addresses = _addresses(servers, until)
    return [_carrier(server, addresses.get(server.host)) for server in servers]


def _carrier(server: Server, host: str | None) -> Transport:
    if host is None:
        return _Nobody(server.text)
    match server.kind:
        case "udp":
            return Datagrams(host, server.port, server.text)
        case "tcp":
            return Stream(host, server.port, server.text)
        case "tls":
            name = server.server_name or server.host
            return Stream(host, server.port, server.text, context=_context(["dot"]), server_name=name)
        case "https":
            # httpx and h2 are a tenth of a second of a start: for those alone who speak HTTPS.
            from clan_discovery.dnsclient.https import Https  # noqa: PLC0415

            return Https(server.text, host, _context(["h2", "http/1.1"]))


def _context(protocols: list[str]) -> ssl.SSLContext:
    """Return TLS as the system trusts it; SSL_CERT_FILE and SSL_CERT_DIR say otherwise (openssl's own variables)."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(protocols)
    return context


def _addresses(servers: Sequence[Server], until: float) -> dict[str, str]:
    """Return the address of each server, as the system knows it; none of those that it does not know in time."""
    found: dict[str, str] = {}
    threads: list[threading.Thread] = []
    for host in dict.fromkeys(server.host for server in servers):
        try:
            found[host] = str(ip_address(host))
        except ValueError:
            threads.append(threading.Thread(target=_look_up, args=(host, found), daemon=True))
            threads[-1].start()
    end = min(until, time.monotonic() + _BOOTSTRAP_S)
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0.0))
    return dict(found)


def _look_up(host: str, found: dict[str, str]) -> None:
    try:
        where = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        found[host] = str(min(where, key=lambda w: w[0] != socket.AF_INET)[4][0])  # IPv4 first: it is there more often
    except (OSError, UnicodeError, ValueError):
        return


class _Nobody:
    """Stands for a server whose own name has no address."""

    edns = False
    mixed = False

    def __init__(self, name: str) -> None:
        self.name = name

    def exchange(self, queries: Sequence[EncodedQuestion], patience: float, until: float) -> list[Came]:
        """Lose everything; see `Transport.exchange`."""
        del patience, until
        return [NoResponse("the system knows no address of this server")] * len(queries)

    def close(self) -> None:
        """Nothing is open."""
