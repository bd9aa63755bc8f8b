"""The configs of reverse proxies: the whole text, and that the proxies accept them whatever the names are."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import pytest
from hypothesis import Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from clan_discovery.emit.fronts import render_fronts
from clan_discovery.model import ForwardAuth, Front
from clan_discovery.resolve.fronts import located_front, named_fronts, served_fronts
from clan_discovery.syntax.tree import parse_yaml
from tests.support.fronts import FORWARD, KINDS, certificate, front, settings, validate

if TYPE_CHECKING:
    from clan_discovery.model import FrontAuth, FrontKind, Json

GOLDEN: Final = Path(__file__).resolve().parent / "data/fronts"
LONG: Final = ".".join(["a-label-of-a-very-long-name"] * 5) + ".example.org"
FLEET: Final = (
    front("grafana.home.example.org", "10.0.0.5:3000", auth="oidc"),
    front("media.home.example.org", "10.0.0.5:8096", hidden=("/metrics",)),
    front("media.home.example.org", "10.0.0.6:8097", path="/admin", auth="basic"),
    front("wiki.home.example.org", "[fd00::5]:80", auth="forward", headers=(("X-Site", "a b; #'"),)),
    msgspec.structs.replace(front("logs.home.example.org", "10.0.0.7:9428"), unbuffered=True),
    msgspec.structs.replace(front("pve.home.example.org", "10.0.0.8:8006"), scheme="https", insecure=True),
    msgspec.structs.replace(front("pbs.home.example.org", "10.0.0.8:8007"), scheme="https"),
    front("shop.home.example.org", "shop:8000", path="/shop"),
    front("gone.home.example.org", "nas.invalid:80"),
    front("*.apps.example.org", "10.0.0.9:80"),
    front(LONG, "10.0.0.9:81"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_the_config_of_a_fleet(kind: FrontKind) -> None:
    """Byte by byte: with certificates from files, each kind of authentication, and a port for metrics."""
    given = settings(
        kind, tls="files", certificate="/var/lib/acme/home/fullchain.pem", key="/var/lib/acme/home/key.pem"
    )
    if kind != "traefik":
        given = msgspec.structs.replace(given, metrics="127.0.0.1:9180", listen=("10.0.0.2",))
    assert render_fronts(FLEET, given) == (GOLDEN / f"{kind}.txt").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_fronts_does_not_matter(kind: FrontKind) -> None:
    given = settings(kind)
    assert render_fronts(FLEET[::-1], given) == render_fronts(FLEET, given)


@pytest.mark.parametrize("kind", KINDS)
def test_no_front_is_a_valid_config(kind: FrontKind, tmp_path: Path) -> None:
    """Traefik gets no empty section, which it refuses."""
    text = render_fronts((), settings(kind))
    if kind == "traefik":
        assert text.startswith("#")
        assert text.count("\n") == 1
    else:
        assert validate((), settings(kind), tmp_path) == ""


@pytest.mark.parametrize(
    ("kind", "tls"),
    [
        ("caddy", "off"),
        ("caddy", "internal"),
        ("caddy", "acme"),
        ("caddy", "files"),
        ("nginx", "off"),
        ("nginx", "files"),
    ],
)
def test_the_proxy_accepts_the_config_of_a_fleet(kind: FrontKind, tls: str, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("alice $2a$14$VmyNOwSm1pXPdbOmvjOzOeNkcdrrH/pmcJRSi86EJgM5hvjWa17LO\n")
    files = {"tls": tls} if tls != "files" else certificate(tmp_path)
    own_ca = {} if tls != "files" else {"ca": files["certificate"]}
    given = settings(kind, basic=str(users), listen=("127.0.0.1",), http_port=18080, **files, **own_ca)
    https = {"resolvers": ("127.0.0.53:53",)} if kind == "nginx" else {}
    assert validate(FLEET, msgspec.structs.replace(given, https_port=18443, **https), tmp_path) == ""


def test_traefik_config_is_yaml_without_templates() -> None:
    """Traefik expands `{{` in the files of its file provider."""
    text = render_fronts(FLEET, settings("traefik"))
    assert "{{" not in text
    match parse_yaml(text, most=10_000).value:
        case {"http": {"routers": dict(routers), "services": dict(services), "middlewares": dict(middlewares)}}:
            for router in routers.values():
                check_router(router, set(services), set(middlewares))
        case other:
            raise AssertionError(other)


def check_router(router: Json, services: set[str], middlewares: set[str]) -> None:
    match router:
        case {"service": str(service), **rest}:
            assert service in services
            match rest.get("middlewares", []):
                case list(names):
                    assert set(map(str, names)) <= middlewares
                case other:
                    raise AssertionError(other)
        case other:
            raise AssertionError(other)


def test_headers_that_a_client_sends_are_removed_before_the_login_server_is_asked() -> None:
    text = render_fronts(FLEET, settings("caddy"))
    assert text.index("request_header -Remote-User") < text.index("forward_auth http://127.0.0.1:9091")
    assert text.index("request_header -*_*") < text.index("forward_auth http://127.0.0.1:9091")
    assert 'proxy_set_header Remote-User "";' in render_fronts(FLEET, settings("nginx"))
    assert 'Remote_User: ""' in render_fronts(FLEET, settings("traefik"))


def test_service_at_a_name_does_not_stop_nginx(tmp_path: Path) -> None:
    """Without a resolver, its front answers 503; with one, nginx looks the name up for a request."""
    fronts = [front("shop.example.org", "no-such-name.example:80")]
    bare = settings("nginx", oidc="", forward=None, basic="")
    assert "return 503;" in render_fronts(fronts, bare)
    assert validate(fronts, bare, tmp_path) == ""
    resolving = msgspec.structs.replace(bare, resolvers=("127.0.0.53:53",))
    assert "set $clan_discovery_upstream http://no-such-name.example:80;" in render_fronts(fronts, resolving)
    assert validate(fronts, resolving, tmp_path) == ""


def test_login_server_at_a_name_has_a_variable_of_its_own() -> None:
    """In nginx, the request and the one that asks about it share their variables."""
    fronts = [front("shop.example.org", "shop:80", auth="forward"), front("b.example.org", "shop:80", auth="oidc")]
    forward = ForwardAuth(url="http://auth:9091/check")
    given = settings("nginx", forward=forward, oidc="http://oauth:4180", resolvers=("127.0.0.53:53",))
    text = render_fronts(fronts, given)
    assert "set $clan_discovery_upstream http://shop:80;" in text
    assert "set $clan_discovery_login http://auth:9091/check;" in text
    assert "set $clan_discovery_login http://oauth:4180/oauth2/auth;" in text


def test_https_service_is_verified_unless_it_is_declared_insecure() -> None:
    verified = msgspec.structs.replace(front("a.example.org", "10.0.0.5:443"), scheme="https")
    insecure = msgspec.structs.replace(verified, insecure=True)
    assert "proxy_ssl_verify on;" in render_fronts([verified], settings("nginx"))
    assert "proxy_ssl_verify on;" not in render_fronts([insecure], settings("nginx"))
    assert "tls_insecure_skip_verify" not in render_fronts([verified], settings("caddy"))
    assert "insecureSkipVerify" not in render_fronts([verified], settings("traefik"))


def test_port_of_the_other_scheme_is_accepted(tmp_path: Path) -> None:
    """Caddy refuses http://host:443 and https://host:80."""
    fronts = [
        front("a.example.org", "10.0.0.5:443"),
        msgspec.structs.replace(front("b.example.org", "10.0.0.5:80"), scheme="https", insecure=True),
        msgspec.structs.replace(front("c.example.org", "10.0.0.6:80"), scheme="https"),
    ]
    assert validate(fronts, settings("caddy"), tmp_path) == ""
    assert validate(fronts, settings("nginx"), tmp_path) == ""


