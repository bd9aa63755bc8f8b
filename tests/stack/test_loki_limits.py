"""What a real Loki with the configuration of the role `logs` stores after an outage, and with wrong clocks."""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.nix import ROOT, text, value
from tests.support.programs import eventually, free_port, get, program, running
from tests.support.receiver import victoria_logs

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

_DAY_S: Final = 86_400
_TENANT: Final = {"X-Scope-OrgID": "dino", "Content-Type": "application/json"}


@pytest.fixture(scope="module")
def loki(tmp_path_factory: pytest.TempPathFactory) -> Generator[int]:
    """Loki with a retention of 30 days; its port."""
    port, place = free_port(), tmp_path_factory.mktemp("loki")
    settings = f'port = {port}; retention = "30d"; address = "127.0.0.1"; data = {text(str(place / "data"))};'
    config = place / "loki.json"
    config.write_text(json.dumps(value(f"import {ROOT}/nix/nixos/stack/loki.nix {{ {settings} }}")))
    command = [victoria_logs("loki"), f"-config.file={config}", f"-server.grpc-listen-port={free_port()}"]
    with running([program("setpriv"), "--pdeathsig", "KILL", *command], place / "log") as process:

        def ready() -> bool:
            assert process.poll() is None, (place / "log").read_text()[-2000:]
            return bool(get(f"http://127.0.0.1:{port}/ready"))

        eventually("Loki is ready", ready, 120)
        yield port


def ask(port: int, method: str, path: str, body: str = "") -> tuple[int, bytes]:
    """Send a request, and return the status and the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, _TENANT)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def push(port: int, unit: str, lines: Sequence[tuple[float, str]]) -> int:
    """Send lines with their times as one stream, and return the status."""
    values = [[str(round(at * 1e6) * 1000), line] for at, line in lines]
    body = {"streams": [{"stream": {"unit": unit}, "values": values}]}
    return ask(port, "POST", "/loki/api/v1/push", json.dumps(body))[0]


def stored(port: int, unit: str) -> list[str]:
    """Return the lines of a unit that are stored, the oldest first."""
    found: set[tuple[int, str]] = set()
    # Loki refuses a query for more than 30 days.
    for start in (time.time() - 32 * _DAY_S, time.time() - 16 * _DAY_S):
        span = {"start": f"{start:.0f}000000000", "end": f"{start + 20 * _DAY_S:.0f}000000000"}
        query = urllib.parse.urlencode({"query": f'{{unit="{unit}"}}', "limit": 5000, **span})
        status, body = ask(port, "GET", f"/loki/api/v1/query_range?{query}")
        assert status == 200, body
        found |= {(int(at), line) for stream in json.loads(body)["data"]["result"] for at, line in stream["values"]}
    return [line for _, line in sorted(found)]


def test_it_takes_weeks_of_a_journal_and_a_clock_that_is_a_day_wrong(loki: int) -> None:
    """All lines are of one stream. The clock is a day ahead for a while, then a day behind."""
    now = time.time()
    days = (-31, -29, -8, 0, 0.9, 0.1, -0.1, 1.5, -1)
    statuses = {shift: push(loki, "clock", [(now + shift * _DAY_S, f"{shift} days")]) for shift in days}
    refused = {
        -31: "older than the retention",
        1.5: "more than a day ahead",
        -1: "more than 25 hours behind the newest line of the stream",
    }
    assert statuses == {shift: 400 if shift in refused else 204 for shift in days}
    wanted = ["-29 days", "-8 days", "-0.1 days", "0 days", "0.1 days", "0.9 days"]
    eventually("the lines are stored", lambda: stored(loki, "clock") == wanted)


def test_a_long_line_is_cut_and_the_rest_of_its_request_is_stored(loki: int) -> None:
    now = time.time()
    assert push(loki, "long", [(now - 2, "before"), (now - 1, "x" * 300_000), (now, "after")]) == 204

    def whole() -> bool:
        lines = stored(loki, "long")
        return [line[:6] for line in lines] == ["before", "xxxxxx", "after"] and len(lines[1]) < 300_000

    eventually("all lines are stored", whole)
