"""Real HTTP servers behind the proxies: a backend that says what it was asked, and an auth server.

Nothing here depends on time: a response that takes long ends when the test says so.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

LONGEST_S: Final = 120.0
"""The longest time that a held response waits for the test."""
PARTS: Final = (b"first\n", b"second\n", b"third\n")
"""The parts of a held response."""
_SOCKET: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(frozen=True)
class Asked:
    """A request as a server got it; header names are in lower case, and each has all its values."""

    method: str
    path: str
    headers: dict[str, list[str]]
    size: int = 0

    def header(self, name: str) -> str:
        """Return a header's only value, or the empty string."""
        found = self.headers.get(name, [])
        assert len(found) < 2, f"{name} came {len(found)} times: {found}"
        return found[0] if found else ""


@dataclass(frozen=True)
class Answer:
    """A status, headers and a body."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass
class Running:
    """A running server: its address, and what it was asked.

    `holding` counts the responses that are held, `release` lets one of them send its next part.
    """

    name: str
    host: str
    port: int
    answer: Callable[[Asked], Answer]
    requests: list[Asked] = field(default_factory=list[Asked])
    release: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    holding: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @property
    def url(self) -> str:
        """The URL without a path."""
        return f"http://{self.host}:{self.port}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, host: str, port: int, name: str, answer: Callable[[Asked], Answer]) -> None:
        super().__init__((host, port), _Handler)
        self.running = Running(name, host, self.server_port, answer)

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: a proxy may end a connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = LONGEST_S

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    @property
    def _running(self) -> Running:
        assert isinstance(self.server, _Server)
        return self.server.running

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self._body()
        headers: dict[str, list[str]] = {}
        for name, value in self.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        asked = Asked(self.command, self.path, headers, len(body))
        self._running.requests.append(asked)
        path = urlsplit(self.path)
        if path.path.endswith("/socket"):
            self._socket()
        elif path.path.endswith("/held"):
            self._held(path.query or "chunked")
        else:
            self._whole(self._running.answer(asked))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts: list[bytes] = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _whole(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _held(self, end: str) -> None:
        """Send the first of three parts, and each other one when the test says so; `end` says how the end is known."""
        self.send_response(200)
        if end == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        elif end == "length":
            self.send_header("Content-Length", str(len(b"".join(PARTS))))
        else:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        for number, part in enumerate(PARTS):
            if number > 0:
                self._running.release.acquire(timeout=LONGEST_S)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if end == "chunked" else part)
            self._running.holding.release()
        if end == "chunked":
            self.wfile.write(b"0\r\n\r\n")

    def _socket(self) -> None:
        """Accept a websocket (RFC 6455) and return each message of less than 126 bytes, until it is closed."""
        key = self.headers.get("Sec-WebSocket-Key")
        if key is None or self.headers.get("Upgrade", "").lower() != "websocket":
            self._whole(Answer(400, body=b"no websocket request\n"))
            return
        accepted = base64.b64encode(hashlib.sha1(f"{key}{_SOCKET}".encode(), usedforsecurity=False).digest()).decode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accepted)
        self.end_headers()
        self.close_connection = True
        while (head := self.rfile.read(2)) and head[0] == 0x81:
            mask = self.rfile.read(4)
            said = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.rfile.read(head[1] & 0x7F)))
            self.wfile.write(bytes((0x81, len(said))) + said)
            self.wfile.flush()


def echo(name: str) -> Callable[[Asked], Answer]:
    """Return what answers each request with the server's name and the request, as JSON."""

    def answer(asked: Asked) -> Answer:
        document = {
            "backend": name,
            "method": asked.method,
            "path": asked.path,
            "headers": asked.headers,
            "size": asked.size,
        }
        return Answer(200, (("Content-Type", "application/json"),), json.dumps(document).encode())

    return answer


@contextlib.contextmanager
def serve(
    name: str,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    answer: Callable[[Asked], Answer] | None = None,
    certificate: tuple[Path, Path] | None = None,
) -> Generator[Running]:
    """Serve on loopback until the block ends; without `answer` the server says what it was asked."""
    server = _Server(host, port, name, answer or echo(name))
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.running
    finally:
        server.running.release.release(1000)
        server.shutdown()
        server.server_close()
        thread.join(10)
