"""`run` serves the status page and its JSON: what each address answers."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from tests.support.fleet import fleet, inventory, node
from tests.support.fleet import status as status_of
from tests.support.localapi import Behaviour, localapi
from tests.support.programs import eventually, get, get_json
from tests.test_http import status, with_web
from tests.test_run import body, replace, resident
from tests.test_status import check

if TYPE_CHECKING:
    from pathlib import Path


def answer(url: str, method: str = "GET") -> tuple[int, str, str]:
    """Return the status, the content type and the body of a response."""
    request = urllib.request.Request(url, method=method)  # noqa: S310 - a server of the test's own
    try:
        with urllib.request.urlopen(request, timeout=30) as found:  # noqa: S310 - as above
            return found.status, found.headers["Content-Type"], found.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def test_pages_and_json_of_a_running_fleet(tmp_path: Path) -> None:
    config, port = with_web(tmp_path, ["monitor", "db"])
    links = ', links: {Node: "https://g.example.org/{machine}"}}'
    config.write_text(config.read_text().replace(f'{port}"}}', f'{port}"{links}'))
    url = f"http://127.0.0.1:{port}"
    nodes = [node(1, "monitor"), node(2, 'x"><script>alert(1)</script>', DNSName="stray.tail1a2b3.ts.net.")]
    with (
        localapi(tmp_path / "s", Behaviour(body=json.dumps(status_of(nodes)).encode())),
        resident(config, "--interval", "1h"),
    ):
        eventually("served", lambda: status(f"{url}/") == 200)
        code, kind, html = answer(f"{url}/")
        assert (code, kind) == (200, "text/html; charset=utf-8")
        assert "1 machine is missing" in html
        assert "1 node is not declared" in html
        assert "<script" not in html
        document = get_json(f"{url}/api/v1/machines")
        check(document, "machines")
        assert isinstance(document, dict)
        assert document["total"] == 3
        filtered = get_json(f"{url}/api/v1/machines?state=missing")
        assert isinstance(filtered, dict)
        assert filtered["total"] == 1
        code, kind, html = answer(f"{url}/machines/DB")
        assert code == 200
        assert 'href="https://g.example.org/db"' in html
        assert html == answer(f"{url}/machines/?name=db")[2]
        check(get_json(f"{url}/api/v1/machines/db"), "machine")
        assert get_json(f"{url}/api/v1/machines/?name=db") == get_json(f"{url}/api/v1/machines/db")
        for name in ("nobody", "a%2Fb", "..", "%00", "%ff", "a/b/c", "?name=%3Cb%3E", ""):
            code, kind, html = answer(f"{url}/machines/{name}")
            assert (code, kind) == (404, "text/html; charset=utf-8")
            assert "<b>" not in html
        assert answer(f"{url}/api/v1/machines/nobody")[:2] == (404, "text/plain; charset=utf-8")
        assert answer(f"{url}/page.css")[:2] == (200, "text/css; charset=utf-8")
        assert answer(f"{url}/icon.svg")[:2] == (200, "image/svg+xml")
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert answer(f"{url}/machines/db", method)[0] == 405
        assert answer(f"{url}/", "HEAD") == (200, "text/html; charset=utf-8", "")


def test_page_follows_cycles_and_says_when_they_fail(tmp_path: Path) -> None:
    config, port = with_web(tmp_path, ["monitor", "db"])
    url = f"http://127.0.0.1:{port}"
    with (
        localapi(tmp_path / "s", Behaviour(body=body("monitor", "db"))) as how,
        resident(config, "--interval", "1s"),
    ):
        eventually("served", lambda: status(f"{url}/") == 200)
        assert "Nothing needs attention." in answer(f"{url}/")[2]
        how.body = json.dumps(fleet(["monitor"])).encode()
        eventually("db is missing", lambda: b"1 machine is missing" in get(f"{url}/"))
        eventually("its history is there", lambda: b"missing</td>" in get(f"{url}/machines/db"))
        replace(tmp_path / "inventory.json", json.dumps(inventory(["monitor"]))[:-1])
        eventually("the inventory is invalid", lambda: b"1 input cannot be used" in get(f"{url}/"))
        replace(tmp_path / "inventory.json", json.dumps(inventory(["monitor", "db"])))
        how.status = 500
        eventually("the backend failed", lambda: b"1 backend failed" in get(f"{url}/"))
        (tmp_path / "targets").rename(tmp_path / "old")
        (tmp_path / "targets").write_text("")
        eventually("cycles fail", lambda: b'role="alert"' in get(f"{url}/"))


def test_page_is_not_ready_before_the_first_cycle(tmp_path: Path) -> None:
    config, port = with_web(tmp_path, ["monitor"])
    (tmp_path / "targets").write_text("")
    url = f"http://127.0.0.1:{port}"
    with localapi(tmp_path / "s", Behaviour(body=body("monitor"))), resident(config, "--interval", "1h"):
        eventually("it answers", lambda: status(f"{url}/") == 503)
        assert "Not ready yet" in answer(f"{url}/machines/monitor")[2]
        assert answer(f"{url}/api/v1/machines")[0] == 503
        assert answer(f"{url}/api/v1/machines/monitor")[0] == 503
