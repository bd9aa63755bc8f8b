"""`doctor --live` against real servers that answer, refuse, hang, redirect, speak TLS or are no exporter."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from clan_discovery.doctor.live import Probed, judge, live_findings, probe, probe_all
from clan_discovery.model import Target
from tests.support.programs import free_port, program

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from tests.conftest import Done

    Run = Callable[..., Done]

METRICS = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n# HELP up up\nup 1\n"


@contextlib.contextmanager
def serving(answer: bytes | None, requests: list[bytes] | None = None) -> Generator[int]:
    """Listen on loopback and answer each request with these bytes; None accepts without an answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept: list[socket.socket] = []

        def work() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    kept.append(connection)
                    if answer is None:
                        continue
                    request = connection.recv(65536)
                    if requests is not None:
                        requests.append(request)
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)

        threading.Thread(target=work, daemon=True).start()
        port: int = listener.getsockname()[1]
        try:
            yield port
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for connection in kept:
                connection.close()


def target(address: str, machine: str = "db", **labels: str) -> Target:
    """Return a target of the node exporter at this address."""
    return Target("node", machine, address, labels, observed=True, backend="t", because="x", located="y")


@pytest.mark.parametrize(
    ("answer", "what", "fix"),
    [
        (METRICS, "", ""),
        (b"HTTP/1.1 200 OK\r\n\r\n", "", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.google.protobuf\r\n\r\n\x08\x01", "", ""),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "the response is not metrics", "exporters.node.path"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "HTTP 404: there is no /metrics", "exporters.node.path"),
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", "HTTP 401: access denied", "basic_auth"),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", "HTTP 302: redirected", "exporters.node.path"),
        (b"HTTP/1.1 503 x\r\n\r\n", "HTTP 503", "the exporter's log"),
        (
            b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
            "it speaks HTTPS",
            "scheme: https",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP", "correct its port"),
        (b"", "does not speak HTTP", "scheme: https"),
    ],
)
def test_each_answer_has_a_finding(answer: bytes, what: str, fix: str) -> None:
    """With its fix."""
    with serving(answer) as port:
        found = probe(target(f"127.0.0.1:{port}"), 30)
    assert what in found.what
    assert bool(found.what) is bool(what)
    assert fix in found.fix


def test_a_refused_connection_and_a_name_that_does_not_resolve() -> None:
    """No listener, or no address."""
    assert probe(target(f"127.0.0.1:{free_port()}"), 30).what == "connection refused: nothing listens on this port"
    unresolved = target("nobody.invalid:9100")
    assert "does not resolve" in probe(unresolved, 30).what
    assert "verify" not in probe(unresolved, 30).fix
    assert "only `verify` can check" in probe(msgspec.structs.replace(unresolved, asked=False), 30).fix


def test_a_hanging_server_takes_only_the_timeout() -> None:
    """A server that sends a byte now and then takes no longer."""
    with serving(None) as port:
        began = time.monotonic()
        assert "no complete HTTP response" in probe(target(f"127.0.0.1:{port}"), 0.3).what
        assert time.monotonic() - began < 30


def test_the_request_is_that_of_the_scraper() -> None:
    """With the path and the parameters of the target, at an IPv4 address or a name."""
    requests: list[bytes] = []
    with serving(METRICS, requests) as port:
        labels = {"__metrics_path__": "/probe", "__param_target": "a b", "__param_module": "icmp"}
        assert probe(target(f"localhost:{port}", "db", **labels), 30) == Probed()
    assert requests[0].startswith(b"GET /probe?target=a+b&module=icmp HTTP/1.0\r\nHost: localhost:")


def test_tls(tmp_path: Path) -> None:
    """An untrusted certificate, TLS to a plain port, and plain HTTP to a TLS port."""
    openssl = program("openssl")
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subject = ["-subj", "/CN=localhost", "-days", "2", "-nodes", "-newkey", "rsa:2048"]
    words = [openssl, "req", "-x509", *subject, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def work() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with (
                    connection,
                    contextlib.suppress(OSError),
                    context.wrap_socket(connection, server_side=True) as stream,
                ):
                    stream.recv(1)

        threading.Thread(target=work, daemon=True).start()
        untrusted = probe(target(f"localhost:{port}", __scheme__="https"), 30)
        assert "the certificate is not trusted here" in untrusted.what
        assert "ca_file" in untrusted.fix
        assert probe(target(f"localhost:{port}"), 30).what
    with serving(METRICS) as port:
        assert probe(target(f"127.0.0.1:{port}", __scheme__="https"), 30).what == "does not speak TLS"


def test_the_whole_time_is_bounded() -> None:
    """200 hanging targets in half a second: targets that were not reached are reported."""
    with serving(None) as port:
        targets = [target(f"127.0.0.1:{port}", f"m{number:03}") for number in range(200)]
        found = probe_all(targets, probe_s=0.3, whole_s=0.5)
        findings = list(live_findings(targets, found))
    assert any("not probed: the time is over" in finding.what for finding in findings)
    assert len(findings) <= 2
    assert {finding.code for finding in findings} == {1}


def test_a_cause_is_one_finding() -> None:
    """For any number of targets; healthy ones are counted."""
    targets = [target(f"10.0.0.{number}:9100", f"m{number}") for number in range(9)]
    refused = Probed("refused", "start it")
    found = dict.fromkeys(range(7), refused) | {7: Probed(), 8: Probed("HTTP 503", "see its log")}
    findings = list(live_findings(targets, found))
    names = ", ".join(f"m{number} node (10.0.0.{number}:9100)" for number in range(5))
    assert [(finding.about, finding.what, finding.fix) for finding in findings] == [
        ("live", "1 of 9 targets answer with metrics", ""),
        ("7 targets", f"refused: {names} and 2 more", "start it"),
        ("target", "HTTP 503: m8 node (10.0.0.8:9100)", "see its log"),
    ]


def test_any_response_gives_a_finding() -> None:
    """No bytes raise an exception."""
    for response in (b"", b"\xff" * 9000, b"HTTP/1.1 \r\n\r\n", b"HTTP/1.1 200", b"\r\n\r\n\r\n\r\n"):
        judge(target("a:1"), response)


def test_doctor_live(tmp_path: Path, run: Run) -> None:
    """Exit 1 for a target without an answer.

    MACHINE limits it; an unknown one gets a suggestion.
    """
    with serving(METRICS) as port:
        addresses = {"node": [f"127.0.0.1:{port}"], "nginx": [f"localhost:{free_port()}"]}
        (tmp_path / "c.yaml").write_text(
            f"output: {{directory: targets}}\nbackends: {{static: {{list: {{targets: {json.dumps(addresses)}}}}}}}\n"
        )
        assert run("doctor", "-c", tmp_path / "c.yaml").code == 0
        done = run("doctor", "-c", tmp_path / "c.yaml", "--live")
        assert done.code == 1
        assert "ok    live: 1 of 2 targets answer with metrics" in done.out
        assert re.search(r"FAIL  target: connection refused: .*: localhost nginx \(localhost:\d+\)\n", done.out)
        assert "to fix: start the exporter on the machine" in done.out
        one = run("doctor", "-c", tmp_path / "c.yaml", "--live", "127.0.0.1")
        assert one.code == 0
        assert "ok    live: 1 of 1 target answer with metrics" in one.out
    typo = run("doctor", "-c", tmp_path / "c.yaml", "--live", "localhots")
    assert typo.code == 2
    assert "machine 'localhots' has no target (did you mean 'localhost'?)" in typo.err
