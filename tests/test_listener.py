"""The metrics listener with many, slow and hostile local clients."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.resident.listener import Listener, listen, respond
from tests.support.programs import eventually, free_port, get

if TYPE_CHECKING:
    from collections.abc import Generator

    from clan_discovery.threads import Worker

PAGE = b"page\n"


def healthy() -> str:
    """Return no reason to be unhealthy."""
    return ""


@contextlib.contextmanager
def serving(page: bytes = PAGE) -> Generator[int]:
    """Serve a page in this process; yield the port."""
    port = free_port()
    listener = listen(f"127.0.0.1:{port}", lambda: page, healthy)
    listener.ensure_started()
    try:
        yield port
    finally:
        listener.stop()


def ask(port: int, request: bytes) -> bytes:
    """Send a request and return the whole response."""
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(request)
        parts = list(iter(lambda: sock.recv(65536), b""))
    return b"".join(parts)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9199\r\n\r\n", 200),
        ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", 200),
        ("GET /metrics HTTP/1.1\nhost: localhost\n\n", 200),
        ("GET /metrics HTTP/1.1\r\nHost: [::1]:9199\r\n\r\n", 200),
        ("GET /metrics HTTP/1.1\r\nHost: LOCALHOST:1\r\n\r\n", 200),
        ("GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        ("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n", 421),
        ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 421),
        ("GET /metrics HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n", 421),
        ("GET /metrics HTTP/1.1\r\nHost:\r\n\r\n", 421),
        ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        ("GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        ("POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        ("nonsense\r\n\r\n", 400),
        ("\r\n\r\n", 400),
        ("\x16\x03\x01\x02\x00 \n\n", 400),
        ("GET /metrics HTTP/2.0\r\n\r\n", 400),
        (f"GET /{'x' * 9000}", 431),
        (f"GET /metrics HTTP/1.1\r\nX: {'x' * 9000}\r\n\r\n", 431),
    ],
)
def test_responses(request_: str, status: int) -> None:
    """Each kind of request has its status; only a known Host gets the page."""
    response = respond(request_.encode("latin-1"), lambda: PAGE, healthy)
    assert response is not None
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.0 {status} ".encode())
    assert b"Connection: close" in head
    assert (body == PAGE) == (status == 200)


@given(start=st.sampled_from([b"", b"GET ", b"GET /metrics HTTP/1.1\r\nHost: "]), rest=st.binary())
def test_any_bytes_get_a_response_or_wait(start: bytes, rest: bytes) -> None:
    """No request raises an exception."""
    for end in (b"", b"\r\n\r\n", b"\n\n"):
        response = respond(start + rest + end, lambda: PAGE, healthy)
        assert response is None or response.startswith(b"HTTP/1.0 ")


def test_an_empty_page_is_an_error() -> None:
    """A scraper would count a page without metrics as success."""
    response = respond(b"GET /metrics HTTP/1.0\r\n\r\n", lambda: b"", healthy)
    assert response is not None
    assert response.startswith(b"HTTP/1.0 503 ")
    assert response.endswith(b"\r\n\r\nno refresh cycle has succeeded yet: see the log\n")


def test_health_is_200_or_the_reason() -> None:
    """As plain text, because it may have any name."""
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    response = respond(request, lambda: b"", healthy)
    assert response is not None
    assert response.startswith(b"HTTP/1.0 200 OK\r\n")
    assert response.endswith(b"\r\n\r\nok\n")
    response = respond(request, lambda: PAGE, lambda: "disk full: /t\udcff")
    assert response is not None
    assert response.startswith(b"HTTP/1.0 503 ")
    assert response.endswith(b"\r\n\r\ndisk full: /t\\udcff\n")


def test_an_unknown_host_is_named() -> None:
    """With the fix; the received name is escaped."""
    for host, shown in (("monitor.example:9391", "monitor.example:9391"), ("a\x1b[1m", "a\\x1b[1m")):
        response = respond(f"GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n".encode(), lambda: PAGE, healthy)
        assert response is not None
        assert response.endswith(f"Host '{shown}' is not loopback: let the proxy send \"Host: localhost\"\n".encode())


def test_head_has_no_body() -> None:
    """It has the Content-Length of the page."""
    response = respond(b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", lambda: PAGE, healthy)
    assert response is not None
    assert response.endswith(b"Content-Length: 5\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize("start", [b"", b"GET", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n"])
def test_an_unfinished_request_waits(start: bytes) -> None:
    """The response comes after the end of the header."""
    assert respond(start, lambda: PAGE, healthy) is None


def test_a_large_page_arrives_whole() -> None:
    """Also for a slow client, and for one that sends more than a request."""
    page = b"x" * 20_000_000
    with serving(page) as port:
        request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert ask(port, request).endswith(b"\r\n\r\n" + page)
        assert ask(port, b"x" * 100_000).startswith(b"HTTP/1.0 431 ")


def test_silent_clients_do_not_block_others() -> None:
    """Two hundred connections use few file descriptors, and the next client is served at once."""
    with serving() as port, contextlib.ExitStack() as stack:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        silent: list[socket.socket] = []
        for _ in range(200):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            sock.sendall(b"G")
            silent.append(sock)
        start = time.monotonic()
        assert get(f"http://127.0.0.1:{port}/metrics") == PAGE
        assert time.monotonic() - start < 2
        held = len(os.listdir("/proc/self/fd")) - before - len(silent)  # noqa: PTH208
        assert held <= 17


def test_the_time_of_a_whole_request_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then does not extend it."""
    monkeypatch.setattr("clan_discovery.resident.listener._REQUEST_S", 0.4)
    with serving() as port, socket.create_connection(("127.0.0.1", port), 5) as sock:
        start = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - start < 5:
                sock.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - start < 3


