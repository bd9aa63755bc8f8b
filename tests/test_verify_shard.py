"""Judge targets that servers share: each must be scraped by its own servers, and by no other."""

from __future__ import annotations

from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.emit.verification import render_verification, summary
from clan_discovery.model import Frozen, Program, Shard, ShardMember, ShardState, Target, Verdict, Verification
from clan_discovery.syntax.target_file import Split
from clan_discovery.verify.jobs import scrape_jobs
from clan_discovery.verify.judge import Situation, judge
from clan_discovery.verify.match import ScraperAnswer
from clan_discovery.verify.wire import About, Scraped
from tests.support.answering import resolution_of, target_of

NOW: Final = 1_800_000_000.0
OLD: Final = NOW - 3600
HERE: Final = "/var/lib/clan-discovery/targets"
NAMES: Final = ("Mon1", "mon2", "mon3")
UNSHARED: Final = ("prometheus",)
WHOLE: Final = Split()
SPLIT: Final = Split(by_job={"node": 4})


def target(machine: str, *servers: str, job: str = "node", host: str = "10.0.0.1") -> Target:
    """Return a target of these servers."""
    return msgspec.structs.replace(target_of(job, machine, f"{host}:9100"), servers=servers)


def member(
    name: str,
    *targets: Target,
    url: str = "",
    directory: str = "",
    mtime: float = OLD,
    health: str = "up",
    error: str = "",
) -> ScraperAnswer:
    """Return the answer of a member's scraper, whose target files are in a directory of its own."""
    directory = directory or f"/srv/{name}"
    jobs = scrape_jobs(
        {
            "scrape_configs": [
                {"job_name": job, "file_sd_configs": [{"files": [f"{directory}/{job}.json"]}]}
                for job in ("node", "prometheus")
            ]
        }
    )
    active = [
        Scraped(
            discovered_labels={
                **one.labels,
                "job": one.job,
                "__address__": one.address,
                "__meta_filepath": f"{directory}/{one.job}.json",
            },
            labels={"job": one.job, "instance": one.labels["instance"]},
            scrape_pool=one.job,
            scrape_url=f"http://{one.address}/metrics",
            health=health,
            last_error=error,
        )
        for one in targets
    ]
    mtimes = {f"{directory}/{job}.json": mtime for job in ("node", "prometheus")}
    return ScraperAnswer(
        name=name, url=url or f"http://{name}:9090", about=About("prometheus", "1", mtimes), active=active, jobs=jobs
    )


def judged(
    targets: list[Target],
    *answers: ScraperAnswer,
    unasked: tuple[str, ...] = (),
    changed: float = OLD,
    split: Split = WHOLE,
    frozen: tuple[str, ...] = (),
    **states: ShardState,
) -> Verification:
    """Judge as Mon1, whose own files are in `HERE`, divided by `split`; `states` are those of members.

    Jobs that are `frozen` keep their present file.
    """
    members = tuple(ShardMember(name, state=states.get(name, "active")) for name in NAMES)
    shard = Shard(member="Mon1", members=members, replicas=2, unshared=UNSHARED)
    kept = tuple(Frozen(job, "tailnet", 0.0, None, "memory lost") for job in frozen)
    resolution = resolution_of(tuple(targets), ("node", "prometheus"))
    resolution = msgspec.structs.replace(resolution, shard=shard, frozen=kept)
    failed = [Program(name=name, url=f"http://{name}:9090", ok=False, reason="refused", fix="look") for name in unasked]
    return judge(
        Situation(
            resolution=resolution,
            answers=answers,
            unasked=failed,
            mtimes=dict.fromkeys([*split.names("node"), *split.names("prometheus")], changed),
            split=split,
            directories=(HERE,),
            now=NOW,
        )
    )


def verdicts(found: Verification) -> dict[str, tuple[str, str]]:
    """Return the verdict and the scraper of each target."""
    return {one.machine: (str(one.verdict), one.scraper) for one in found.targets}


A: Final = target("a", "Mon1", "mon2", host="10.0.0.1")
B: Final = target("b", "mon2", "mon3", host="10.0.0.2")
C: Final = target("c", "Mon1", "mon3", host="10.0.0.3")
ALL: Final = [A, B, C]


def test_each_target_at_its_servers_is_up() -> None:
    """Names of scrapers are those of members in any case; the summary counts the servers of each target."""
    found = judged(ALL, member("mon1", A, C, directory=HERE), member("MON2", A, B), member("mon3", B, C))
    assert {one.verdict for one in found.targets} == {Verdict.UP}
    assert (found.ghosts, found.other_shards, found.copies) == ((), 0, (2, 2, 2))
    assert summary(found)["replicas"] == {"2": 3}
    assert [line for line, _ in render_verification(found)][-1].startswith("3 targets: 3 up; 3 at 2 servers; asked: ")


