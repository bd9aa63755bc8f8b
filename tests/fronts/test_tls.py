"""TLS of each real proxy: Caddy's own CA, and the files of a certificate."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.fronts.bed import DOMAIN, PASSWORD
from tests.fronts.client import connect, status_of, talk, websocket_says
from tests.fronts.servers import serve
from tests.support.programs import eventually, program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fronts.bed import Bed


def certificate(place: Path, *names: str) -> tuple[Path, Path]:
    """Make a self-signed certificate for names; return it and its key."""
    place.mkdir(parents=True, exist_ok=True)
    made, key = place / "certificate.pem", place / "key.pem"
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=lab")
    alternatives = ",".join(names)
    subprocess.run(
        [
            program("openssl"),
            "req",
            "-x509",
            *new,
            "-keyout",
            str(key),
            "-out",
            str(made),
            "-addext",
            f"subjectAltName={alternatives}",
        ],
        check=True,
        capture_output=True,
    )
    return made, key


def with_files(bed: Bed) -> Path:
    """Let the proxy use a wildcard certificate; return it."""
    made, key = certificate(bed.place / "tls", f"DNS:*.{DOMAIN}")
    bed.settings["tls"] = {"certificate": str(made), "key": str(key)}
    return made


def test_fronts_are_served_with_the_certificate_of_the_files(bed: Bed) -> None:
    """Requests by HTTP/1.1 and HTTP/2, and websockets; the service learns that the client used https."""
    with serve("grafana") as grafana, serve("wiki") as wiki:
        made = with_files(bed)
        domain, other = bed.expose("grafana", grafana.port), bed.expose("wiki", wiki.port)
        bed.refresh()
        with bed.proxy.run():
            for http2 in (False, True):
                with bed.browser(ca_file=made, http2=http2) as client:
                    assert client.get(f"https://{domain}/").json()["backend"] == "grafana"
                    assert client.get(f"https://{other}/").json()["backend"] == "wiki"
            for asked in (*grafana.requests, *wiki.requests):
                assert asked.header("x-forwarded-proto") == "https"
            with connect(bed.proxy.https, tls=True, sni=domain) as connection:
                assert websocket_says(connection, domain, "/socket", b"hello") == (101, b"hello")


def test_plain_http_only_redirects_to_https(bed: Bed) -> None:
    """Traefik's redirect is set at its entry point; without one, it answers 404."""
    with serve("grafana") as grafana:
        with_files(bed)
        domain = bed.expose("grafana", grafana.port)
        bed.refresh()
        with bed.proxy.run(), bed.browser() as client:
            answer = client.get(f"http://{domain}/path?q=1")
            if bed.proxy.kind == "traefik":
                assert answer.status_code == 404
            else:
                assert answer.status_code in (301, 302, 307, 308)
                assert answer.headers["location"] in (
                    f"https://{domain}:{bed.proxy.https}/path?q=1",
                    f"https://{domain}/path?q=1",  # Caddy knows of http_port
                )
            assert not grafana.requests


def test_an_unknown_name_in_tls_is_refused(bed: Bed) -> None:
    """In SNI, without SNI, and a known name in SNI with another one in `Host`."""
    with serve("grafana") as grafana:
        with_files(bed)
        domain = bed.expose("grafana", grafana.port)
        bed.refresh()
        with bed.proxy.run():
            for sni, host in (
                ("unknown.example", "unknown.example"),
                (None, "unknown.example"),
                (None, "127.0.0.1"),
                (domain, "unknown.example"),
                (f"x.{domain}", f"x.{domain}"),
            ):
                request = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
                answer = talk(bed.proxy.https, request.encode(), tls=True, sni=sni)
                assert not answer or 400 <= status_of(answer) < 500, (sni, host, answer)
            assert not grafana.requests
            request = f"GET / HTTP/1.1\r\nHost: {domain}\r\nConnection: close\r\n\r\n"
            assert status_of(talk(bed.proxy.https, request.encode(), tls=True, sni=domain)) == 200


def test_basic_auth_counts_within_tls(bed: Bed) -> None:
    """Also where the name in SNI is that of a public front."""
    with serve("service") as service:
        made = with_files(bed)
        bed.settings["auth"] = {"basic": {"file": str(bed.users(alice=PASSWORD))}}
        domain = bed.expose("private", service.port, auth="basic")
        public = bed.expose("public", service.port)
        bed.refresh()
        with bed.proxy.run(), bed.browser(ca_file=made) as client:
            assert client.get(f"https://{domain}/").status_code == 401
            assert client.get(f"https://{domain}/", auth=("alice", PASSWORD)).status_code == 200
            request = f"GET / HTTP/1.1\r\nHost: {domain}\r\nConnection: close\r\n\r\n"
            assert status_of(talk(bed.proxy.https, request.encode(), tls=True, sni=public)) in (401, 421)


def test_caddy_signs_with_its_own_ca(bed: Bed) -> None:
    if bed.proxy.kind != "caddy":
        pytest.skip(f"{bed.proxy.kind} has no CA of its own")
    with serve("grafana") as grafana:
        bed.settings["tls"] = "internal"
        domain = bed.expose("grafana", grafana.port)
        bed.refresh()
        with bed.proxy.run():
            authority = next(bed.place.rglob("root.crt"))
            with bed.browser(ca_file=authority) as client:

                def answers() -> bool:
                    # The certificate is signed shortly after the start.
                    try:
                        return client.get(f"https://{domain}/").status_code == 200
                    except httpx.ConnectError:
                        return False

                eventually("Caddy has signed a certificate", answers)
            unknown = f"GET / HTTP/1.1\r\nHost: {domain}\r\nConnection: close\r\n\r\n"
            assert not talk(bed.proxy.https, unknown.encode(), tls=True, sni="unknown.example")


@pytest.mark.parametrize("trusted", [True, False])
def test_the_certificate_of_an_https_service_is_verified(bed: Bed, *, trusted: bool) -> None:
    """By the CA of the config; a service with another certificate is not asked."""
    made, key = certificate(bed.place / "service", "IP:127.0.0.1")
    other, _ = certificate(bed.place / "other", "IP:127.0.0.1")
    with serve("service", certificate=(made, key)) as service:
        bed.settings["ca_file"] = str(made if trusted else other)
        domain = bed.expose("service", service.port, scheme="https")
        said = bed.refresh()
        with bed.proxy.run(), bed.browser() as client:
            answer = client.get(f"http://{domain}/")
        if trusted and bed.proxy.kind == "nginx":
            assert "nginx verifies a certificate for a name alone" in said
            assert answer.status_code == 502
        elif trusted:
            assert answer.status_code == 200
            assert service.requests[0].header("host") == domain
        else:
            assert answer.status_code in (500, 502)
            assert not service.requests
