"""Judge targets: exactly one verdict for each, also for mixed, odd and contradictory answers of several scrapers."""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import partial
from typing import Final

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.model import Frozen, Program, Resolution, Target, Verdict, Verification, Verified
from clan_discovery.syntax.target_file import Split
from clan_discovery.verify.jobs import ScrapeJob, scrape_jobs
from clan_discovery.verify.judge import Situation, judge
from clan_discovery.verify.match import ScraperAnswer
from clan_discovery.verify.wire import About, DroppedTarget, Scraped
from tests.support.answering import resolution_of, target_of

NOW: Final = 1_800_000_000.0
OLD: Final = NOW - 3600
DIRECTORY: Final = "/var/lib/clan-discovery/targets"
FLEET: Final = tuple(
    target_of(job, machine, f"10.0.0.{number}:{port}")
    for job, port in (("node", 9100), ("postgres", 9187))
    for number, machine in enumerate(("db", "web", "nas", "attic"), 1)
)


def config(
    *jobs: str,
    rules: list[dict[str, object]] | None = None,
    directory: str = DIRECTORY,
    files: list[str] | None = None,
) -> tuple[ScrapeJob, ...]:
    """Return the jobs of a scraper that reads our target files."""
    entries = [
        {
            "job_name": job,
            "file_sd_configs": [{"files": [f"{directory}/{name}.json" for name in files or [job]]}],
            "relabel_configs": rules or [],
        }
        for job in jobs
    ]
    return scrape_jobs(msgspec.json.decode(msgspec.json.encode({"scrape_configs": entries})))


def scraped(target: Target, *, address: str = "", pool: str = "", bare: bool = False, **changes: str) -> Scraped:
    """Return a target as a scraper shows it; `bare`: without the discovered labels."""
    address = address or target.address
    discovered = {
        "job": target.job,
        "__address__": address,
        "__meta_filepath": f"{DIRECTORY}/{target.job}.json",
        **target.labels,
    }
    found = Scraped(
        discovered_labels={} if bare else discovered,
        labels={"job": pool or target.job, "instance": target.labels["instance"], "machine": target.machine},
        scrape_pool=pool or target.job,
        scrape_url=f"http://{address}/metrics",
        health="up",
    )
    return msgspec.structs.replace(found, **changes)


def answer(
    active: list[Scraped] | None = None,
    *,
    name: str = "a",
    jobs: tuple[ScrapeJob, ...] | None = None,
    kind: str = "prometheus",
    mtimes: dict[str, float] | None = None,
    identities: dict[tuple[str, str], frozenset[str]] | None = None,
    empty: frozenset[tuple[str, str]] = frozenset(),
    dropped: tuple[DroppedTarget, ...] = (),
    members: int = 0,
) -> ScraperAnswer:
    """Return the answer of a scraper; by default it reads both jobs, and has read the newest files."""
    if mtimes is None:
        mtimes = {f"{DIRECTORY}/{job}.json": OLD for job in ("node", "postgres")}
    return ScraperAnswer(
        name=name,
        url=f"http://{name}",
        about=About(kind, "1", mtimes),
        active=active or [],
        dropped=dropped,
        jobs=config("node", "postgres") if jobs is None else jobs,
        identities=identities or {},
        empty=empty,
        members=members,
    )


def judged(
    answers: list[ScraperAnswer],
    targets: tuple[Target, ...] = FLEET,
    *,
    unasked: tuple[Program, ...] = (),
    resolution: Resolution | None = None,
    changed: float = OLD,
) -> Verification:
    """Judge a fleet whose target files changed an hour ago."""
    return judge(
        Situation(
            resolution=resolution or resolution_of(targets, ("node", "postgres")),
            answers=answers,
            unasked=unasked,
            mtimes={"node": changed, "postgres": changed},
            directories=(DIRECTORY,),
            now=NOW,
        )
    )