def test_nginx_prefers_a_front_to_an_own_wildcard(tmp_path: Path) -> None:
    """A regular expression would come after the wildcard, which then gets the requests of the front."""
    given = msgspec.structs.replace(settings("nginx"), own_domains=("*.example.org",))
    fronts = [front(LONG, "10.0.0.5:80"), front("*.apps.example.org", "10.0.0.6:80")]
    text = render_fronts(fronts, given)
    assert 'server_name "~' not in text
    assert f"server_name .{LONG};" in text
    assert "server_name *.apps.example.org;" in text
    assert text.count("if ($host !~") == 2
    assert validate(fronts, given, tmp_path) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_longer_path_comes_first(kind: FrontKind) -> None:
    """Also a hidden one: the front of the whole domain would publish it."""
    fronts = [
        front("a.example.org", "10.0.0.1:1", hidden=("/metrics",)),
        front("a.example.org", "10.0.0.2:2", path="/metrics/public"),
    ]
    text = render_fronts(fronts, settings(kind))
    order = [text.index("10.0.0.2:2"), text.index("10.0.0.1:1")]
    if kind == "traefik":
        assert [line.strip() for line in text.splitlines() if "priority" in line] == [
            "priority: 29000",
            "priority: 20015",
            "priority: 20008",
            "priority: 20001",
        ]
    else:
        assert order == sorted(order)


