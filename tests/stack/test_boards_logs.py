"""The queries of the board for logs, in VictoriaLogs and in Loki."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Final

import msgspec
import pytest

from tests.support.boards import Asked, filled, queries
from tests.support.programs import eventually
from tests.support.receiver import Store, logs_store, loki_store

if TYPE_CHECKING:
    from collections.abc import Generator

LONG_S: Final = 240.0
LINES: Final = {
    ("nas", "zfs-scrub.service"): ("scrub of tank started", "ERROR: checksum mismatch"),
    ("nas", "sshd.service"): ("accepted publickey",),
    ("web", "nginx.service"): ("error: upstream timed out",),
}
"""The log lines of machines and units."""
JSON: Final = {"Content-Type": "application/json"}


class Stream(msgspec.Struct):
    """Lines, or numbers, of Loki and of VictoriaLogs: each with its time."""

    values: list[tuple[float | str, str]]
    stream: dict[str, str] = {}
    metric: dict[str, str] = {}


class Streams(msgspec.Struct):
    """The data of an answer."""

    result: list[Stream]


class Answer(msgspec.Struct):
    """An answer."""

    data: Streams


def post(url: str, body: bytes, **headers: str) -> bytes:
    """Send something to a store."""
    request = urllib.request.Request(url, body or None, headers)  # noqa: S310 - a server of the test's own
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - a server of the test's own
        said: bytes = answer.read()
        return said


@pytest.fixture(scope="module")
def victoria(tmp_path_factory: pytest.TempPathFactory) -> Generator[Store]:
    """VictoriaLogs with the streams of the receiver."""
    with logs_store(tmp_path_factory.mktemp("victorialogs")) as store:
        lines = [
            json.dumps({"_msg": text, "_time": "0", "machine": machine, "_SYSTEMD_UNIT": unit})
            for (machine, unit), texts in LINES.items()
            for text in texts
        ]
        words = urllib.parse.urlencode({"_stream_fields": "machine,_SYSTEMD_UNIT"})
        post(f"{store.url}/insert/jsonline?{words}", "\n".join(lines).encode(), **JSON)
        yield store


@pytest.fixture(scope="module")
def loki(tmp_path_factory: pytest.TempPathFactory) -> Generator[Store]:
    """Loki with a tenant for each machine."""
    with loki_store(tmp_path_factory.mktemp("loki")) as store:
        for (machine, unit), texts in LINES.items():
            entries = [[str(time.time_ns()), text] for text in texts]
            body = json.dumps({"streams": [{"stream": {"unit": unit}, "values": entries}]}).encode()
            post(f"{store.url}/loki/api/v1/push", body, **JSON, **{"X-Scope-OrgID": machine})
        yield store


def one(store: str, panel: str) -> Asked:
    """Return the query of a panel for a kind of store."""
    (found,) = (asked for asked in queries(store) if asked.panel == panel)
    return found


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("", {"scrub of tank started", "ERROR: checksum mismatch", "accepted publickey"}),
        ("error", {"ERROR: checksum mismatch"}),
        ("tank|public", {"scrub of tank started", "accepted publickey"}),
    ],
)
def test_search_finds_lines_of_the_machine(victoria: Store, search: str, expected: set[str]) -> None:
    """Of any case, in VictoriaLogs."""
    query = filled(one("victoriametrics-logs-datasource", "Log").target.expr, "nas", search)
    eventually(query, lambda: {entry["_msg"] for entry in victoria.logs(query)} == expected, LONG_S)


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("", {"scrub of tank started", "ERROR: checksum mismatch", "accepted publickey"}),
        ("error", {"ERROR: checksum mismatch"}),
        ("tank|public", {"scrub of tank started", "accepted publickey"}),
    ],
)
def test_search_in_loki_finds_lines_of_the_tenant(loki: Store, search: str, expected: set[str]) -> None:
    """Though the datasource asks all tenants."""
    query = filled(one("loki", "Log").target.expr, "nas", search)
    eventually(query, lambda: {t for stream in from_loki(loki, query) for _, t in stream.values} == expected, LONG_S)


def from_loki(loki: Store, query: str) -> list[Stream]:
    """Ask Loki as Grafana does, for the last hour."""
    words = urllib.parse.urlencode({"query": query, "limit": 100, "since": "1h", "step": "5"})
    body = post(f"{loki.url}/loki/api/v1/query_range?{words}", b"", **{"X-Scope-OrgID": "nas|web"})
    return msgspec.json.decode(body, type=Answer).data.result


def test_lines_are_counted_by_unit(victoria: Store) -> None:
    """In VictoriaLogs, over time."""
    query = filled(one("victoriametrics-logs-datasource", "Lines by unit").target.expr, "nas")

    def units() -> set[str]:
        words = urllib.parse.urlencode({"query": query, "start": f"{time.time() - 3600:.0f}", "step": "60s"})
        body = post(f"{victoria.url}/select/logsql/stats_query_range?{words}", b"")
        return {series.metric["_SYSTEMD_UNIT"] for series in msgspec.json.decode(body, type=Answer).data.result}

    eventually(query, lambda: units() == {"zfs-scrub.service", "sshd.service"}, LONG_S)