def only(found: Verification) -> Verified:
    """Return the verdict on the only target; it must say why and what to do."""
    (target,) = found.targets
    if target.verdict is not Verdict.UP:
        assert target.reason
    if target.verdict.is_finding:
        assert target.fix
    return target


DB: Final = FLEET[0]


def test_healthy_fleet_is_up() -> None:
    for bare in (False, True):
        found = judged([answer([scraped(target, bare=bare) for target in FLEET])])
        assert {target.verdict for target in found.targets} == {Verdict.UP}
        assert found.ghosts == ()


def test_pair_that_scrapes_everything_is_healthy() -> None:
    pair = [answer([scraped(target) for target in FLEET], name=name) for name in ("a", "b")]
    assert {target.verdict for target in judged(pair).targets} == {Verdict.UP}


def test_worst_of_a_pair_counts() -> None:
    down = scraped(DB, health="down", last_error="connection refused")
    found = only(judged([answer([scraped(DB)], name="a"), answer([down], name="b")], (DB,)))
    assert (found.verdict, found.scraper, found.reason) == (Verdict.DOWN, "b", "connection refused")


def test_second_scraper_that_reads_the_file_should_have_the_target() -> None:
    """One that reads another job, or that drops the target by a rule, need not."""
    stale = answer(name="b", mtimes={f"{DIRECTORY}/node.json": OLD - 10})
    found = only(judged([answer([scraped(DB)]), stale], (DB,)))
    assert (found.verdict, found.scraper) == (Verdict.NOT_READ, "b")
    rules: list[dict[str, object]] = [{"source_labels": ["machine"], "regex": "db", "action": "drop"}]
    for jobs in (config("postgres"), config("node", rules=rules)):
        found = only(judged([answer([scraped(DB)]), answer(name="b", jobs=jobs)], (DB,)))
        assert found.verdict is Verdict.UP


def test_file_from_the_future_does_not_hide_a_finding() -> None:
    assert only(judged([answer()], (DB,), changed=NOW + 86400)).verdict is Verdict.NOT_READ


def test_reason_is_one_bounded_line() -> None:
    """The error is the scraper's, which quotes what a hostile exporter answers."""
    error = "\x1b[2J\n" + "x" * 100_000 + " http://me:secret@db/"
    found = only(judged([answer([scraped(DB, health="down", last_error=error)])], (DB,)))
    assert len(found.reason) < 1000
    assert found.reason.isprintable()
    assert "secret" not in found.reason


def test_job_that_nobody_reads_is_not_read() -> None:
    found = only(judged([answer(jobs=config("other"))], (DB,)))
    assert found.verdict is Verdict.NOT_READ
    assert f"no job of its config reads {DIRECTORY}/node.json" in found.reason


def test_job_that_reads_another_directory_names_both() -> None:
    found = only(judged([answer(jobs=config("node", directory="/etc/old"))], (DB,)))
    assert found.verdict is Verdict.NOT_READ
    assert "/etc/old/node.json" in found.reason
    assert f"{DIRECTORY}/node.json" in found.reason
    assert found.fix == f"file_sd_configs: [{{files: ['{DIRECTORY}/node.json']}}]"


def test_file_that_was_not_read_or_lists_no_target() -> None:
    """By the time that Prometheus tells, in whole seconds."""
    path = f"{DIRECTORY}/node.json"
    cases: tuple[tuple[dict[str, float], str], ...] = (
        ({}, "it could not read"),
        ({path: OLD - 10}, "it has read an older"),
        ({path: float(int(OLD))}, "does not list it"),
        ({f"/other/mount{path}": OLD}, "does not list it"),
    )
    for mtimes, words in cases:
        found = only(judged([answer(mtimes=mtimes)], (DB,), changed=OLD + 0.9))
        assert (found.verdict, words in found.reason) == (Verdict.NOT_READ, True), found
    found = only(judged([answer(mtimes={path: OLD})], (DB,), changed=NOW - 5))
    assert found.verdict is Verdict.PENDING


