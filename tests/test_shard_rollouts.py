"""Histories of deployments: how many servers publish each target while their lists of members differ.

A server computes its share from the list that is deployed on it. Its process may be down at any time, and a member may
be in lists before it runs, or run after it left them.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from clan_discovery.model import Shard, ShardMember
from clan_discovery.resolve.shard import Assignment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

POOL: Final = tuple(f"mon{number}" for number in range(1, 9))
TARGETS: Final = tuple((job, f"machine{number}") for number in range(8) for job in ("node", "systemd"))
WEIGHTS: Final = st.sampled_from([1.0, 1.0, 1.0, 2.0, 0.2])
FEW: Final = settings(max_examples=40)

Members = tuple[ShardMember, ...]


class Instant(NamedTuple):
    """The list that is deployed on each server, and the servers whose process is down."""

    deployed: Mapping[str, Members]
    down: frozenset[str] = frozenset()

    def publishers(self, replicas: int) -> list[frozenset[str]]:
        """Return the servers that publish each target."""
        # Servers with one list compute the same.
        lists = {members: _owned(members, replicas) for members in set(self.deployed.values())}
        running = {name: lists[members] for name, members in self.deployed.items() if name not in self.down}
        return [frozenset(name for name, owned in running.items() if name in owned[at]) for at in range(len(TARGETS))]

    def promised(self, replicas: int) -> int:
        """Return how many servers publish each target at least, if no member has a state.

        With `d` servers that are not in all lists, and `f` of the others down, it is `replicas - d - f`: of the
        members of all lists, the one with the k-th highest score has at most the rank k + d in each list.
        """
        lists = [names(members) for members in self.deployed.values()]
        common = lists[0].intersection(*lists[1:])
        running = self.deployed.keys() - self.down
        return replicas - max(len(members - common) for members in lists) - len(common - running)


@cache
def _owned(members: Members, replicas: int) -> tuple[tuple[str, ...], ...]:
    assignment = Assignment(Shard(member=members[0].name, members=members, replicas=replicas))
    return tuple(assignment.of(*target) for target in TARGETS)


def least(instants: Iterable[Instant], replicas: int) -> list[tuple[Instant, int]]:
    """Return the number of publishers of the worst target at each instant."""
    return [(instant, min(map(len, instant.publishers(replicas)))) for instant in instants]


def names(members: Iterable[ShardMember]) -> set[str]:
    """Return the names of members."""
    return {member.name for member in members}


def with_state(members: Members, state: str, of: AbstractSet[str]) -> Members:
    """Return the members with another state of some of them."""
    return tuple(msgspec.structs.replace(member, state=state) if member.name in of else member for member in members)


@st.composite
def any_lists(draw: st.DrawFn) -> tuple[Instant, int]:
    """Draw servers with lists that differ from a common one; no member has a state."""
    replicas = draw(st.integers(1, 4))
    order = draw(st.permutations(POOL))
    base = order[: draw(st.integers(replicas + 1, 7))]
    lists: list[Members] = []
    for _ in range(draw(st.integers(1, 3))):
        left = draw(st.sampled_from(["", *base]))
        came = draw(st.sampled_from(["", *order[len(base) :]]))
        lists.append(tuple(ShardMember(name) for name in (*base, came) if name not in (left, "")))
    return Instant({name: draw(st.sampled_from(lists)) for name in POOL}, draw(_down(POOL))), replicas


def _down(servers: Sequence[str]) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(servers), max_size=2)


@settings(max_examples=80)
@given(drawn=any_lists())
def test_lists_that_differ_by_fewer_servers_than_replicas_leave_no_gap(drawn: tuple[Instant, int]) -> None:
    """The lists are any lists: of servers that were deployed at different times, or never."""
    instant, replicas = drawn
    promised = instant.promised(replicas)
    assert all(len(publishers) >= promised for publishers in instant.publishers(replicas))


class Rollout(NamedTuple):
    """The instants of a history, and the servers that may be down in it."""

    instants: list[Instant]
    replicas: int


def deployed_one_by_one(
    draw: st.DrawFn, now: dict[str, Members], members: Members, servers: Iterable[str]
) -> Iterator[Instant]:
    """Deploy a list to servers in any order; yield the state before and after each. One that left the list stops."""
    yield Instant(dict(now), draw(_down(sorted(now))))
    for name in draw(st.permutations(sorted(servers))):
        now[name] = members
        if name not in names(members):
            del now[name]
        yield Instant(dict(now), draw(_down(sorted(now))))


@st.composite
def histories(draw: st.DrawFn, *, states: bool) -> Rollout:
    """Draw a history in which servers are added and removed, several at once.

    With `states`, each step is done as docs/sharding.md says: a joining server is deployed everywhere before it becomes
    active, and a leaving one before it is removed. Else the new list is deployed at once.
    """
    order = draw(st.permutations(POOL))
    replicas = draw(st.integers(1, 3))
    weights = {name: draw(WEIGHTS) for name in POOL}
    members: Members = tuple(ShardMember(name, weights[name]) for name in order[: replicas + 1])
    now = dict.fromkeys(names(members), members)
    instants: list[Instant] = []
    for _ in range(draw(st.integers(1, 3))):
        absent = [name for name in POOL if name not in now]
        removable = sorted(names(members))[replicas:]
        if absent and (not removable or draw(st.booleans())):
            some = draw(st.lists(st.sampled_from(absent), min_size=1, max_size=3, unique=True))
            added = (*members, *(ShardMember(name, weights[name]) for name in some))
            if states:
                instants += deployed_one_by_one(draw, now, with_state(added, "joining", set(some)), names(added))
            instants += deployed_one_by_one(draw, now, added, names(added))
            members = added
        else:
            gone = set(draw(st.lists(st.sampled_from(removable), min_size=1, max_size=3, unique=True)))
            if states:
                instants += deployed_one_by_one(draw, now, with_state(members, "leaving", gone), names(members))
            servers = names(members)
            members = tuple(member for member in members if member.name not in gone)
            instants += deployed_one_by_one(draw, now, members, servers)
    return Rollout(instants, replicas)


@FEW
@given(history=histories(states=True))
def test_servers_that_join_and_leave_by_state_leave_no_gap(history: Rollout) -> None:
    """Each target has all of its replicas at every instant, except for those that are down."""
    for instant, count in least(history.instants, history.replicas):
        assert count >= history.replicas - len(instant.down)


@FEW
@given(history=histories(states=False))
def test_servers_that_join_and_leave_at_once_leave_no_gap_within_the_replicas(history: Rollout) -> None:
    """One server at a time is less than two replicas; a new server may be in lists before it runs."""
    for instant, count in least(history.instants, history.replicas):
        assert count >= instant.promised(history.replicas)


def test_without_states_a_gap_is_possible() -> None:
    """The states are needed: with one replica and a new server that has no list yet, its targets have no publisher."""
    before = tuple(ShardMember(name) for name in POOL[:3])
    after = (*before, ShardMember("mon9"))
    instant = Instant({"mon1": after, "mon2": after, "mon3": after, "mon9": before})
    assert min(map(len, instant.publishers(1))) == 0


@FEW
@given(
    old=st.lists(WEIGHTS, min_size=5, max_size=5),
    change=st.tuples(st.integers(0, 4), WEIGHTS),
    replicas=st.integers(1, 3),
    data=st.data(),
)
def test_another_weight_counts_as_one_server_that_differs(
    old: list[float], change: tuple[int, float], replicas: int, data: st.DataObject
) -> None:
    """Each target has at least `replicas - 1` publishers besides the server whose weight changes."""
    at, weight = change
    before = tuple(ShardMember(name, of) for name, of in zip(POOL, old, strict=False))
    after = tuple(ShardMember(m.name, weight) if index == at else m for index, m in enumerate(before))
    deployed = {member.name: data.draw(st.sampled_from([before, after])) for member in before}
    for publishers in Instant(deployed).publishers(replicas):
        assert len(publishers - {POOL[at]}) >= replicas - 1


@FEW
@given(few=st.integers(1, 3), more=st.integers(1, 3), data=st.data())
def test_more_or_fewer_replicas_leave_no_gap(few: int, more: int, data: st.DataObject) -> None:
    """While servers differ in `replicas`, each target has the smaller number."""
    members = tuple(ShardMember(name) for name in POOL[:4])
    fewer, most = _owned(members, min(few, more)), _owned(members, max(few, more))
    chosen = {member.name: data.draw(st.sampled_from([fewer, most])) for member in members}
    for at in range(len(TARGETS)):
        assert sum(name in owned[at] for name, owned in chosen.items()) >= min(few, more)
