"""Shares of targets: which members publish a target, and what changes with the members.

The histories of deployments are in test_shard_rollouts.py.
"""

from __future__ import annotations

import math
from collections import Counter
from hashlib import blake2b
from itertools import combinations
from typing import TYPE_CHECKING, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from clan_discovery.model import Shard, ShardMember
from clan_discovery.resolve.shard import Assignment, is_same, moved, targets_fingerprint
from tests.support.answering import target_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from clan_discovery.model import ShardState

JOBS: Final = ("node", "systemd", "smartctl")
NAMES: Final = st.sampled_from(["mon1", "mon2", "mon3", "mon10", "a", "B", "east.example.org", "Mon-4", "0", "_x"])
WEIGHTS: Final = st.sampled_from([1.0, 1.0, 2.0, 0.3, 7.25, 1e-3, 1e3])
INSTANCES: Final = st.text("abweb019-.:[]/ é☃", min_size=1, max_size=12)
FEW: Final = settings(max_examples=50)


def shard_of(*members: ShardMember | str, replicas: int = 1, unshared: tuple[str, ...] = ()) -> Shard:
    """Return a shard of these members; the first one is this server."""
    every = tuple(ShardMember(member) if isinstance(member, str) else member for member in members)
    return Shard(member=every[0].name, members=every, replicas=replicas, unshared=unshared)


def numbered(count: int) -> list[str]:
    """Return names as fleets have them, which differ in one digit."""
    return [f"mon{number}" for number in range(1, count + 1)]


def targets(count: int) -> list[tuple[str, str]]:
    """Return jobs and instances of so many machines."""
    return [(job, f"machine{number:06d}") for number in range(count) for job in JOBS]


