"""What agents send is stored under the name that their token stands for, and under no other one."""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse
from typing import TYPE_CHECKING, Final

import pytest

from clan_discovery.emit.receive.stores import PUSHED
from tests.support.programs import eventually
from tests.support.receiver import LOGS_PATH, METRICS_PATH, Receiver, receiver
from tests.support.remote_write import HEADERS, Series, snappy, write_request

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from clan_discovery.model import ReceiverKind
    from tests.support.receiver import Store, Which

FORGED: Final = 1000
LINES: Final = {"Content-Type": "application/stream+json"}
UNITS: Final = {
    '{_SYSTEMD_UNIT="\\",machine=\\"evil\\"",machine="dino"}',
    '{_SYSTEMD_UNIT="a\\",machine=\\"evil",machine="dino"}',
}
"""Streams whose unit has a strange name."""
BEDS: Final[tuple[tuple[ReceiverKind, Which], ...]] = (
    ("nginx", "debian"),
    ("nginx", "newer"),
    ("vmauth", "newer"),
)


def post(bed: Receiver, path: str, body: bytes, token: str | None, headers: Mapping[str, str] = HEADERS) -> int:
    """Send a request, and return the status."""
    return ask(bed, "POST", path, body=body, headers=headers if token is None else {**headers, **bearer(token)})


