"""The loss guard: losses count within each group of a backend, and over all groups together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.backends.dns.findings import snapshot as dns_snapshot
from clan_discovery.backends.dns.reading import Reading, View, Wanted
from clan_discovery.dnsclient.cache import Cache, TtlBounds
from clan_discovery.dnsclient.lookup import Absent, Found
from clan_discovery.dnsclient.message import Question
from clan_discovery.model import Endpoint, Exclusion, Exporter, Failure, Group, Node, Snapshot
from clan_discovery.resolve.memory import Memory
from clan_discovery.resolve.trust import Trust, believe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from clan_discovery.model import Belief

NODE = Exporter(type="node", port=9100)


def answer(
    machines: Mapping[str, Iterable[str]],
    listed: Mapping[str, int] | None = None,
    failures: Mapping[str, tuple[Failure, ...]] | None = None,
) -> Snapshot:
    """Return a snapshot of machines and listed targets by group."""
    listed, failures = listed or {}, failures or {}
    names = [*machines, *listed]
    return Snapshot(
        backend="t",
        nodes=tuple(Node(m, ("10.0.0.1",), group=group) for group, own in machines.items() for m in own),
        endpoints=tuple(
            Endpoint(host=f"10.0.0.{i}", exporter=NODE, machine=f"{group}{i}", because="", backend="t", group=group)
            for group, count in listed.items()
            for i in range(count)
        ),
        excluded=tuple(Exclusion(name=group, reason="no_port", detail="", by="t", group=group) for group in names),
        groups={name: Group(failures.get(name, ())) for name in names},
    )


def after(*answers: Snapshot, trust: Trust | None = None) -> Belief:
    """Return the belief after several answers."""
    memory = Memory()
    for now, given_answer in enumerate(answers[:-1]):
        memory = believe(given_answer, memory, trust or Trust(), fingerprint="x", now=float(now))[1]
    return believe(answers[-1], memory, trust or Trust(), fingerprint="x", now=100.0)[0]


def machines_of(belief: Belief) -> set[str]:
    """Return the names of the machines that are used."""
    return {node.name for node in belief.snapshot.nodes} if belief.snapshot is not None else set()


def test_a_small_list_is_guarded_beside_a_large_one() -> None:
    """The loss of one group is held; the other group is updated."""
    large = [f"m{i}" for i in range(100)]
    belief = after(answer({"large": large, "small": "abcd"}), answer({"large": [*large[1:], "new"], "small": ""}))
    assert belief.state == "held"
    assert belief.why == "4 machines would become 0"
    assert machines_of(belief) == {*large[1:], "new", *"abcd"}


def test_many_groups_of_one_machine_are_guarded_together() -> None:
    """As with single names in DNS: each group alone is too small for the guard."""
    names = "abcdef"
    belief = after(answer({name: [name] for name in names}), answer({name: [] for name in names}))
    assert (belief.state, machines_of(belief)) == ("held", set(names))
    belief = after(answer({name: [name] for name in names}), answer({name: [name] * (name < "d") for name in names}))
    assert (belief.state, machines_of(belief)) == ("fresh", {"a", "b", "c"})


def test_a_removed_group_is_no_loss() -> None:
    """A name was removed from the config."""
    belief = after(answer({"gone": "abcdef", "kept": "g"}), answer({"kept": "g"}))
    assert (belief.state, machines_of(belief)) == ("fresh", {"g"})


def test_a_machine_in_another_group_is_not_lost() -> None:
    """It moved from one list to another."""
    belief = after(answer({"one": "abcd", "two": ""}), answer({"one": "", "two": "abcd"}))
    assert (belief.state, machines_of(belief)) == ("fresh", set("abcd"))


def test_listed_targets_are_counted_and_not_compared() -> None:
    """A pool with all members replaced has no loss; a nearly empty one is held."""
    assert after(answer({}, {"pool": 6}), answer({}, {"pool": 3})).state == "fresh"
    belief = after(answer({}, {"pool": 6}), answer({}, {"pool": 2}))
    assert (belief.state, belief.why) == ("held", "of 6 targets that it lists, 2 would be left")


def test_a_machine_with_a_failed_lookup_is_not_lost() -> None:
    """The belief is partial. Other losses of the group still count."""
    unknown = {"book": tuple(Failure(f"{m}.x", "SERVFAIL", m) for m in "abcd")}
    belief = after(answer({"book": "abcdef"}), answer({"book": "ef"}, failures=unknown))
    assert belief.state == "partial"
    one = {"book": (Failure("a.x", "SERVFAIL", "a"),)}
    assert after(answer({"book": "abcdef"}), answer({"book": "b"}, failures=one)).state == "held"
    failed = {"pool": (Failure("h.x", "SERVFAIL"),)}
    assert after(answer({}, {"pool": 6}), answer({}, {"pool": 1}, failed)).state == "partial"
    kept = {"pool": (Failure("h.x", "SERVFAIL", age=5.0),)}
    assert after(answer({}, {"pool": 6}), answer({}, {"pool": 1}, kept)).state == "held"


def test_a_failure_for_any_machine_keeps_the_group() -> None:
    """For at most policy.max_age since the last answer of the group."""
    failed = {"ptr": (Failure("1.2.0.10.in-addr.arpa", "SERVFAIL", "*"),)}
    nothing = answer({"ptr": ""}, failures=failed)
    belief = after(answer({"ptr": "ab"}), nothing)
    assert (belief.state, machines_of(belief)) == ("partial", {"a", "b"})
    assert machines_of(after(answer({"ptr": "ab"}), nothing, trust=Trust(max_age=10.0))) == set()


groups = st.dictionaries(st.sampled_from(["one", "two", "three"]), st.sets(st.sampled_from("abcdefgh")), min_size=1)


@given(groups, groups)
def test_every_group_is_the_old_answer_or_the_new_one(old: dict[str, set[str]], new: dict[str, set[str]]) -> None:
    """A group is never mixed, groups that are not asked do not appear, and exclusions follow their group."""
    belief = after(answer(old), answer(new))
    assert belief.snapshot is not None
    assert belief.snapshot.groups.keys() == new.keys()
    used: dict[str, set[str]] = {name: set() for name in new}
    for node in belief.snapshot.nodes:
        used[node.group].add(node.name)
    for name, machines in used.items():
        assert machines in (new[name], old.get(name, new[name]))
        lost = old.get(name, set()) - set().union(*new.values())
        if len(lost) >= math.ceil(len(old.get(name, ())) / 2 + 0.5) and len(old[name]) >= 4:
            assert machines == old[name]
    assert {e.group for e in belief.snapshot.excluded} == set(new)


addresses = st.sampled_from(["10.0.0.1", "10.0.0.2", "127.0.0.1", "fd00::1"])
questions = st.sampled_from(
    [
        Question("a.x", "A"),
        Question("a.x", "AAAA"),
        Question("_s.x", "SRV"),
        Question("_s.x", "PTR"),
        Question("i._s.x", "SRV"),
        Question("i._s.x", "TXT"),
        Question("h.x", "A", hosting=True),
        Question("1.0.0.10.in-addr.arpa", "PTR"),
    ]
)
RECORDS = {
    "A": ("10.0.0.1",),
    "AAAA": ("fd00::1",),
    "SRV": ("0 0 9100 h.x", "1 0 0 ."),
    "PTR": ("i._s.x",),
    "TXT": ("/metrics",),
}


@given(
    st.dictionaries(questions, st.booleans()),
    st.dictionaries(questions, st.just("SERVFAIL")),
    st.sampled_from([None, "name", "target", "ptr"]),
)
def test_every_finding_has_its_group(
    cached: dict[Question, bool], failed: dict[Question, str], machines: str | None
) -> None:
    """For any cache and any failures: each part of the snapshot names a group of the snapshot."""
    cache = Cache()
    for question, found in cached.items():
        result = Found(RECORDS[question.type], 60) if found else Absent("NODATA", 60)
        cache.store(question, result, TtlBounds(5.0, 3600.0), 0.0)
    names = (
        Wanted(text="a.x", names=("a.x",), job="node"),
        Wanted(text="_s.x", names=("_s.x",), service=True, job="node"),
        Wanted(text="b.x", names=("b.x",), machine="b"),
    )
    reading = Reading(backend="d", wanted=names, exporters={"node": NODE})
    for mapped in ("name", "target", "ptr"):
        if mapped == machines:
            reading = Reading(backend="d", wanted=names, exporters={"node": NODE}, machines=mapped)
    snapshot = dns_snapshot(reading, View(cache, failed, 30.0, 60.0))
    assert snapshot.groups.keys() == {name.group for name in names}
    used = {node.group for node in snapshot.nodes}
    used |= {endpoint.group for endpoint in snapshot.endpoints} | {e.group for e in snapshot.excluded}
    assert used <= snapshot.groups.keys()
    assert {failure.name for failure in snapshot.failures} <= {question.name for question in failed}
