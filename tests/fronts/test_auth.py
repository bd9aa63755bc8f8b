"""Authentication by each real proxy: nothing reaches a service without it, and no client forges a user."""

from __future__ import annotations

import contextlib
import itertools
import posixpath
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

import httpx
import pytest

from tests.fronts.bed import DOMAIN, PASSWORD
from tests.fronts.client import connect, status_of, talk, websocket_says
from tests.fronts.oidc import EMAIL, oauth2_proxy
from tests.fronts.servers import Answer, serve
from tests.support.programs import free_port

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.fronts.bed import Bed
    from tests.fronts.servers import Asked, Running


def answer_of_the_auth_server(asked: Asked) -> Answer:
    """Know Alice by her cookie; send guests to the login, and answer 401 to scripts."""
    match asked.header("cookie"):
        case "session=alice":
            return Answer(200, (("Remote-User", "alice"), ("Remote-Groups", "admins,users")))
        case "session=nobody":
            return Answer(200)
        case "session=guest":
            return Answer(302, (("Location", "https://auth.example.org/?rd=1"), ("Set-Cookie", "state=1")))
        case "session=forbidden":
            return Answer(403, body=b"not for you")
        case _:
            return Answer(401, (("WWW-Authenticate", 'Bearer realm="x"'),), b"log in first")


@pytest.fixture
def guard() -> Generator[Running]:
    """Return an auth server."""
    with serve("auth", answer=answer_of_the_auth_server) as found:
        yield found


@pytest.fixture
def service() -> Generator[Running]:
    """Return a service."""
    with serve("service") as found:
        yield found


def with_forward(bed: Bed, url: str) -> None:
    """Let the auth server at a URL decide."""
    bed.settings["auth"] = {"forward": {"url": url, "headers": ["Remote-User", "Remote-Groups", "X-Lab-User"]}}


def cookie(name: str) -> dict[str, str]:
    """Return the header of a session."""
    return {"Cookie": f"session={name}"}


def users(asked: Asked) -> list[str]:
    """Return what a service may read as the user: servers of CGI and WSGI read `_` in a name as `-`."""
    return [
        value
        for name, values in asked.headers.items()
        if name.replace("_", "-") in ("remote-user", "remote-groups", "x-lab-user")
        for value in values
    ]


def test_basic_auth_lets_in_who_knows_the_password(bed: Bed, service: Running) -> None:
    bed.settings["auth"] = {"basic": {"file": str(bed.users(alice=PASSWORD, bob="another"))}}
    domain = bed.expose("private", service.port, auth="basic")
    public = bed.expose("public", service.port, auth="none")
    bed.refresh()
    with bed.proxy.run(), bed.browser() as client:
        url = f"http://{domain}/"
        for login, status in (
            (None, 401),
            (("alice", "wrong"), 401),
            (("alice", ""), 401),
            (("", ""), 401),
            (("mallory", PASSWORD), 401),
            (("bob", PASSWORD), 401),
            (("alice", PASSWORD), 200),
            (("bob", "another"), 200),
        ):
            assert client.get(url, auth=login).status_code == status, login
        assert client.get(url).headers["www-authenticate"].lower().startswith("basic")
        assert client.get(url, headers={"Authorization": "Basic !"}).status_code in (400, 401)
        assert len(service.requests) == 2
        assert client.get(f"http://{public}/").status_code == 200


