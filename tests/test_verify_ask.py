"""Ask hostile programs on loopback: the answer is `unknown`, within the time limit and without much memory."""

from __future__ import annotations

import contextlib
import resource
import socket
import ssl
import subprocess
import threading
import time
from base64 import b64encode
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
import pytest

from clan_discovery.deadline import Deadline
from clan_discovery.model import Verdict, Verification
from clan_discovery.syntax.target_file import Split
from clan_discovery.verify import verify
from clan_discovery.verify.http import AskError, get
from clan_discovery.verify.settings import LOCAL_SCRAPERS, AskedProgram
from tests.support.answering import NOT_FOUND, Reply, answering, resolution_of, scraper, settings_of, target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from clan_discovery.verify.settings import ProgramKind

RESOLUTION: Final = resolution_of([target_of("node", "db", "127.0.0.1:9100")])
LOGIN_PAGE: Final = b"<!DOCTYPE html><html><title>Sign in</title><form>secret</form></html>"
MIB: Final = 1 << 20


def ask(url: str, timeout: float = 20.0) -> Verification:
    """Ask one scraper."""
    return verify(RESOLUTION, settings_of(scraper("one", url), timeout=timeout), datetime.now(UTC))


def reason_of(found: Verification) -> str:
    """Return why the only program could not be asked; its target is unknown because of it."""
    (program,) = found.asked
    assert not program.ok
    (target,) = found.targets
    assert target.verdict is Verdict.UNKNOWN
    assert program.name in target.reason
    assert "secret" not in program.reason
    return program.reason


@contextlib.contextmanager
def serving(handle: Callable[[socket.socket], None]) -> Generator[str]:
    """Call a function for each connection, after the request was read; return the URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(60)

    def serve_one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            handle(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.settimeout(60)
                threading.Thread(target=serve_one, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(LOGIN_PAGE), "an HTML page, not the API"),
        (Reply(b"no", 401), "HTTP 401 Unauthorized: access denied"),
        (Reply(b"no", 403), "access denied"),
        (Reply(b"", 302, (("Location", "https://me:secret@login.example.org/?token=secret"),)), "it redirects to"),
        (Reply(b"no", 503), "HTTP 503"),
        (NOT_FOUND, "there is no such API"),
        (Reply(b"{}"), "not the answer that the API documents"),
        (Reply(b'{"status":"error","error":"busy"}'), "not the answer"),
        (Reply(b'{"status":"success","data":{"activeTargets":{"a":1}}}'), "not the answer"),
        (Reply(b'{"status":"success","data":{"activeTargets":[{"labels":{"job":1}}]}}'), "not the answer"),
        (Reply(b"[" * 200_000), "not the answer"),
        (Reply(b"\xff\xfe\x00"), "not the answer"),
        (Reply(b""), "not the answer"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_other_answers_are_unknown(reply: Reply, words: str) -> None:
    with answering({"/api/v1/targets": reply}) as server:
        assert words in reason_of(ask(server.url))


def test_redirect_loop_is_not_followed() -> None:
    reply = Reply(b"", 307, (("Location", "/api/v1/targets?state=any"),))
    with answering({"/api/v1/targets": reply}) as server:
        reason_of(ask(server.url))
        assert len(server.requests) == 1


def test_no_server_is_unknown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert reason_of(ask(f"http://127.0.0.1:{port}")) == "connection refused"


def test_silent_and_dripping_servers_end_at_the_time_limit() -> None:
    """A byte now and then restarts the timeout of a socket, but not the limit of the whole answer."""

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            connection.sendall(b" ")
            time.sleep(0.05)

    def silence(connection: socket.socket) -> None:
        connection.recv(1)

    def endless_head(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(b"X: y\r\n")
            time.sleep(0.05)

    for handle in (drip, silence, endless_head):
        with serving(handle) as url:
            begun = time.monotonic()
            reason = reason_of(ask(url, timeout=0.5))
            assert time.monotonic() - begun < 50
            assert "no complete response within 0.5 s" in reason


def test_answer_that_ends_too_early_is_unknown() -> None:
    def truncate(connection: socket.socket) -> None:
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"status":"success","data":{}}')

    with serving(truncate) as url:
        assert "not an HTTP response" in reason_of(ask(url))


def test_server_that_speaks_no_http_is_unknown() -> None:
    def banner(connection: socket.socket) -> None:
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * 10)

    with serving(banner) as url:
        assert "not an HTTP response" in reason_of(ask(url))


def test_huge_answer_ends_at_its_size_limit() -> None:
    """Of 1 GiB only the first 32 MiB are read here; the limit of `verify` is 256 MiB."""
    sent = 0

    def flood(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
        block = b" " * MIB
        for _ in range(1024):
            connection.sendall(block)
            sent += 1

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with serving(flood) as url, pytest.raises(AskError, match="larger than 32 MiB"):
        get(scraper("one", url), "/", Deadline(60), most=32 * MIB)
    assert sent < 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_programs_are_asked_in_parallel() -> None:
    """Ten that do not answer take as long as one."""

    def silence(connection: socket.socket) -> None:
        connection.recv(1)

    with serving(silence) as url:
        settings = settings_of(*[scraper(f"s{number}", url) for number in range(10)], timeout=3.0)
        begun = time.monotonic()
        found = verify(RESOLUTION, settings, datetime.now(UTC))
        assert time.monotonic() - begun < 25
    assert [program.ok for program in found.asked] == [False] * 10


def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with answering({"/api/v1/targets": Reply(b'{"status":"success","data":{"activeTargets":null}}')}) as server:
        assert ask(server.url).asked[0].ok


def test_secrets_are_sent_and_never_shown(tmp_path: Path) -> None:
    """They are read at each use, and a file that cannot be read is named."""
    token, password = tmp_path / "token", tmp_path / "password"
    token.write_text("first-token\n")
    password.write_text("pass:word\n")
    with answering({"/api/v1/targets": Reply(b"no", 401)}) as server:
        bearer = msgspec.structs.replace(scraper("one", server.url), bearer_token_file=token)
        settings = settings_of(bearer)
        for secret in ("first-token", "second-token"):
            token.write_text(f"{secret}\n")
            found = verify(RESOLUTION, settings, datetime.now(UTC))
            assert secret not in str(found)
            assert server.requests[-1][1]["authorization"] == f"Bearer {secret}"
        basic = msgspec.structs.replace(scraper("one", server.url), username="me", password_file=password)
        verify(RESOLUTION, settings_of(basic), datetime.now(UTC))
        expected = b64encode(b"me:pass:word").decode()
        assert server.requests[-1][1]["authorization"] == f"Basic {expected}"
        count = len(server.requests)
        for content in ("", "two\nlines\n", "a\r\nX-Injected: b"):
            token.write_text(content)
            found = verify(RESOLUTION, settings, datetime.now(UTC))
            assert "is empty, or has more than one line" in found.asked[0].reason
        token.unlink()
        found = verify(RESOLUTION, settings, datetime.now(UTC))
        assert f"cannot read {token}: No such file or directory" in found.asked[0].reason
        assert len(server.requests) == count


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a self-signed certificate for 127.0.0.1, with its key in the same file."""
    directory = tmp_path_factory.mktemp("tls")
    file = directory / "both.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*words, "-keyout", directory / "key", "-out", directory / "crt"], check=True, capture_output=True)
    file.write_bytes((directory / "crt").read_bytes() + (directory / "key").read_bytes())
    return file


