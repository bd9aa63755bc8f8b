"""A stand-in for the LocalAPI: an HTTP server on a unix socket with tailscaled's rules.

Like tailscaled, it refuses any Host but `local-tailscaled.sock`, and any Origin or Referer. The test sets the answer: a
body, a status, a pause, a drip, or nothing at all.

    python -m tests.support.localapi SOCKET STATUS_FILE    serves one file until it is killed
"""

from __future__ import annotations

import contextlib
import socketserver
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Generator

HOST = "local-tailscaled.sock"


@dataclass
class Behaviour:
    """How the next requests are answered; `drip` is the seconds between two bytes, `hang` never answers."""

    body: bytes = b""
    status: int = 200
    drip: float = 0.0
    drip_headers: bool = False
    hang: bool = False
    truncate: int | None = None
    chunked: bool = False
    header: tuple[str, str] | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    hosts: list[str] = field(default_factory=list[str])
    connections: int = 0
    whois: bytes = b""
    watch_status: int = 200
    watchers: int = 0
    masks: list[str] = field(default_factory=list[str])
    events: list[bytes] = field(default_factory=list[bytes])
    changed: threading.Condition = field(default_factory=threading.Condition)
    drop_watchers: threading.Event = field(default_factory=threading.Event)

    def emit(self, event: bytes) -> None:
        """Send a message to every watcher."""
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    behaviour: Behaviour

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: clients in these tests disconnect on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    @override
    def address_string(self) -> str:
        return "unix"

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        how = self.server.behaviour
        how.connections += 1
        how.hosts.append(self.headers.get("Host", ""))
        if self.headers.get("Host") != HOST or "Origin" in self.headers or "Referer" in self.headers:
            self._send(403, b"invalid localapi request\n")
        elif self.path.startswith("/localapi/v0/watch-ipn-bus?mask="):
            self._watch(how)
        elif self.path.startswith("/localapi/v0/whois?addr="):
            self._send(200, how.whois) if how.whois else self._send(404, b"no match for IP:port\n")
        elif self.path.partition("?")[0] != "/localapi/v0/status":
            self._send(404, b"404 not found\n")
        elif how.hang:
            how.ended.wait(60)
        elif how.drip_headers:
            self._drip(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 1000, how)
        elif how.drip:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(how.body))
            self._drip(how.body, how)
        else:
            self._send(how.status, how.body, how)
        self.close_connection = True

    def _watch(self, how: Behaviour) -> None:
        """Send each of `events` as a line, until the stream ends."""
        if how.watch_status != 200:
            self._send(how.watch_status, b"watch ipn bus access denied\n")
            return
        how.watchers += 1
        how.masks.append(self.path.rpartition("=")[2])
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = 0
        try:
            while not how.ended.is_set() and not how.drop_watchers.is_set():
                with how.changed:
                    if len(how.events) == sent:
                        how.changed.wait(0.05)
                    lines, sent = how.events[sent:], len(how.events)
                for line in lines:
                    self.wfile.write(b"%x\r\n%s\n\r\n" % (len(line) + 1, line))
                    self.wfile.flush()
        finally:
            how.watchers -= 1

    def _drip(self, body: bytes, how: Behaviour) -> None:
        deadline = time.monotonic() + 60
        for byte in body:
            if how.ended.wait(how.drip) or time.monotonic() > deadline:
                return
            self.wfile.write(bytes([byte]))

    def _send(self, status: int, body: bytes, how: Behaviour | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if how is not None and how.header is not None:
            self.send_header(*how.header)
        if how is not None and how.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            parts = [body[start : start + 4096] for start in range(0, len(body), 4096)]
            sent = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
            self.wfile.write(sent[: how.truncate])
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if how is None or how.truncate is None else body[: how.truncate])


@contextlib.contextmanager
def localapi(socket: Path, behaviour: Behaviour) -> Generator[Behaviour]:
    """Serve on a socket; `behaviour` may change between requests."""
    socket.unlink(missing_ok=True)
    with _Server(str(socket), _Handler) as server:
        server.behaviour = behaviour
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield behaviour
        finally:
            behaviour.ended.set()
            server.shutdown()
            thread.join(5)
    socket.unlink(missing_ok=True)


def _main(socket: str, status: str) -> None:
    with localapi(Path(socket), Behaviour(body=Path(status).read_bytes())):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        threading.Event().wait(3600)


if __name__ == "__main__":
    _main(*sys.argv[1:3])