def test_each_path_of_a_domain_has_its_own_authentication(bed: Bed, service: Running) -> None:
    """One service with a public and a private part: no spelling of a path leads into the private one."""
    bed.settings["auth"] = {"basic": {"file": str(bed.users(alice=PASSWORD))}}
    bed.expose("public", service.port, domain="app.example.org")
    bed.expose("private", service.port, domain="app.example.org", path="/admin/panel", auth="basic")
    bed.refresh()
    spellings = (
        "/admin/panel",
        "/admin/panel/x",
        "/admin/panel?x",
        "//admin/panel",
        "/admin//panel",
        "/./admin/panel",
        "/admin/./panel",
        "/x/../admin/panel",
        "/%61dmin/panel",
        "/admin%2Fpanel",
        "/admin%2fpanel/",
        "/%2e/admin/panel",
        "/x/%2e%2e/admin/panel",
        "/x/..%2fadmin/panel",
        "/admin/panel%2Fx",
        "/ADMIN/Panel",
        "/admin/panel/../panel",
        "/admin/panel/..;/panel",
    )
    with bed.proxy.run(), bed.browser() as client:
        assert client.get("http://app.example.org/").status_code == 200
        assert client.get("http://app.example.org/admin/panel/x", auth=("alice", PASSWORD)).status_code == 200
        service.requests.clear()
        for path in spellings:
            request = f"GET {path} HTTP/1.1\r\nHost: app.example.org\r\nConnection: close\r\n\r\n"
            talk(bed.proxy.http, request.encode())
        reached = [asked.path for asked in service.requests]
    assert not [path for path in reached if re.match("/admin/panel(?![a-z])", normal(path))]


def test_no_client_gets_a_connection_of_h2c_to_a_service(bed: Bed, service: Running) -> None:
    """It would reach the private part of a service by way of the public one."""
    if bed.proxy.kind == "traefik":
        pytest.skip("Traefik removes HTTP2-Settings alone")
    public = bed.expose("public", service.port)
    bed.refresh()
    with bed.proxy.run():
        for protocol in ("h2c", "H2C", "websocket, h2c"):
            request = f"GET / HTTP/1.1\r\nHost: {public}\r\nConnection: Upgrade, HTTP2-Settings, close\r\n"
            talk(bed.proxy.http, f"{request}Upgrade: {protocol}\r\nHTTP2-Settings: AAA\r\n\r\n".encode())
    assert [asked.header("upgrade") for asked in service.requests] == ["", "", ""]


def test_private_part_is_not_public_while_its_authentication_is_not_configured(bed: Bed, service: Running) -> None:
    """The public front of the domain, or of a wildcard, does not answer for it."""
    bed.expose("public", service.port, domain="app.example.org")
    bed.expose("private", service.port, domain="app.example.org", path="/admin/panel", auth="basic")
    bed.expose("every", service.port, domain="*.example.net")
    bed.expose("one", service.port, domain="one.example.net", auth="basic")
    bed.refresh()
    with bed.proxy.run(), bed.browser() as client:
        assert client.get("http://app.example.org/").status_code == 200
        assert client.get("http://two.example.net/").status_code == 200
        service.requests.clear()
        for path in ("/admin/panel", "//admin/panel/x", "/ADMIN/panel", "/x/..%2fadmin/panel", "/%61dmin/panel"):
            assert client.get(f"http://app.example.org{path}").status_code in (400, 404, 503)
        assert client.get("http://one.example.net/").status_code in (404, 503)
        assert not service.requests


def normal(path: str) -> str:
    """Return what a service may make of a path."""
    return posixpath.normpath(unquote(path.partition("?")[0]).lower()).replace("//", "/")


def test_no_form_of_a_request_avoids_the_login(bed: Bed, service: Running) -> None:
    """The absolute form of a URL, a port or a final dot in `Host`, another host in each of two places."""
    bed.settings["auth"] = {"basic": {"file": str(bed.users(alice=PASSWORD))}}
    with serve("public") as open_to_all:
        private = bed.expose("private", service.port, auth="basic")
        public = bed.expose("public", open_to_all.port)
        bed.refresh()
        with bed.proxy.run():
            for target, host in (
                (f"http://{private}/", private),
                (f"http://{private}/", public),
                (f"http://{public}/", private),
                (f"https://{private}/", public),
                (f"http://user:password@{private}/", public),
                ("/", f"{private}:80"),
                ("/", f"{private}."),
                ("/", private.upper()),
                ("/", f" {private} "),
                ("/", f"{private}:x"),
            ):
                request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
                answer = talk(bed.proxy.http, request.encode())
                if answer and status_of(answer) == 200:
                    assert b'"backend": "public"' in answer
        assert not service.requests
        assert {asked.header("host").partition(":")[0] for asked in open_to_all.requests} <= {public}