def test_target_that_one_of_its_servers_lacks() -> None:
    """The finding is about this server, and says where to fix it; its file is in its own directory."""
    found = judged(ALL, member("Mon1", A, C, directory=HERE), member("mon2", B), member("mon3", B, C))
    assert verdicts(found) == {"a": ("not_read", "mon2"), "b": ("up", "mon2"), "c": ("up", "Mon1")}
    finding = found.targets[0]
    assert finding.reason == "/srv/mon2/node.json of mon2 does not list it"
    assert finding.fix == "on mon2: clan-discovery refresh; its `shard` may differ from this one"
    assert summary(found)["replicas"] == {"2": 2, "1": 1}
    assert "; 2 at 2 servers, 1 at 1 server; " in "".join(line for line, _ in render_verification(found))
    found = judged([A], member("Mon1", directory=HERE), member("mon2", A))
    assert verdicts(found) == {"a": ("not_read", "Mon1")}
    assert found.targets[0].fix == "clan-discovery refresh"


def test_target_at_a_server_that_is_none_of_its_own() -> None:
    """It is a duplicate, unless the list of targets has just changed."""
    answers = (member("Mon1", A, C, directory=HERE), member("mon2", *ALL), member("mon3", B, C))
    found = judged(ALL, *answers)
    assert verdicts(found) == {"a": ("up", "Mon1"), "b": ("up", "mon2"), "c": ("duplicate", "mon2")}
    assert found.targets[2].reason == (
        "scraped by mon2 in job node, and only Mon1, mon3 should; it is from the file /srv/mon2/node.json"
    )
    assert found.targets[2].fix == "on mon2: clan-discovery refresh; its shard.members may be an older list"
    assert (found.ghosts, found.copies) == ((), (2, 2, 3))
    assert verdicts(judged(ALL, *answers, changed=NOW - 5))["c"] == ("up", "Mon1")
    recent = member("mon2", *ALL, mtime=NOW - 5)
    assert verdicts(judged(ALL, answers[0], recent, answers[2]))["c"] == ("up", "Mon1")


def test_targets_of_a_job_that_keeps_its_present_file_are_no_duplicates() -> None:
    """The file may be that of an older list, and its content is not known."""
    answers = (member("Mon1", A, C, directory=HERE), member("mon2", *ALL), member("mon3", B, C))
    found = judged(ALL, *answers, frozen=("node",))
    assert {one.verdict for one in found.targets} == {Verdict.UP}


def test_server_that_has_not_read_a_change_yet() -> None:
    for changed, mtime in ((NOW - 5, OLD), (OLD, NOW - 5)):
        found = judged([A], member("Mon1", A, directory=HERE), member("mon2", mtime=mtime), changed=changed)
        assert verdicts(found) == {"a": ("pending", "mon2")}


def reading(files: list[str], *, mtime: float = OLD) -> ScraperAnswer:
    """Return the answer of mon2, whose job `node` reads these files and has no target."""
    jobs = scrape_jobs({"scrape_configs": [{"job_name": "node", "file_sd_configs": [{"files": [*files]}]}]})
    mtimes = dict.fromkeys(files, mtime)
    return msgspec.structs.replace(member("mon2"), jobs=jobs, about=About("prometheus", "1", mtimes))


@pytest.mark.parametrize(("split", "file"), [(SPLIT, "node.json"), (WHOLE, "node.*.json"), (SPLIT, "node.[0-9].json")])
def test_server_with_another_number_of_files(split: Split, file: str) -> None:
    """What another server reads is named by its own config, and never by the number of files here."""
    here = (member("Mon1", *ALL, directory=HERE),)
    found = judged([A], *here, reading([f"/srv/mon2/{file}"]), split=split)
    assert verdicts(found) == {"a": ("not_read", "mon2")}
    assert found.targets[0].reason == f"/srv/mon2/{file} of mon2 does not list it"
    assert found.targets[0].fix == "on mon2: clan-discovery refresh; its `shard` may differ from this one"
    for now in ("node.json", "node.3.json"):
        found = judged([A], *here, reading([f"/srv/mon2/{file}", f"/srv/mon2/{now}"], mtime=NOW - 5), split=split)
        assert verdicts(found) == {"a": ("pending", "mon2")}


@pytest.mark.parametrize("split", [WHOLE, SPLIT])
def test_server_without_a_job_for_the_targets(split: Split) -> None:
    """Which files it has is not known here."""
    here = member("Mon1", *ALL, directory=HERE)
    other = reading(["/srv/mon2/other.json"])
    none = msgspec.structs.replace(other, jobs=())
    cases = (
        (other, "its job node reads /srv/mon2/other.json, and none of the targets of job node"),
        (none, "no job of its config reads the targets of job node"),
    )
    for answer, reason in cases:
        found = judged([A], here, answer, split=split)
        assert verdicts(found) == {"a": ("not_read", "mon2")}
        assert found.targets[0].reason == reason
        assert found.targets[0].fix == (
            "on mon2: compare its config with clan-discovery show --format scrape-config, and reload it"
        )


def test_worst_of_its_servers_counts() -> None:
    down = member("mon3", B, C, health="down", error="refused")
    found = judged(ALL, member("Mon1", A, C, directory=HERE), member("mon2", A, B), down)
    assert verdicts(found) == {"a": ("up", "Mon1"), "b": ("down", "mon3"), "c": ("down", "mon3")}