@contextlib.contextmanager
def serving_tls(certificate: Path, body: bytes) -> Generator[str]:
    """Answer each request with one body, over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(20)
            with context.wrap_socket(connection, server_side=True) as stream:
                stream.recv(65536)
                stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def test_tls_verifies_the_certificate(certificate: Path, tmp_path: Path) -> None:
    """With the CA it is asked; without it, with a wrong CA file, or without TLS there, it is not."""
    with serving_tls(certificate, b'{"status":"success","data":{}}') as url:
        with_ca = msgspec.structs.replace(scraper("one", url), ca_file=certificate)
        assert verify(RESOLUTION, settings_of(with_ca), datetime.now(UTC)).asked[0].ok
        assert "its certificate is not trusted: self-signed certificate" in reason_of(ask(url))
        other_name = msgspec.structs.replace(with_ca, url=url.replace("127.0.0.1", "localhost"))
        found = verify(RESOLUTION, settings_of(other_name), datetime.now(UTC))
        assert "its certificate is not trusted: Hostname mismatch" in found.asked[0].reason
        broken = tmp_path / "ca.pem"
        for content in (None, "nonsense"):
            if content is not None:
                broken.write_text(content)
            wrong = msgspec.structs.replace(with_ca, ca_file=broken)
            found = verify(RESOLUTION, settings_of(wrong), datetime.now(UTC))
            assert str(broken) in found.asked[0].reason
    with answering({}) as server:
        assert "no TLS there" in reason_of(ask(server.url.replace("http:", "https:")))


def test_tls_server_that_stays_silent_ends_at_the_time_limit() -> None:
    def silence(connection: socket.socket) -> None:
        connection.recv(1)

    with serving(silence) as url:
        begun = time.monotonic()
        assert "no complete response" in reason_of(ask(url.replace("http:", "https:"), timeout=0.5))
        assert time.monotonic() - begun < 50


def test_local_scrapers_that_are_absent_are_told_once() -> None:
    """Without scrapers in the config, it is no fault that one of the default ports is closed, but that all are."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
    guesses = [msgspec.structs.replace(guess, url=closed) for guess in LOCAL_SCRAPERS]
    found = verify(RESOLUTION, settings_of(*guesses), datetime.now(UTC))
    (program,) = found.asked
    assert "no scraper answers on this machine" in program.reason
    assert found.targets[0].verdict is Verdict.UNKNOWN
    with answering({"/api/v1/targets": Reply(b'{"status":"success","data":{}}')}) as server:
        one = msgspec.structs.replace(guesses[0], url=server.url)
        found = verify(RESOLUTION, settings_of(one, *guesses[1:]), datetime.now(UTC))
    assert [(asked.name, asked.ok) for asked in found.asked] == [("prometheus", True)]


