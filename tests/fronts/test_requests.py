"""Requests through each real proxy to real services, with the config that `refresh` writes."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.fronts.client import connect, status_of, talk, websocket_says
from tests.fronts.servers import PARTS, serve

if TYPE_CHECKING:
    import httpx

    from tests.fronts.bed import Bed


class Echo(msgspec.Struct):
    """What a service says that it was asked."""

    backend: str
    method: str
    path: str
    headers: dict[str, list[str]]
    size: int


def echoed(response: httpx.Response) -> Echo:
    """Return what the service was asked."""
    assert response.status_code == 200, response.text
    return msgspec.json.decode(response.content, type=Echo)


def test_each_domain_and_path_leads_to_its_service(bed: Bed) -> None:
    """Domains differ in letter case only for people, and the longest path wins."""
    with serve("grafana") as grafana, serve("wiki") as wiki, serve("api") as api, serve("deep") as deep:
        bed.expose("grafana", grafana.port)
        bed.expose("wiki", wiki.port, domain="wiki.other.example.net")
        bed.expose("api", api.port, domain="wiki.other.example.net", path="/api")
        bed.expose("deep", deep.port, domain="wiki.other.example.net", path="/api/v1/deep")
        bed.refresh()
        with bed.proxy.run(), bed.browser() as client:
            for url, backend in {
                "http://grafana.home.example.org/": "grafana",
                "http://GRAFANA.Home.Example.ORG/d/1": "grafana",
                "http://wiki.other.example.net/": "wiki",
                "http://wiki.other.example.net/apiary": "wiki",
                "http://wiki.other.example.net/api": "api",
                "http://wiki.other.example.net/api/": "api",
                "http://wiki.other.example.net/api/v1": "api",
                "http://wiki.other.example.net/api/v1/deep/x": "deep",
                "http://wiki.other.example.net/api/v1/deeper": "api",
            }.items():
                assert echoed(client.get(url)).backend == backend, url


def test_path_query_and_body_arrive_unchanged(bed: Bed) -> None:
    """Encoded characters, an empty query value and 3 MB of a body."""
    with serve("grafana") as grafana:
        domain = bed.expose("grafana", grafana.port)
        bed.refresh()
        with bed.proxy.run():
            targets = ["/a%2Fb%20c?q=%2F&empty=&x=a+b", "/%C3%A9t%C3%A9", "/a;b=1/c", "/x/y?next=/a/../b"]
            if bed.proxy.kind != "traefik":  # it joins slashes
                targets.append("/x//y")
            for target in targets:
                answer = talk(
                    bed.proxy.http, f"GET {target} HTTP/1.1\r\nHost: {domain}\r\nConnection: close\r\n\r\n".encode()
                )
                assert status_of(answer) == 200, answer
                assert grafana.requests[-1].path == target
            with bed.browser() as client:
                body = secrets.token_bytes(3_000_000)
                assert echoed(client.post(f"http://{domain}/upload", content=body)).size == len(body)


def test_the_service_learns_of_the_client_from_the_proxy_alone(bed: Bed) -> None:
    """`Host` is kept; what a client claims in X-Forwarded-* does not reach the service."""
    with serve("grafana") as grafana:
        domain = bed.expose("grafana", grafana.port)
        bed.refresh()
        forged = "6.6.6.6"
        claims = (
            "Forwarded",
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "X-Forwarded-Port",
            "X-Forwarded-Prefix",
            "X-Forwarded-Proto",
            "X-Forwarded-Server",
            "X-Forwarded-Ssl",
            "X-Forwarded-User",
            "X-Real-IP",
        )
        with bed.proxy.run(), bed.browser() as client:
            client.get(f"http://{domain}/honest")
            client.get(f"http://{domain}/liar", headers=dict.fromkeys(claims, forged))
        for asked in grafana.requests:
            assert not [name for name, values in asked.headers.items() if forged in str(values)]
            assert asked.header("host") == domain
            assert asked.header("x-forwarded-for") == "127.0.0.1"
            assert asked.header("x-forwarded-proto") == "http"
            assert asked.header("x-forwarded-host") == domain
            assert asked.header("x-real-ip") in ("127.0.0.1", "")


def test_headers_of_a_front_are_set_on_its_requests(bed: Bed) -> None:
    with serve("grafana") as grafana:
        domain = bed.expose("grafana", grafana.port, headers={"X-Tenant": "lab; a=b"})
        bed.refresh()
        with bed.proxy.run(), bed.browser() as client:
            found = echoed(client.get(f"http://{domain}/", headers={"X-Tenant": "mine"}))
        assert found.headers["x-tenant"] == ["lab; a=b"]


def test_a_websocket_passes(bed: Bed) -> None:
    with serve("grafana") as grafana:
        domain = bed.expose("grafana", grafana.port)
        bed.refresh()
        with bed.proxy.run(), connect(bed.proxy.http) as connection:
            assert websocket_says(connection, domain, "/live/socket", b"hello") == (101, b"hello")


@pytest.mark.parametrize("end", ["chunked", "length", "close"])
def test_a_stream_passes_without_delay(bed: Bed, end: str) -> None:
    """Each part arrives while the service still holds the next one, however the end of the response is known."""
    with serve("grafana") as grafana:
        domain = bed.expose("grafana", grafana.port, unbuffered=True)
        bed.refresh()
        url = f"http://{domain}/held?{end}"
        with bed.proxy.run(), bed.browser() as client, client.stream("GET", url) as response:
            arrived = response.iter_bytes()
            for part in PARTS:
                assert next(arrived) == part
                grafana.release.release()


def test_an_unknown_host_is_refused(bed: Bed) -> None:
    """No service is asked, whatever `Host` says; Traefik says 404, the others close the connection or say 4xx."""
    with serve("grafana") as grafana:
        domain = bed.expose("grafana", grafana.port)
        bed.refresh()
        hosts = (
            "unknown.example",
            "home.example.org",
            f"x.{domain}",
            f"{domain}.evil.example",
            "127.0.0.1",
            "localhost",
            "[::1]",
            "_",
            "",
            "*",
            "*.home.example.org",
            f"evil.example/{domain}",
            f"evil.example@{domain}",
            f"{domain}@evil.example",
            f"evil.example, {domain}",
            f"evil.example#{domain}",
            "{env.HOME}",
            "$host",
            "..",
            "xn--",
            "a" * 5000,
        )
        with bed.proxy.run():
            for host in hosts:
                answer = talk(bed.proxy.http, f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                assert not answer or 400 <= status_of(answer) < 500, (host, answer)
            for request in (
                "GET / HTTP/1.0\r\n\r\n",
                "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
                f"GET / HTTP/1.1\r\nHost: {domain}\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
            ):
                answer = talk(bed.proxy.http, request.encode())
                assert not answer or 400 <= status_of(answer) < 500, (request, answer)
            assert not grafana.requests
            with bed.browser() as client:
                assert echoed(client.get(f"http://{domain}/")).backend == "grafana"
