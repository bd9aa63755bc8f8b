"""Exporters on loopback addresses: real node exporters, and small servers that fail on request."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import socket
import ssl
import subprocess
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from typing_extensions import override

from tests.support.programs import eventually, get, program, running

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
_SLOWEST_S: Final = 300.0


def node_metrics(nodename: str) -> str:
    """Return samples as node exporter writes them on a machine with this hostname."""
    uname = f'domainname="(none)",machine="x86_64",nodename="{nodename}",release="6.1.0",sysname="Linux",version="#1"'
    return (
        "# HELP node_uname_info Labeled system information as provided by the uname system call.\n"
        "# TYPE node_uname_info gauge\n"
        f"node_uname_info{{{uname}}} 1\n"
        "# HELP node_load1 1m load average.\n"
        "# TYPE node_load1 gauge\n"
        "node_load1 0.25\n"
    )


@dataclass
class Answers:
    """What an exporter answers; change it while it runs.

    `path` is the only path that it knows; `login` is the user and password that it wants.
    """

    body: str = "up_and_well 1\n"
    status: int = 200
    content_type: str = TEXT
    delay_s: float = 0.0
    path: str = ""
    login: tuple[str, str] | None = None


class _Exporter(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20

    def do_GET(self) -> None:
        """Answer a scrape."""
        server = self.server
        assert isinstance(server, _Server)
        answers = server.answers
        server.stopping.wait(min(answers.delay_s, _SLOWEST_S))
        status, body = answers.status, answers.body
        if answers.path and urlsplit(self.path).path != answers.path:
            status, body = 404, "404 page not found\n"
        if answers.login is not None and self.headers["Authorization"] != _basic(*answers.login):
            status, body = 401, "Unauthorized\n"
        content = body.encode()
        with contextlib.suppress(OSError):  # a scraper that gave up
            self.send_response(status)
            self.send_header("Content-Type", answers.content_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, place: tuple[str, int], answers: Answers, certificate: Certificate | None) -> None:
        if ipaddress.ip_address(place[0]).version == 6:
            self.address_family = socket.AF_INET6
        self.answers = answers
        self.stopping = threading.Event()
        super().__init__(place, _Exporter)
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate.certificate, certificate.key)
            # The handshake belongs into the connection's own thread.
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing: a scraper closes connections and refuses certificates."""


@contextlib.contextmanager
def serving(host: str, port: int, answers: Answers, certificate: Certificate | None = None) -> Generator[Answers]:
    """Serve an exporter at an address until the block ends."""
    server = _Server((host, port), answers, certificate)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield answers
    finally:
        server.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


@dataclass(frozen=True)
class Certificate:
    """A certificate with its key, and the CA that signed it."""

    certificate: Path
    key: Path
    authority: Path


def certificate_for(place: Path, host: str, *, days: int = 2) -> Certificate:
    """Make a certificate for an address; with negative `days` it has expired."""
    place.mkdir(parents=True, exist_ok=True)
    made = Certificate(place / "certificate.pem", place / "key.pem", place / "ca.pem")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    names = place / "names"
    names.write_text(f"subjectAltName=IP:{host}\n")
    _openssl(
        "req",
        "-x509",
        *new,
        "-keyout",
        place / "ca-key.pem",
        "-out",
        made.authority,
        "-days",
        3,
        "-subj",
        f"/CN=ca-{place.name}",
    )
    _openssl("req", *new, "-keyout", made.key, "-out", place / "request.pem", "-subj", "/CN=exporter")
    signer = ("-CA", made.authority, "-CAkey", place / "ca-key.pem", "-CAcreateserial", "-extfile", names)
    _openssl("x509", "-req", "-in", place / "request.pem", *signer, "-days", days, "-out", made.certificate)
    return made


def _openssl(*words: object) -> None:
    subprocess.run([program("openssl"), *map(str, words)], check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def node_exporter(host: str, port: int, nodename: str, log: Path) -> Generator[None]:
    """Run a real node exporter on a machine that has this hostname: a UTS namespace of its own."""
    exporter = program("prometheus-node-exporter")
    flags = "--collector.disable-defaults --collector.uname --collector.time"
    start = f'hostname "$1" && exec "$2" --web.listen-address="$3:$4" {flags}'
    command = [
        program("setpriv"),
        "--pdeathsig",
        "KILL",
        program("unshare"),
        "--uts",
        "sh",
        "-c",
        start,
        "sh",
        nodename,
        exporter,
        host,
        str(port),
    ]
    with running(command, log):
        eventually(f"the node exporter of {nodename} answers", lambda: _uname(host, port), 150)
        yield


def _uname(host: str, port: int) -> bool:
    return b"node_uname_info" in get(f"http://{host}:{port}/metrics")
