"""DNS with many names: questions are limited per second, spread over the TTL, and bounded in number and time."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.backends.dns import backend
from clan_discovery.dnsclient import stream, udp
from clan_discovery.dnsclient.cache import Cache, TtlBounds
from clan_discovery.dnsclient.lookup import Absent, Found
from clan_discovery.dnsclient.message import TYPES, Question
from clan_discovery.dnsclient.pace import Pace
from clan_discovery.dnsclient.resolver import ask
from clan_discovery.dnsclient.servers import open_transports, parse_server
from clan_discovery.dnsclient.transport import NoResponse
from clan_discovery.dnsclient.wire import encode_question
from tests.support.dns import NameServer, knot, lying, nsd, reply, unbound
from tests.test_dns import Home, addresses

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    import dns.message

    from clan_discovery.model import Json

    Serve = Callable[..., AbstractContextManager[NameServer]]

MANY = [f"m{number:03}.many.example" for number in range(1000)]
ZONE = {"many.example": "".join(f"m{n:03} A 10.2.{n >> 8}.{n & 255}\n" for n in range(len(MANY)))}
NOW = 1_800_000_000.0
BOUNDS = TtlBounds(5.0, 3600.0)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return a config's directory."""
    return Home(tmp_path)


def good(query: dns.message.Message, _: bool) -> bytes:  # noqa: FBT001 - the server's form
    """Answer with an address."""
    return reply(query, f"{query.question[0].name} 300 A 10.0.0.1").to_wire()


def lists(server: str, names: list[str], **more: Json) -> dict[str, Json]:
    """Return a DNS backend that lists these names."""
    return {"lan": {"names": [*names], "type": "A", "job": "node", "servers": [server], "timeout": "1m", **more}}


# The rate


@given(st.integers(1, 100_000), st.lists(st.integers(1, 50), min_size=2, max_size=50))
def test_reservations_keep_the_rate(rate: int, counts: list[int]) -> None:
    """However many are reserved at once, the questions before the last reservation have had their time."""
    pace = Pace(rate)
    start = time.monotonic()
    sent = 0
    for count in counts:
        wait = pace.reserve(count)
        at = time.monotonic() + wait  # or a little earlier
        assert sent <= rate * (at - start + 0.05) + 1e-6 * rate
        sent += count


@pytest.mark.parametrize("form", ["{}", "tcp://{}"])
def test_a_server_is_not_asked_faster_than_the_rate(form: str) -> None:
    """Waiting questions are all asked in the end."""
    with lying(good) as liar:
        (transport,) = open_transports([parse_server(form.format(liar.server))], time.monotonic() + 60, rate=100)
        wanted = [encode_question(f"n{number}.x", TYPES["A"], None) for number in range(80)]
        start = time.monotonic()
        received = transport.exchange(wanted, 30.0, start + 60)
        took = time.monotonic() - start
    assert [result for result in received if isinstance(result, NoResponse)] == []
    assert took >= (80 - 5) / 100 - 0.05  # at most five at once
    assert len(liar.asked) == 80


def test_second_responses_to_questions_that_wait_do_no_harm() -> None:
    """They come on sockets that are kept for the next question."""

    def twice(query: dns.message.Message, wrong: bool) -> list[bytes]:  # noqa: FBT001 - the server's form
        return [good(query, wrong)] * 2

    with lying(twice) as liar:
        (transport,) = open_transports([parse_server(liar.server)], time.monotonic() + 60, rate=100)
        wanted = [encode_question(f"n{number}.x", TYPES["A"], None) for number in range(40)]
        received = transport.exchange(wanted, 30.0, time.monotonic() + 60)
    assert [result for result in received if isinstance(result, NoResponse)] == []