def test_forward_auth_names_the_user_to_the_service(bed: Bed, guard: Running, service: Running) -> None:
    with_forward(bed, f"{guard.url}/check")
    domain = bed.expose("private", service.port, auth="forward")
    bed.refresh()
    with bed.proxy.run(), bed.browser() as client:
        answer = client.post(f"http://{domain}/path?q=1", headers=cookie("alice"), content=b"x" * 100_000)
        assert answer.status_code == 200
        (asked,) = service.requests
        assert (asked.method, asked.path, asked.size) == ("POST", "/path?q=1", 100_000)
        assert asked.header("remote-user") == "alice"
        assert asked.header("remote-groups") == "admins,users"
        (question,) = guard.requests
        assert (question.method, question.path, question.size) == ("GET", "/check", 0)
        assert question.header("x-forwarded-method") == "POST"
        assert question.header("x-forwarded-uri") == "/path?q=1"
        assert question.header("x-forwarded-host") == domain
        assert question.header("x-forwarded-proto") == "http"


def test_forward_auth_passes_on_the_answer_of_the_auth_server(bed: Bed, guard: Running, service: Running) -> None:
    """401, 403 and a redirect reach the client; the service is not asked."""
    with_forward(bed, f"{guard.url}/check")
    domain = bed.expose("private", service.port, auth="forward")
    bed.refresh()
    with bed.proxy.run(), bed.browser() as client:
        url = f"http://{domain}/"
        assert client.get(url).status_code == 401
        assert client.get(url, headers=cookie("forbidden")).status_code == 403
        guest = client.get(url, headers=cookie("guest"))
        assert guest.status_code == 302
        assert guest.headers["location"] == "https://auth.example.org/?rd=1"
        assert not service.requests


def test_no_client_forges_a_user(bed: Bed, guard: Running, service: Running) -> None:
    """Neither by the header itself nor by another spelling of it, with and without an answer of the auth server."""
    with_forward(bed, f"{guard.url}/check")
    domain = bed.expose("private", service.port, auth="forward")
    bed.refresh()
    spellings = ["".join(parts) for parts in itertools.product(("Remote", "remote"), "-_", ("User", "USER", "Groups"))]
    spellings += ["".join(parts) for parts in itertools.product(("X",), "-_", ("Lab",), "-_", ("User",))]
    with bed.proxy.run():
        for session, spelling in itertools.product(("alice", "nobody"), spellings):
            request = (
                f"GET / HTTP/1.1\r\nHost: {domain}\r\nCookie: session={session}\r\n"
                f"{spelling}: mallory\r\n{spelling}: mallory2\r\nConnection: close\r\n\r\n"
            )
            assert status_of(talk(bed.proxy.http, request.encode())) in (200, 400)
        for asked in service.requests:
            assert not [value for value in users(asked) if "mallory" in value], asked
            if asked.header("cookie") == "session=nobody":
                assert not any(users(asked)), asked
        assert service.requests


def test_no_client_tells_the_auth_server_another_request(bed: Bed, guard: Running, service: Running) -> None:
    """The auth server decides by X-Forwarded-*: what a client writes there does not count."""
    with_forward(bed, f"{guard.url}/check")
    domain = bed.expose("private", service.port, auth="forward")
    bed.refresh()
    forged = {
        "X-Forwarded-Uri": "/public",
        "X-Forwarded-Method": "OPTIONS",
        "X-Forwarded-Host": "public.example.org",
        "X-Forwarded-Proto": "gopher",
        "X-Forwarded-For": "6.6.6.6",
    }
    with bed.proxy.run(), bed.browser() as client:
        client.get(f"http://{domain}/secret", headers=forged)
    (question,) = guard.requests
    assert question.header("x-forwarded-uri") == "/secret"
    assert question.header("x-forwarded-method") == "GET"
    assert question.header("x-forwarded-host") == domain
    assert question.header("x-forwarded-proto") == "http"
    assert question.header("x-forwarded-for") == "127.0.0.1"