def ask(
    bed: Receiver, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> int:
    """Send a request of any kind, and return the status."""
    connection = http.client.HTTPConnection("127.0.0.1", bed.port, timeout=60)
    try:
        connection.request(method, path, body, dict(headers or {}))
        return connection.getresponse().status
    finally:
        connection.close()


def bearer(token: str) -> dict[str, str]:
    """Return the header with a token."""
    return {"Authorization": f"Bearer {token}"}


def lines(*entries: Mapping[str, object]) -> bytes:
    """Return log entries as jsonline."""
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


def token_of(bed: Receiver, machine: str = "dino") -> str:
    """Return the token of a machine."""
    return (bed.tokens / machine).read_text().strip()


def one_series(name: str, **labels: str) -> bytes:
    """Return a request with a series of one sample, now."""
    return write_request([Series([("__name__", name), *labels.items()], [(time.time(), 1)])])


@pytest.fixture(scope="module", params=BEDS, ids="-".join)
def bed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[Receiver]:
    """Two machines."""
    kind, which = request.param
    with receiver(tmp_path_factory.mktemp("receiver"), ("dino", "evil"), kind=kind, which=which) as made:
        yield made


@pytest.fixture
def metrics(bed: Receiver) -> Store:
    """VictoriaMetrics."""
    assert bed.metrics is not None
    return bed.metrics


@pytest.fixture
def logs(bed: Receiver) -> Store:
    """VictoriaLogs."""
    assert bed.logs is not None
    return bed.logs


def assert_only_dino(store: Store, name: str, count: int) -> None:
    """Wait for the series of a name, and check that all of them are of dino, and none is of another machine."""
    eventually(f"{count} series {name} are stored", lambda: len(store.samples(name)) >= count)
    found = [series.metric for series in store.samples(name)]
    assert len(found) == count
    assert {(metric["machine"], metric["instance"]) for metric in found} == {("dino", "dino")}
    assert {metric[PUSHED] for metric in found} == {"true"}
    assert store.samples('{machine!="dino"}') == []
    assert store.samples('{instance!="dino"}') == []


def test_forged_labels_are_replaced(bed: Receiver, metrics: Store) -> None:
    """1,000 series, with other ways to say `machine` and `instance`, also twice in one series."""
    now = time.time()
    ways = [
        [("__name__", "forged"), ("instance", "evil"), ("machine", "evil")],
        [("__name__", "forged"), ("machine", "evil"), ("machine", "evil")],
        [("machine", "evil"), ("__name__", "forged"), ("machine", "dino"), ("instance", "evil")],
        [("__name__", "forged"), ("machine", "dino"), ("machine", "evil"), ("instance", "evil"), ("instance", "evil")],
        [("__name__", "forged"), ("machine", ""), ("machine", "evil"), ("machine", "evil\0"), ("machine", "evil ")],
        [("__name__", "forged"), ("zz", "1"), ("machine", "evil"), (PUSHED, "")],
        [("__name__", "forged"), (PUSHED, ""), (PUSHED, "false"), ("machine", "evil")],
        [("__name__", "forged"), ("instance", "evil"), *[("machine", "evil")] * 20],
    ]
    series = [Series([*ways[n % len(ways)], ("n", str(n))], [(now, 1)]) for n in range(FORGED)]
    assert post(bed, METRICS_PATH, write_request(series), token_of(bed)) == 204
    assert_only_dino(metrics, "forged", FORGED)


def test_many_labels_push_no_forced_one_out(bed: Receiver, metrics: Store) -> None:
    """A store that cuts long series would cut the labels that are forced, which come last."""
    counts = [*range(20, 45), 60, 100, 254, 255, 256, 1000]
    for count in counts:
        labels = [("__name__", "many"), ("count", str(count)), ("machine", "evil"), ("instance", "evil")]
        labels += [(f"label{number:05}", "x") for number in range(count)]
        series = Series(labels, [(time.time(), 1)])
        assert post(bed, METRICS_PATH, write_request([series]), token_of(bed)) == 204
    # The newer one refuses series of more than 40 labels.
    assert_only_dino(metrics, "many", {"debian": len(counts), "newer": 14}[bed.which])


@pytest.mark.parametrize(
    "query",
    [
        "extra_label=machine=evil",
        "extra_label=machine%3Devil&extra_label=instance=evil",
        "extra%5Flabel=machine=evil",
        "extra_label=machine=evil;extra_label=instance=evil",
        "extra_label[]=machine=evil&EXTRA_LABEL=machine=evil",
        "extra_filters[]={machine=%22evil%22}&extra_label=",
        "&&extra_label=machine=evil&",
        "x%23&extra_label=machine=evil",
    ],
)
def test_query_of_a_client_forces_nothing(bed: Receiver, metrics: Store, query: str) -> None:
    """Whatever the answer is."""
    name = f"asked_{abs(hash(query))}"
    status = post(bed, f"{METRICS_PATH}?{query}", one_series(name), token_of(bed))
    assert status in (204, 400)
    if status == 204:
        assert_only_dino(metrics, name, 1)
    assert metrics.samples('{machine="evil"}') == metrics.samples('{instance="evil"}') == []


def test_headers_of_a_client_force_nothing(bed: Receiver, metrics: Store) -> None:
    """Neither those that a proxy may believe, nor a form."""
    headers = {
        **HEADERS,
        "Host": "evil",
        "X-Forwarded-For": "10.0.0.1",
        "X-Original-URI": "/api/v1/write?extra_label=machine=evil",
        "X-Rewrite-URL": "/api/v1/write?extra_label=machine=evil",
        "X-Scope-OrgID": "evil",
        "Machine": "evil",
        "Connection": "close, Authorization",
    }
    assert post(bed, METRICS_PATH, one_series("headed"), token_of(bed), headers) == 204
    assert_only_dino(metrics, "headed", 1)
    form = {**HEADERS, "Content-Type": "application/x-www-form-urlencoded"}
    post(bed, METRICS_PATH, snappy(b"extra_label=machine=evil"), token_of(bed), form)
    assert metrics.samples('{machine="evil"}') == []


def assert_logs_only_of_dino(store: Store, mark: str, count: int) -> None:
    """Wait for the entries with a mark, and check that all of them are of dino."""
    eventually(f"{count} entries {mark} are stored", lambda: len(store.logs(f"mark:={mark}")) >= count)
    found = store.logs(f"mark:={mark}")
    assert len(found) == count
    assert {entry["machine"] for entry in found} == {"dino"}
    assert all(
        entry["_stream"].startswith('{machine="dino"') or 'machine="dino"' in entry["_stream"] for entry in found
    )
    assert_no_evil_logs(store)


def assert_no_evil_logs(store: Store) -> None:
    """Check that no entry is of another machine, in its field or in its stream."""
    assert store.logs("NOT machine:=dino") == []
    assert store.logs('{machine="evil"}') == []
    assert store.logs('NOT {machine="dino"}') == []


def entry(mark: str, **fields: object) -> dict[str, object]:
    """Return a log entry."""
    return {"_time": "0", "_msg": "hello", "mark": mark, "_SYSTEMD_UNIT": "a.service", **fields}


def test_forged_fields_are_replaced(bed: Receiver, logs: Store) -> None:
    """1,000 entries, with other ways to say `machine`, also twice in one entry, and as a stream."""
    ways: list[dict[str, object]] = [
        {"machine": "evil"},
        {"machine": ["evil"]},
        {"machine": {"": "evil"}},
        {"machine": ""},
        {"machine": None},
        {"_stream": '{machine="evil"}', "_stream_id": "0000000000000000"},
        {"_SYSTEMD_UNIT": '",machine="evil"'},
        {"_SYSTEMD_UNIT": 'a",machine="evil'},
        {"_SYSTEMD_UNIT": ""},
        {"machine ": "evil", "MACHINE": "evil"},
    ]
    body = lines(*[entry("forged", **ways[n % len(ways)]) for n in range(FORGED - 2)])
    body += b'{"_time":"0","_msg":"m","mark":"forged","machine":"dino","machine":"evil"}\n'
    body += b'{"machine":"evil","machin\\u0065":"evil","_time":"0","_msg":"m","mark":"forged"}\n'
    assert post(bed, LOGS_PATH, body, token_of(bed), LINES) == 200
    assert_logs_only_of_dino(logs, "forged", FORGED)


def test_many_fields_push_no_forced_one_out(bed: Receiver, logs: Store) -> None:
    """VictoriaLogs drops entries of more than some 1,000 fields, and lives."""
    for count in (10, *range(985, 1005), *range(1985, 2005), 5000):
        fields: dict[str, object] = {f"f{number}": "x" for number in range(count)}
        fields |= {"machine": "evil", **entry("many"), "machine ": "evil"}
        post(bed, LOGS_PATH, lines(fields), token_of(bed), LINES)
    long = {"n" * 130: "x", "machine": "evil" * 50_000}
    post(bed, LOGS_PATH, lines(entry("long", **long)), token_of(bed), LINES)
    assert post(bed, LOGS_PATH, lines(entry("after")), token_of(bed), LINES) == 200
    assert_logs_only_of_dino(logs, "after", 1)
    assert len(logs.logs("mark:=many")) > 1


@pytest.mark.parametrize(
    "query",
    [
        "extra_fields=machine=evil",
        "extra_fields=machine%3Devil,instance=evil&_stream_fields=instance",
        "extra%5Ffields=machine=evil",
        "_stream_fields=mark",
        "_stream_fields=&extra_fields=",
        "ignore_fields=machine&decolorize_fields=machine&preserve_json_keys=machine",
        "_time_field=mark&_msg_field=machine",
        "AccountID=7&ProjectID=7",
        "debug=1",
    ],
)
def test_query_of_a_client_changes_no_entry(bed: Receiver, logs: Store, query: str) -> None:
    """Its own time, message and stream are kept, and it is not only logged (`debug`)."""
    mark = f"asked{abs(hash(query))}"
    assert post(bed, f"{LOGS_PATH}?{query}", lines(entry(mark)), token_of(bed), LINES) == 200
    assert_logs_only_of_dino(logs, mark, 1)
    assert logs.logs(f"mark:={mark}")[0]["_stream"] == '{_SYSTEMD_UNIT="a.service",machine="dino"}'


def test_headers_of_a_client_change_no_entry(bed: Receiver, logs: Store) -> None:
    """Also in other spellings, and no entry goes to another tenant."""
    headers = {
        **LINES,
        "AccountID": "7",
        "ProjectID": "7",
        "VL-Extra-Fields": "machine=evil",
        "VL-Stream-Fields": "mark",
        "VL-Ignore-Fields": "machine",
        "VL-Time-Field": "mark",
        "VL-Msg-Field": "mark",
        "VL-Debug": "1",
    }
    assert post(bed, LOGS_PATH, lines(entry("headed")), token_of(bed), headers) == 200
    assert_logs_only_of_dino(logs, "headed", 1)
    spelt = {name.lower().replace("-", "_"): value for name, value in headers.items()}
    assert post(bed, LOGS_PATH, lines(entry("spelt")), token_of(bed), {**LINES, **spelt}) == 200
    assert_logs_only_of_dino(logs, "spelt", 1)


def multipart(**fields: str) -> tuple[bytes, dict[str, str]]:
    """Return the begin of a body that calls itself a form with these fields, and its headers.

    A store that looks for parameters in it reads 64 KiB more at most; what comes after it is left for the entries.
    """
    parts = "".join(
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    )
    body = f"{parts}--x--\r\n".encode().ljust(128 * 1024, b"\n")
    return body, {"Content-Type": "multipart/form-data; boundary=x"}


def test_body_that_calls_itself_a_form_changes_no_entry(bed: Receiver, logs: Store) -> None:
    """Go reads parameters from it, and they would win over headers."""
    body, headers = multipart(extra_fields="machine=evil", _stream_fields="machine", ignore_fields="mark")
    post(bed, LOGS_PATH, body + lines(*[entry("form") for _ in range(100)]), token_of(bed), headers)
    assert_logs_only_of_dino(logs, "form", 100)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    post(bed, LOGS_PATH, b"extra_fields=machine=evil&x=\n" + lines(entry("encoded")), token_of(bed), form)
    assert_no_evil_logs(logs)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/metrics",
        "/api/v1/query?query=up",
        "/api/v1/export?match[]={machine!=%22%22}",
        "/api/v1/import",
        "/api/v1/import/prometheus",
        "/api/v1/admin/tsdb/delete_series?match[]={machine!=%22%22}",
        "/api/v1/write/",
        "/api/v1/write/x",
        "/api/v1/write%00",
        "/api/v1/write/../import",
        "/api/v1/write%2F..%2Fimport",
        "/api/v1/write/%2e%2e/import",
        "/api/v1/import?/api/v1/write",
        "/api/v1/import/metrics/job/x/machine/evil",
        "/insert/jsonline/..%2fnative",
        "/insert/native",
        "/insert/loki/api/v1/push",
        "/insert/journald/upload",
        "/internal/insert",
        "/select/logsql/query?query=*",
        "/delete/run_task?filter=*",
        "/-/reload",
        "/flags",
        "/debug/pprof/cmdline",
        "//api/v1/import",
        "http://127.0.0.1/api/v1/import",
    ],
)
def test_other_paths_reach_no_store(bed: Receiver, metrics: Store, path: str) -> None:
    """With a valid token, by any method: vmauth has no methods, so both are tried."""
    body = b'{"metric":{"__name__":"imported","machine":"evil"},"values":[1],"timestamps":[%d]}\n' % (
        time.time() * 1000
    )
    for method in ("POST", "GET"):
        status = ask(bed, method, path, body=body, headers=bearer(token_of(bed)))
        assert status in (400, 401, 403, 405), (method, status)
    assert metrics.samples("imported") == []


