"""Pushed targets: one verdict for each, from the samples in the stores that the agents write to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.emit.status import FleetView, StatusInput
from clan_discovery.model import Declared, Machine, Program, Target, Verdict, Verification, Verified
from clan_discovery.verify import verify, wire
from clan_discovery.verify.ask import EMPTY, IDENTITIES, NOW
from clan_discovery.verify.judge import Situation, judge
from clan_discovery.verify.match import ScraperAnswer
from clan_discovery.verify.pushed import StoredSamples
from clan_discovery.verify.settings import LOCAL_SCRAPERS
from tests.support.answering import Answering, Reply, answering, resolution_of, scraper, settings_of, target_of
from tests.support.growth import PARTS, assert_linear, cpu_time
from tests.support.status import report_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clan_discovery.model import Json, Patience, Resolution

WEEK: Final = 7 * 86400.0
HOUR: Final = 3600.0
AT: Final = 1_800_000_000.0
EMPTY_VECTOR: Final = Reply(b'{"status":"success","data":{"resultType":"vector","result":[]}}')
NO_TARGETS: Final = Reply(b'{"status":"success","data":{"activeTargets":[]}}')
VICTORIA: Final = Reply(b'vm_app_version{short_version="v1.131.0"} 1\n')


def pushed(machine: str, job: str = "node", patience: Patience = "always") -> Target:
    """Return a target that the agent on a machine scrapes and sends."""
    target = target_of(job, machine, "127.0.0.1:9100")
    return msgspec.structs.replace(target, delivery="push", patience=patience)


def fleet(*targets: Target) -> Resolution:
    """Return a resolution with these pushed targets alone."""
    return msgspec.structs.replace(resolution_of(()), pushed=targets)


DB: Final = pushed("db")
LAPTOP: Final = pushed("dino", patience="roaming")


def stored(
    name: str = "store",
    *,
    up: Sequence[Target] = (),
    failing: Sequence[Target] = (),
    failed: str = "",
    ages: Mapping[str, float] = {},
) -> StoredSamples:
    """Return the samples of a store; `ages` are those of node exporters, by machine."""
    values = {(target.job, target.machine): 1.0 for target in up}
    values |= {(target.job, target.machine): 0.0 for target in failing}
    known = {("node", machine): age for machine, age in ages.items()}
    return StoredSamples(name=name, up=values, ages=known, failed=failed)


def verified(*stores: StoredSamples | None, targets: Sequence[Target] = (DB,), unasked: str = "") -> Verification:
    """Judge these targets by what the stores have; None is a scraper that keeps no samples."""
    answers = [ScraperAnswer(name=store.name, url="", stored=store) for store in stores if store is not None]
    answers += [ScraperAnswer(name="agent", url="") for store in stores if store is None]
    failed = [Program(name=unasked, url="", ok=False, reason="refused", fix="start it")] if unasked else []
    return judge(Situation(resolution=fleet(*targets), answers=answers, unasked=failed, now=AT, silent_after=WEEK))


def judged(*stores: StoredSamples | None, targets: Sequence[Target] = (DB,), unasked: str = "") -> tuple[Verified, ...]:
    """Return the verdicts on these targets."""
    return verified(*stores, targets=targets, unasked=unasked).targets


def only(*stores: StoredSamples | None, target: Target = DB, unasked: str = "") -> Verified:
    """Return the verdict on one target; it must say why and what to do."""
    (found,) = judged(*stores, targets=(target,), unasked=unasked)
    if found.verdict is not Verdict.UP:
        assert found.reason
    if found.verdict.is_finding:
        assert found.fix
    return found


def test_target_with_a_sample_now_is_up() -> None:
    assert only(stored(up=[DB])) == Verified(
        job="node", machine="db", instance="db", address="127.0.0.1:9100", verdict=Verdict.UP, scraper="store"
    )


def test_exporter_that_fails_on_the_machine_is_down() -> None:
    """Also on a machine that comes and goes: it is online."""
    for target in (DB, LAPTOP):
        found = only(stored(failing=[target]), target=target)
        assert found.verdict is Verdict.DOWN
        assert found.reason == "its agent cannot scrape http://127.0.0.1:9100/metrics"
        assert found.fix == (
            f"on {target.machine}: curl -i http://127.0.0.1:9100/metrics; systemctl list-units '*exporter*'"
        )


def test_silent_machine_that_should_always_be_up_is_down() -> None:
    found = only(stored(ages={"db": 3 * HOUR}))
    assert (found.verdict, found.reason) == (Verdict.DOWN, "no sample for 3 h")
    unit = "clan-discovery-agent"
    assert found.fix == f"on db: systemctl status {unit}; journalctl -u {unit} -n 20; timedatectl"
    assert only(stored()).reason == "no sample within 7 d"


def test_silent_roaming_machine_is_down_after_its_patience_only() -> None:
    found = only(stored(ages={"dino": 3 * HOUR}), target=LAPTOP)
    assert found.verdict is Verdict.PENDING
    assert found.reason == "no sample for 3 h: its machine comes and goes; down after 7 d"
    assert only(stored(ages={"dino": WEEK - 1}), target=LAPTOP).verdict is Verdict.PENDING
    for store in (stored(ages={"dino": WEEK}), stored()):
        found = only(store, target=LAPTOP)
        assert (found.verdict, found.reason) == (Verdict.DOWN, "no sample within 7 d")


def test_agent_that_sends_other_targets_does_not_scrape_this_one() -> None:
    """Its list of targets is old, so the machine must be deployed."""
    agent, logs = pushed("db", "vmagent"), pushed("db", "vlagent")
    found = judged(stored(up=[agent]), targets=(DB, agent, logs))
    assert [target.verdict for target in found] == [Verdict.DOWN, Verdict.UP, Verdict.DOWN]
    assert "if vlagent is not listed, deploy db" in found[2].fix
    assert found[0].reason == "no sample within 7 d, though its agent sends those of other targets"
    assert "http://127.0.0.1:8429/targets; if node is not listed, deploy db" in found[0].fix


def test_agent_sends_the_metrics_of_vlagent() -> None:
    """So a silent vlagent is a silent agent, and one that the agent cannot scrape is the unit of the logs."""
    logs = pushed("db", "vlagent")
    assert "systemctl status clan-discovery-agent;" in only(stored(), target=logs).fix
    assert only(stored(failing=[logs]), target=logs).fix.endswith("; systemctl status clan-discovery-logs")


def test_any_of_several_stores_is_enough() -> None:
    """Agents need not write to all of them."""
    empty, having = stored("a"), stored("b", up=[DB])
    for stores in ((empty, having), (having, empty), (None, having)):
        assert (only(*stores).verdict, only(*stores).scraper) == (Verdict.UP, "b")
    assert only(having, unasked="c").verdict is Verdict.UP
    assert only(stored("a", failing=[DB]), having).verdict is Verdict.UP
    newest = only(stored("a", ages={"db": 9 * HOUR}), stored("b", ages={"db": 3 * HOUR}))
    assert (newest.reason, newest.scraper) == ("no sample for 3 h", "b")


def test_without_an_answer_a_target_is_unknown() -> None:
    """No scraper keeps samples; one could not be asked; one failed during the questions."""
    for stores in ((), (None,)):
        found = only(*stores)
        assert found.verdict is Verdict.UNKNOWN
        assert "keeps samples" in found.reason
        assert found.fix.startswith("verify: {scrapers: ")
    for target in (DB, LAPTOP):
        found = only(stored("a", ages={"dino": 3 * HOUR}), unasked="c", target=target)
        assert (found.verdict, found.scraper, found.fix) == (Verdict.UNKNOWN, "c", "start it")
        assert found.reason == "could not ask c, and no other store has a sample of now"
        assert only(stored("a", failed="HTTP 422"), target=target).verdict is Verdict.UNKNOWN
    assert only(stored("a", failed="HTTP 422", up=[DB])).verdict is Verdict.UP


@given(st.dictionaries(st.sampled_from(("db", "dino", "web")), st.floats(allow_nan=False)), st.booleans())
def test_any_age_has_one_verdict(ages: dict[str, float], fails: bool) -> None:  # noqa: FBT001 - hypothesis gives it
    """Also one of a store whose clock or whose answer is wrong."""
    targets = (DB, LAPTOP, pushed("web"))
    found = judged(stored(ages=ages, failed="it ended" if fails else ""), targets=targets)
    assert [target.machine for target in found] == ["db", "dino", "web"]
    for target in found:
        assert target.verdict in (Verdict.DOWN, Verdict.PENDING, Verdict.UNKNOWN)
        assert target.reason.isprintable()


def test_pulled_targets_are_not_compared_with_samples() -> None:
    """And pushed ones not with the targets of a scraper."""
    pulled = target_of("node", "nas", "10.0.0.1:9100")
    both = msgspec.structs.replace(resolution_of((pulled,)), pushed=(DB,))
    answer = ScraperAnswer(name="a", url="", stored=stored("a", up=[DB]), jobs=())
    found = judge(Situation(resolution=both, answers=[answer], now=AT, silent_after=WEEK)).targets
    assert [(target.machine, target.verdict) for target in found] == [("nas", Verdict.NOT_READ), ("db", Verdict.UP)]


def test_pushed_targets_of_another_server_have_no_verdict() -> None:
    """Nor is a store asked for their samples."""
    pulled = target_of("node", "nas", "10.0.0.1:9100")
    both = msgspec.structs.replace(resolution_of((pulled,)), pushed=(DB,))
    with answering(store_of(vector(), vector())) as server:
        settings = msgspec.structs.replace(settings_of(scraper("one", server.url)), pushed=False)
        found = verify(both, settings, datetime.now(UTC))
        assert [target.machine for target in found.targets] == ["nas"]
        assert not any(path == NOW for path, _ in server.requests)


def test_status_page_has_the_verdicts_on_pushed_targets() -> None:
    """A laptop that is offline needs no attention."""
    targets = (DB, pushed("web"), LAPTOP)
    found = verified(stored(up=[DB], ages={"dino": 3 * HOUR}), targets=targets)
    declared = Declared(machines=tuple(Machine(name=target.machine) for target in targets))
    status = FleetView(StatusInput(declared=declared, report=report_of(fleet(*targets)), verification=found)).fleet
    assert {machine.name: [str(target.verdict) for target in machine.targets] for machine in status.machines} == {
        "db": ["up"],
        "dino": ["pending"],
        "web": ["down"],
    }
    (needed,) = status.attention
    (item,) = needed.items
    assert (needed.total, needed.kind, item.machine) == (1, "down", "web")
    assert "systemctl status clan-discovery-agent" in item.fix


def vector(*values: tuple[str, float], job: str = "node") -> Reply:
    """Return the answer to a query: values by instance."""
    result: list[Json] = [
        {"metric": {"job": job, "instance": instance}, "value": [AT, f"{value:.10g}"]} for instance, value in values
    ]
    return Reply(msgspec.json.encode({"status": "success", "data": {"resultType": "vector", "result": result}}))


def store_of(up: Reply, ages: Reply, metrics: Reply = VICTORIA) -> Mapping[str, Reply]:
    """Return the answers of a store: what is up now, and when the last samples of the others were."""
    return {
        "/api/v1/targets": NO_TARGETS,
        "/metrics": metrics,
        IDENTITIES: EMPTY_VECTOR,
        EMPTY: EMPTY_VECTOR,
        NOW: up,
        "/api/v1/query": ages,
    }


def asked(server: Answering, *targets: Target, timeout: float = 20.0) -> Verification:
    """Ask a store for these pushed targets."""
    return verify(fleet(*targets), settings_of(scraper("one", server.url), timeout=timeout), datetime.now(UTC))


def queries(server: Answering) -> list[str]:
    """Return the queries for the newest samples."""
    known = (IDENTITIES, EMPTY, NOW)
    return [unquote(path) for path, _ in server.requests if "query=" in path and path not in known]


def test_store_is_asked_for_the_newest_samples_of_silent_instances_alone() -> None:
    """VictoriaMetrics has a function for it; others are asked every five minutes of the time."""
    targets = (DB, LAPTOP, pushed("web"))
    replies = dict(store_of(vector(("db", 1), ("other", 1)), vector(("dino", AT - 3 * HOUR), ("other", AT))))
    with answering(replies) as server:
        found = asked(server, *targets)
        assert [str(target.verdict) for target in found.targets] == ["up", "pending", "down"]
        (query,) = queries(server)
        assert query.endswith('max by (job, instance) (tlast_over_time(up{instance=~"dino|web"}[604800s]))')
    replies["/metrics"] = Reply(b'prometheus_build_info{version="3.5.0"} 1\n')
    with answering(replies) as server:
        assert [str(target.verdict) for target in asked(server, *targets).targets] == ["up", "pending", "down"]
        assert queries(server)[0].endswith(
            '(max_over_time(timestamp(last_over_time(up{instance=~"dino|web"}[5m]))[604800s:5m]))'
        )
    with answering(replies) as server:
        asked(server, DB)
        assert queries(server) == []


def test_scrapers_without_samples_are_not_asked_for_them() -> None:
    """A vmagent, a Prometheus in agent mode, and any scraper if no target is pushed."""
    agent = Reply(b'prometheus_build_info{version="3.5.0"} 1\nprometheus_agent_active_series 0\n')
    for metrics in (Reply(b'vm_app_version{short_version="v1"} 1\nvmagent_a 1\n'), agent):
        with answering(store_of(vector(), vector(), metrics)) as server:
            (found,) = asked(server, DB).targets
            assert (found.verdict, "keeps samples" in found.reason) == (Verdict.UNKNOWN, True)
            assert not any("query=" in path for path, _ in server.requests)
    with answering(store_of(vector(), vector())) as server:
        asked(server)
        assert not any(path == NOW for path, _ in server.requests)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(b"no", 422), "HTTP 422"),
        (Reply(b"<!doctype html>"), "an HTML page"),
        (Reply(b'{"status":"success","data":{"resultType":"matrix","result":[]}}'), "not the answer"),
        (Reply(b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{}}]}}'), "not the answer"),
        (vector(("db", float("nan"))), "'nan', not a number"),
        (Reply(vector(("db", 1)).body.replace(b'"1"', b'"1_0"')), "'1_0', not a number"),
        (Reply(vector(("db", 1)).body.replace(b'"1"', b"1")), "not the answer"),
    ],
)
def test_other_answers_of_a_store_are_unknown(reply: Reply, words: str) -> None:
    """To the first question and to the second; the program is listed with the reason."""
    for replies in (store_of(reply, vector()), store_of(vector(), reply)):
        with answering(replies) as server:
            found = asked(server, DB)
        assert [target.verdict for target in found.targets] == [Verdict.UNKNOWN]
        (program,) = found.asked
        assert words in program.reason
        assert program.reason.startswith("its samples could not be asked for: ")


def test_local_store_that_scrapes_nothing_is_asked() -> None:
    """The default programs of a server: a Prometheus that scrapes, and the store that agents write to."""
    scraped = Reply(
        b'{"status":"success","data":{"activeTargets":[{"labels":{"job":"x","instance":"y"},"scrapePool":"x",'
        b'"scrapeUrl":"http://y/metrics","health":"up"}]}}'
    )
    busy = {**store_of(vector(), vector()), "/api/v1/targets": scraped}
    with answering(busy) as one, answering(store_of(vector(("db", 1)), vector())) as other:
        first = msgspec.structs.replace(LOCAL_SCRAPERS[0], url=one.url)
        second = msgspec.structs.replace(LOCAL_SCRAPERS[1], url=other.url)
        found = verify(fleet(DB), settings_of(first, second), datetime.now(UTC))
        assert [program.name for program in found.asked] == ["prometheus", "victoriametrics"]
        assert [(target.verdict, target.scraper) for target in found.targets] == [(Verdict.UP, "victoriametrics")]
        found = verify(fleet(LAPTOP), settings_of(first, second), datetime.now(UTC))
        assert [program.name for program in found.asked] == ["prometheus"]


def test_queries_have_a_bounded_length() -> None:
    """Ten thousand silent machines are asked for in parts, each name once. Names are no expressions."""
    machines = [f"m{number:05}" for number in range(10_000)]
    with answering(store_of(vector(), vector())) as server:
        found = asked(server, *map(pushed, machines), pushed("m0.lab"), timeout=120.0)
        assert {target.verdict for target in found.targets} == {Verdict.DOWN}
        paths = [path for path, _ in server.requests if "tlast" in path]
        assert max(map(len, paths)) < 7000
        assert len(paths) < 50
        names = [name for query in queries(server) for name in query.split('"')[1].split("|")]
    assert sorted(names) == sorted([*machines, r"m0\\.lab"])


def machines_of(number: int) -> tuple[Target, ...]:
    """Return the targets of a fleet in which every second machine is roaming."""
    patience: tuple[Patience, Patience] = ("always", "roaming")
    return tuple(pushed(f"m{index:05}", patience=patience[index % 2]) for index in range(number))


def judge_time(number: int) -> float:
    """Return the time to decode the samples of a fleet and to judge it; a third is silent."""
    targets = machines_of(number)
    body = vector(*((target.machine, 1) for index, target in enumerate(targets) if index % 3)).body
    ages = {target.machine: HOUR for index, target in enumerate(targets) if index % 3 == 0}

    def work() -> None:
        up = {sample.key: sample.value for sample in wire.samples(body)}
        samples = msgspec.structs.replace(stored(ages=ages), up=up)
        assert len(judged(samples, stored("other"), targets=targets)) == number

    return cpu_time(work)


def test_verdicts_are_linear_in_the_pushed_targets() -> None:
    ten_thousand = 10_000
    assert_linear(lambda: (judge_time(ten_thousand // PARTS), judge_time(ten_thousand)))