def test_split_job_of_which_one_file_is_not_read() -> None:
    """Each target is judged by its own file."""
    split = Split(by_job={"node": 4})
    nodes = [target for target in FLEET if target.job == "node"]
    files = {target.machine: f"{DIRECTORY}/{split.name('node', target.machine)}.json" for target in nodes}
    unread = files["db"]
    others = {machine for machine, file in files.items() if file != unread}
    assert others
    names = [split.name("node", machine) for machine in others]
    cases: tuple[tuple[tuple[ScrapeJob, ...], dict[str, float], str], ...] = (
        (config("node", files=names), {}, f"its job node reads {DIRECTORY}/"),
        (config("node", files=["node.*"]), {}, f"it could not read {unread}"),
        (config("node", files=["node.*"]), {unread: OLD - 10}, f"it has read an older {unread}"),
        (config("node", files=["node.*"]), {unread: OLD}, f"{unread} does not list it"),
        (
            config("node"),
            {},
            f"its job node reads {DIRECTORY}/node.json, and its targets are in {DIRECTORY}/node.*",
        ),
    )
    for jobs, mtimes, reason in cases:
        active = [scraped(target) for target in nodes if target.machine in others]
        found = judge(
            Situation(
                resolution=resolution_of(tuple(nodes), ("node",)),
                answers=[answer(active, jobs=jobs, mtimes=mtimes)],
                mtimes=dict.fromkeys(split.names("node"), OLD),
                split=split,
                directories=(DIRECTORY,),
                now=NOW,
            )
        )
        verdicts = {target.machine: target.verdict for target in found.targets}
        assert {machine for machine, verdict in verdicts.items() if verdict is Verdict.UP} == others
        (db,) = (target for target in found.targets if target.machine == "db")
        assert (db.verdict, db.reason[: len(reason)]) == (Verdict.NOT_READ, reason)


def test_dropped_target_names_the_rule() -> None:
    rules: list[dict[str, object]] = [
        {"source_labels": ["machine"], "regex": "(.+)", "target_label": "host"},
        {"source_labels": ["host"], "regex": "d.*", "action": "drop"},
    ]
    found = only(judged([answer(jobs=config("node", rules=rules))], (DB,)))
    assert found.verdict is Verdict.DROPPED
    assert "relabel rule 2 of job node drops it: {action: drop, source_labels: [host], regex: d.*}" in found.reason


def test_rule_of_vmagent_alone_is_believed_if_the_target_is_listed_as_dropped() -> None:
    jobs = config("node", rules=[{"if": '{machine="db"}', "action": "drop"}])
    listed = DroppedTarget(discovered_labels=dict(scraped(DB).discovered_labels))
    found = only(judged([answer(jobs=jobs, kind="vmagent", dropped=(listed,))], (DB,)))
    assert (found.verdict, "cannot be evaluated here" in found.reason) == (Verdict.DROPPED, True)
    found = only(judged([answer(jobs=jobs, kind="vmagent")], (DB,)))
    assert found.verdict is Verdict.NOT_READ


def test_older_address_is_elsewhere() -> None:
    for bare in (False, True):
        found = only(judged([answer([scraped(DB, address="10.9.9.9:9100", bare=bare)])], (DB,)))
        assert found.verdict is Verdict.ELSEWHERE
        assert "10.9.9.9:9100" in found.reason
        assert DB.address in found.reason
    found = only(judged([answer([scraped(DB, address="10.9.9.9:9100")])], (DB,), changed=NOW - 3))
    assert found.verdict is Verdict.PENDING


