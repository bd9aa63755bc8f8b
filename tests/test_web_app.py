"""The application: which request gets what, without a server."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest
from werkzeug.test import Client

from clan_discovery.model import Declared
from clan_discovery.web.access import LoopbackAccess
from clan_discovery.web.app import App
from clan_discovery.web.site import Body, Cycle, Lazy, Site, Unserved, join_lists
from tests.support.answering import resolution_of
from tests.support.status import small_status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from werkzeug.test import TestResponse

NODE = b'[\n{"labels":{"instance":"a"},"targets":["10.0.0.1:9100"]},\n{"labels":{},"targets":["b:1"]}\n]\n'
NGINX = b'[\n{"labels":{"instance":"a"},"targets":["10.0.0.1:9113"]}\n]\n'
EMPTY = b"[]\n"
NO_CYCLE = b"no refresh cycle has succeeded yet: see the log\n"


def cycle(jobs: Mapping[str, Body | Unserved]) -> Cycle:
    """Return a cycle with these lists."""
    resolution = resolution_of((), tuple(jobs))
    return Cycle(
        declared=Declared(),
        resolution=resolution,
        jobs=jobs,
        every=Lazy(lambda: join_lists(jobs)),
        document=Lazy(lambda: Body(b"{}\n")),
    )


SITE = Site(metrics=Lazy(lambda: b"x 1\n"), cycle=cycle({"nginx": Body(NGINX), "node": Body(NODE)}))
YOUNG = Site()


def ask(
    path: str, site: Site = SITE, *, method: str = "GET", metrics_only: bool = False, **headers: str
) -> TestResponse:
    """Ask the application."""
    app = App(lambda: site, LoopbackAccess(), metrics_only=metrics_only)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Client(app).open(path, method=method, headers=names)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/sd/node", NODE),
        ("/sd/node?x=1", NODE),
        ("/sd/nginx", NGINX),
        ("/api/v1/resolution", b"{}\n"),
    ],
)
def test_lists_are_the_bytes_of_the_target_files(path: str, body: bytes) -> None:
    """As JSON, with an ETag; HEAD has the same headers."""
    found = ask(path)
    assert (found.status_code, found.data, found.headers["Content-Type"]) == (200, body, "application/json")
    etag = found.headers["ETag"]
    assert etag.startswith('"')
    assert found.headers["Content-Length"] == str(len(body))
    head = ask(path, method="HEAD")
    assert (head.status_code, head.data, dict(head.headers)) == (200, b"", dict(found.headers))
    for known in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        unchanged = ask(path, If_None_Match=known)
        assert (unchanged.status_code, unchanged.data, unchanged.headers["ETag"]) == (304, b"", etag)
    assert ask(path, If_None_Match='"x"').status_code == 200


def test_other_bytes_have_another_etag() -> None:
    other = Site(cycle=cycle({"node": Body(NODE.replace(b"10.0.0.1", b"10.0.0.2"))}))
    assert ask("/sd/node").headers["ETag"] != ask("/sd/node", other).headers["ETag"]


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ({}, EMPTY),
        ({"node": EMPTY}, EMPTY),
        ({"node": EMPTY, "nginx": NGINX}, NGINX),
        ({"nginx": NGINX, "node": NODE}, NGINX.removesuffix(b"\n]\n") + b",\n" + NODE.removeprefix(b"[\n")),
    ],
)
def test_every_target_in_one_list(jobs: dict[str, bytes], expected: bytes) -> None:
    """The lists of all jobs, in the order of their names."""
    site = Site(cycle=cycle({job: Body(body) for job, body in jobs.items()}))
    assert ask("/sd", site).data == expected


def test_a_job_without_a_list_is_503() -> None:
    """Also the list of all jobs: it would lack targets."""
    site = Site(cycle=cycle({"node": Unserved("backend t has no answer"), "nginx": Body(NGINX)}))
    for path in ("/sd/node", "/sd"):
        found = ask(path, site)
        assert (found.status_code, found.data) == (503, b"backend t has no answer\n")
    assert ask("/sd/nginx", site).status_code == 200


@pytest.mark.parametrize("path", ["/sd", "/sd/node", "/sd/nonsense", "/metrics", "/api/v1/resolution"])
def test_before_the_first_cycle_is_503(path: str) -> None:
    """An empty list would end all targets, and a page without metrics would count as success."""
    for method in ("GET", "HEAD"):
        found = ask(path, YOUNG, method=method)
        assert (found.status_code, found.data) == (503, NO_CYCLE * (method == "GET"))


def test_an_empty_page_of_metrics_is_an_error() -> None:
    assert ask("/metrics", Site(metrics=Lazy(lambda: b""))).status_code == 503


def test_health_is_200_or_the_reason() -> None:
    """As plain text, because it may have any name."""
    assert (ask("/healthz").status_code, ask("/healthz").data) == (200, b"ok\n")
    found = ask("/healthz", Site(health=lambda: "disk full: /t\udcff"))
    assert (found.status_code, found.data) == (503, b"disk full: /t\\udcff\n")
    assert found.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_an_unknown_job_is_404_with_the_jobs() -> None:
    """At most 50 of them."""
    found = ask("/sd/nod")
    assert (found.status_code, found.data) == (404, b"there is no job 'nod'; the jobs are: nginx, node\n")
    many = ask("/sd/x", Site(cycle=cycle({f"job{index:03}": Body(EMPTY) for index in range(200)})))
    assert many.data.endswith(b"job048, job049, and 150 more\n")


@pytest.mark.parametrize("path", ["/x", "//sd/node", "/sd/node/x", "/sd/..%2Fnode", "/SD/node", "/%ff"])
def test_other_paths_are_404(path: str) -> None:
    assert ask(path).status_code == 404


def test_a_listener_of_metrics_has_no_lists() -> None:
    """It is the one of `--metrics-listen`."""
    assert ask("/metrics", metrics_only=True).data == b"x 1\n"
    found = ask("/sd/node", metrics_only=True)
    assert (found.status_code, found.data) == (404, b"see /metrics /healthz\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "X"])
def test_only_get_and_head_are_allowed(method: str) -> None:
    found = ask("/sd/node", method=method)
    assert (found.status_code, found.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9199", 200),
        ("127.1.2.3", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:9199", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("localhost, evil.example", 421),
        ("localhost:9199@evil.example", 421),
        ("192.0.2.1", 421),
        ("0.0.0.0", 421),  # noqa: S104 - refused
        ("[::]", 421),
        ("2130706433", 421),
        ("", 421),
    ],
)
@pytest.mark.parametrize("path", ["/metrics", "/sd/node", "/x"])
def test_only_a_host_of_loopback_is_answered(path: str, host: str, status: int) -> None:
    """A page of a foreign site whose name leads here reads nothing (DNS rebinding)."""
    expected = {"/x": {200: 404}}.get(path, {}).get(status, status)
    assert ask(path, Host=host).status_code == expected


def test_an_unknown_host_is_named() -> None:
    """With the fix; the received name is escaped."""
    for host, shown in (("monitor.example:9391", "monitor.example:9391"), ("a\x1b[1m", "a\\x1b[1m")):
        found = ask("/metrics", Host=host)
        assert found.text == f"Host '{shown}' is not loopback: let the proxy send \"Host: localhost\"\n"


def test_a_request_to_a_proxy_is_404() -> None:
    app = App(lambda: SITE, LoopbackAccess())
    found = Client(app).open("/sd/node", environ_overrides={"REQUEST_URI": "http://evil.example/sd/node"})
    assert found.status_code == 404


@pytest.mark.parametrize("path", ["/metrics", "/sd/node", "/sd/x", "/x"])
def test_security_headers_are_on_every_response(path: str) -> None:
    """No other site may frame, embed or read it; no cookie is set."""
    headers = ask(path).headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "Set-Cookie" not in headers
    assert "Access-Control-Allow-Origin" not in headers


def test_a_value_is_made_once() -> None:
    """When it is first asked for; a failure is tried again."""
    made: list[int] = []

    def make() -> int:
        made.append(1)
        if len(made) == 1:
            raise OSError("first")
        return 7

    value = Lazy(make)
    assert made == []
    with pytest.raises(OSError, match="first"):
        value.get()
    assert [value.get(), value.get(), len(made)] == [7, 7, 2]


def test_what_an_older_cycle_showed_is_freed() -> None:
    """With 10,000 machines it takes 100 MB, and maybe nobody opens the page again."""
    sites = [Site(cycle=SITE.cycle, statuses=Lazy(small_status))]
    client = Client(App(lambda: sites[-1], LoopbackAccess()))
    assert client.get("/").status_code == 200
    assert sites[0].statuses is not None
    shown = weakref.ref(sites[0].statuses.get())
    assert shown() is not None
    sites[:] = [Site(cycle=SITE.cycle, statuses=Lazy(small_status))]
    gc.collect()
    assert shown() is None


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_body_in_parts_reads_as_its_bytes(size: int) -> None:
    body = Body(b"ab", memoryview(b"cdefg")[1:4], b"", b"hij")
    assert body.size == 8
    assert body.etag == Body(b"abdefhij").etag
    with body.open() as file:
        for start in (0, 1, 4, 8):
            file.seek(start)
            assert b"".join(iter(lambda: file.read(size), b"")) == b"abdefhij"[start:]


def test_list_of_all_jobs_shares_the_bytes_of_the_jobs() -> None:
    node = Body(NODE)
    every = join_lists({"node": node, "systemd": node})
    assert isinstance(every, Body)
    shared = [part.obj for part in every.parts if isinstance(part, memoryview)]
    assert all(part is node.parts[0] for part in shared)
    assert len(shared) == 2