def test_a_dead_auth_server_lets_nobody_in(bed: Bed, service: Running) -> None:
    with_forward(bed, f"http://127.0.0.1:{free_port()}/check")
    domain = bed.expose("private", service.port, auth="forward")
    public = bed.expose("public", service.port)
    bed.refresh()
    with bed.proxy.run(), bed.browser() as client:
        assert client.get(f"http://{domain}/", headers=cookie("alice")).status_code >= 500
        assert not service.requests
        assert client.get(f"http://{public}/").status_code == 200


def test_an_auth_server_that_fails_lets_nobody_in(bed: Bed, service: Running) -> None:
    def fail(_asked: Asked) -> Answer:
        return Answer(500, body=b"broken")

    with serve("auth", answer=fail) as guard:
        with_forward(bed, f"{guard.url}/check")
        domain = bed.expose("private", service.port, auth="forward")
        bed.refresh()
        with bed.proxy.run(), bed.browser() as client:
            assert client.get(f"http://{domain}/", headers=cookie("alice")).status_code >= 500
    assert not service.requests


def test_a_websocket_passes_forward_auth(bed: Bed, guard: Running, service: Running) -> None:
    with_forward(bed, f"{guard.url}/check")
    domain = bed.expose("private", service.port, auth="forward")
    bed.refresh()
    with bed.proxy.run():
        with connect(bed.proxy.http) as connection:
            headers = "Cookie: session=alice\r\n"
            assert websocket_says(connection, domain, "/socket", b"hello", headers) == (101, b"hello")
        with connect(bed.proxy.http) as connection:
            assert websocket_says(connection, domain, "/socket", b"hello") == (401, b"")
    assert service.requests[0].header("remote-user") == "alice"
    assert len(service.requests) == 1


def test_a_front_whose_authentication_is_not_configured_is_not_served(bed: Bed, service: Running) -> None:
    bed.expose("a", service.port, auth="basic")
    bed.expose("b", service.port, auth="forward")
    bed.expose("c", service.port, auth="oidc")
    public = bed.expose("public", service.port)
    said = bed.refresh()
    assert said.count("it is left out") == 3
    with bed.proxy.run(), bed.browser() as client:
        for name in "abc":
            with contextlib.suppress(httpx.TransportError):  # a proxy may close the connection
                assert client.get(f"http://{name}.home.example.org/").status_code in (404, 421)
        assert not service.requests
        assert client.get(f"http://{public}/").status_code == 200


def test_oidc_logs_a_browser_in(bed: Bed, service: Running) -> None:
    """A real oauth2-proxy redirects to the provider and back; then the service is asked, with the user's name."""
    with oauth2_proxy(bed.place, DOMAIN) as url:
        bed.settings["auth"] = {"oidc": {"url": url}}
        domain = bed.expose("private", service.port, auth="oidc")
        bed.refresh()
        with bed.proxy.run(), bed.browser() as client:
            page = {"Accept": "text/html"}
            first = client.get(f"http://{domain}/deep/page?q=1", headers=page)
            assert first.status_code in (302, 303, 307, 401, 403), first.text
            assert not service.requests
            assert client.get(f"http://{domain}/api", headers={"X-Auth-Request-Email": EMAIL}).status_code != 200
            assert not service.requests
            answer = client.get(f"http://{domain}/deep/page?q=1", headers=page, follow_redirects=True)
            assert answer.status_code == 200, (answer.status_code, answer.text, answer.url)
            assert str(answer.url) == f"http://{domain}/deep/page?q=1"
            (asked,) = service.requests
            assert asked.path == "/deep/page?q=1"
            forged = client.get(f"http://{domain}/again", headers={"X-Auth-Request-Email": "mallory@example.org"})
            assert forged.status_code == 200
            for asked in service.requests:
                assert "mallory@example.org" not in str(asked.headers)


def test_a_dead_oauth2_proxy_lets_nobody_in(bed: Bed, service: Running) -> None:
    bed.settings["auth"] = {"oidc": {"url": f"http://127.0.0.1:{free_port()}"}}
    domain = bed.expose("private", service.port, auth="oidc")
    bed.refresh()
    with bed.proxy.run(), bed.browser() as client:
        for path in ("/", "/oauth2/start", "/oauth2/auth"):
            assert client.get(f"http://{domain}{path}").status_code >= 500
    assert not service.requests
