"""A receiver under attack: odd requests, floods, huge and slow ones; tokens that come and go; secrets stay secret."""

from __future__ import annotations

import contextlib
import http.client
import re
import secrets
import select
import socket
import ssl
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from clan_discovery.emit.fronts import render_fronts
from clan_discovery.model import FrontSettings, ReceiveLimits
from tests.stack.test_receive import BEDS, bearer, one_series, post, token_of
from tests.support.fronts import certificate, front
from tests.support.programs import eventually, get, scraper_program
from tests.support.receiver import LOGS_PATH, METRICS_PATH, receiver
from tests.support.remote_write import HEADERS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.support.receiver import Receiver, Store

HUGE: Final = 10 * 1024**3
SENT_MOST: Final = 1024**3
CHUNK: Final = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"


@pytest.fixture(scope="module", params=BEDS[1:], ids="-".join)
def bed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[Receiver]:
    """Two machines, and VictoriaMetrics alone."""
    kind, which = request.param
    place = tmp_path_factory.mktemp("receiver")
    with receiver(place, ("dino", "rex"), kind=kind, which=which, logs=False) as made:
        yield made


@pytest.fixture
def small(tmp_path: Path) -> Generator[Receiver]:
    """Nginx with low limits."""
    limits = ReceiveLimits(requests=5, burst=5, body=1024**2, connections=4)
    with receiver(tmp_path, ("dino", "rex"), logs=False, limits=limits) as made:
        yield made


@pytest.fixture
def few(tmp_path: Path) -> Generator[Receiver]:
    """Nginx that accepts four requests of a machine at a time."""
    with receiver(tmp_path, ("dino", "rex"), logs=False, limits=ReceiveLimits(requests=1000, connections=4)) as made:
        yield made


def store_of(bed: Receiver) -> Store:
    """Return VictoriaMetrics."""
    assert bed.metrics is not None
    return bed.metrics


def connected(bed: Receiver, seconds: float = 60) -> socket.socket:
    """Return a connection to the receiver."""
    return socket.create_connection(("127.0.0.1", bed.port), seconds)


def head(token: str, *lines: str, path: str = METRICS_PATH) -> bytes:
    """Return the head of a request, with further header lines."""
    fixed = [f"POST {path} HTTP/1.1", "Host: push", f"Authorization: Bearer {token}"]
    fixed += [f"{name}: {value}" for name, value in HEADERS.items()]
    return "\r\n".join([*fixed, *lines, "", ""]).encode()


def answers(bed: Receiver, sent: bytes) -> list[int]:
    """Send bytes, and return the statuses of all answers until the receiver closes the connection."""
    found = b""
    with connected(bed) as connection, contextlib.suppress(ConnectionError, TimeoutError):
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(65_536):
            found += part
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] ([0-9]{3})", found)]