def owned(shard: Shard, given: Iterable[tuple[str, str]]) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the members that publish each target."""
    assignment = Assignment(shard)
    return {target: assignment.of(*target) for target in given}


def assign(shard: Shard, job: str, machine: str) -> tuple[str, ...]:
    """Return the members that publish one target."""
    return Assignment(shard).of(job, machine)


def hexadecimal(shard: Shard, job: str, instance: str) -> tuple[str, ...]:
    """Return the scores of the members without weights."""
    return tuple(f"{score:016x}" for score in Assignment(shard).scores(job, instance) if isinstance(score, int))


@st.composite
def shards(draw: st.DrawFn, *, most: int = 8, states: bool = False) -> Shard:
    """Draw a shard with different names, any weights, and as many replicas as its active members allow."""
    names = draw(st.lists(NAMES, min_size=1, max_size=most, unique_by=str.casefold))
    weights = draw(st.lists(WEIGHTS, min_size=len(names), max_size=len(names)) | st.just([1.0] * len(names)))
    found: list[ShardState] = ["active"] * len(names)
    if states:
        others: st.SearchStrategy[ShardState] = st.sampled_from(["active", "joining", "leaving"])
        found[1:] = draw(st.lists(others, min_size=len(names) - 1, max_size=len(names) - 1))
    members = [ShardMember(*member) for member in zip(names, weights, found, strict=True)]
    replicas = draw(st.integers(1, found.count("active")))
    return shard_of(*members, replicas=replicas)


def test_assignments_are_the_same_on_every_machine() -> None:
    """Golden values: a server with another Python, platform or hash seed computes the same."""
    shard = shard_of("mon1", "mon2", "mon3", replicas=2)
    assert hexadecimal(shard, "node", "web") == ("b843559b24000983", "bd5bff6e98df10b8", "00ac3cfba65e62aa")
    assert hexadecimal(shard, "blackbox", "https://straße.example/?y=1") == (
        "13e06900945a3eab",
        "d1c8a4d7acfccbac",
        "d232570545152648",
    )
    found = [assign(shard, *target) for target in targets(4)]
    assert (
        " ".join("+".join(name[-1] for name in names) for names in found)
        == "1+3 1+3 1+3 1+2 1+3 1+3 1+3 2+3 1+3 1+3 1+3 1+3"
    )
    weighted = shard_of("mon1", ShardMember("mon2", 2.5), ShardMember("mon3", 0.1), replicas=2)
    assert [f"{score:.9f}" for score in Assignment(weighted).scores("node", "web")] == [
        "-0.328813224",
        "-0.120612330",
        "-59.414764001",
    ]
    assert weighted.fingerprint == "fbae63bf"


@FEW
@given(shard=shards(), job=st.sampled_from(JOBS), instance=INSTANCES)
def test_scores_are_those_of_the_formula(shard: Shard, job: str, instance: str) -> None:
    """One multiplication for all members gives what one for each member gives."""
    plain = msgspec.structs.replace(shard, members=tuple(ShardMember(member.name) for member in shard.members))
    x = int.from_bytes(blake2b(instance.encode(), digest_size=8).digest(), "little")
    wanted: list[int] = []
    for member in sorted(plain.members, key=lambda member: member.name.casefold()):
        seed = blake2b(f"{member.name.casefold()}\0{job}".encode(), digest_size=32).digest()
        a, b = int.from_bytes(seed[:16], "little"), int.from_bytes(seed[16:], "little")
        wanted.append((a * x + b) % 2**128 // 2**64)
    assert list(Assignment(plain).scores(job, instance)) == wanted


@FEW
@given(shard=shards(), job=st.sampled_from(JOBS), instance=INSTANCES)
def test_each_target_has_as_many_servers_as_replicas(shard: Shard, job: str, instance: str) -> None:
    """With one replica, the shares are disjoint and complete, for any members and weights."""
    found = assign(shard, job, instance)
    assert len(set(found)) == len(found) == shard.replicas
    assert set(found) <= {member.name for member in shard.members}
    assert list(found) == sorted(found, key=str.casefold)


@FEW
@given(shard=shards(states=True), instance=INSTANCES, data=st.data())
def test_neither_order_nor_case_of_the_members_matters(shard: Shard, instance: str, data: st.DataObject) -> None:
    """The names are spelled as in the config. Nor does the order of the unshared jobs."""
    shard = msgspec.structs.replace(shard, unshared=("prometheus", "clan-discovery"))
    shuffled = data.draw(st.permutations(shard.members))
    upper = tuple(msgspec.structs.replace(member, name=member.name.upper()) for member in shuffled)
    other = msgspec.structs.replace(shard, members=upper, unshared=shard.unshared[::-1])
    assert assign(other, "node", instance) == tuple(name.upper() for name in assign(shard, "node", instance))
    assert other.fingerprint == shard.fingerprint


@FEW
@given(shard=shards(states=True), instance=INSTANCES)
def test_a_joining_or_leaving_member_does_not_count_for_the_others(shard: Shard, instance: str) -> None:
    """The active members publish as if it were not there; it publishes as if it were active."""
    active = [member for member in shard.members if member.state == "active"]
    without = msgspec.structs.replace(shard, members=tuple(active))
    found = set(assign(shard, "node", instance))
    assert found & {member.name for member in active} == set(assign(without, "node", instance))
    for member in shard.members:
        if member.state != "active":
            there = msgspec.structs.replace(without, members=(*active, ShardMember(member.name, member.weight)))
            assert (member.name in found) == (member.name in assign(there, "node", instance))


@FEW
@given(shard=shards(), name=NAMES, weight=WEIGHTS, instances=st.lists(INSTANCES, max_size=20))
def test_targets_move_only_to_a_new_member(shard: Shard, name: str, weight: float, instances: list[str]) -> None:
    """No target moves between two servers that were there before."""
    if name.casefold() in {member.name.casefold() for member in shard.members}:
        return
    larger = msgspec.structs.replace(shard, members=(*shard.members, ShardMember(name, weight)))
    for instance in instances:
        before, after = assign(shard, "node", instance), assign(larger, "node", instance)
        gained = set(after) - set(before)
        assert gained <= {name}
        assert len(set(before) - set(after)) == len(gained)


@pytest.mark.parametrize(("count", "replicas"), [(2, 1), (3, 2), (4, 2), (8, 3)])
def test_one_more_server_moves_its_share_and_no_more(count: int, replicas: int) -> None:
    """At most 1.1/n of at least 10,000 assignments; with four servers, 25 % within 2 %."""
    fleet = targets(math.ceil(12_000 / replicas / len(JOBS)))
    before = owned(shard_of(*numbered(count - 1), replicas=replicas), fleet)
    after = owned(shard_of(*numbered(count), replicas=replicas), fleet)
    total = sum(map(len, after.values()))
    assert total >= 10_000
    moved = sum(len(set(after[target]) - set(before[target])) for target in fleet)
    assert 0.9 / count < moved / total < 1.1 / count
    if count == 4:
        assert 0.23 < moved / total < 0.27


@pytest.mark.parametrize(
    "members", [numbered(3), numbered(12), ["a", "b"], ["west.example.org", "East", "nord", "süd"]]
)
def test_shares_are_balanced(members: list[str]) -> None:
    """Shares vary no more than random ones: 5 standard deviations, also of each pair of replicas."""
    fleet = targets(2_000)
    most = 5 * math.sqrt(len(fleet))
    shares = Counter(owned(shard_of(*members), fleet).values())
    assert len(shares) == len(members)
    expected = len(fleet) / len(members)
    assert all(abs(count - expected) < most * math.sqrt(1 / len(members)) for count in shares.values())
    pairs = Counter(owned(shard_of(*members, replicas=2), fleet).values())
    expected = len(fleet) / math.comb(len(members), 2)
    for pair in combinations(sorted(members, key=str.casefold), 2):
        assert abs(pairs[pair] - expected) < most * math.sqrt(1 / math.comb(len(members), 2)), pair


def test_jobs_of_a_machine_are_shared_independently() -> None:
    """Of two jobs, as many targets of a machine are on the same server as by chance."""
    found = owned(shard_of(*numbered(4)), targets(4_000))
    together = sum(found[("node", f"machine{n:06d}")] == found[("systemd", f"machine{n:06d}")] for n in range(4_000))
    assert abs(together - 1000) < 5 * math.sqrt(4_000 * 0.25 * 0.75)


def test_shares_are_proportional_to_weights() -> None:
    """Within 5 standard deviations."""
    weights = {"mon1": 1.0, "mon2": 2.0, "mon3": 3.5, "mon4": 0.5}
    fleet = targets(5_000)
    shares = Counter(owned(shard_of(*(ShardMember(name, weight) for name, weight in weights.items())), fleet).values())
    for name, weight in weights.items():
        part = weight / sum(weights.values())
        assert abs(shares[(name,)] - len(fleet) * part) < 5 * math.sqrt(len(fleet) * part * (1 - part)), name


def test_a_larger_weight_only_gains() -> None:
    """A weight that grows takes targets from others, and gives none away. Equal weights are as no weights."""
    fleet = targets(500)
    plain = owned(shard_of(*numbered(4), replicas=2), fleet)
    equal = owned(shard_of(*(ShardMember(name, 3.0) for name in numbered(4)), replicas=2), fleet)
    assert equal == plain
    larger = owned(shard_of(ShardMember("mon1", 2.0), *numbered(4)[1:], replicas=2), fleet)
    kept = [target for target in fleet if "mon1" in plain[target]]
    assert all("mon1" in larger[target] for target in kept)
    assert sum("mon1" in names for names in larger.values()) > len(kept)
    assert all(set(larger[target]) - set(plain[target]) <= {"mon1"} for target in fleet)


class _Tied(Assignment):
    """All members have one score."""

    @override
    def scores(self, job: str, machine: str) -> Sequence[float]:
        return tuple(0 for _ in super().scores(job, machine))


def test_a_tie_goes_to_the_first_name() -> None:
    """As many members as replicas publish the target, although more have its highest score."""
    shard = shard_of("c", "B", "a", ShardMember("aa", state="joining"), replicas=2)
    assert _Tied(shard).of("node", "web") == ("a", "aa", "B")


@FEW
@given(old=shards(states=True), new=shards(states=True))
def test_what_a_change_of_the_shard_moves_is_the_difference_of_two_shares(old: Shard, new: Shard) -> None:
    """Also if this server has another name; a target on its own loopback never moves."""
    machines = [name for _, name in targets(10)]
    here = target_of("node", "local", "127.0.0.1:9100")
    every = [
        msgspec.structs.replace(target_of("node", name, "10.0.0.1:9100"), servers=assign(new, "node", name))
        for name in dict.fromkeys(machines)
    ]
    before, after = ({name for name in machines if shard.member in assign(shard, "node", name)} for shard in (old, new))
    found = {(target.machine, begins) for target, begins in moved(old, new, [*every, here])}
    assert found == {(name, True) for name in after - before} | {(name, False) for name in before - after}
    assert {(target.machine, begins) for target, begins in moved(None, new, [*every, here])} == {
        (name, False) for name in set(machines) - after
    }


def test_another_member_of_one_list_has_another_share() -> None:
    """In another case, it is the same one."""
    shard = shard_of("mon1", "mon2")
    same, other = (msgspec.structs.replace(shard, member=name) for name in ("MON1", "mon2"))
    assert is_same(shard, same)
    assert not is_same(shard, other)


def test_every_member_publishes_an_unshared_job() -> None:
    """It has no servers of its own."""
    assert assign(shard_of("mon1", "mon2", unshared=("prometheus",)), "prometheus", "mon1") == ()


@FEW
@given(pairs=st.lists(st.tuples(st.sampled_from(JOBS), INSTANCES), max_size=20), data=st.data())
def test_the_fingerprint_of_targets_ignores_their_order(pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    """Each target counts, and so does its job."""
    found = targets_fingerprint(pairs)
    assert targets_fingerprint(data.draw(st.permutations(pairs))) == found
    assert all(targets_fingerprint(pairs[:at] + pairs[at + 1 :]) != found for at in range(len(pairs)))
    assert targets_fingerprint([*pairs, ("prometheus", "a")]) != found


def test_the_fingerprint_of_targets_is_the_same_on_every_machine() -> None:
    """Golden value: also where two machines exchange their jobs, the result differs."""
    assert targets_fingerprint([("node", "a"), ("systemd", "b")]) == "855ec659"
    assert targets_fingerprint([("node", "b"), ("systemd", "a")]) != targets_fingerprint(
        [("node", "a"), ("systemd", "b")]
    )
