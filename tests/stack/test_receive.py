"""What agents send is stored under the name that their token stands for, and under no other one."""

from __future__ import annotations

import http.client
import json
import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.programs import eventually
from tests.support.receiver import METRICS_PATH, Receiver, receiver
from tests.support.remote_write import HEADERS, Series, write_request

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from tests.support.receiver import Which

FORGED: Final = 1000
LOG_HEADERS: Final = {"Content-Type": "application/stream+json"}


def post(bed: Receiver, path: str, body: bytes, token: str | None, headers: Mapping[str, str] = HEADERS) -> int:
    """Send a request, and return the status."""
    connection = http.client.HTTPConnection("127.0.0.1", bed.port, timeout=60)
    given = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        connection.request("POST", path, body, {**headers, **given})
        return connection.getresponse().status
    finally:
        connection.close()


def lines(*entries: Mapping[str, object]) -> bytes:
    """Return log entries as jsonline."""
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


@pytest.fixture(scope="module", params=["debian", "newer"])
def bed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[Receiver]:
    """Nginx with two machines, in front of each VictoriaMetrics."""
    which: Which = request.param
    with receiver(tmp_path_factory.mktemp("receiver"), ("dino", "evil"), which=which) as made:
        yield made


def token_of(bed: Receiver, machine: str) -> str:
    """Return the token of a machine."""
    return (bed.tokens / machine).read_text().strip()


def test_forged_labels_are_replaced(bed: Receiver) -> None:
    """1,000 series, each with another way to say `machine` and `instance`, also twice in one series."""
    now = time.time()
    ways = [
        [("__name__", "forged"), ("instance", "evil"), ("machine", "evil")],
        [("__name__", "forged"), ("machine", "evil"), ("machine", "evil")],
        [("machine", "evil"), ("__name__", "forged"), ("machine", "dino"), ("instance", "evil")],
        [("__name__", "forged"), ("machine", "dino"), ("machine", "evil"), ("instance", "evil"), ("instance", "evil")],
        [("__name__", "forged"), ("machine", ""), ("machine", "evil")],
    ]
    series = [Series([*ways[n % len(ways)], ("n", str(n))], [(now, 1)]) for n in range(FORGED)]
    assert post(bed, METRICS_PATH, write_request(series), token_of(bed, "dino")) == 204
    assert bed.metrics is not None
    store = bed.metrics
    eventually("the series are stored", lambda: len(store.samples("forged")) >= FORGED)
    stored = [found.metric for found in store.samples("forged")]
    assert len(stored) == FORGED
    assert {(metric["machine"], metric["instance"]) for metric in stored} == {("dino", "dino")}
    assert store.samples('{machine="evil"}') == []
    assert store.samples('{instance="evil"}') == []
