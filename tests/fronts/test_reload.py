"""A fleet that changes: the proxy follows, and no request is lost."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx

from tests.fronts.bed import DOMAIN
from tests.fronts.client import connect, talk
from tests.fronts.servers import PARTS, serve
from tests.support.programs import eventually, free_port

if TYPE_CHECKING:
    from tests.fronts.bed import Bed


def backend_of(client: httpx.Client, url: str) -> str:
    """Return the name of the service that answers; empty where none does, or the proxy closes the connection."""
    try:
        answer = client.get(url)
    except httpx.TransportError:
        return ""
    return str(answer.json()["backend"]) if answer.status_code == 200 else ""


def test_the_proxy_starts_before_the_first_refresh(bed: Bed) -> None:
    """It has no file to include yet; after `refresh` and a reload it serves."""
    with serve("grafana") as grafana, bed.proxy.run(), bed.browser() as client:
        domain = bed.expose("grafana", grafana.port)
        bed.apply()
        eventually("the front is served", lambda: backend_of(client, f"http://{domain}/") == "grafana")


def test_a_front_follows_a_machine_that_moves(bed: Bed) -> None:
    """The address of the machine changes in the source; `refresh` writes it, and the proxy goes there."""
    port = free_port()
    with serve("old", host="127.0.0.2", port=port), serve("new", host="127.0.0.3", port=port):
        bed.hosts["db"] = "127.0.0.2"
        domain = bed.expose("grafana", port, machine="db")
        bed.refresh()
        with bed.proxy.run(), bed.browser() as client:
            url = f"http://{domain}/"
            assert backend_of(client, url) == "old"
            bed.hosts["db"] = "127.0.0.3"
            bed.apply()
            eventually("the front is at the new address", lambda: backend_of(client, url) == "new")


def test_a_front_that_is_no_longer_exposed_is_gone(bed: Bed) -> None:
    with serve("grafana") as grafana, serve("wiki") as wiki:
        gone, kept = bed.expose("grafana", grafana.port), bed.expose("wiki", wiki.port)
        bed.refresh()
        with bed.proxy.run(), bed.browser() as client:
            assert backend_of(client, f"http://{gone}/") == "grafana"
            bed.exposed["web01"].pop("grafana")
            bed.apply()
            eventually("the front is gone", lambda: not backend_of(client, f"http://{gone}/"))
            assert backend_of(client, f"http://{kept}/") == "wiki"


def test_an_unchanged_fleet_writes_nothing(bed: Bed) -> None:
    """So no proxy reloads."""
    bed.expose("grafana", 3000)
    bed.refresh()
    before = bed.proxy.fronts.stat()
    bed.refresh()
    assert bed.proxy.fronts.stat() == before


def test_a_reload_does_not_end_a_response_in_flight(bed: Bed) -> None:
    """The service sends a part of a response, the proxy reloads with another config, the service sends the rest."""
    with serve("grafana") as grafana, serve("wiki") as wiki:
        domain = bed.expose("grafana", grafana.port)
        bed.refresh()
        with bed.proxy.run(), bed.browser() as client, connect(bed.proxy.http) as slow:
            slow.sendall(f"GET /held HTTP/1.1\r\nHost: {domain}\r\nConnection: close\r\n\r\n".encode())
            assert grafana.holding.acquire(timeout=60)
            new = bed.expose("wiki", wiki.port)
            bed.exposed["web01"].pop("grafana")
            bed.apply()
            eventually("the new config is loaded", lambda: backend_of(client, f"http://{new}/") == "wiki")
            grafana.release.release(2)
            received = bytearray()
            while part := slow.recv(65536):
                received += part
            assert all(part in received for part in PARTS)


def test_ten_reloads_lose_no_request(bed: Bed) -> None:
    """Four clients send 200 requests and more, each by a connection of its own, while the config changes ten times.

    Caddy ends connections at a reload that it has not read from, also without our config: browsers ask again, and so
    does the client here.
    """
    with serve("grafana") as grafana, serve("wiki") as wiki:
        domain = bed.expose("grafana", grafana.port)
        bed.refresh()
        reloaded = threading.Event()
        request = f"GET / HTTP/1.1\r\nHost: {domain}\r\nConnection: close\r\n\r\n".encode()

        def ask() -> list[bytes]:
            """Return the answers that are no success."""
            failures: list[bytes] = []
            for number in range(100_000):
                if reloaded.is_set() and number >= 50:
                    break
                answer = talk(bed.proxy.http, request)
                for _ in range(5):
                    if answer or bed.proxy.kind != "caddy":
                        break
                    answer = talk(bed.proxy.http, request)
                if b" 200 " not in answer.partition(b"\r\n")[0]:
                    failures.append(answer)
            return failures

        with bed.proxy.run(), ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask) for _ in range(4)]
            try:
                for number in range(10):
                    bed.expose(f"wiki{number}", wiki.port)
                    bed.apply()
            finally:
                reloaded.set()
            assert not [failure for each in asking for failure in each.result()]
            with bed.browser() as client:
                last = f"http://wiki9.{DOMAIN}/"
                eventually("the last config is loaded", lambda: backend_of(client, last) == "wiki")
    assert len(grafana.requests) >= 200