@pytest.mark.parametrize("path", ["/api/v1/%77rite", "/api/v1//write", "/x/../api/v1/write", "/api%2Fv1/write"])
def test_other_spelling_of_the_path_is_forced_too(bed: Receiver, metrics: Store, path: str) -> None:
    """Where it is served at all, the name is forced."""
    name = f"spelt_{abs(hash(path))}"
    status = post(bed, f"{path}?extra_label=machine=evil", one_series(name, machine="evil"), token_of(bed))
    assert status in (204, 400, 403)
    if status == 204:
        assert_only_dino(metrics, name, 1)
    assert metrics.samples('{machine="evil"}') == []


def test_only_post_is_served_by_nginx(bed: Receiver, metrics: Store) -> None:
    """Vmauth has no way to say so; the stores answer GET with an error themselves."""
    methods = ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "post", "PROPFIND")
    if bed.kind == "nginx":
        for path in (METRICS_PATH, LOGS_PATH):
            for method in methods:
                assert ask(bed, method, path, headers=bearer(token_of(bed))) in (400, 405)
    assert metrics.samples('{machine="evil"}') == []


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer  ",
        "Bearer -",
        "Bearer default",
        "Bearer dino",
        "Bearer {token} ",
        "Bearer  {token}",
        "Bearer {token}x",
        "Bearer {short}",
        "Bearer {upper}",
        "Bearer {token},{token}",
        "Bearer wrong-wrong-wrong-wrong-wrong-wrong-wrong-wr",
        "Basic {token}",
        "{token}",
        "Bearer ~.*",
        "Bearer \\{token}",
    ],
)
def test_wrong_token_is_refused(bed: Receiver, metrics: Store, header: str | None) -> None:
    """With 401, on every path; nothing is stored. HTTP removes a space at the end of a header."""
    token = token_of(bed)
    headers = dict(HEADERS)
    if header is not None:
        headers["Authorization"] = header.format(token=token, short=token[:-1], upper=token.swapcase())
    expected = {401}
    if header == "Bearer {token} ":
        expected = {204, 401}
    for path in (METRICS_PATH, LOGS_PATH, "/", "/api/v1/query"):
        if path == METRICS_PATH or header != "Bearer {token} ":
            assert ask(bed, "POST", path, body=one_series("refused"), headers=headers) in expected
    assert all(series.metric["machine"] == "dino" for series in metrics.samples("refused"))