def smuggled(bed: Receiver) -> list[bytes]:
    """Return requests that two programs in a row could read differently; each tries to write as `evil`."""
    token = token_of(bed)
    inner = one_series("smuggled", machine="evil")
    second = f"POST /api/v1/write?extra_label=machine=evil HTTP/1.1\r\nHost: x\r\nContent-Length: {len(inner)}\r\n\r\n"
    hidden = second.encode() + inner
    imported = b'{"metric":{"__name__":"smuggled","machine":"evil"},"values":[1],"timestamps":[1]}\n'
    other = f"POST /api/v1/import HTTP/1.1\r\nHost: x\r\nContent-Length: {len(imported)}\r\n\r\n".encode() + imported
    found: list[bytes] = []
    for payload in (hidden, other):
        chunked = b"0\r\n\r\n" + payload
        found += [
            head(token, f"Content-Length: {len(chunked)}", "Transfer-Encoding: chunked") + chunked,
            head(token, "Transfer-Encoding: chunked", "Content-Length: 5") + chunked,
            head(token, "Transfer-Encoding: xchunked", "Content-Length: 0") + payload,
            head(token, "Transfer-Encoding : chunked", "Content-Length: 0") + payload,
            head(token, "Transfer-Encoding:\x0bchunked", "Content-Length: 0") + payload,
            head(token, "Transfer-Encoding: chunked", "Transfer-Encoding: identity") + chunked,
            head(token, "Content-Length: 0", f"Content-Length: {len(payload)}") + payload,
            head(token, f"Content-Length: +{len(payload)}") + payload,
            head(token, "Content-Length: 0") + payload,
            head(token, "Content-Length: 0", "Connection: keep-alive, Content-Length") + payload,
            head(token, "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__")
            + payload,
            head(token, "Expect: 100-continue", "Content-Length: 0") + payload,
            head(token, "Content-Encoding: snappy\rAccountID: 7", "Content-Length: 0") + payload,
            head(token, "X: a\n\nPOST /api/v1/write HTTP/1.1", "Content-Length: 0") + payload,
        ]
    own = f"Content-Length: {len(inner)}"
    found += [
        head(token, "Authorization: Bearer evil", own) + inner,
        head("wrong", f"Authorization: Bearer {token}", own) + inner,
        head(token, "authorization: Basic ZXZpbDo=", own) + inner,
        head(token, "clan_discovery_machine: evil", "clan-discovery-machine: evil", own) + inner,
        head(token, own, path="http://evil/api/v1/write?extra_label=machine=evil") + inner,
        head(token, own, path="/api/v1/write HTTP/1.1\r\nX: y") + inner,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + inner,
        head(token, own).replace(b"HTTP/1.1", b"HTTP/0.9") + inner,
        head(token, own).replace(b"HTTP/1.1\r\n", b"\r\n") + inner,
    ]
    return found


def test_odd_requests_write_nothing_under_another_name(bed: Receiver) -> None:
    """Requests inside requests, two lengths, two tokens: what is stored at all is of dino."""
    store = store_of(bed)
    for sent in smuggled(bed):
        for status in answers(bed, sent):
            assert status in (200, 204, 400, 401, 404, 405, 411, 413, 417, 429, 431, 501, 502, 505), status
    assert store.samples('{machine!="dino"}') == store.samples('{__name__="smuggled",instance!="dino"}') == []
    served = re.findall(
        r'vm_http_requests_total{path="([^"]+import[^"]*)"[^}]*} ([1-9])', get(f"{store.url}/metrics").decode()
    )
    assert served == []


def test_10_gb_are_refused(small: Receiver) -> None:
    """At once if the client says so, else at the limit; other machines are served."""
    token = token_of(small)
    with connected(small) as connection:
        connection.sendall(head(token, f"Content-Length: {HUGE}") + b"x")
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
    sent = 0
    with connected(small) as connection:
        connection.sendall(head(token, "Transfer-Encoding: chunked"))
        while sent < SENT_MOST and not select.select([connection], [], [], 0)[0]:
            connection.sendall(CHUNK)
            sent += len(CHUNK)
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
    assert sent < SENT_MOST
    assert sum(file.stat().st_size for file in (small.place / "temporary").rglob("*")) < 16 * 1024**2
    assert post(small, METRICS_PATH, one_series("small"), token_of(small, "rex")) == 204


def test_flood_of_one_machine_does_not_stop_another(small: Receiver) -> None:
    """Each request of the one is answered with 204 or 429, each of the other with 204."""
    found: list[int] = []
    body = one_series("flood")

    def flood() -> None:
        found.extend(post(small, METRICS_PATH, body, token_of(small)) for _ in range(5))

    threads = [threading.Thread(target=flood) for _ in range(30)]
    for thread in threads:
        thread.start()
    others = [post(small, METRICS_PATH, one_series("calm"), token_of(small, "rex")) for _ in range(10)]
    for thread in threads:
        thread.join()
    assert others == [204] * 10
    assert set(found) == {204, 429}
    assert len(found) == 150