def test_server_that_joins_must_have_it_and_one_that_leaves_need_not() -> None:
    """If it has it, it is judged."""
    one = target("a", "Mon1", "mon2", "mon3")
    two = member("Mon1", one, directory=HERE), member("mon2", one)
    found = judged([one], *two, member("mon3"), mon3="leaving")
    assert (verdicts(found), found.copies) == ({"a": ("up", "Mon1")}, (2,))
    found = judged([one], *two, member("mon3"), mon3="joining")
    assert (verdicts(found), found.copies) == ({"a": ("not_read", "mon3")}, (2,))
    states: tuple[ShardState, ...] = ("joining", "leaving")
    for state in states:
        found = judged([one], *two, member("mon3", one), mon3=state)
        assert (verdicts(found), found.copies) == ({"a": ("up", "Mon1")}, (3,))
        found = judged([one], *two, member("mon3", one, health="down", error="refused"), mon3=state)
        assert verdicts(found) == {"a": ("down", "mon3")}
    assert verdicts(judged([one], *two, member("mon3"))) == {"a": ("not_read", "mon3")}


def test_targets_of_servers_that_were_not_named_are_only_counted() -> None:
    """A scraper of another name on loopback is this server's; one elsewhere is judged as without a shard."""
    for name, url in (("Mon1", ""), ("prometheus", "http://127.0.0.1:9090"), ("x", "http://[::1]:9090")):
        found = judged(ALL, member(name, A, C, url=url, directory=HERE))
        assert verdicts(found) == {"a": ("up", name), "c": ("up", name)}
        assert (found.other_shards, found.copies) == (1, (1, 1))
    found = judged(ALL, member("central", A, C, directory=HERE))
    assert verdicts(found)["b"] == ("not_read", "central")


def test_server_that_could_not_be_asked() -> None:
    """Only its own targets are unknown, as far as no other one of their servers scrapes them."""
    found = judged(ALL, member("Mon1", A, C, directory=HERE), unasked=("mon2",))
    assert verdicts(found) == {"a": ("up", "Mon1"), "b": ("unknown", "mon2"), "c": ("up", "Mon1")}
    found = judged([C], member("mon2", A), unasked=("mon3",))
    assert verdicts(found) == {"c": ("unknown", "mon3")}
    found = judged([C], unasked=("mon2",))
    assert verdicts(found) == {"c": ("unknown", "")}
    found = judged([C], member("Mon1", C, directory=HERE), unasked=("mon2", "mon3"))
    assert verdicts(found) == {"c": ("up", "Mon1")}
    found = judged([target("lo", host="127.0.0.1")], member("Mon1", directory=HERE), unasked=("mon2",))
    assert verdicts(found) == {"lo": ("not_read", "Mon1")}


def test_unshared_jobs_and_targets_on_loopback() -> None:
    """Every server has the former. Another server has its own of the latter."""
    everywhere = target("a", job="prometheus")
    local = target("lo", host="127.0.0.1")
    here = member("Mon1", everywhere, local, directory=HERE)
    found = judged([everywhere, local], here, member("mon2", everywhere))
    assert (verdicts(found), found.copies) == ({"a": ("up", "Mon1"), "lo": ("up", "Mon1")}, (None, None))
    assert summary(found)["replicas"] == {}
    found = judged([everywhere, local], here, member("mon2"))
    assert verdicts(found) == {"a": ("not_read", "mon2"), "lo": ("up", "Mon1")}
    found = judged([everywhere, local], member("mon2", everywhere, local))
    assert (verdicts(found), found.other_shards) == ({"a": ("up", "mon2")}, 1)


SOME: Final = st.sets(st.integers(0, 2)).map(lambda chosen: [ALL[at] for at in sorted(chosen)])


@given(
    st.lists(st.tuples(st.sampled_from([*NAMES, "central"]), SOME), max_size=4, unique_by=lambda pair: pair[0]),
    st.sets(st.sampled_from(NAMES), max_size=2),
)
def test_each_target_gets_one_verdict_or_is_counted(answers: list[tuple[str, list[Target]]], unasked: set[str]) -> None:
    """It is up only if each of its servers that answered has it, and no other member does."""
    asked = {name: have for name, have in answers if name not in unasked}
    found = judged(ALL, *(member(name, *have) for name, have in asked.items()), unasked=tuple(sorted(unasked)))
    assert len(found.targets) + found.other_shards == len(ALL)
    assert len(found.copies) == len(found.targets)
    for one, copies in zip(found.targets, found.copies, strict=True):
        (wanted,) = (each for each in ALL if each.machine == one.machine)
        having = {name for name, have in asked.items() if wanted in have}
        assert copies == len(having - {"central"})
        if one.verdict is Verdict.UP:
            assert having - {"central"} == asked.keys() & set(wanted.servers)
            assert having
        else:
            assert one.reason
            assert one.fix
