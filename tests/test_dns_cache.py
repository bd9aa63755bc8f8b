"""The DNS cache: which answers are valid, usable, due, stored, forgotten and loaded."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.dnsclient.cache import Cache, CachedAnswer, TtlBounds
from clan_discovery.dnsclient.lookup import Absent, Found
from clan_discovery.dnsclient.message import AAAA, A, Question, Record

BOUNDS = TtlBounds(5.0, 3600.0)
NOW = 1_700_000_000.0
DB = Question("db.x", "A")


def cached(*questions: Question, ttl: int = 60) -> Cache:
    """Return a cache with an address for each question."""
    cache = Cache()
    for question in questions:
        cache.store(question, Found(("10.0.0.1",), ttl), BOUNDS, NOW)
    return cache


def test_answer_is_valid_until_its_ttl_ends() -> None:
    """Then it is due, and usable until its maximum age."""
    cache = cached(DB)
    assert cache.until(DB) == NOW + 60
    assert [cache.is_due(DB, NOW + after) for after in (0, 59, 60)] == [False, False, True]
    assert cache.get(DB, NOW + 59, max_age=0) == cache.ever(DB)
    assert cache.get(DB, NOW + 60, max_age=60) == cache.ever(DB)
    assert cache.get(DB, NOW + 61, max_age=60) is None
    assert cache.get(DB, NOW + 1e9, max_age=None) == cache.ever(DB)
    assert cache.ever(DB) == CachedAnswer("db.x", "A", NOW, NOW + 60, ("10.0.0.1",))


def test_unknown_question_is_due() -> None:
    """It has no entry in the cache."""
    cache = cached(DB)
    other = Question("db.x", "A", hosting=True)
    assert cache.is_due(other, NOW)
    assert cache.get(other, NOW, None) is None
    assert cache.until(other) is None


def test_answer_from_the_future_is_due() -> None:
    """The clock was set back; the answer is used until a server responds."""
    cache = cached(DB)
    assert cache.is_due(DB, NOW - 10)
    assert cache.get(DB, NOW - 10, max_age=1) is not None


@pytest.mark.parametrize(
    ("result", "bounds", "ttl"),
    [
        (Found(("10.0.0.1",), 1), BOUNDS, 5),
        (Found(("10.0.0.1",), 99999), BOUNDS, 3600),
        (Absent("NXDOMAIN", None), BOUNDS, 5),
        (Absent("NODATA", 30), BOUNDS, 30),
        (Absent("NXDOMAIN", 99999), BOUNDS, 300),
        (Absent("NXDOMAIN", 99999), TtlBounds(5, 20), 20),
        (Absent("NXDOMAIN", 30), TtlBounds(600, 3600), 600),
    ],
)
def test_ttls_are_bounded(result: Found | Absent, bounds: TtlBounds, ttl: float) -> None:
    """An absence is cached for 300 s at most, so that a new machine is found."""
    cache = Cache()
    cache.store(DB, result, bounds, NOW)
    assert cache.until(DB) == NOW + ttl


def test_additional_addresses_of_srv_targets_are_stored() -> None:
    """Each with its own TTL; addresses of other names are ignored."""
    cache = Cache()
    extra = (
        Record("h.x", A, 90, "10.0.0.2"),
        Record("h.x", A, 30, "10.0.0.1"),
        Record("h.x", AAAA, 60, "fd00::1"),
        Record("evil.x", A, 60, "10.6.6.6"),
    )
    srv = Question("_n._tcp.x", "SRV")
    cache.store(srv, Found(("0 0 9100 h.x",), 300, extra), BOUNDS, NOW)
    assert list(cache) == [
        CachedAnswer("_n._tcp.x", "SRV", NOW, NOW + 300, ("0 0 9100 h.x",)),
        CachedAnswer("h.x", "A", NOW, NOW + 30, ("10.0.0.1", "10.0.0.2"), hosting=True),
        CachedAnswer("h.x", "AAAA", NOW, NOW + 60, ("fd00::1",), hosting=True),
    ]
    cache = Cache()
    cache.store(Question("h.x", "A"), Found(("10.0.0.1",), 300, extra), BOUNDS, NOW)
    assert len(cache) == 1


def test_name_is_absent_if_every_type_was_proven_absent() -> None:
    """At any age; a type without an answer proves nothing."""
    cache = cached(DB)
    gone = Question("gone.x", "A")
    cache.store(gone, Absent("NXDOMAIN", 60), BOUNDS, NOW)
    assert cache.is_absent("gone.x", ["A"])
    assert not cache.is_absent("gone.x", ["A", "AAAA"])
    assert not cache.is_absent("db.x", ["A"])


def test_irrelevant_answers_are_forgotten_when_they_are_old_or_too_many() -> None:
    """A name that left the config for a moment is still known."""
    other = Question("other.x", "A")
    cache = cached(other, DB)
    cache.forget({DB}, NOW + 100, max_age=100)
    assert len(cache) == 2
    cache.forget({DB}, NOW + 101, max_age=100)
    assert [answer.question for answer in cache] == [DB]
    cache = cached(other, DB)
    cache.forget({DB}, NOW, max_age=None, most=1)
    assert [answer.question for answer in cache] == [DB]
    cache.forget((), NOW + 86401, max_age=None)
    assert len(cache) == 0


NAMES = st.sampled_from(["x", "db.x", "a\\032b._n._tcp.x", "\\255.x", ".", "1.0.0.10.in-addr.arpa"])
TEXTS = {
    "A": st.ip_addresses(v=4).map(str),
    "AAAA": st.ip_addresses(v=6).map(str),
    "PTR": NAMES,
    "SRV": st.builds("0 {} {} {}".format, st.integers(0, 65535), st.integers(0, 65535), NAMES),
    "TXT": st.text(st.characters(codec="utf-8")),
}


@given(st.data(), NAMES, st.floats(0, 2e9), st.floats(0, 2**40))
def test_stored_answer_survives_encoding(data: st.DataObject, name: str, now: float, ttl: float) -> None:
    """For every record type and TTL."""
    cache = Cache()
    for type_ in ("A", "AAAA", "PTR", "SRV", "TXT"):
        texts = data.draw(st.lists(TEXTS[type_], min_size=1, max_size=3))
        cache.store(Question(name, type_), Found(tuple(texts), int(ttl)), BOUNDS, now)
    cache.store(Question("gone.x", "A"), Absent("NODATA", None), BOUNDS, now)
    assert list(Cache.from_bytes(cache.to_bytes())) == list(cache)


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "a..b"},
        {"name": "DB.x"},
        {"name": "a b"},
        {"name": "ä.x"},
        {"name": "a" * 2000},
        {"name": 5},
        {"type": "MX"},
        {"type": "AAAA"},
        {"type": "SRV"},
        {"type": "SRV", "records": ["0 0 99999 h.x"]},
        {"type": "SRV", "records": ["0 0 -1 h.x"]},
        {"type": "SRV", "records": ["0 0 1 2 h.x"]},
        {"type": "SRV", "records": ["0 0 1 h..x"]},
        {"type": "PTR", "records": ["a b"]},
        {"records": []},
        {"records": ["10.0.0.1", "nonsense"]},
        {"records": ["10.0.0.1\n"]},
        {"records": ["10.0.0.1\0"]},
        {"records": ["10.0.0.256"]},
        {"records": "10.0.0.1"},
        {"records": [], "absent": "GONE"},
        {"absent": "NXDOMAIN"},
        {"at": -1},
        {"at": "now"},
        {"until": NOW - 1},
        {"until": NOW + 2**31},
        {"hosting": 1},
    ],
)
def test_invalid_entry_is_dropped_on_load(change: dict[str, object]) -> None:
    """The other entries are kept."""
    entry = {"name": "db.x", "type": "A", "at": NOW, "until": NOW + 60, "records": ["10.0.0.1"]}
    kept = {**entry, "name": "kept.x"}
    cache = Cache.from_bytes(json.dumps([{**entry, **change}, kept, 7, None, {}]).encode())
    assert [answer.name for answer in cache] == ["kept.x"]


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"[", b"[1", b'"x"', b"\xff", b"[" * 100_000])
def test_bytes_that_are_not_a_cache_are_refused(body: bytes) -> None:
    """The caller continues with an empty cache."""
    with pytest.raises(ValueError, match="not a DNS cache"):
        Cache.from_bytes(body)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_only_value_error(body: bytes) -> None:
    """Or they are a valid cache."""
    for tried in (body, b"[" + body + b"]", b'[{"name":"' + body):
        try:
            Cache.from_bytes(tried)
        except ValueError:
            continue