def test_address_that_a_rule_rewrites_is_not_elsewhere() -> None:
    """As for the blackbox exporter: the address becomes a parameter, and one exporter has all targets."""
    rules: list[dict[str, object]] = [
        {"source_labels": ["__address__"], "target_label": "__param_target"},
        {"source_labels": ["__param_target"], "target_label": "instance"},
        {"target_label": "__address__", "replacement": "blackbox:9115"},
    ]
    nodes = FLEET[:4]
    active = [
        msgspec.structs.replace(
            scraped(target, bare=True),
            labels={"job": "node", "instance": target.address},
            scrape_url=f"http://blackbox:9115/probe?target={target.address}",
        )
        for target in nodes
    ]
    found = judged([answer(active, jobs=config("node", rules=rules))], nodes)
    assert {target.verdict for target in found.targets} == {Verdict.UP}
    assert found.ghosts == ()
    with_labels = [
        msgspec.structs.replace(one, discovered_labels=scraped(target).discovered_labels)
        for one, target in zip(active, nodes, strict=True)
    ]
    found = judged([answer(with_labels, jobs=config("node", rules=rules))], nodes)
    assert {target.verdict for target in found.targets} == {Verdict.UP}


def test_second_scrape_is_a_duplicate() -> None:
    """In another job at the same URL, in a second pool of ours, and also at an older address."""
    manual = Scraped(
        discovered_labels={"__address__": DB.address, "job": "manual"},
        labels={"job": "manual", "instance": DB.address},
        scrape_pool="manual",
        scrape_url=f"http://{DB.address}/metrics",
        health="up",
    )
    for other in (manual, scraped(DB, pool="node-long"), scraped(DB, address="10.9.9.9:9100")):
        found = only(judged([answer([scraped(DB), other])], (DB,)))
        assert found.verdict is Verdict.DUPLICATE
        assert "again in job" in found.reason
    other_scraper = answer([manual], name="b", jobs=config("postgres"))
    found = only(judged([answer([scraped(DB)], name="a"), other_scraper], (DB,)))
    assert found.verdict is Verdict.UP


def test_targets_that_are_declared_at_one_url_are_no_duplicates() -> None:
    twins = (DB, target_of("mirror", "db", DB.address))
    found = judged([answer([scraped(target) for target in twins])], twins)
    assert {target.verdict for target in found.targets} == {Verdict.UP}


def test_name_of_the_machine_that_answers() -> None:
    """Case, a domain and aliases do not matter; the name of a machine that nobody declares is not judged."""
    aliases = msgspec.structs.replace(resolution_of((DB,)), aliases={"old-db": "db"})
    cases = {
        "db": Verdict.UP,
        "DB": Verdict.UP,
        "db.lan.example.org.": Verdict.UP,
        "Old-DB.lan": Verdict.UP,
        "web": Verdict.WRONG_MACHINE,
        "db2": Verdict.WRONG_MACHINE,
    }
    for name, verdict in cases.items():
        one = answer([scraped(DB)], identities={("node", "db"): frozenset({name})})
        assert only(judged([one], (DB,), resolution=aliases)).verdict is verdict, name
    listed = msgspec.structs.replace(DB, labels={k: v for k, v in DB.labels.items() if k != "__meta_clan_role"})
    one = answer([scraped(listed)], identities={("node", "db"): frozenset({"web"})})
    assert only(judged([one], (listed,))).verdict is Verdict.UP


def test_scrape_without_samples_is_empty() -> None:
    no_samples = msgspec.structs.replace(scraped(DB), last_samples_scraped=0)
    assert only(judged([answer([no_samples])], (DB,))).verdict is Verdict.EMPTY
    assert only(judged([answer([scraped(DB)], empty=frozenset({("node", "db")}))], (DB,))).verdict is Verdict.EMPTY
    by_rules = msgspec.structs.replace(answer([scraped(DB)]), emptied=frozenset({("node", "db")}))
    emptied = only(judged([by_rules], (DB,)))
    assert emptied.verdict is Verdict.EMPTY
    assert "metric_relabel_configs" in emptied.reason