def test_a_client_that_resets_does_no_harm(capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is printed, and the next client is served."""
    with serving(b"x" * 10_000_000) as port:
        for request in (b"", b"GET /metrics HTTP/1.0\r\n\r\n"):
            for _ in range(20):
                sock = socket.create_connection(("127.0.0.1", port), 5)
                sock.sendall(request)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.close()
        assert len(get(f"http://127.0.0.1:{port}/metrics")) == 10_000_000
    assert capfd.readouterr() == ("", "")


def test_accepting_continues_after_a_lack_of_descriptors() -> None:
    """Without a busy loop meanwhile."""
    code = f"""
import os, resource, sys, time
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from clan_discovery.resident.listener import listen
listener = listen("127.0.0.1:{(port := free_port())}", lambda: b"page\\n", str)
listener.ensure_started()
taken = []
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    while True: taken.append(os.dup(0))
except OSError: pass
print("full", flush=True)
time.sleep(1.5)
used = time.process_time()
time.sleep(1)
print("cpu", time.process_time() - used < 0.2, flush=True)
for handle in taken: os.close(handle)
time.sleep(20)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "full\n"
            with socket.create_connection(("127.0.0.1", port), 10) as sock:
                sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                assert process.stdout.readline() == "cpu True\n"
                assert sock.recv(100).startswith(b"HTTP/1.0 200 ")
        finally:
            process.kill()


@pytest.mark.parametrize(("limit", "most"), [(1024, 16), (256, 16), (64, 8), (16, 2), (4, 1)])
def test_clients_get_an_eighth_of_the_file_descriptors(monkeypatch: pytest.MonkeyPatch, limit: int, most: int) -> None:
    """For any limit."""

    def getrlimit(_: int) -> tuple[int, int]:
        return limit, limit

    monkeypatch.setattr(resource, "getrlimit", getrlimit)
    listener = listen(f"127.0.0.1:{free_port()}", lambda: PAGE, healthy)
    assert listener.max_clients == most
    listener.stop()


def test_a_listener_without_a_thread_starts_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clients wait meanwhile."""

    def refuse(_: Worker) -> None:
        raise RuntimeError("can't start new thread")

    port = free_port()
    listener = listen(f"127.0.0.1:{port}", lambda: PAGE, healthy)
    with monkeypatch.context() as patch:
        patch.setattr(Listener, "start", refuse)
        with pytest.raises(RuntimeError):
            listener.ensure_started()
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        listener.ensure_started()
        eventually("served", lambda: sock.recv(100).startswith(b"HTTP/1.0 200 "))
    listener.stop()
