"""Services that are down or unknown, hostile services, and the metrics of each real proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fronts.client import status_of, talk
from tests.fronts.servers import Answer, serve
from tests.support.programs import free_port, get

if TYPE_CHECKING:
    from tests.fronts.bed import Bed
    from tests.fronts.servers import Asked


def test_a_dead_service_does_not_disturb_the_others(bed: Bed) -> None:
    with serve("grafana") as grafana:
        dead = bed.expose("dead", free_port())
        domain = bed.expose("grafana", grafana.port)
        bed.refresh()
        with bed.proxy.run(), bed.browser() as client:
            for _ in range(3):
                assert client.get(f"http://{dead}/").status_code in (502, 503)
                assert client.get(f"http://{domain}/").status_code == 200


def test_a_name_that_cannot_be_looked_up_does_not_stop_the_proxy(bed: Bed) -> None:
    """Nginx without a resolver would not start; its front answers 503."""
    with serve("grafana") as grafana:
        bed.hosts["db"] = "no-such-name.example"
        lost = bed.expose("lost", 80, machine="db")
        domain = bed.expose("grafana", grafana.port)
        bed.refresh()
        assert bed.proxy.complaint() == ""
        with bed.proxy.run(), bed.browser() as client:
            assert client.get(f"http://{lost}/").status_code in (502, 503)
            assert client.get(f"http://{domain}/").status_code == 200


def test_nginx_starts_although_its_resolver_is_dead(bed: Bed) -> None:
    if bed.proxy.kind != "nginx":
        pytest.skip("only nginx has a resolver of its own")
    with serve("grafana") as grafana:
        bed.settings["resolver"] = f"127.0.0.1:{free_port()}"
        bed.hosts["db"] = "no-such-name.example"
        bed.expose("lost", 80, machine="db")
        domain = bed.expose("grafana", grafana.port)
        bed.refresh()
        assert bed.proxy.complaint() == ""
        with bed.proxy.run(), bed.browser() as client:
            assert client.get(f"http://{domain}/").status_code == 200


def test_the_metrics_listener_serves_metrics_alone(bed: Bed) -> None:
    """Caddy's admin API, which can replace its config, is not there."""
    with serve("grafana") as grafana:
        domain = bed.expose("grafana", grafana.port)
        bed.refresh()
        path = {"caddy": "metrics", "nginx": "stub_status", "traefik": "metrics"}[bed.proxy.kind]
        sample = {"caddy": b"caddy_", "nginx": b"Active connections", "traefik": b"traefik_"}[bed.proxy.kind]
        with bed.proxy.run(), bed.browser() as client:
            assert client.get(f"http://{domain}/").status_code == 200
            assert sample in get(f"http://127.0.0.1:{bed.proxy.metrics}/{path}")
            for request in (
                "GET /config/",
                "GET /",
                "GET /pki/ca/local",
                "GET /reverse_proxy/upstreams",
                "POST /load",
                "POST /stop",
                "DELETE /config/",
                "GET /debug/pprof/",
                "GET /api/rawdata",
            ):
                sent = f"{request} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                assert status_of(talk(bed.proxy.metrics, sent.encode())) == 404, request
            answer = talk(bed.proxy.http, f"GET /{path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
            assert not answer or status_of(answer) == 404
            assert client.get(f"http://{domain}/").status_code == 200


def test_a_service_does_not_steer_the_proxy(bed: Bed) -> None:
    """Headers by which a service behind nginx or Traefik could make it send files or other pages have no effect."""

    def answer(_asked: Asked) -> Answer:
        steering = (
            ("X-Accel-Redirect", "/.clan-discovery/forward"),
            ("X-Accel-Buffering", "no"),
            ("X-Sendfile", "/etc/passwd"),
        )
        return Answer(200, steering, b"mine")

    with serve("hostile", answer=answer) as hostile:
        domain = bed.expose("hostile", hostile.port)
        bed.refresh()
        with bed.proxy.run(), bed.browser() as client:
            found = client.get(f"http://{domain}/")
        assert found.content in (b"mine", b"")
        assert b"root:" not in found.content