def test_target_that_was_not_scraped_yet_is_pending() -> None:
    assert only(judged([answer([scraped(DB, health="unknown")])], (DB,))).verdict is Verdict.PENDING
    assert only(judged([answer([scraped(DB, health="down")])], (DB,))).verdict is Verdict.PENDING


def test_scraper_that_could_not_be_asked_makes_absent_targets_unknown() -> None:
    """Those that another scraper has are judged."""
    b = Program(name="b", url="http://b", ok=False, reason="connection refused")
    found = judged([answer([scraped(target) for target in FLEET[:4]])], unasked=(b,))
    assert [target.verdict for target in found.targets] == [Verdict.UP] * 4 + [Verdict.UNKNOWN] * 4
    assert {target.verdict for target in judged([], unasked=(b,)).targets} == {Verdict.UNKNOWN}


def test_ghosts_say_where_they_come_from() -> None:
    gone = target_of("node", "gone", "10.0.0.99:9100")
    by_hand = Scraped(
        discovered_labels={"__address__": "10.0.0.98:9100", "job": "node"},
        labels={"job": "node", "instance": "10.0.0.98:9100"},
        scrape_pool="node",
        scrape_url="http://10.0.0.98:9100/metrics",
        health="up",
    )
    foreign = msgspec.structs.replace(
        by_hand, discovered_labels={"job": "own"}, scrape_pool="own", labels={"job": "own", "instance": "x"}
    )
    old_labels = {**scraped(gone).discovered_labels, "__meta_filepath": "/etc/old/node.json"}
    old_file = msgspec.structs.replace(scraped(gone), discovered_labels=old_labels)
    healthy = [scraped(target) for target in FLEET]
    found = judged([answer([*healthy, by_hand, foreign, old_file, scraped(gone)])])
    assert [ghost.instance for ghost in found.ghosts] == ["10.0.0.98:9100", "gone", "gone"]
    static, old, ours = found.ghosts
    assert "static_configs" in static.reason
    assert "static_configs of job node" in static.fix
    assert "/etc/old/node.json" in old.reason
    assert "take /etc/old/node.json out of file_sd_configs" in old.fix
    assert ours.fix == "clan-discovery refresh"


def test_job_that_keeps_its_file_is_not_compared_with_the_new_targets() -> None:
    frozen = Frozen("node", "tailnet", OLD, None, "the state is lost")
    kept = msgspec.structs.replace(resolution_of(FLEET[:2]), frozen=(frozen,))
    gone = target_of("node", "gone", "10.0.0.99:9100")
    found = judged([answer([scraped(DB, address="10.9.9.9:9100"), scraped(gone)])], resolution=kept)
    assert [target.verdict for target in found.targets] == [Verdict.UP, Verdict.PENDING]
    assert found.ghosts == ()


def sharded(number: int, of: int, name: str, targets: tuple[Target, ...] = FLEET) -> ScraperAnswer:
    """Return the answer of a Prometheus that keeps one shard."""
    rules: list[dict[str, object]] = [
        {"source_labels": ["__address__"], "modulus": of, "target_label": "__tmp", "action": "hashmod"},
        {"source_labels": ["__tmp"], "regex": number, "action": "keep"},
    ]
    jobs = config("node", "postgres", rules=rules)
    return answer([scraped(target) for target in targets if shard_of(target, of) == number], jobs=jobs, name=name)


def shard_of(target: Target, of: int) -> int:
    """Return the shard of a target, as Prometheus computes it (model/relabel: MD5, the last 8 bytes)."""
    return int.from_bytes(hashlib.md5(target.address.encode(), usedforsecurity=False).digest()[8:], "big") % of


