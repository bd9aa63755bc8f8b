"""Hostile-input tests of the DNS client: false responses, garbage, silence and loops are not trusted."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.name
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.dnsclient import decoder as full
from clan_discovery.dnsclient import udp
from clan_discovery.dnsclient.cache import Cache, TtlBounds
from clan_discovery.dnsclient.lookup import Absent, Failed, Follow, Found, understand
from clan_discovery.dnsclient.message import AAAA, SRV, TYPES, A, MalformedError, Question, Response
from clan_discovery.dnsclient.resolver import ask
from clan_discovery.dnsclient.servers import open_transports, parse_server
from clan_discovery.dnsclient.wire import EncodedQuestion, Mismatch, decode_response, encode_question
from tests.support.dns import certify, knot, lying, reply

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from clan_discovery.dnsclient.message import RecordType

GOOD = "10.0.0.1"
BOUNDS = TtlBounds(5.0, 3600.0)


def one(*servers: str, name: str = "db.lan.example", type_: RecordType = "A", seconds: float = 60.0) -> object:
    """Ask these servers one question."""
    question = Question(name, type_)
    found = open_transports([parse_server(server) for server in servers], time.monotonic() + seconds)
    return ask([question], found, time.monotonic() + seconds)[question]


def good(query: dns.message.Message) -> dns.message.Message:
    """Answer with the right address."""
    return reply(query, f"{query.question[0].name} 300 A {GOOD}")


def renumbered(query: dns.message.Message) -> bytes:
    """Answer with another id and a false address."""
    answer = reply(query, f"{query.question[0].name} 300 A 10.6.6.6")
    answer.id ^= 1
    return answer.to_wire()


def of_another(query: dns.message.Message) -> bytes:
    """Answer another question, with the right id."""
    other = dns.message.make_query("evil.lan.example", "A")
    other.id = query.id
    return reply(other, "evil.lan.example. 300 A 10.6.6.6").to_wire()


def empty(_: dns.message.Message) -> bytes:
    """Answer with an empty datagram."""
    return b""


def noise(_: dns.message.Message) -> bytes:
    """Answer with bytes that are not a DNS message."""
    return b"x" * 40


def in_lower_case(query: dns.message.Message) -> bytes:
    """Answer in lower case, with a false address."""
    plain = dns.message.make_query(query.question[0].name.to_text().lower(), "A")
    plain.id = query.id
    return reply(plain, f"{plain.question[0].name} 300 A 10.6.6.6").to_wire()


@pytest.mark.parametrize("lie", [renumbered, of_another, empty, noise])
def test_mismatched_response_is_ignored(lie: Callable[[dns.message.Message], bytes]) -> None:
    """The right response, which comes after it, is used."""
    with lying(lambda query, _: [lie(query), good(query).to_wire()]) as liar:
        found = one(liar.server)
    assert isinstance(found, Found)
    assert found.texts == (GOOD,)


def test_response_in_another_case_is_retried_over_tcp() -> None:
    """An off-path attacker does not know the case (0x20). A server that folds it is asked without 0x20 from then on."""
    with lying(lambda query, stream: good(query).to_wire() if stream else in_lower_case(query)) as liar:
        found = one(liar.server)
        assert isinstance(found, Found)
        assert found.texts == (GOOD,)
        assert [stream for _, _, stream in liar.asked] == [False, True]
    with lying(lambda query, _: in_lower_case(query)) as liar:
        server = open_transports([parse_server(liar.server)], time.monotonic() + 60)
        for name in ("first.lan.example", "second.lan.example"):
            ask([Question(name, "A")], server, time.monotonic() + 60)
        assert [stream for _, _, stream in liar.asked] == [False, True, False]
        assert liar.questions[-1] == "second.lan.example"


def test_truncated_response_is_retried_over_tcp() -> None:
    """Even if garbage follows the header; if TCP fails too, the lookup fails."""

    def truncated(query: dns.message.Message) -> bytes:
        answer = reply(query)
        answer.flags |= dns.flags.TC
        return answer.to_wire() + b"\xff" * 7

    with lying(lambda query, stream: good(query).to_wire() if stream else truncated(query)) as liar:
        assert isinstance(one(liar.server), Found)
    with lying(lambda query, stream: None if stream else truncated(query)) as liar:
        found = one(liar.server, seconds=2)
        assert isinstance(found, Failed)
        assert "no response in time" in found.reason


@pytest.mark.parametrize("rcode", [1, 4])
def test_server_without_edns_is_asked_without_it(rcode: int) -> None:
    """After FORMERR or NOTIMP to a question with EDNS (1232 bytes)."""

    def answer(query: dns.message.Message, _: bool) -> bytes:  # noqa: FBT001 - the server's form
        return good(query).to_wire() if query.edns < 0 else reply(query, rcode=rcode).to_wire()

    with lying(answer) as liar:
        assert isinstance(one(liar.server), Found)
        assert liar.edns == [1232, 0]


def test_dropped_edns_questions_are_repeated_without_it() -> None:
    """There is no response; the second pass asks without EDNS."""
    with lying(lambda query, _: good(query).to_wire() if query.edns < 0 else None) as liar:
        assert isinstance(one(liar.server), Found)


def lame(query: dns.message.Message) -> bytes:
    """Answer with a referral that was not asked for."""
    answer = reply(query, flags=dns.flags.Flag(0))
    answer.authority.append(dns.rrset.from_text(".", 60, "IN", "NS", "a.root-servers.example."))
    return answer.to_wire()


def coded(rcode: int) -> Callable[[dns.message.Message], bytes]:
    """Return a responder with this response code."""
    return lambda query: reply(query, rcode=rcode).to_wire()


def cut(size: int) -> Callable[[dns.message.Message], bytes]:
    """Return a responder that truncates the right answer without setting TC."""
    return lambda query: good(query).to_wire()[:-size]


def silence(_: dns.message.Message, __: bool) -> None:  # noqa: FBT001 - the server's form
    """Do not answer."""


@pytest.mark.parametrize(
    ("no", "why"),
    [
        (coded(2), "SERVFAIL"),
        (coded(5), "REFUSED"),
        (coded(9), "NOTAUTH"),
        (lame, "lame"),
        (cut(1), "malformed"),
        (cut(20), "malformed"),
    ],
)
def test_failed_server_is_followed_by_the_next(no: Callable[[dns.message.Message], bytes], why: str) -> None:
    """Without another server, the lookup fails after one question."""
    with lying(lambda query, _: no(query)) as bad, lying(lambda query, _: good(query).to_wire()) as well:
        assert isinstance(one(bad.server, well.server), Found)
        bad.asked.clear()
        found = one(bad.server)
        assert isinstance(found, Failed)
        assert why in found.reason
        assert bad.server in found.reason
        assert len(bad.asked) == 1


def test_dead_server_is_given_up_early(tmp_path: Path) -> None:
    """A closed port at once, a silent server after the first questions in flight; the third server answers all."""
    many = [Question(f"n{i}.lan.example", "A") for i in range(2000)]
    with knot(tmp_path, {"lan.example": "* A 10.0.0.1\n"}) as well, lying(silence) as silent:
        servers = open_transports(
            [parse_server(server) for server in ("127.0.0.1:9", silent.server, well.server())], time.monotonic() + 5
        )
        found = ask(many, servers, time.monotonic() + 90)
        assert all(isinstance(result, Found) for result in found.values())
        assert len(silent.asked) < 2 * 260  # of 2000: at most those in flight at once, in each of two passes


def test_time_budget_covers_all_servers() -> None:
    """All five servers are silent."""
    with lying(silence) as silent:
        assert isinstance(one(*[silent.server] * 5, seconds=1.0), Failed)


def test_questions_are_unpredictable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Port, id and case (0x20) are random; a port is used for only a few questions."""
    monkeypatch.setattr(udp, "MAX_IN_FLIGHT", 4)  # so that ports are reused
    many = [Question(f"some-name-{i}.lan.example", "A") for i in range(400)]
    with lying(lambda query, _: good(query).to_wire()) as liar:
        ask(many, open_transports([parse_server(liar.server)], time.monotonic() + 60), time.monotonic() + 60)
    assert len(set(liar.numbers)) > 350
    assert len(set(liar.sources)) >= 400 / 16 - 2  # the kernel may give a port twice
    assert len({name.translate(str.maketrans("", "", "0123456789")) for name in liar.questions}) > 300


