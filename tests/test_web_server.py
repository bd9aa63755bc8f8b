"""The HTTP server with many, slow and hostile local clients."""

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

from clan_discovery.threads import Worker
from clan_discovery.web.access import LoopbackAccess
from clan_discovery.web.app import App
from clan_discovery.web.server import Listener, listen
from clan_discovery.web.site import Lazy, Site
from tests.support.programs import eventually, free_port, get

if TYPE_CHECKING:
    from collections.abc import Generator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

PAGE = b"page\n"
REQUEST = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


def app(page: bytes = PAGE) -> App:
    """Return an application that serves a page as the metrics."""
    site = Site(metrics=Lazy(lambda: page))
    return App(lambda: site, LoopbackAccess(), metrics_only=True)


@contextlib.contextmanager
def serving(page: bytes = PAGE, application: WSGIApplication | None = None) -> Generator[int]:
    """Serve a page in this process; yield the port."""
    port = free_port()
    listener = listen("127.0.0.1", port, application or app(page))
    listener.ensure_started()
    try:
        yield port
    finally:
        listener.stop()


def ask(port: int, request: bytes) -> bytes:
    """Send a request and return the whole response."""
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        sock.sendall(request)
        parts = list(iter(lambda: sock.recv(65536), b""))
    return b"".join(parts)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9199\r\n\r\n", 200),
        ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", 200),
        ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n", 200),
        ("GET /metrics HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n", 200),
        ("POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        ("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 400),
        ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n", 400),
        ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 400),
        ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        ("GET /metrics\r\n\r\n", 400),
        ("GET /metrics HTTP/2.0\r\n\r\n", 400),
        ("GET http://[/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (f"GET /{'x' * 9000}", 431),
        (f"GET /metrics HTTP/1.1\r\nX: {'x' * 9000}\r\n\r\n", 431),
    ],
)
def test_responses(request_: str, status: int) -> None:
    """Each kind of request has its status, once, and the connection is closed."""
    with serving() as port:
        response = ask(port, request_.encode("latin-1"))
    head, _, body = response.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0].split(b" ")[1] == str(status).encode()
    assert lines.count(b"Connection: close") == sum(line.startswith(b"Connection:") for line in lines) == 1
    assert b"X-Content-Type-Options: nosniff" in lines
    assert not any(line.startswith((b"Server:", b"Via:", b"Set-Cookie:")) for line in lines)
    assert (body == PAGE) == (status == 200)
    assert b"waitress" not in response


@pytest.mark.parametrize(
    "start",
    [b"", b"\r\n\r\n", b"GET", b"GET /metrics HTTP/1.1\nhost: localhost\n\n", b"\x16\x03\x01\x02\x00 \n\n"],
)
def test_an_unfinished_request_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch, start: bytes) -> None:
    """Without a response. A bare line feed ends no line."""
    monkeypatch.setattr("clan_discovery.web.server._REQUEST_S", 0.4)
    with serving() as port:
        began = time.monotonic()
        assert ask(port, start) == b""
        assert 0.3 < time.monotonic() - began < 20


def test_any_bytes_get_a_response_or_wait(capfd: pytest.CaptureFixture[str]) -> None:
    """No request ends the server or prints anything."""
    with serving() as port:
        for start in (b"", b"GET ", b"GET /metrics HTTP/1.1\r\nHost: "):
            for number in range(100):
                noise = bytes((number * 37 + index * 101) % 256 for index in range(number))
                with socket.create_connection(("127.0.0.1", port), 30) as sock:
                    sock.sendall(start + noise + b"\r\n\r\n")
        assert get(f"http://127.0.0.1:{port}/metrics") == PAGE
    assert capfd.readouterr() == ("", "")