def test_https_is_not_asked_faster_than_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, with a real server."""
    with unbound(tmp_path, ZONE) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        parsed = parse_server(server.server("https"))
        (transport,) = open_transports([parsed], time.monotonic() + 60, rate=100)
        wanted = [encode_question(name, TYPES["A"], None) for name in MANY[:30]]
        start = time.monotonic()
        try:
            received = transport.exchange(wanted, 30.0, start + 60)
        finally:
            transport.close()
        took = time.monotonic() - start
    assert [result for result in received if isinstance(result, NoResponse)] == []
    assert took >= (30 - 1) / 100 - 0.05


@pytest.mark.parametrize("rate", ["0", "-1", "2.5", "1000001", "fast"])
def test_invalid_rate_is_refused(home: Home, rate: str, run: Callable[..., object]) -> None:
    """With the place and the value."""
    (home.place / "config.yaml").write_text(
        f"backends: {{dns: {{lan: {{names: [a.x], job: node, max_rate: {rate}}}}}}}\n"
    )
    done = run("check", "-c", home.place / "config.yaml")
    assert "max_rate" in str(getattr(done, "err", ""))
    assert getattr(done, "code", 0) == 2


# Over the TTL


def test_a_long_list_is_spread_over_its_ttl() -> None:
    """First answers end at different times; later ones last for the whole TTL, so the parts stay apart."""
    cache = Cache()
    questions = [Question(f"n{number}.x", "A") for number in range(10_000)]
    for question in questions:
        cache.store(question, Found(("10.0.0.1",), 300, ()), BOUNDS, NOW, parts=20)
    ends = Counter(answer.until - NOW for answer in cache)
    assert sorted(ends) == [30.0 * part for part in range(1, 11)]  # no part is due less than 30 s after another one
    assert max(ends.values()) < 1.2 * len(questions) / 10
    for question in questions:
        until = cache.until(question)
        assert until is not None
        cache.store(question, Found(("10.0.0.1",), 300, ()), BOUNDS, until + 5, parts=2)
        assert cache.until(question) == until + 5 + 300


def test_answers_that_come_late_are_spread_again() -> None:
    """After an outage all names are due at once."""
    cache = Cache()
    questions = [Question(f"n{number}.x", "A") for number in range(100)]
    for at in (NOW, NOW + 3600):
        for question in questions:
            cache.store(question, Absent("NXDOMAIN", 300), BOUNDS, at, parts=10)
        assert len({answer.until for answer in cache}) == 10


@pytest.mark.parametrize(("parts", "ttl"), [(1, 300), (10, 59)])
def test_short_lists_and_short_ttls_are_not_spread(parts: int, ttl: int) -> None:
    """Every part costs a refresh cycle."""
    cache = Cache()
    for number in range(50):
        cache.store(Question(f"n{number}.x", "A"), Found(("10.0.0.1",), ttl, ()), BOUNDS, NOW, parts=parts)
    assert {answer.until for answer in cache} == {NOW + ttl}


def test_after_the_first_cycle_no_cycle_asks_for_all_names(home: Home, tmp_path: Path) -> None:
    """Two parts, half a TTL apart."""
    names = MANY[:410]
    asked: Counter[str] = Counter()
    most = 0
    with knot(tmp_path, ZONE) as server:
        plan = home.write(lists(server.server(), names, max_rate=400))
        done = home.round(plan)
        start = home.now.timestamp()
        while done.due is not None and done.due < start + 300:
            done = home.round(plan, after=done.due - home.now.timestamp())
            cached = Cache.from_bytes(done.own["lan"])
            new = [answer.name for answer in cached if answer.at == home.now.timestamp()]
            most = max(most, len(new))
            asked.update(new)
    assert most < 0.7 * len(names)
    assert set(asked) <= set(names)
    assert len(asked) > 0.3 * len(names)
    assert max(asked.values()) == 1


# Limits


def test_a_cycle_ends_in_time_and_each_one_gets_further(home: Home) -> None:
    """Names that were not asked say so, and keep what they had."""
    names = [f"n{number}.x" for number in range(100)]
    found: list[int] = []
    with lying(good) as liar:
        plan = home.write(lists(liar.server, names, max_rate=60, timeout="500ms"))
        first = home.round(plan)
        for _ in range(100):  # two more, unless the machine is slow
            found.append(len(addresses(home.round(plan, after=10).resolution)))
            if found[-1] == len(names):
                break
    assert len(addresses(first.resolution)) < len(names)
    assert found == sorted(found)
    assert found[-1] == len(names)
    (belief,) = first.degraded
    assert "the time was used up" in belief.why
    assert first.due is not None


@pytest.mark.parametrize("form", ["{}", "tcp://{}"])
def test_names_are_asked_in_another_order_each_time(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If there is never time for all, it is not the last ones that are never asked."""
    monkeypatch.setattr(stream, "_CONNECTIONS", 1)  # its questions arrive in the order in which they are sent
    monkeypatch.setattr(udp, "MAX_IN_FLIGHT", 1)
    questions = [Question(f"n{number}.x", "A") for number in range(100)]
    orders: list[list[str]] = []
    with lying(good) as liar:
        for _ in range(2):
            (transport,) = open_transports([parse_server(form.format(liar.server))], time.monotonic() + 60)
            ask(questions, [transport], time.monotonic() + 60)
            orders.append([name for name, _, _ in liar.asked])
            liar.asked.clear()
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]