def test_token_of_one_machine_never_writes_as_another(bed: Receiver, metrics: Store) -> None:
    """Both machines send the same request, and each is stored under its own name."""
    for machine in ("dino", "evil"):
        assert post(bed, METRICS_PATH, one_series("own", machine="rex"), token_of(bed, machine)) == 204
    eventually("both are stored", lambda: len(metrics.samples("own")) >= 2)
    assert sorted(series.metric["machine"] for series in metrics.samples("own")) == ["dino", "evil"]
    metrics_of_evil = urllib.parse.urlencode({"match[]": '{machine="evil"}'})
    assert ask(bed, "POST", f"/api/v1/admin/tsdb/delete_series?{metrics_of_evil}", headers=bearer(token_of(bed))) in (
        400,
        403,
    )


@pytest.mark.parametrize(("kind", "which"), BEDS[1:], ids="-".join)
def test_agent_keeps_what_has_no_store_yet(kind: ReceiverKind, which: Which, tmp_path: Path) -> None:
    """The receiver stores metrics alone. Agents drop what is refused with 400, and vlagent with 404, too."""
    with receiver(tmp_path, kind=kind, which=which, logs=False) as bed:
        for path in (LOGS_PATH, "/loki/api/v1/push"):
            assert post(bed, path, b"{}", token_of(bed)) in (502, 503)
            assert post(bed, path, b"{}", "wrong-wrong-wrong-wrong") == 401