def test_shards_that_were_not_asked_are_counted_only() -> None:
    shares = Counter(shard_of(target, 2) for target in FLEET)
    assert min(shares.values()) > 0
    found = judged([sharded(0, 2, "a")])
    assert {target.verdict for target in found.targets} == {Verdict.UP}
    assert (len(found.targets), found.other_shards) == (shares[0], shares[1])
    found = judged([sharded(0, 2, "a"), sharded(1, 2, "b")])
    assert [target.verdict for target in found.targets] == [Verdict.UP] * len(FLEET)
    assert found.other_shards == 0


def test_shard_that_nobody_serves_is_dropped() -> None:
    found = judged([sharded(0, 2, "a"), sharded(0, 2, "b")])
    assert found.other_shards == 0
    dropped = [target for target in found.targets if target.verdict is Verdict.DROPPED]
    assert [target.address for target in dropped] == [t.address for t in FLEET if shard_of(t, 2) == 1]
    assert "no scraper serves shard 1 of 2 of job node: a keeps 0, b keeps 0" in dropped[0].reason


def test_cluster_of_vmagent_leaves_targets_to_its_members() -> None:
    one = answer([scraped(DB)], kind="vmagent", members=2)
    assert judged([one]).other_shards == len(FLEET) - 1
    two = [one, answer([scraped(DB)], kind="vmagent", members=2, name="b")]
    assert Counter(target.verdict for target in judged(two).targets) == {Verdict.UP: 1, Verdict.DROPPED: 7}


JOBS: Final = st.sampled_from(["node", "postgres", "own", ""])
TEXT: Final = st.sampled_from(
    ["db", "web", "nas", "gone", "", "10.0.0.1:9100", "10.0.0.2:9187", "\x1b[2J", "http://[", "é"]
)
LABELS: Final = st.dictionaries(
    st.sampled_from(
        ["job", "instance", "machine", "__address__", "__meta_filepath", "__meta_url", "__meta_clan_observed", "x"]
    ),
    st.one_of(TEXT, JOBS, st.sampled_from([f"{DIRECTORY}/node.json", "/etc/old/postgres.json", "http://h/sd/node"])),
)
ODD: Final = st.builds(
    Scraped,
    discovered_labels=LABELS,
    labels=LABELS,
    scrape_pool=JOBS,
    scrape_url=st.one_of(TEXT, st.sampled_from(["http://10.0.0.1:9100/metrics", "https://[::1", "http://a:b:c/"])),
    last_error=TEXT,
    health=st.sampled_from(["up", "down", "unknown", "nonsense"]),
    last_samples_scraped=st.sampled_from([None, 0, 7]),
)
GOOD: Final = st.builds(
    scraped,
    st.sampled_from(FLEET),
    address=st.sampled_from(["", "10.9.9.9:9100"]),
    bare=st.booleans(),
    health=st.sampled_from(["up", "down", "unknown"]),
)
RULES: Final = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "action": st.sampled_from(
                ["replace", "keep", "drop", "hashmod", "labelmap", "labeldrop", "keepequal", "no"]
            ),
            "source_labels": st.lists(st.sampled_from(["machine", "__address__", "__tmp"]), max_size=2),
            "regex": st.sampled_from(["db", "(.*)", ".+", "0", "(", "(a+)+$"]),
            "target_label": st.sampled_from(["__tmp", "instance", "__address__", ""]),
            "replacement": st.sampled_from(["$1", "x:1", ""]),
            "modulus": st.sampled_from([0, 1, 2, 3]),
        },
    ),
    max_size=3,
)


def configured(jobs: list[str], rules: list[dict[str, object]]) -> tuple[ScrapeJob, ...]:
    """Return the jobs of a config with these rules."""
    return config(*jobs, rules=rules)


ANSWER: Final = st.builds(
    answer,
    st.lists(st.one_of(ODD, GOOD), max_size=12),
    name=st.sampled_from(["a", "b", "c"]),
    jobs=st.builds(configured, st.lists(JOBS, max_size=3), RULES),
    kind=st.sampled_from(["prometheus", "vmagent", ""]),
    mtimes=st.dictionaries(st.sampled_from([f"{DIRECTORY}/node.json", "x"]), st.floats(0, NOW)),
    members=st.sampled_from([0, 2]),
)


