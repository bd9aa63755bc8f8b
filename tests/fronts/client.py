"""A browser that takes every name to the proxy, and connections that send exact bytes."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import ssl
from typing import TYPE_CHECKING, Final

import httpx
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from tests.fronts.proxies import Proxy

TIMEOUT_S: Final = 60.0


class _ToProxy(httpx.BaseTransport):
    """Connect to the proxy whatever the name in the URL; the name stays in `Host` and in SNI.

    Only 127.0.0.1 is itself: the provider that oauth2-proxy sends a browser to.
    """

    def __init__(self, proxy: Proxy, ca_file: Path | None, *, http2: bool) -> None:
        self._ports = {"http": proxy.http, "https": proxy.https}
        verify = ssl.create_default_context(cafile=ca_file)
        limits = httpx.Limits(max_connections=200)
        self._inner = httpx.HTTPTransport(verify=verify, http2=http2, trust_env=False, limits=limits)

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url.copy_with(host="127.0.0.1", port=self._ports[request.url.scheme])
        extensions = {**request.extensions, "sni_hostname": request.url.host}
        if request.url.host == "127.0.0.1":
            url = request.url
        sent = httpx.Request(request.method, url, headers=request.headers, stream=request.stream, extensions=extensions)
        return self._inner.handle_request(sent)

    @override
    def close(self) -> None:
        self._inner.close()


@contextlib.contextmanager
def browser(proxy: Proxy, *, ca_file: Path | None = None, http2: bool = False) -> Generator[httpx.Client]:
    """Return a client that finds every name at the proxy."""
    transport = _ToProxy(proxy, ca_file, http2=http2)
    with httpx.Client(transport=transport, timeout=TIMEOUT_S, trust_env=False) as client:
        yield client


def talk(port: int, sent: bytes, *, sni: str | None = None, tls: bool = False) -> bytes:
    """Send bytes to a port of loopback and return everything that comes back until it is closed.

    A connection that is closed without a word, or refused within TLS, returns nothing.
    """
    with contextlib.suppress(ssl.SSLError, ConnectionError), connect(port, sni=sni, tls=tls) as connection:
        connection.sendall(sent)
        found = bytearray()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while part := connection.recv(65536):
                found += part
        return bytes(found)
    return b""


@contextlib.contextmanager
def connect(port: int, *, sni: str | None = None, tls: bool = False) -> Generator[socket.socket]:
    """Connect to a port of loopback, with TLS if asked; the certificate is not checked."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as plain:
        if not tls:
            yield plain
            return
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with context.wrap_socket(plain, server_hostname=sni) as connection:
            yield connection


def status_of(answer: bytes) -> int:
    """Return the status of an answer with its status line."""
    return int(answer.split(b" ", 2)[1])


def websocket_says(
    connection: socket.socket, host: str, path: str, message: bytes, headers: str = ""
) -> tuple[int, bytes]:
    """Open a websocket and send a message; return the status, and what came back."""
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{headers}\r\n".encode()
    )
    with connection.makefile("rb") as answers:
        status = int(answers.readline().split()[1])
        while answers.readline().strip():
            pass
        if status != 101:
            return status, b""
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(message))
        connection.sendall(bytes((0x81, 0x80 | len(message))) + mask + masked)
        head = answers.read(2)
        return status, answers.read(head[1])
