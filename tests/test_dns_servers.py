"""Contract tests of four DNS servers over four transports: the same questions get the same answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clan_discovery.dnsclient.lookup import Absent, Failed, Found
from clan_discovery.dnsclient.message import TYPES, Question
from clan_discovery.dnsclient.resolver import ask
from clan_discovery.dnsclient.servers import open_transports, parse_server
from clan_discovery.dnsclient.transport import NoResponse
from clan_discovery.dnsclient.wire import encode_question
from tests.support.dns import NameServer, bind, knot, nsd, unbound

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from clan_discovery.dnsclient.message import RecordType

Start = Callable[[Path], AbstractContextManager[NameServer]]
SERVERS: dict[str, tuple[Start, Sequence[str]]] = {
    "knot": (knot, ("udp", "tcp")),
    "knot, signed": (partial(knot, signed=True), ("udp", "tcp")),
    "nsd": (nsd, ("udp", "tcp", "tls")),
    "bind": (bind, ("udp", "tcp", "tls", "https")),
    "unbound": (unbound, ("udp", "tcp", "tls", "https")),
}


@pytest.fixture(scope="module", params=SERVERS)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[tuple[NameServer, Sequence[str]]]:
    """Yield each server with its transports."""
    start, transports = SERVERS[request.param]
    with ExitStack() as stack:
        yield stack.enter_context(start(tmp_path_factory.mktemp("dns"))), transports


def asked(server: str, *questions: tuple[str, RecordType], seconds: float = 60.0) -> list[Found | Absent | Failed]:
    """Ask one server."""
    found = open_transports([parse_server(server)], time.monotonic() + seconds)
    try:
        wanted = [Question(name, type_) for name, type_ in questions]
        answers = ask(wanted, found, time.monotonic() + seconds)
    finally:
        for carrier in found:
            carrier.close()
    return [answers[question] for question in wanted]


CASES: dict[tuple[str, RecordType], set[str] | str | type[Failed]] = {
    ("db.lan.example", "A"): {"10.0.0.5"},
    ("db.lan.example", "AAAA"): {"fd00::5"},
    ("xn--bcher-kva.lan.example", "A"): {"10.0.0.7"},
    ("many.lan.example", "A"): {"10.0.1.1", "10.0.1.2", "10.0.1.3"},
    ("alias.lan.example", "A"): {"10.0.0.5"},
    ("out.lan.example", "A"): {"10.0.2.1"},
    ("host.sub.lan.example", "A"): {"10.0.2.1"},
    ("big.lan.example", "A"): {f"10.9.0.{i + 1}" for i in range(100)},
    ("_node._tcp.lan.example", "SRV"): {
        "0 5 9100 db.lan.example",
        "10 0 9101 six.lan.example",
        "0 0 0 many.lan.example",
    },
    ("_gone._tcp.lan.example", "SRV"): {"0 0 0 ."},
    ("_metrics._tcp.lan.example", "PTR"): {
        "on\\032db._metrics._tcp.lan.example",
        "on\\032six._metrics._tcp.lan.example",
    },
    ("on\\032db._metrics._tcp.lan.example", "TXT"): {"/custom"},
    ("on\\032six._metrics._tcp.lan.example", "TXT"): {""},
    ("5.0.0.10.in-addr.arpa", "PTR"): {"db.lan.example"},
    ("nobody.lan.example", "A"): "NXDOMAIN",
    ("dangling.lan.example", "A"): "NXDOMAIN",
    ("six.lan.example", "A"): "NODATA",
    ("db.lan.example", "SRV"): "NODATA",
    ("loop.lan.example", "A"): Failed,
}


def test_every_server_and_transport_gives_the_same_answers(
    served: tuple[NameServer, Sequence[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records, absences and failures, asked in parallel."""
    server, transports = served
    monkeypatch.setenv("SSL_CERT_FILE", str(server.place / "certificate.pem"))
    for transport in transports:
        for (question, expected), answer in zip(CASES.items(), asked(server.server(transport), *CASES), strict=True):
            where = f"{question} over {transport}: {answer}"
            if isinstance(expected, set):
                assert isinstance(answer, Found), where
                assert set(answer.texts) == expected, where
                assert len(answer.texts) == len(expected), where
                assert 290 <= answer.ttl <= 300, where
            elif isinstance(expected, str):
                assert isinstance(answer, Absent), where
                assert answer.code == expected, where
                assert answer.ttl is not None, where
                assert 50 <= answer.ttl <= 60, where
            else:
                assert isinstance(answer, Failed), where


def test_https_loses_no_response(served: tuple[NameServer, Sequence[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred questions on one connection: each gets its response, without a retry.

    This failed with a thread for each request (httpcore's HTTP/2 connection has no lock), and with 16 requests at once
    (BIND 9.18.49 leaves some without a response).
    """
    server, transports = served
    if "https" not in transports:
        return
    monkeypatch.setenv("SSL_CERT_FILE", str(server.place / "certificate.pem"))
    (transport,) = open_transports([parse_server(server.server("https"))], time.monotonic() + 60)
    try:
        wanted = [encode_question("db.lan.example", TYPES["A"], None)] * 200
        received = transport.exchange(wanted, 30.0, time.monotonic() + 60)
    finally:
        transport.close()
    assert [result for result in received if isinstance(result, NoResponse)] == []