@given(st.lists(ANSWER, max_size=3), st.booleans(), st.sampled_from([OLD, NOW - 1, NOW + 3600]))
def test_each_target_gets_exactly_one_verdict(answers: list[ScraperAnswer], some_failed: bool, changed: float) -> None:  # noqa: FBT001
    """Whatever the scrapers answer: one verdict, or the target is of another shard."""
    unasked = (Program(name="z", url="http://z", ok=False, reason="no"),) if some_failed else ()
    found = judged(answers, unasked=unasked, changed=changed)
    keys = [(target.job, target.instance) for target in found.targets]
    assert len(set(keys)) == len(keys)
    assert len(keys) + found.other_shards == len(FLEET)
    for target in found.targets:
        assert bool(target.reason) or target.verdict in (Verdict.UP, Verdict.DOWN)
        assert f"{target.reason}{target.fix}".isprintable()
        if target.verdict is Verdict.UP:
            assert any(one.health == "up" for answer_ in answers for one in answer_.active)
        if target.verdict is Verdict.UNKNOWN:
            assert some_failed or not answers
    for ghost in found.ghosts:
        assert f"{ghost.reason}{ghost.fix}".isprintable()


@given(st.permutations(list(FLEET)), st.booleans(), st.integers(1, 3))
def test_healthy_answers_give_no_finding(order: list[Target], bare: bool, copies: int) -> None:  # noqa: FBT001
    """In any order, with and without discovered labels, from any number of scrapers."""
    answers = [answer([scraped(target, bare=bare) for target in order], name=f"s{number}") for number in range(copies)]
    found = judged(answers)
    assert {target.verdict for target in found.targets} == {Verdict.UP}
    assert (found.ghosts, found.other_shards) == ((), 0)


def http_sd(url: str = "http://127.0.0.1:9942/sd/node") -> tuple[ScrapeJob, ...]:
    """Return a job that reads our list over HTTP."""
    return scrape_jobs({"scrape_configs": [{"job_name": "node", "http_sd_configs": [{"url": url}]}]})


def over_http(target: Target, url: str = "http://127.0.0.1:9942/sd/node") -> Scraped:
    """Return a target as Prometheus shows it if it is from a list over HTTP."""
    labels = {**target.labels, "job": "clan", "__address__": target.address, "__meta_url": url}
    return msgspec.structs.replace(scraped(target), discovered_labels=labels)


def judged_without_files(found: ScraperAnswer, *targets: Target, changed: float) -> Verification:
    """Judge targets that are only served."""
    return judge(
        Situation(
            resolution=resolution_of(targets, ("node",)),
            answers=[found],
            mtimes={"node": changed},
            served="http://127.0.0.1:9942",
            now=NOW,
        )
    )


def test_list_over_http_is_polled() -> None:
    """Until it is read again, a new target is pending, and one that has gone is no ghost."""
    gone = over_http(target_of("node", "gone", "10.0.0.99:9100"))
    found = answer([gone], jobs=http_sd())
    fresh = judged_without_files(found, DB, changed=NOW - 61)
    assert only(fresh).verdict is Verdict.PENDING
    assert fresh.ghosts == ()
    late = judged_without_files(found, DB, changed=OLD)
    assert only(late).verdict is Verdict.NOT_READ
    assert only(late).fix == "curl -i http://127.0.0.1:9942/sd/node; see its log"
    assert [ghost.fix for ghost in late.ghosts] == [only(late).fix]


def test_without_files_the_fix_is_a_url() -> None:
    missing = only(judged_without_files(answer(jobs=config("other")), DB, changed=OLD))
    assert missing.fix.endswith("{job_name: node, http_sd_configs: [{url: 'http://127.0.0.1:9942/sd/node'}]}")
    other = http_sd("http://127.0.0.1:9942/other")
    assert only(judged_without_files(answer(jobs=other), DB, changed=OLD)).fix in missing.fix