def test_slow_requests_of_one_machine_do_not_stop_another(few: Receiver) -> None:
    """Four connections of dino stay open with a body that never ends; more are refused, and rex is served."""
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connected(few)) for _ in range(40)]
        for connection in slow[:20]:
            connection.sendall(head(token_of(few), "Content-Length: 1000") + b"x")
        for connection in slow[20:]:  # without a token, and without an end
            connection.sendall(b"POST /api/v1/write HTTP/1.1\r\nHost: push\r\nX-Slow: ")
        assert post(few, METRICS_PATH, one_series("calm"), token_of(few, "rex")) == 204
        assert [connection.recv(12) for connection in slow[10:20]] == [b"HTTP/1.1 429"] * 10
        assert post(few, METRICS_PATH, one_series("dino"), token_of(few)) == 429
        assert post(few, METRICS_PATH, one_series("calm"), token_of(few, "rex")) == 204
        for connection in slow[20:]:
            connection.settimeout(120)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(100) == b""
    eventually("dino is served again", lambda: post(few, METRICS_PATH, one_series("dino"), token_of(few)) == 204)


def test_slow_requests_through_vmauth_need_a_store_that_takes_more(tmp_path: Path) -> None:
    """Vmauth passes a body on while it comes, and VictoriaMetrics waits for it: it must take more of them at a time."""
    flags = ["-maxConcurrentInserts=24", "-insert.maxQueueDuration=1s"]
    limits = ReceiveLimits(connections=8)
    with (
        receiver(tmp_path, ("dino", "rex"), kind="vmauth", logs=False, limits=limits, flags=flags) as bed,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(8):
            connection = stack.enter_context(connected(bed))
            connection.sendall(head(token_of(bed), "Content-Length: 1000") + b"x")

        def inserts() -> bool:
            found = re.search(
                r"^vm_concurrent_insert_current (\d+)", get(f"{store_of(bed).url}/metrics").decode(), re.MULTILINE
            )
            return found is not None and int(found[1]) == 8

        eventually("the store waits for eight bodies", inserts)
        assert post(bed, METRICS_PATH, one_series("dino"), token_of(bed)) == 429
        assert post(bed, METRICS_PATH, one_series("calm"), token_of(bed, "rex")) == 204


def test_rotated_and_revoked_tokens(bed: Receiver) -> None:
    """The old token, then both, then the new one, then none."""
    old = bed.add("rotated")
    new = secrets.token_urlsafe(32)
    body = one_series("rotated")

    def accepted(*tokens: str) -> Callable[[], bool]:
        wanted = [204 if token in tokens else 401 for token in (old, new)]
        return lambda: [post(bed, METRICS_PATH, body, token) for token in (old, new)] == wanted

    bed.reload()
    eventually("the old token is valid", accepted(old))
    bed.add("rotated", new, file="rotated.2")
    bed.reload()
    eventually("both are valid", accepted(old, new))
    (bed.tokens / "rotated").unlink()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", bed.port, timeout=60)) as kept:
        kept.request("POST", METRICS_PATH, body, {**HEADERS, **bearer(old)})
        answer = kept.getresponse()
        assert (answer.status, answer.read()) == (204, b"")
        bed.reload()
        eventually("the new token is valid", accepted(new))
        with contextlib.suppress(http.client.HTTPException, OSError):  # the receiver may have closed it
            kept.request("POST", METRICS_PATH, body, {**HEADERS, **bearer(old)})
            assert kept.getresponse().status == 401
    (bed.tokens / "rotated.2").write_text("")
    bed.reload()
    eventually("none is valid", accepted())
    assert post(bed, METRICS_PATH, body, token_of(bed)) == 204
    (bed.tokens / "rotated.2").unlink()
    bed.agents.remove("rotated")


def is_accepted(bed: Receiver, token: str) -> bool:
    """Tell whether a token is valid."""
    return post(bed, METRICS_PATH, one_series("accepted"), token) == 204


def has_grown(counts: list[int], before: int) -> bool:
    """Tell whether each count is two larger than the smallest one was."""
    return min(counts) >= before + 2


def test_reload_loses_no_request(bed: Receiver) -> None:
    """Four writers, a request that is slower than the reload, and five reloads."""
    stop = threading.Event()
    statuses: list[int] = []
    counts = [0, 0, 0, 0]

    def write(number: int) -> None:
        while not stop.is_set() and counts[number] < 10_000:
            name = f"reload_{number}_{counts[number]}"
            statuses.append(post(bed, METRICS_PATH, one_series(name), token_of(bed, ("dino", "rex")[number % 2])))
            counts[number] += 1
            time.sleep(0.06)  # below the limit of requests

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    body = one_series("slow")
    with connected(bed) as slow:
        slow.sendall(head(token_of(bed), f"Content-Length: {len(body)}", "Connection: close") + body[:10])
        for thread in threads:
            thread.start()
        for number in range(5):
            token, before = bed.add(f"more{number}"), min(counts)
            bed.reload()
            eventually("it is loaded", partial(is_accepted, bed, token))
            eventually("all of them go on", partial(has_grown, counts, before))
        slow.sendall(body[10:])
        assert slow.recv(100).startswith(b"HTTP/1.1 204")
    stop.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {204}
    store = store_of(bed)
    eventually("every sample is stored", lambda: len(store.samples('{__name__=~"reload_.*"}')) == sum(counts))


def test_no_secret_is_shown(bed: Receiver) -> None:
    """Neither in a log, nor in the words or the environment of a process, nor in an answer."""
    tokens = [token_of(bed, machine) for machine in ("dino", "rex")]
    for wrong in (f"{tokens[0]}x", tokens[0].swapcase()):
        assert post(bed, METRICS_PATH, b"broken", wrong) == 401
        assert post(bed, f"{METRICS_PATH}?x=1", b"broken", wrong) == 401
    assert post(bed, METRICS_PATH, b"broken", tokens[0]) == 400
    with connected(bed) as connection:
        connection.sendall(head(tokens[0], "Content-Length: 0", path=LOGS_PATH))
        assert tokens[0].encode() not in connection.recv(10_000)
    bed.reload()
    files = [*bed.place.rglob("log"), *Path("/proc").glob("[0-9]*/cmdline"), *Path("/proc").glob("[0-9]*/environ")]
    assert len(files) > 2
    for file in files:
        with contextlib.suppress(OSError):  # a process that has ended
            body = file.read_bytes()
            assert not any(token[:20].encode() in body for token in tokens), file
    assert bed.file.stat().st_mode & 0o777 == 0o600


def test_agents_use_tls_beside_fronts(tmp_path: Path) -> None:
    """The same nginx serves fronts: neither gets the requests of the other."""
    files = certificate(tmp_path)
    settings = FrontSettings(kind="nginx", tls="files", certificate=files["certificate"], key=files["key"])
    with receiver(tmp_path / "bed", logs=False, front=settings) as bed:
        fronts = render_fronts([front("grafana.home.example.org", "127.0.0.1:9")], bed.front)
        fronts = fronts.replace("default_server", "").replace(f"listen 127.0.0.1:{bed.port};", "listen 127.0.0.1:1;")
        assert "ssl_certificate" in fronts
        context = ssl.create_default_context(cafile=files["certificate"])
        context.check_hostname = False
        connection = http.client.HTTPSConnection("127.0.0.1", bed.port, timeout=60, context=context)
        connection.request("POST", METRICS_PATH, one_series("secure"), {**HEADERS, **bearer(token_of(bed))})
        assert connection.getresponse().status == 204
        connection.close()
        assert post(bed, METRICS_PATH, one_series("clear"), token_of(bed)) == 400
        assert store_of(bed).samples("clear") == []


def test_old_vmauth_refuses_the_file_with_a_reason(tmp_path: Path) -> None:
    """It knows neither limits nor headers of a user, so it would be weaker."""
    scraper_program("vmauth", "debian")
    with (
        pytest.raises(pytest.fail.Exception, match="max_concurrent_requests not found"),
        receiver(tmp_path, kind="vmauth", which="debian", logs=False),
    ):
        pass