def test_head_has_no_body() -> None:
    """It has the Content-Length of the page."""
    with serving() as port:
        response = ask(port, b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 200 OK\r\n")
    assert response.endswith(b"\r\n\r\n")
    assert b"\r\nContent-Length: 5\r\n" in response


def test_a_failing_application_is_a_500(capfd: pytest.CaptureFixture[str]) -> None:
    """Its exception is not printed."""

    def fail() -> Site:
        raise OSError("broken")

    listener = listen("127.0.0.1", port := free_port(), App(fail, LoopbackAccess()))
    listener.ensure_started()
    try:
        response = ask(port, REQUEST)
    finally:
        listener.stop()
    assert response.startswith(b"HTTP/1.1 500 ")
    assert b"internal error: OSError: broken (" in response
    assert capfd.readouterr() == ("", "")


def test_a_large_page_arrives_whole() -> None:
    """Also for a slow client, and for one that sends more than a request."""
    page = b"x" * 20_000_000
    with serving(page) as port:
        assert ask(port, REQUEST).endswith(b"\r\n\r\n" + page)
        assert ask(port, REQUEST + b"x" * 100_000).endswith(b"\r\n\r\n" + page)
        assert ask(port, b"x" * 100_000).startswith(b"HTTP/1.0 431 ")
        with socket.create_connection(("127.0.0.1", port), 30) as sock:
            sock.sendall(REQUEST)
            time.sleep(1)
            parts = list(iter(lambda: sock.recv(65536), b""))
        assert b"".join(parts).endswith(b"\r\n\r\n" + page)


def test_slow_readers_cost_no_memory_and_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """They share the page, and others are served meanwhile."""
    monkeypatch.setattr("clan_discovery.web.server._CONNECTION_S", 120)  # longer than the next client waits
    page = b"x" * 20_000_000
    with serving(page) as port, contextlib.ExitStack() as stack:
        assert len(get(f"http://127.0.0.1:{port}/metrics")) == len(page)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(12):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            sock.sendall(REQUEST)
            assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
        assert len(get(f"http://127.0.0.1:{port}/metrics")) == len(page)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 80_000  # KiB; 12 copies are 240,000


def is_whole(sock: socket.socket) -> bool:
    """Read the rest of a response, and tell whether none of its 20 MB is missing."""
    size = 0
    with contextlib.suppress(ConnectionError):
        while part := sock.recv(65536):
            size += len(part)
    return size > 19_999_900


def test_pages_that_nobody_reads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is made for one client is in memory until it is sent; the oldest clients are closed."""
    monkeypatch.setattr("clan_discovery.web.server._MOST_BUFFERED", 50_000_000)

    def page(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        del environ
        start_response("200 OK", [("Content-Length", "20000000")])
        return [b"x" * 20_000_000]

    with serving(application=page) as port, contextlib.ExitStack() as stack:
        silent: list[socket.socket] = []
        for _ in range(6):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            sock.sendall(REQUEST)
            assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
            silent.append(sock)
        whole = [is_whole(sock) for sock in silent]
        assert whole[-1]
        assert sum(whole) <= 4


def test_silent_clients_do_not_block_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred connections use few file descriptors, and the next client is served meanwhile."""
    for limit in ("_REQUEST_S", "_CONNECTION_S"):
        monkeypatch.setattr(f"clan_discovery.web.server.{limit}", 120)  # longer than the next client waits
    with serving() as port, contextlib.ExitStack() as stack:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        silent: list[socket.socket] = []
        for _ in range(200):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            sock.sendall(b"G")
            silent.append(sock)
        assert get(f"http://127.0.0.1:{port}/metrics") == PAGE
        held = len(os.listdir("/proc/self/fd")) - before - len(silent)  # noqa: PTH208
        assert held <= 17


def test_the_time_of_a_whole_request_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then does not extend it."""
    monkeypatch.setattr("clan_discovery.web.server._REQUEST_S", 0.4)
    with serving() as port, socket.create_connection(("127.0.0.1", port), 30) as sock:
        start = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - start < 20:
                sock.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - start < 20


@pytest.mark.parametrize("more", [b"", b"y"])
def test_the_time_of_a_whole_connection_is_bounded(monkeypatch: pytest.MonkeyPatch, more: bytes) -> None:
    """A client that reads a little now and then, or sends after the response, does not extend it."""
    monkeypatch.setattr("clan_discovery.web.server._CONNECTION_S", 0.6)
    page = {b"": b"x" * 30_000_000, b"y": PAGE}[more]
    with serving(page) as port, socket.create_connection(("127.0.0.1", port), 30) as sock:
        start, received = time.monotonic(), 0
        sock.sendall(REQUEST)
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - start < 20:
                if more:
                    sock.sendall(more)
                elif part := sock.recv(50_000):
                    received += len(part)
                else:
                    break
                time.sleep(0.02)
        assert time.monotonic() - start < 20
        assert received < 30_000_000


def test_a_client_that_resets_does_no_harm(capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is printed, and the next client is served."""
    with serving(b"x" * 10_000_000) as port:
        for request in (b"", b"GET /metrics HTTP/1.0\r\n\r\n"):
            for _ in range(20):
                sock = socket.create_connection(("127.0.0.1", port), 30)
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
from tests.test_web_server import app, get, listen
listener = listen("127.0.0.1", {(port := free_port())}, app())
listener.ensure_started()
assert get("http://127.0.0.1:{port}/metrics")
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
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "full\n"
            with socket.create_connection(("127.0.0.1", port), 30) as sock:
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
    listener = listen("127.0.0.1", free_port(), app())
    assert listener.max_clients == most
    listener.stop()


@pytest.mark.parametrize("threads", [Worker, Listener])
def test_a_listener_without_a_thread_starts_later(monkeypatch: pytest.MonkeyPatch, threads: type[Worker]) -> None:
    """Its clients wait meanwhile; without its own thread, or without those of the application."""

    def refuse(_: Worker) -> None:
        raise RuntimeError("can't start new thread")

    port = free_port()
    listener = listen("127.0.0.1", port, app())
    with monkeypatch.context() as patch:
        patch.setattr(threads, "start", refuse)
        with pytest.raises(RuntimeError):
            listener.ensure_started()
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        listener.ensure_started()
        eventually("served", lambda: sock.recv(100).startswith(b"HTTP/1.0 200 "))
    listener.stop()


def test_nothing_is_left_after_the_end() -> None:
    """No descriptor, and the port is free again."""
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with serving() as port, contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
        assert get(f"http://127.0.0.1:{port}/metrics") == PAGE
        for _ in range(10):
            assert ask(port, REQUEST).endswith(PAGE)
    eventually("closed", lambda: set(os.listdir("/proc/self/fd")) <= before)  # noqa: PTH208
    socket.create_server(("127.0.0.1", port)).close()