def test_a_server_that_becomes_silent_does_not_hold_a_cycle(home: Home) -> None:
    """It answers a few of many questions: the cycle ends in time, and what was found stays."""
    answered: set[str] = set()

    def tired(query: dns.message.Message, wrong: bool) -> bytes | None:  # noqa: FBT001 - the server's form
        name = query.question[0].name.to_text().lower()
        if len(answered) >= 20 and name not in answered:
            return None
        answered.add(name)
        return good(query, wrong)

    names = [f"n{number}.x" for number in range(1000)]
    with lying(tired) as liar:
        plan = home.write(lists(liar.server, names, timeout="1s"))
        first = home.round(plan)
        second = home.round(plan, after=10)
    assert first.degraded
    assert second.degraded
    assert addresses(first.resolution).items() <= addresses(second.resolution).items()


def test_a_zone_that_lists_names_without_end_fills_no_memory(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of the config are asked for, and the ones above the limit are reported as failed."""
    monkeypatch.setattr(backend, "_MORE", 40)

    def endless(query: dns.message.Message, _: bool) -> bytes:  # noqa: FBT001 - the server's form
        name, type_ = query.question[0].name, query.question[0].rdtype.name
        if type_ == "PTR":
            return reply(query, *(f"{name} 300 PTR i{number}.{name}" for number in range(20))).to_wire(max_size=65535)
        if type_ == "SRV" and name.to_text().lower().startswith("i"):
            return reply(query, *(f"{name} 300 SRV 0 0 9100 h{number}.{name}" for number in range(20))).to_wire(
                max_size=65535
            )
        if type_ == "SRV":
            return reply(query).to_wire()
        return good(query, False)  # noqa: FBT003 - the server's form

    with lying(endless) as liar:
        lan: Json = {"names": ["_node._tcp.x"], "job": "node", "servers": [f"tcp://{liar.server}"], "timeout": "1m"}
        plan = home.write({"lan": lan, "more": lists(liar.server, ["a.x"], job="systemd")["lan"]})
        sizes: list[int] = []
        done = home.round(plan)
        for _ in range(3):
            done = home.round(plan, after=10)
            sizes.append(len(Cache.from_bytes(done.own["lan"])))
    assert sizes[0] == sizes[-1] <= 120, "of 441 that the zone lists"
    assert "systemd a.x" in addresses(done.resolution)
    assert any("questions follow from the answers" in belief.why for belief in done.degraded)


# Real servers


@pytest.mark.parametrize(("serve", "count", "rate"), [(knot, 1000, 5000), (unbound, 1000, 5000), (nsd, 250, 150)])
def test_many_names_are_all_found(home: Home, tmp_path: Path, serve: Serve, count: int, rate: int) -> None:
    """Over UDP. By default, NSD answers a client at most 200 questions per second."""
    with serve(tmp_path, ZONE) as server:
        done = home.round(home.write(lists(server.server(), MANY[:count], max_rate=rate)))
    assert len(addresses(done.resolution)) == count
    assert done.degraded == ()
