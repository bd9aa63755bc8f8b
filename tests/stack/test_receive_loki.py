"""Loki cannot force a label: each machine is a tenant of its own, whatever a client says."""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse
from typing import TYPE_CHECKING, Final

import pytest

from clan_discovery.model import FrontSettings, ReceiverKind
from tests.stack.test_receive import bearer
from tests.support.programs import eventually, free_port
from tests.support.receiver import Receiver, Store, loki_store

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

PATH: Final = "/loki/api/v1/push"
KINDS: Final[tuple[ReceiverKind, ...]] = ("nginx", "vmauth")


@pytest.fixture(scope="module")
def loki(tmp_path_factory: pytest.TempPathFactory) -> Generator[Store]:
    """Loki with tenants."""
    with loki_store(tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture(scope="module", params=KINDS)
def bed(request: pytest.FixtureRequest, loki: Store, tmp_path_factory: pytest.TempPathFactory) -> Generator[Receiver]:
    """Two machines, and Loki alone."""
    place, port = tmp_path_factory.mktemp("receiver"), free_port()
    front = FrontSettings(kind="nginx", listen=("127.0.0.1",), http_port=port)
    made = Receiver(place, request.param, "newer", port, logs_kind="loki", front=front)
    made.prepare()
    made.add("dino")
    made.add("evil")
    made.logs = loki
    with made.run():
        yield made


def push(bed: Receiver, line: str, headers: Mapping[str, str], path: str = PATH) -> int:
    """Send a line as dino, in a stream that says that it is of evil; return the status."""
    token = (bed.tokens / "dino").read_text().strip()
    entry = [str(time.time_ns()), line]
    streams = [{"stream": {"machine": "evil", "tenant": "evil", "__tenant_id__": "evil"}, "values": [entry]}]
    connection = http.client.HTTPConnection("127.0.0.1", bed.port, timeout=60)
    given = {"Content-Type": "application/json", **headers, **bearer(token)}
    connection.request("POST", path, json.dumps({"streams": streams}), given)
    status = connection.getresponse().status
    connection.close()
    return status


def lines_of(bed: Receiver, tenant: str) -> list[str]:
    """Return the lines of a tenant."""
    assert bed.logs is not None
    connection = http.client.HTTPConnection(bed.logs.url.partition("://")[2], timeout=60)
    query = urllib.parse.urlencode({"query": '{machine=~".+"}', "limit": 5000})
    connection.request("GET", f"/loki/api/v1/query_range?{query}", headers={"X-Scope-OrgID": tenant})
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body
    connection.close()
    return [line for stream in json.loads(body)["data"]["result"] for _, line in stream["values"]]


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ({}, PATH),
        ({"Content-Type": "application/json; charset=utf-8"}, PATH),
        ({"X-Scope-OrgID": "evil"}, PATH),
        ({"x-scope-orgid": "dino|evil"}, PATH),
        ({"X_Scope_OrgID": "evil", "X-Scope-OrgId": "evil"}, PATH),
        ({}, f"{PATH}?X-Scope-OrgID=evil&tenant=evil"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, PATH),
        ({"Content-Type": "application/x-www-form-urlencoded"}, f"{PATH}?orgID=evil"),
    ],
)
def test_every_line_is_of_the_tenant_of_its_token(bed: Receiver, headers: Mapping[str, str], path: str) -> None:
    """The tenant of the other machine stays empty; so does one of both names."""
    line = f"line {time.time_ns()}"
    status = push(bed, line, headers, path)
    assert status in (204, 400, 415)
    if status == 204:
        eventually("the line is stored", lambda: line in lines_of(bed, "dino"))
    assert lines_of(bed, "evil") == []
    if "Content-Type" not in headers or headers["Content-Type"].startswith("application/json"):
        assert status == 204


@pytest.mark.parametrize("path", ["/loki/api/v1/query?query={a=~'.*'}", "/otlp/v1/logs", "/api/prom/push", "/config"])
def test_other_paths_of_loki_are_not_served(bed: Receiver, path: str) -> None:
    """Neither are queries."""
    assert push(bed, "other", {}, path) in (400, 403)
    assert lines_of(bed, "evil") == []