def test_alias_chain_is_limited() -> None:
    """Each response leads to another name."""

    def on(query: dns.message.Message, _: bool) -> bytes:  # noqa: FBT001 - the server's form
        name = query.question[0].name.to_text()
        return reply(query, f"{name} 60 CNAME x{len(liar.asked)}.lan.example.").to_wire()

    with lying(on) as liar:
        found = one(liar.server)
        assert isinstance(found, Failed)
        assert "aliases in a row" in found.reason
        assert len(liar.asked) < 20


def test_alias_loop_is_a_failure() -> None:
    """Over two responses, and in one."""
    back = {"a.x": "b.x", "b.x": "a.x"}

    def answer(query: dns.message.Message, _: bool) -> bytes:  # noqa: FBT001 - the server's form
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        return reply(query, f"{name}. 60 CNAME {back[name]}.").to_wire()

    both = ["a.x. 60 CNAME b.x.", "b.x. 60 CNAME a.x."]
    with lying(answer) as liar, lying(lambda query, _: reply(query, *both).to_wire()) as whole:
        for server in (liar.server, whole.server):
            found = one(server, name="a.x")
            assert isinstance(found, Failed)
            assert "an alias loop" in found.reason


def test_alias_chain_has_the_shortest_ttl() -> None:
    """An absence at the end of the chain counts for the name that was asked."""

    def answer(query: dns.message.Message, _: bool) -> bytes:  # noqa: FBT001 - the server's form
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        if name == "a.x":
            return reply(query, "a.x. 30 CNAME b.y.").to_wire()
        return (
            reply(query, "b.y. 300 A 10.0.0.1").to_wire() if query.question[0].rdtype == A else reply(query).to_wire()
        )

    with lying(answer) as liar:
        assert one(liar.server, name="a.x") == Found((GOOD,), 30)
        assert one(liar.server, name="a.x", type_="AAAA") == Absent("NODATA", None)


