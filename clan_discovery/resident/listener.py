"""Serve `/metrics` and `/healthz` on loopback: one thread, few connections, a deadline for each.

Every local user can connect, so nothing that a client does may cost the process more than a few file descriptors for a
few seconds. http.server would start a thread for each connection and count its timeout from each byte.
"""

from __future__ import annotations

import contextlib
import ipaddress
import resource
import selectors
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

import msgspec
from typing_extensions import override

from clan_discovery.model import one_line
from clan_discovery.syntax.endpoint import split_endpoint
from clan_discovery.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_MAX_CLIENTS: Final = 16
_BACKLOG: Final = 128
"""The length of the accept queue. The SYN of any further connection is dropped, which delays it by a second."""
_FILES_PER_CLIENT: Final = 8
"""File descriptors of the process per client: clients use at most an eighth of those it may open."""
_REQUEST_S: Final = 5.0
"""The time limit of a whole connection, for the request and the response."""
_MAX_REQUEST: Final = 8192
_MAX_HOST: Final = 100
_PART: Final = 1 << 16
_POLL_S: Final = 0.5
_PAUSE_S: Final = 0.2
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


_NO_METRICS: Final = b"no refresh cycle has succeeded yet: see the log\n"


class _Client(msgspec.Struct):
    """A connection: its deadline, the bytes received, and the bytes still to be sent.

    `is_answered`: the whole response was sent. What the client still sends is discarded: closing the socket at once
    could reset the connection before the client has read the response.
    """

    sock: socket.socket
    deadline: float
    received: bytearray = msgspec.field(default_factory=bytearray)
    response: memoryview | None = None
    is_answered: bool = False


