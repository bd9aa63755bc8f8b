"""Real DNS servers on loopback, and a hostile one.

    with knot(tmp_path) as server:
        server.address, server.port

Each serves the zones of `ZONES` on its own port over UDP and TCP and, if the program can, over TLS and HTTPS. None
asks other servers.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import socketserver
import subprocess
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from typing_extensions import override

from tests.support.programs import eventually, free_port, program, running

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

HEAD: Final = """\
$ORIGIN {zone}.
$TTL {ttl}
@ SOA ns hostmaster {serial} 3600 600 86400 60
@ NS ns
ns A 10.0.0.1
"""
LAN: Final = """\
db A 10.0.0.5
db AAAA fd00::5
six AAAA fd00::6
many A 10.0.1.3
many A 10.0.1.1
many A 10.0.1.2
one A 10.0.1.1
one A 10.0.1.3
two A 10.0.1.2
alias CNAME chain
chain CNAME db
out CNAME host.other.example.
dangling CNAME nothing.other.example.
loop CNAME pool
pool CNAME loop
sub DNAME other.example.
xn--bcher-kva A 10.0.0.7
_node._tcp SRV 0 5 9100 db
_node._tcp SRV 10 0 9101 six
_node._tcp SRV 0 0 0 many
_gone._tcp SRV 0 0 0 .
_far._tcp SRV 0 0 9100 host.other.example.
_dangling._tcp SRV 0 0 9100 nothing.other.example.
_metrics._tcp PTR on\\032db._metrics._tcp
_metrics._tcp PTR on\\032six._metrics._tcp
on\\032db._metrics._tcp SRV 0 0 9200 db
on\\032db._metrics._tcp TXT "txtvers=1" "path=/custom"
on\\032six._metrics._tcp SRV 0 0 9201 six
on\\032six._metrics._tcp TXT ""
evil A 169.254.169.254
here A 127.0.0.1
""" + "".join(f"big A 10.9.0.{i + 1}\n" for i in range(100))
ZONES: Final[Mapping[str, str]] = {
    "lan.example": LAN,
    "other.example": "host A 10.0.2.1\n",
    "10.in-addr.arpa": "5.0.0 PTR db.lan.example.\n1.1.0 PTR one.lan.example.\n2.1.0 PTR two.lan.example.\n"
    "3.1.0 PTR one.lan.example.\n",
}


@dataclass
class NameServer:
    """A running server: its ports by transport, and the directory of its zone files."""

    place: Path
    ports: dict[str, int]
    process: subprocess.Popen[bytes]
    serial: int = 1

    @property
    def port(self) -> int:
        """The port of UDP and TCP."""
        return self.ports["udp"]

    def server(self, transport: str = "udp") -> str:
        """Return the server as a config names it."""
        port = self.ports[transport]
        forms = {"udp": "127.0.0.1:{}", "tcp": "tcp://127.0.0.1:{}", "tls": "tls://127.0.0.1:{}#dns.test"}
        forms["https"] = "https://127.0.0.1:{}/dns-query"
        return forms[transport].format(port)

    def rewrite(self, zone: str, records: str, ttl: int = 300) -> None:
        """Replace the records of a zone and reload it (knot)."""
        self.serial += 1
        write_zone(self.place, zone, records, ttl, self.serial)
        self.process.send_signal(signal.SIGHUP)


def write_zone(place: Path, zone: str, records: str, ttl: int = 300, serial: int = 1) -> None:
    """Write a zone file."""
    (place / f"{zone}.zone").write_text(HEAD.format(zone=zone, ttl=ttl, serial=serial) + records)


@contextlib.contextmanager
def _served(
    place: Path, command: list[str], ports: dict[str, int], zones: Mapping[str, str], ttl: int
) -> Generator[NameServer]:
    for zone, records in zones.items():
        write_zone(place, zone, records, ttl)
    with running(command, place / "server.log") as process:
        last = list(zones)[-1]
        eventually(f"{command[0]} serves {last}", lambda: _serves(ports["udp"], last, process))
        yield NameServer(place, ports, process)


def _serves(port: int, zone: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the server has ended"
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.5)
        sock.connect(("127.0.0.1", port))
        sock.send(dns.message.make_query(zone, "SOA").to_wire())
        return bool(dns.message.from_wire(sock.recv(4096)).answer)


@contextlib.contextmanager
def knot(
    place: Path, zones: Mapping[str, str] = ZONES, *, ttl: int = 300, signed: bool = False, port: int | None = None
) -> Generator[NameServer]:
    """Knot DNS, authoritative."""
    port = port or free_port()
    (place / "db").mkdir(exist_ok=True)
    sign = "  dnssec-signing: on\n" if signed else ""
    listed = "".join(f"- domain: {zone}\n  file: {place}/{zone}.zone\n  zonefile-load: whole\n{sign}" for zone in zones)
    (place / "knot.conf").write_text(
        f"server:\n  listen: 127.0.0.1@{port}\n  rundir: {place}\n  udp-workers: 1\n  tcp-workers: 2\n"
        f"  background-workers: 1\n"
        f"database:\n  storage: {place}/db\nlog:\n- target: stderr\n  any: info\nzone:\n{listed}"
    )
    command = [program("knotd"), "-c", str(place / "knot.conf")]
    with _served(place, command, {"udp": port, "tcp": port}, zones, ttl) as server:
        yield server


@contextlib.contextmanager
def nsd(place: Path, zones: Mapping[str, str] = ZONES, *, ttl: int = 300) -> Generator[NameServer]:
    """NSD, authoritative, also over TLS."""
    ports = {"udp": free_port(), "tls": free_port()}
    ports["tcp"] = ports["udp"]
    certificate, key = certify(place)
    listed = "".join(f'zone:\n  name: {zone}\n  zonefile: "{place}/{zone}.zone"\n' for zone in zones)
    (place / "nsd.conf").write_text(
        f'server:\n  ip-address: 127.0.0.1@{ports["udp"]}\n  ip-address: 127.0.0.1@{ports["tls"]}\n  username: ""\n'
        f'  zonesdir: "{place}"\n  pidfile: "{place}/nsd.pid"\n  xfrdfile: ""\n  zonelistfile: "{place}/zone.list"\n'
        f'  database: ""\n  xfrdir: "{place}"\n  cookie-secret-file: ""\n  tls-port: {ports["tls"]}\n'
        f'  tls-service-key: "{key}"\n  tls-service-pem: "{certificate}"\n'
        f"remote-control:\n  control-enable: no\n{listed}"
    )
    with _served(place, [program("nsd"), "-d", "-c", str(place / "nsd.conf")], ports, zones, ttl) as server:
        yield server


@contextlib.contextmanager
def bind(place: Path, zones: Mapping[str, str] = ZONES, *, ttl: int = 300) -> Generator[NameServer]:
    """BIND, authoritative, over all four transports."""
    ports = {"udp": free_port(), "tls": free_port(), "https": free_port()}
    ports["tcp"] = ports["udp"]
    certificate, key = certify(place)
    listed = "".join(f'zone "{zone}" {{ type primary; file "{place}/{zone}.zone"; notify no; }};\n' for zone in zones)
    (place / "named.conf").write_text(
        f'tls local {{ cert-file "{certificate}"; key-file "{key}"; }};\n'
        'http local { endpoints { "/dns-query"; }; };\ncontrols {};\n'
        f'options {{ directory "{place}"; pid-file none; session-keyfile none; recursion no; dnssec-validation no;\n'
        f" listen-on-v6 {{ none; }}; listen-on port {ports['udp']} {{ 127.0.0.1; }};\n"
        f" listen-on port {ports['tls']} tls local {{ 127.0.0.1; }};\n"
        f" listen-on port {ports['https']} tls local http local {{ 127.0.0.1; }};\n"
        " allow-query { any; }; empty-zones-enable no; zone-statistics no; };\n" + listed
    )
    command = [program("named"), "-4", "-g", "-c", str(place / "named.conf")]
    with _served(place, command, ports, zones, ttl) as server:
        yield server


@contextlib.contextmanager
def unbound(place: Path, zones: Mapping[str, str] = ZONES, *, ttl: int = 300) -> Generator[NameServer]:
    """Unbound, a resolver with local zones, over all four transports."""
    ports = {"udp": free_port(), "tls": free_port(), "https": free_port()}
    ports["tcp"] = ports["udp"]
    certificate, key = certify(place)
    listed = "".join(
        f'auth-zone:\n  name: "{zone}"\n  zonefile: "{place}/{zone}.zone"\n  for-downstream: no\n  for-upstream: yes\n'
        "  fallback-enabled: no\n"
        for zone in zones
    )
    interfaces = "".join(f"  interface: 127.0.0.1@{port}\n" for port in dict.fromkeys(ports.values()))
    (place / "unbound.conf").write_text(
        f"server:\n{interfaces}  tls-port: {ports['tls']}\n  https-port: {ports['https']}\n"
        f'  tls-service-key: "{key}"\n  tls-service-pem: "{certificate}"\n  do-daemonize: no\n  username: ""\n'
        f'  chroot: ""\n  directory: "{place}"\n  pidfile: ""\n  use-syslog: no\n  logfile: ""\n  do-ip6: no\n'
        '  module-config: "iterator"\n  outgoing-interface: 127.0.0.1\n  num-threads: 1\n'
        '  local-zone: "10.in-addr.arpa." nodefault\n  minimal-responses: no\n'
        f"remote-control:\n  control-enable: no\n{listed}"
    )
    command = [program("unbound"), "-d", "-c", str(place / "unbound.conf")]
    with _served(place, command, ports, zones, ttl) as server:
        yield server


def certify(place: Path) -> tuple[Path, Path]:
    """Make a self-signed certificate for dns.test and 127.0.0.1; return it and its key."""
    certificate, key = place / "certificate.pem", place / "key.pem"
    if not certificate.exists():
        words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        words += ["-subj", "/CN=dns.test", "-addext", "subjectAltName=DNS:dns.test,IP:127.0.0.1"]
        words += ["-keyout", str(key), "-out", str(certificate)]
        subprocess.run([program("openssl"), *words], check=True, capture_output=True)
    return certificate, key


@dataclass
class Liar:
    """A hostile server: `answer` returns the bytes that respond to a question (and gets whether it came over TCP)."""

    port: int
    answer: Callable[[dns.message.Message, bool], bytes | list[bytes] | None]
    asked: list[tuple[str, str, bool]] = field(default_factory=list[tuple[str, str, bool]])
    sources: list[int] = field(default_factory=list[int])
    numbers: list[int] = field(default_factory=list[int])
    questions: list[str] = field(default_factory=list[str])
    edns: list[int] = field(default_factory=list[int])

    @property
    def server(self) -> str:
        """The server as a config names it."""
        return f"127.0.0.1:{self.port}"

    def respond(self, body: bytes, source: int, *, stream: bool) -> list[bytes]:
        """Record a question and return the responses."""
        query = dns.message.from_wire(body)
        question = query.question[0]
        self.asked.append((question.name.to_text(omit_final_dot=True).lower(), question.rdtype.name, stream))
        self.questions.append(question.name.to_text(omit_final_dot=True))
        self.sources.append(source)
        self.numbers.append(query.id)
        self.edns.append(query.payload if query.edns >= 0 else 0)
        found = self.answer(query, stream)
        return [] if found is None else [found] if isinstance(found, bytes) else found


class _Udp(socketserver.ThreadingUDPServer):
    daemon_threads = True
    max_packet_size = 4096
    liar: Liar

    @override
    def server_bind(self) -> None:
        # As much as the kernel allows: with its default, a slow machine drops some of 256 questions at once.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        super().server_bind()


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    liar: Liar


class _UdpHandler(socketserver.BaseRequestHandler):
    @override
    def handle(self) -> None:
        assert isinstance(self.server, _Udp)
        body, sock = self.request
        for message in self.server.liar.respond(body, self.client_address[1], stream=False):
            sock.sendto(message, self.client_address)


class _TcpHandler(socketserver.StreamRequestHandler):
    @override
    def handle(self) -> None:
        assert isinstance(self.server, _Tcp)
        with contextlib.suppress(OSError):
            while len(head := self.rfile.read(2)) == 2:
                body = self.rfile.read(int.from_bytes(head, "big"))
                for message in self.server.liar.respond(body, self.client_address[1], stream=True):
                    self.wfile.write(len(message).to_bytes(2, "big") + message)


@contextlib.contextmanager
def lying(answer: Callable[[dns.message.Message, bool], bytes | list[bytes] | None]) -> Generator[Liar]:
    """Run the hostile server over UDP and TCP."""
    liar = Liar(free_port(), answer)
    udp = _Udp(("127.0.0.1", liar.port), _UdpHandler)
    tcp = _Tcp(("127.0.0.1", liar.port), _TcpHandler)
    threads: list[threading.Thread] = []
    for server in (udp, tcp):
        server.liar = liar
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        threads.append(thread)
    try:
        yield liar
    finally:
        for server in (udp, tcp):
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join(5)


def reply(query: dns.message.Message, *records: str, rcode: int = 0, flags: int = dns.flags.RA) -> dns.message.Message:
    """Return an answer with these records, each `name ttl type rdata`."""
    response = dns.message.make_response(query)
    response.flags |= flags
    response.set_rcode(dns.rcode.Rcode(rcode))
    for record in records:
        name, ttl, type_, rdata = record.split(" ", 3)
        response.answer.append(dns.rrset.from_text(name, int(ttl), "IN", type_, rdata))
    return response