@pytest.mark.parametrize(
    ("kind", "path", "good", "bad"),
    [
        ("alertmanager", "/api/v2/status", b'{"versionInfo":{"version":"0.25.0"}}', b"{}"),
        ("grafana", "/api/health", b'{"database":"ok","version":"11.0"}', b'{"database":"failing"}'),
        ("loki", "/ready", b"ready\n", b"Ingester not ready: waiting for 15s after being ready"),
        ("victorialogs", "/health", b"OK", LOGIN_PAGE),
    ],
)
def test_other_programs_are_asked_whether_they_are_ready(kind: ProgramKind, path: str, good: bytes, bad: bytes) -> None:
    for body, is_ok in ((good, True), (bad, False)):
        with answering({path: Reply(body), "/api/v1/targets": Reply(b'{"status":"success","data":{}}')}) as server:
            other = AskedProgram(name="it", kind=kind, url=server.url)
            found = verify(RESOLUTION, settings_of(scraper("one", server.url), other), datetime.now(UTC))
        assert [(asked.name, asked.ok) for asked in found.asked] == [("one", True), ("it", is_ok)]
        assert found.asked[1].kind == kind


def test_own_listener_must_serve_the_target_files(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_bytes(b"[]\n")
    for served, is_ok in ((b"[]\n", True), (b"[1]\n", False)):
        replies = {"/healthz": Reply(b"ok"), "/sd/node": Reply(served)}
        replies["/api/v1/targets"] = Reply(b'{"status":"success","data":{}}')
        with answering(replies) as server:
            own = AskedProgram(name="clan-discovery", kind="clan-discovery", url=server.url)
            settings = settings_of(scraper("one", server.url), own, directory=tmp_path)
            found = verify(RESOLUTION, settings, datetime.now(UTC))
        own_listener = found.asked[1]
        assert own_listener.ok is is_ok
        assert own_listener.reason == ("" if is_ok else f"/sd/node is not what {tmp_path}/node.json holds")


def test_own_listener_must_serve_all_files_of_a_job(tmp_path: Path) -> None:
    """As one list, in any order."""
    (tmp_path / "node.0.json").write_bytes(b'[\n{"b":1},\n{"d":1}\n]\n')
    (tmp_path / "node.1.json").write_bytes(b'[\n{"a":1}\n]\n')
    (tmp_path / "node.2.json").write_bytes(b"[]\n")
    cases = (
        (b'[\n{"a":1},\n{"b":1},\n{"d":1}\n]\n', True),
        (b'[\n{"a":1},\n{"b":1},\n{"c":1}\n]\n', False),
    )
    for served, is_ok in cases:
        replies = {"/healthz": Reply(b"ok"), "/sd/node": Reply(served)}
        replies["/api/v1/targets"] = Reply(b'{"status":"success","data":{}}')
        with answering(replies) as server:
            own = AskedProgram(name="clan-discovery", kind="clan-discovery", url=server.url)
            settings = settings_of(scraper("one", server.url), own, directory=tmp_path)
            settings = msgspec.structs.replace(settings, split=Split(3))
            found = verify(RESOLUTION, settings, datetime.now(UTC))
        assert found.asked[1].reason == ("" if is_ok else f"/sd/node is not what {tmp_path}/node.*.json holds")


def test_own_listener_that_does_not_answer_is_fixed_by_its_service() -> None:
    """It has no URL in the config that could be corrected."""
    with answering({}) as server:
        own = AskedProgram(name="clan-discovery", kind="clan-discovery", url=server.url)
        assert own_fix(own) == f"systemctl status clan-discovery; curl -i {server.url}/healthz"
    assert own_fix(own) == f"systemctl status clan-discovery; curl -i {server.url}/healthz"


def own_fix(own: AskedProgram) -> str:
    """Return what to do about our own listener."""
    (*_, program) = verify(RESOLUTION, settings_of(own), datetime.now(UTC)).asked
    assert not program.ok
    return program.fix