def test_login_url_of_nginx_gets_the_address_that_was_asked_for() -> None:
    forward = ForwardAuth(url=FORWARD.url, login="https://auth.example.org/?a=b")
    text = render_fronts(FLEET, settings("nginx", forward=forward))
    assert "return 302 https://auth.example.org/?a=b&rd=$scheme://$host$clan_discovery_port$request_uri;" in text


WORDS: Final = st.text(st.characters(), max_size=30) | st.text("aB1.*-_/{}$\"'`\\;\n \t#@:%é<>&|()", max_size=20)
TEXT: Final = st.text("aB-_./ {}$\"'`\\;\n#é", max_size=12)
NAMES: Final = st.from_regex(r"(\*\.)?[a-z][a-z0-9_-]{0,20}[a-z0-9](\.[a-z0-9]{2,40}){1,4}", fullmatch=True)
AUTHS: Final[st.SearchStrategy[FrontAuth]] = st.sampled_from(["none", "basic", "forward", "oidc"])


@st.composite
def hostile_fronts(draw: st.DrawFn) -> Front:
    """Return a front as a source may declare it: any text anywhere."""
    is_hostile = draw(st.booleans())
    names = WORDS if is_hostile else NAMES
    headers = st.tuples(st.sampled_from(["X-A", "Host"]), TEXT if is_hostile else st.just("a; b #'"))
    return Front(
        service=draw(WORDS),
        domain=draw(names),
        path=draw(st.sampled_from(["/", "/a.b~c/d@e:f+g-h"]) | (TEXT if is_hostile else st.nothing())),
        machine=draw(WORDS),
        port=draw(st.integers(1, 65535)),
        scheme=draw(st.sampled_from(["http", "https"])),
        auth=draw(AUTHS),
        insecure=draw(st.booleans()),
        unbuffered=draw(st.booleans()),
        host=draw(st.just("") | names.filter(lambda name: "*" not in name)),
        headers=tuple(draw(st.lists(headers, max_size=2))),
        because=draw(TEXT),
    )


@pytest.mark.parametrize("kind", ["caddy", "nginx"])
@examples(max_examples=5, deadline=None, phases=[Phase.generate])
@given(declared=st.lists(hostile_fronts(), min_size=5, max_size=12))
def test_the_proxy_accepts_every_config_whatever_the_names_are(kind: FrontKind, declared: list[Front]) -> None:
    """More examples are in tests/fronts."""
    with tempfile.TemporaryDirectory() as directory:
        users = Path(directory, "users")
        users.write_text("alice $2a$14$VmyNOwSm1pXPdbOmvjOzOeNkcdrrH/pmcJRSi86EJgM5hvjWa17LO\n")
        given = settings(kind, basic=str(users), domain="example.org", http_port=18080, listen=("127.0.0.1",))
        usable = served_fronts(named_fronts(declared).fronts, given, (), frozenset()).fronts
        located = [located_front(each, "10.0.0.5", "") for each in usable]
        assert validate(located, given, Path(directory)) == ""