class Listener(Worker):
    """Serves the metrics and the health on a socket that listens (see `respond`).

    A new client replaces the oldest of too many.
    """

    def __init__(self, listening: socket.socket, metrics: Callable[[], bytes], health: Callable[[], str]) -> None:
        super().__init__()
        self._listening = listening
        self._metrics = metrics
        self._health = health
        self._clients: list[_Client] = []
        self._selector = selectors.DefaultSelector()
        self._stopped = threading.Event()
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.max_clients = _MAX_CLIENTS
        if soft != resource.RLIM_INFINITY:
            self.max_clients = max(1, min(_MAX_CLIENTS, soft // _FILES_PER_CLIENT))

    def ensure_started(self) -> None:
        """Start the thread unless it runs; raise RuntimeError if no thread can be started."""
        if not self.is_started:
            self.start()

    def stop(self) -> None:
        """End the thread and close every connection."""
        self._stopped.set()
        if self.is_started:
            self.join(5)
        for client in list(self._clients):
            self._close(client)
        self._selector.close()
        self._listening.close()

    @override
    def run(self) -> None:
        registered = False
        while not self._stopped.is_set():
            try:
                if not registered:
                    self._selector.register(self._listening, selectors.EVENT_READ, None)
                    registered = True
                self._turn()
            except Exception:  # noqa: BLE001 - law 11: no file descriptor, no memory; the thread must not end
                self._stopped.wait(_PAUSE_S)

    def _turn(self) -> None:
        """Wait for events and handle them; close connections whose deadline is over."""
        for key, _ in self._selector.select(_POLL_S):
            client = key.data
            if not isinstance(client, _Client):
                self._accept()
                continue
            try:
                is_done = self._handle(client)
            except BlockingIOError:
                continue
            except OSError:  # the client is gone
                is_done = True
            if is_done:
                self._close(client)
        now = time.monotonic()
        while self._clients and self._clients[0].deadline <= now:
            self._close(self._clients[0])

    def _accept(self) -> None:
        """Accept a connection; wait if there is no file descriptor for it."""
        try:
            sock, _ = self._listening.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError:
            self._stopped.wait(_PAUSE_S)
            return
        client = _Client(sock, time.monotonic() + _REQUEST_S)
        self._clients.append(client)
        try:
            sock.settimeout(0)
            self._selector.register(sock, selectors.EVENT_READ, client)
        except (OSError, MemoryError):
            self._close(client)
        if len(self._clients) > self.max_clients:
            self._close(self._clients[0])

    def _handle(self, client: _Client) -> bool:
        """Read from a client, or write to it; tell whether it is done."""
        if client.is_answered:
            return not client.sock.recv(_PART)
        if client.response is None:
            part = client.sock.recv(_PART)
            client.received += part
            if not part:
                return True
            response = respond(bytes(client.received), self._metrics, self._health)
            if response is None:
                return False
            client.response = memoryview(response)
            self._selector.modify(client.sock, selectors.EVENT_WRITE, client)
        client.response = client.response[client.sock.send(client.response) :]
        if not client.response:
            client.is_answered = True
            client.sock.shutdown(socket.SHUT_WR)
            self._selector.modify(client.sock, selectors.EVENT_READ, client)
        return False

    def _close(self, client: _Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
        with contextlib.suppress(KeyError, ValueError, OSError):
            self._selector.unregister(client.sock)
        client.sock.close()


def respond(request: bytes, metrics: Callable[[], bytes], health: Callable[[], str]) -> bytes | None:
    """Return the response to a request; None until its header is complete.

    `metrics` is the content of /metrics, which is 503 while it is empty. `health` says what is wrong, for /healthz: 200
    while it is empty, else 503 with that text.
    """
    if len(request) > _MAX_REQUEST:
        return _response(431, b"the request is too large\n")
    if b"\r\n\r\n" not in request and b"\n\n" not in request:
        return None
    first, *lines = request.decode("latin-1").replace("\r\n", "\n").split("\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return _response(400, b"this is no HTTP/1 request\n")
    method, target, _ = words
    if method not in ("GET", "HEAD"):
        return _response(405, b"use GET or HEAD\n", "Allow: GET, HEAD\r\n")
    for host in _hosts(lines):
        if not _is_loopback(host):
            return _response(421, _not_loopback(host))
    response = _found(target.partition("?")[0], metrics, health)
    if method == "HEAD":
        return response[: response.index(b"\r\n\r\n") + 4]
    return response


def _found(path: str, metrics: Callable[[], bytes], health: Callable[[], str]) -> bytes:
    """Return the response for a path."""
    if path == "/metrics":
        body = metrics()
        if not body:
            return _response(503, _NO_METRICS)
        return _response(200, body)
    if path == "/healthz":
        reason = health()
        if reason:
            return _response(503, f"{reason}\n".encode("utf-8", "backslashreplace"))
        return _response(200, b"ok\n")
    return _response(404, b"see /metrics and /healthz\n")


def _response(status: int, body: bytes, header: str = "") -> bytes:
    head = f"HTTP/1.0 {status} {_REASONS[status]}\r\nContent-Type: {_CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}{header}Connection: close\r\n\r\n".encode() + body


def _hosts(lines: list[str]) -> Generator[str]:
    """Yield each `Host` of a request's header; HTTP/1.0 needs none."""
    for line in lines:
        if not line:
            return
        name, _, value = line.partition(":")
        if name.strip().lower() == "host":
            yield value.strip()


def _is_loopback(host: str) -> bool:
    """Tell whether a `Host` is a loopback name or address; others are refused because of DNS rebinding."""
    try:
        name, _ = split_endpoint(host)
        return name.lower() == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _not_loopback(host: str) -> bytes:
    shown = one_line(host[:_MAX_HOST])
    return f"Host '{shown}' is not loopback: let the proxy send \"Host: localhost\"\n".encode()


def listen(address: str, metrics: Callable[[], bytes], health: Callable[[], str]) -> Listener:
    """Return a listener on an address of loopback, not started yet.

    Raises:
        ValueError: the address is not `host:port` of loopback.
        OSError: the address is not available.
    """
    host, port = split_endpoint(address)
    if port is None:
        raise ValueError("it has no port: write 127.0.0.1:9199")
    ip = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    if not ip.is_loopback:
        raise ValueError("it is not loopback: let Prometheus on this machine scrape it, or use --metrics-file")
    family = {4: socket.AF_INET, 6: socket.AF_INET6}[ip.version]
    listening = socket.create_server((str(ip), port), family=family, backlog=_BACKLOG)
    listening.settimeout(0)
    return Listener(listening, metrics, health)