def test_duplicate_of_our_own_list_is_a_job_too_many() -> None:
    """Neither a refresh nor another list ends it."""
    pair = [scraped(DB, pool="copy"), scraped(DB)]
    found = only(judged([answer(pair, jobs=config("node", "copy"))], (DB,)))
    assert found.verdict is Verdict.DUPLICATE
    assert found.fix == f"take {DIRECTORY}/node.json out of file_sd_configs of job copy"
    pair[0] = msgspec.structs.replace(over_http(DB), scrape_pool="copy")
    found = only(judged([answer(pair)], (DB,)))
    assert found.fix == "take http://127.0.0.1:9942/sd/node out of http_sd_configs of job copy"
    labels = {"__address__": DB.address, "__meta_consul_service": "node"}
    pair[0] = msgspec.structs.replace(pair[0], discovered_labels=labels)
    found = only(judged([answer(pair)], (DB,)))
    assert found.fix == "remove it from consul_sd_configs of job copy"


def test_list_of_all_jobs_tells_exporters_apart() -> None:
    """Two exporters of a machine have the same instance. One that is no longer declared is a ghost, no duplicate."""
    url = "http://127.0.0.1:9942/sd"
    node = target_of("node", "db", "10.0.0.1:9100", __meta_clan_exporter="node")
    gone = target_of("postgres", "db", "10.0.0.1:9187", __meta_clan_exporter="postgres")
    jobs = scrape_jobs({"scrape_configs": [{"job_name": "clan", "http_sd_configs": [{"url": url}]}]})
    pair = [msgspec.structs.replace(over_http(target, url), scrape_pool="clan") for target in (node, gone)]
    for changed, ghosts in ((OLD, ["postgres"]), (NOW - 5, [])):
        resolution = resolution_of((node,), ("node", "postgres"))
        found = judged([answer(pair, jobs=jobs)], resolution=resolution, changed=changed)
        assert only(found).verdict is Verdict.UP
        assert [ghost.job for ghost in found.ghosts] == ghosts


def test_job_whose_last_target_is_gone_has_ghosts() -> None:
    resolution = resolution_of((DB,), ("node", "postgres"))
    found = judged([answer([scraped(target) for target in (DB, FLEET[4])])], resolution=resolution)
    assert [ghost.job for ghost in found.ghosts] == ["postgres"]


def test_name_that_no_host_can_have_is_no_alias() -> None:
    """The machine at the address chose it; a fix is copied into a shell or a config."""
    key = ("node", "db")
    for name, alias in (("web1", "aliases: {web1: db}"), ("x}, $(reboot): {", "")):
        found = only(judged([answer([scraped(DB)], identities={key: frozenset({name})})], (DB,)))
        assert found.verdict is Verdict.WRONG_MACHINE
        assert found.fix == "clan-discovery explain db" + (f"; if it is that machine: {alias}" if alias else "")


def test_rules_are_not_evaluated_when_the_time_is_over() -> None:
    """A config may have a million of them for each target."""
    drop = {"source_labels": ["job"], "regex": "node", "action": "drop"}
    files = [{"files": [f"{DIRECTORY}/node.json"]}]
    jobs = scrape_jobs({"scrape_configs": [{"job_name": "node", "file_sd_configs": files, "relabel_configs": [drop]}]})
    for is_left, verdict in ((True, Verdict.DROPPED), (False, Verdict.NOT_READ)):
        situation = Situation(
            resolution=resolution_of(FLEET),
            answers=(ScraperAnswer(name="one", url="http://127.0.0.1", jobs=jobs),),
            directories=(DIRECTORY,),
            now=NOW,
            in_time=partial(bool, is_left),
        )
        assert judge(situation).targets[0].verdict is verdict