def test_late_response_causes_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A response within the first wait needs none."""
    del monkeypatch
    late = iter([0.2, 2.0, 0.0])

    def answer(query: dns.message.Message, _: bool) -> bytes:  # noqa: FBT001 - the server's form
        time.sleep(next(late))
        return good(query).to_wire()

    with lying(answer) as liar:
        assert isinstance(one(liar.server), Found)
        assert len(liar.asked) == 1
        assert isinstance(one(liar.server), Found)
        assert len(liar.asked) == 3


# Properties

NAMES = st.sampled_from(["db.lan.example", "a.x", "x", "_n._tcp.lan.example"])
KINDS: st.SearchStrategy[RecordType] = st.sampled_from(["A", "AAAA", "SRV", "PTR", "TXT"])


def check(name: str, type_: RecordType, body: bytes, question: EncodedQuestion) -> None:
    """Decode bytes, interpret them and cache the result: whatever is cached can be loaded again."""
    try:
        response = decode_response(body, question, 7)
    except MalformedError:
        return
    if isinstance(response, Mismatch):
        return
    meaning = understand(name, TYPES[type_], response)
    assert isinstance(meaning, Found | Absent | Follow | Failed)
    if isinstance(meaning, Found | Absent):
        cache = Cache()
        cache.store(Question(name, type_), meaning, BOUNDS, 0.0)
        assert list(Cache.from_bytes(cache.to_bytes())) == list(cache)


@given(NAMES, KINDS, st.binary(max_size=600), st.booleans())
def test_arbitrary_bytes_raise_only_malformed_error(name: str, type_: RecordType, tail: bytes, whole: bool) -> None:  # noqa: FBT001 - hypothesis's
    """With or without the right id and question in front."""
    query = encode_question(name, TYPES[type_], None)
    head = b"\x00\x07\x81\x80\x00\x01" if whole else b""
    body = head + tail[:6].ljust(6, b"\0") + query.wire + tail[6:] if whole else tail
    check(name, type_, body, query)


@given(st.data())
def test_damaged_response_raises_only_malformed_error(data: st.DataObject) -> None:
    """Valid responses of every type, with bytes changed, cut or appended."""
    kinds: list[tuple[str, RecordType, list[str]]] = [
        ("db.lan.example", "A", ["db.lan.example. 60 A 10.0.0.1"]),
        ("db.lan.example", "AAAA", ["db.lan.example. 60 CNAME x.y.", "x.y. 5 AAAA fd00::1"]),
        ("_n._tcp.x", "SRV", ["_n._tcp.x. 60 SRV 0 0 1 a.x.", "_n._tcp.x. 60 SRV 0 0 0 ."]),
        ("_n._tcp.x", "PTR", ["_n._tcp.x. 60 PTR a\\032b._n._tcp.x."]),
        ("t.x", "TXT", ['t.x. 60 TXT "path=/x" "\\255"']),
        ("a.b.x", "A", ["b.x. 60 DNAME b.y.", "a.b.y. 60 A 10.0.0.1"]),
    ]
    name, type_, records = data.draw(st.sampled_from(kinds))
    asked = dns.message.make_query(name, type_, use_edns=True)
    asked.id = 7
    body = bytearray(reply(asked, *records).to_wire())
    for _ in range(data.draw(st.integers(0, 4))):
        body[data.draw(st.integers(12, len(body) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(12, len(body)))
    check(
        name,
        type_,
        bytes(body[:end]) + data.draw(st.sampled_from([b"", b"\0", b"\xc0\x0c"])),
        encode_question(name, TYPES[type_], None),
    )


@given(
    st.lists(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), min_size=1, max_size=20),
    st.integers(0, 2**31 - 1),
    st.booleans(),
)
def test_fast_decoder_equals_dnspython(
    addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address],
    ttl: int,
    edns: bool,  # noqa: FBT001 - hypothesis's
) -> None:
    """For addresses whose names are compression pointers to the question."""
    version = addresses[0].version
    type_: RecordType = "A" if version == 4 else "AAAA"
    same = dict.fromkeys(str(address) for address in addresses if address.version == version)
    asked = dns.message.make_query("db.lan.example", type_, use_edns=edns)
    asked.id = 7
    answer = reply(asked)
    answer.answer.append(dns.rrset.from_text_list("db.lan.example.", ttl, "IN", type_, list(same)))
    body = answer.to_wire()
    found = decode_response(body, encode_question("db.lan.example", AAAA if version == 6 else A, None), 7)
    assert isinstance(found, Response)
    assert found == full.parse(body)
    assert {record.text for record in found.answer} == {str(ipaddress.ip_address(text)) for text in same}


@given(
    st.from_regex(r"[a-z0-9_-]{1,20}(\.[a-z0-9_-]{1,20}){0,4}", fullmatch=True), st.binary(min_size=256, max_size=256)
)
def test_0x20_changes_only_the_case(name: str, dice: bytes) -> None:
    """The encoded name stays the same otherwise."""
    query = encode_question(name, SRV, dice)
    assert query.wire.lower() == encode_question(name, SRV, None).wire
    assert dns.name.from_wire(query.wire, 0)[0] == dns.name.from_text(name)


@given(st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_cached_time_is_between_min_ttl_and_max_ttl(at: int, ttl: int) -> None:
    """For any TTL in the response."""
    for meaning in (Found((GOOD,), ttl), Absent("NXDOMAIN", ttl), Absent("NODATA", None)):
        question = Question("a.x", "A")
        cache = Cache()
        cache.store(question, meaning, BOUNDS, float(at))
        held = (cache.until(question) or 0.0) - at
        assert 5.0 <= held <= (3600.0 if isinstance(meaning, Found) else 300.0)


# Hostile servers and transports


def test_response_truncated_over_tcp_is_a_failure() -> None:
    """NSD and Unbound send this if a record set is larger than a message can be."""

    def cut_off(query: dns.message.Message, _: bool) -> bytes:  # noqa: FBT001 - the server's form
        answer = reply(query)
        answer.flags |= dns.flags.TC
        return answer.to_wire()

    with lying(cut_off) as liar:
        for server in (liar.server, f"tcp://{liar.server}"):
            found = one(server)
            assert isinstance(found, Failed)
            assert "truncated" in found.reason


def test_dead_zone_does_not_block_other_names() -> None:
    """Its names come first, and are more than can be in flight at once."""

    def half(query: dns.message.Message, _: bool) -> bytes | None:  # noqa: FBT001 - the server's form
        return None if "dead" in query.question[0].name.to_text().lower() else good(query).to_wire()

    dead = [Question(f"n{i}.dead.example", "A") for i in range(300)]
    living = [Question(f"n{i}.lan.example", "A") for i in range(50)]
    with lying(half) as liar:
        servers = open_transports([parse_server(liar.server)], time.monotonic() + 60)
        found = ask([*dead, *living], servers, time.monotonic() + 90)
    assert all(isinstance(found[question], Found) for question in living)


def test_silent_server_is_retried_after_a_refusal_of_the_next() -> None:
    """A datagram is lost, and the second server answers REFUSED."""

    def second(query: dns.message.Message, _: bool) -> bytes | None:  # noqa: FBT001 - the server's form
        return good(query).to_wire() if len(lossy.asked) > 1 else None

    with lying(second) as lossy, lying(lambda query, _: reply(query, rcode=5).to_wire()) as refusing:
        assert isinstance(one(lossy.server, refusing.server), Found)
        assert len(refusing.asked) == 1


def test_server_that_answers_one_question_per_connection() -> None:
    """New connections are opened for the other questions."""
    many = [Question(f"n{i}.lan.example", "A") for i in range(40)]
    served: dict[int, int] = {}

    def first(query: dns.message.Message, _: bool) -> bytes | None:  # noqa: FBT001 - the server's form
        source = liar.sources[-1]
        served[source] = served.get(source, 0) + 1
        return good(query).to_wire() if served[source] == 1 else None

    with lying(first) as liar:
        servers = open_transports([parse_server(f"tcp://{liar.server}")], time.monotonic() + 60)
        came = servers[0].exchange([encode_question(q.name, A, None) for q in many[:8]], 1.0, time.monotonic() + 20)
    assert sum(isinstance(reply_, Response) for reply_ in came) >= 4


@pytest.mark.parametrize("says", ["nothing", "garbage"])
def test_hanging_tls_server_leaves_time_for_the_next(
    says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts and is silent, or sends garbage instead of HTTP/2; the second server answers within the budget."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certify(tmp_path)[0]))
    with hanging(tmp_path, says) as port, lying(lambda query, _: good(query).to_wire()) as well:
        many = [Question(f"n{i}.lan.example", "A") for i in range(40)]
        for form in (f"https://127.0.0.1:{port}", f"tls://127.0.0.1:{port}"):
            until = time.monotonic() + 8
            servers = open_transports([parse_server(form), parse_server(well.server)], until)
            found = ask(many, servers, until)
            for server in servers:
                server.close()
            assert all(isinstance(result, Found) for result in found.values())


@contextlib.contextmanager
def hanging(place: Path, says: str) -> Generator[int]:
    """Listen on loopback and never answer; with "garbage", complete TLS and send invalid HTTP/2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certify(place))
    context.set_alpn_protocols(["h2"])
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    kept.append(sock)
                    if says == "garbage":
                        with contextlib.suppress(OSError):
                            kept[-1] = context.wrap_socket(sock, server_side=True)
                            kept[-1].sendall(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\xff" * 64)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for sock in kept:
                sock.close()


def test_unresolvable_server_names_are_looked_up_in_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system resolver hangs: all names are given up at the deadline."""
    asked: list[str] = []
    answered = threading.Event()

    def hang(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        answered.wait(600)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    names = [f"ns{i}.lan.example" for i in range(4)]
    try:
        found = open_transports([parse_server(name) for name in names], time.monotonic() + 0.5)
        assert sorted(asked) == names
    finally:
        answered.set()
    (lost,) = found[0].exchange([encode_question("a.x", A, None)], 1, time.monotonic() + 1)
    assert "cannot resolve the host name of this server" in str(lost)


@pytest.mark.parametrize(
    "text",
    ["tls://127.0.0.1#", "tls://127.0.0.1#.dns", "tls://127.0.0.1#a..b", "https://host?x=1", "https://host/q{?dns}#x"],
)
def test_invalid_server_is_refused(text: str) -> None:
    """When the config is read."""
    with pytest.raises(ValueError, match=r"tls://|https://"):
        parse_server(text)


def test_absence_is_accepted_only_from_authority_or_resolver() -> None:
    """Not with the SOA of another zone, and not from a server that is neither."""

    def answer(zone: str, flags: dns.flags.Flag, rcode: int) -> Callable[[dns.message.Message, bool], bytes]:
        def say(query: dns.message.Message, _: bool) -> bytes:  # noqa: FBT001 - the server's form
            made = reply(query, rcode=rcode, flags=flags)
            if zone:
                made.authority.append(dns.rrset.from_text(zone, 60, "IN", "SOA", "a. b. 1 2 3 4 60"))
            return made.to_wire()

        return say

    cases = [
        ("lan.example.", dns.flags.AA, 0, Absent("NODATA", 60)),
        ("other.example.", dns.flags.RA, 0, None),
        (".", dns.flags.Flag(0), 0, None),
        ("", dns.flags.Flag(0), 3, None),
        ("", dns.flags.RA, 3, Absent("NXDOMAIN", None)),
    ]
    for zone, flags, rcode, expected in cases:
        with lying(answer(zone, flags, rcode)) as liar:
            found = one(liar.server)
            assert found == expected if expected is not None else isinstance(found, Failed)


def test_response_without_question_is_only_a_failure() -> None:
    """Some servers do not repeat the question when they refuse it; such a response proves no absence."""
    with lying(lambda query, _: query.id.to_bytes(2, "big") + b"\x80\x05" + bytes(8)) as liar:
        found = one(liar.server)
        assert isinstance(found, Failed)
        assert "REFUSED" in found.reason
    with lying(lambda query, _: query.id.to_bytes(2, "big") + b"\x80\x83" + bytes(8)) as liar:
        assert isinstance(one(liar.server, seconds=1), Failed)
    with lying(lambda query, _: bytearray_with(good(query).to_wire(), 2, 0xA8)) as liar:  # the answer to an UPDATE
        assert isinstance(one(liar.server, seconds=1), Failed)


def bytearray_with(body: bytes, at: int, value: int) -> bytes:
    """Return bytes with one byte changed."""
    changed = bytearray(body)
    changed[at] = value
    return bytes(changed)


def test_dname_edge_cases() -> None:
    """A DNAME of the root and to the root; a name with escapes, and one that becomes too long."""

    def understood(name: str, *records: str) -> object:
        query = dns.message.make_query(name, "A")
        return understand(name, A, full.parse(reply(query, *records).to_wire()))

    assert understood("a.b.x", "x. 60 DNAME .", "a.b. 60 A 10.0.0.1") == Found((GOOD,), 60)
    assert understood("a.x", ". 60 DNAME y.", "a.x.y. 60 A 10.0.0.1") == Found((GOOD,), 60)
    assert understood("a.x", "a.x. 60 CNAME .") == Follow(".", 60)
    odd = ".".join(["\\195\\188" * 15] * 4)
    found = understood("a.x", f"x. 60 DNAME {odd}.")
    assert isinstance(found, Follow)
    long = ".".join(["y" * 60] * 4)
    assert understood("abcdefghijklmnop.x", f"x. 60 DNAME {long}.") == Failed("a DNAME makes a name that is too long")
