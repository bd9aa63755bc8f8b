"""Serve `/metrics` of the resident process on loopback."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from typing_extensions import override

from clan_discovery.syntax.endpoint import split_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Handler(BaseHTTPRequestHandler):
    timeout = 10  # ends the thread of a client that sends nothing

    def do_GET(self) -> None:
        """Serve `/metrics` only."""
        status, body = 404, b"see /metrics\n"
        if isinstance(self.server, _Server) and self.path.partition("?")[0] == "/metrics":
            status, body = 200, self.server.page()
        self.send_response(status)
        self.send_header("Content-Type", _CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


class _Server(ThreadingHTTPServer):
    page: Callable[[], bytes]


class _Server6(_Server):
    address_family = socket.AF_INET6


@contextlib.contextmanager
def _serving(server: _Server) -> Generator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def serve(address: str, page: Callable[[], bytes]) -> contextlib.AbstractContextManager[None]:
    """Serve a page on a loopback address while the block lasts.

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
    server_class = {4: _Server, 6: _Server6}[ip.version]
    server = server_class((str(ip), port), _Handler)
    server.page = page
    return _serving(server)
