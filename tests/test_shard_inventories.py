"""Histories of deployments in which servers of a shard have different inventories, and some targets are still pending.

Every server resolves its own inventory with its own list of members. A scraper drops a target at once, and scrapes a
new one later: until then, the target is pending there.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from clan_discovery.model import Declared, Expected, Exporter, Machine, Shard, ShardMember
from clan_discovery.resolve.resolver import Policy, resolve
from clan_discovery.resolve.shard import Assignment
from tests.test_shard_rollouts import POOL, WEIGHTS, Members, names, with_state

if TYPE_CHECKING:
    from collections.abc import Iterable

NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
FEW: Final = settings(max_examples=40)

Key: TypeAlias = tuple[str, str, int]
"""A target: job, machine and port."""
Inventory: TypeAlias = frozenset[Key]
KEYS: Final[tuple[Key, ...]] = tuple(
    (job, f"machine{number}", port)
    for number in range(6)
    for job, port in (("node", 9100), ("node", 9101), ("systemd", 9558))
)
"""All targets; the second exporter of a type on a machine changes the label `instance` of the first."""


class Deployed(NamedTuple):
    """What is deployed on a server: its list and its inventory."""

    members: Members
    inventory: Inventory


def published(deployed: Deployed, server: str, replicas: int) -> Inventory:
    """Return the targets that a server publishes."""
    machines = {name: Machine(name=name) for _, name, _ in deployed.inventory}
    expected = [
        Expected(machine=machines[name], exporter=Exporter(type=job, port=port), because="inventory")
        for job, name, port in sorted(deployed.inventory)
    ]
    declared = Declared(machines=tuple(machines.values()), expected=tuple(expected), domain="home.arpa")
    policy = Policy(shard=Shard(member=server, members=deployed.members, replicas=replicas))
    found = resolve(declared, [], [], policy, now=NOW)
    return frozenset((one.job, one.machine, int(one.address.rpartition(":")[2])) for one in found.published)


@cache
def owners(members: Members, replicas: int) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the members that publish each job of each machine."""
    assignment = Assignment(Shard(member=members[0].name, members=members, replicas=replicas))
    return {(job, machine): assignment.of(job, machine) for job, machine, _ in KEYS}


class Server:
    """A server, what it publishes, and what it scrapes already."""

    def __init__(self, name: str, replicas: int) -> None:
        self.name = name
        self._replicas = replicas
        self.deployed = Deployed((), frozenset())
        self.published: Inventory = frozenset()
        self.scraped: Inventory = frozenset()

    def deploy(self, members: Members, inventory: Inventory) -> None:
        """Deploy a list and an inventory: new targets are pending."""
        self.deployed = Deployed(members, inventory)
        self.published = published(self.deployed, self.name, self._replicas)
        self.scraped &= self.published

    def scrape(self) -> None:
        """Scrape all that it publishes."""
        self.scraped = self.published

    def publishes_its_share(self) -> bool:
        """Compare what it publishes with its share of what it knows."""
        shares = owners(self.deployed.members, self._replicas)
        return self.published == frozenset(key for key in self.deployed.inventory if self.name in shares[key[:2]])


class History:
    """Servers that are deployed one after the other.

    `steady` are the targets that all servers have known since the last time that none was pending, `_lists` the lists
    that were deployed since then.
    """

    def __init__(self, members: Members, inventory: Inventory, replicas: int) -> None:
        self.replicas = replicas
        self.inventory = inventory
        self.servers: dict[str, Server] = {}
        self.steady = inventory
        self._lists: set[Members] = set()
        for name in sorted(names(members)):
            self.deploy(name, members)
        self.wait()

    def deploy(self, name: str, members: Members) -> None:
        """Deploy a list and the newest inventory. A server that left the list stops."""
        if name not in names(members):
            del self.servers[name]
            return
        server = self.servers.setdefault(name, Server(name, self.replicas))
        server.deploy(members, self.inventory)
        self.steady &= self.inventory
        self._lists.add(members)

    def wait(self) -> None:
        """Wait until no target is pending."""
        for server in self.servers.values():
            server.scrape()
        self.steady = self.known_to_all()
        self._lists = self._present()

    def _present(self) -> set[Members]:
        return {server.deployed.members for server in self.servers.values()}

    def known_to_all(self) -> Inventory:
        """Return the targets in the inventories of all servers."""
        first, *others = [server.deployed.inventory for server in self.servers.values()]
        return first.intersection(*others)

    def publishers(self, key: Key) -> int:
        """Return how many servers publish a target."""
        return sum(key in server.published for server in self.servers.values())

    def scrapers(self, key: Key) -> int:
        """Return how many servers scrape a target."""
        return sum(key in server.scraped for server in self.servers.values())

    def _promised(self, lists: set[Members]) -> int:
        """Return how many servers each target has at least with these lists, if no member has a state."""
        every = [names(members) for members in lists]
        common = every[0].intersection(*every[1:])
        return self.replicas - max(len(one - common) for one in every) - len(common - self.servers.keys())

    def check(self, *, states: bool) -> None:
        """Compare all servers with what is promised of each target."""
        present = since = self.replicas
        if not states:
            present, since = self._promised(self._present()), self._promised(self._lists | self._present())
        for key in self.steady:
            assert self.scrapers(key) >= since, key
        for key in frozenset[Key]().union(*(server.deployed.inventory for server in self.servers.values())):
            without = sum(key not in server.deployed.inventory for server in self.servers.values())
            assert self.publishers(key) >= present - without, key
        assert all(server.publishes_its_share() for server in self.servers.values())


class Rolling:
    """Draws what happens in a history, and checks it at every instant."""

    def __init__(self, draw: st.DrawFn, *, states: bool) -> None:
        self._draw = draw
        self._states = states
        order = draw(st.permutations(POOL))
        replicas = draw(st.integers(1, 3))
        self._weights = {name: draw(WEIGHTS) for name in POOL}
        self.members: Members = self._with((), order[: replicas + 1])
        self.history = History(self.members, draw(_INVENTORIES), replicas)

    def _with(self, members: Members, added: Iterable[str]) -> Members:
        return (*members, *(ShardMember(name, self._weights[name]) for name in added))

    def add(self, most: int) -> None:
        """Add servers, as docs/sharding.md says."""
        absent = sorted(set(POOL) - names(self.members))
        if not absent:
            return
        some = self._some(absent, most)
        members = self._with(self.members, some)
        if self._states:
            self.roll_out(with_state(members, "joining", set(some)))
        self.roll_out(members)

    def remove(self, most: int) -> None:
        """Remove servers, as docs/sharding.md says."""
        removable = sorted(names(self.members))[self.history.replicas :]
        if not removable:
            return
        gone = set(self._some(removable, most))
        if self._states:
            self.roll_out(with_state(self.members, "leaving", gone))
        self.roll_out(tuple(member for member in self.members if member.name not in gone))

    def _some(self, of: list[str], most: int) -> list[str]:
        return self._draw(st.lists(st.sampled_from(of), min_size=1, max_size=most, unique=True))

    def roll_out(self, members: Members) -> None:
        """Deploy a list to servers in any order, while the inventory changes; then wait until no target is pending."""
        history = self.history
        for name in self._draw(st.permutations(sorted({*history.servers, *names(members)}))):
            if self._draw(st.booleans()):
                history.inventory ^= self._draw(_CHANGES)
            history.deploy(name, members)
            history.check(states=self._states)
            if self._draw(st.booleans()):
                history.servers[self._draw(st.sampled_from(sorted(history.servers)))].scrape()
            history.check(states=self._states)
        history.wait()
        history.check(states=self._states)
        self.members = members


_INVENTORIES: Final = st.frozensets(st.sampled_from(KEYS), min_size=6)
_CHANGES: Final = st.frozensets(st.sampled_from(KEYS), max_size=4)


@st.composite
def histories(draw: st.DrawFn, *, states: bool) -> History:
    """Draw a history, which is checked at every instant."""
    rolling = Rolling(draw, states=states)
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            rolling.add(3)
        else:
            rolling.remove(3)
        rolling.roll_out(rolling.members)  # only the inventory changes
    return rolling.history


@FEW
@given(history=histories(states=True))
def test_machines_that_come_and_go_leave_no_gap_while_servers_join_and_leave(history: History) -> None:
    """At every instant, each target that all servers know has all of its replicas, and is scraped by as many."""
    assert history.servers


@FEW
@given(history=histories(states=False))
def test_machines_that_come_and_go_leave_no_gap_within_the_replicas(history: History) -> None:
    """Without states, each target has as many servers as the lists that differ leave it."""
    assert history.servers


def test_a_target_that_only_a_server_without_its_share_knows_is_published_nowhere() -> None:
    """Therefore the inventories must be the same."""
    members = tuple(ShardMember(name) for name in POOL[:3])
    history = History(members, frozenset(KEYS[:1]), 1)
    (owner,) = (name for name, server in history.servers.items() if KEYS[0] in server.published)
    history.inventory = frozenset()
    history.deploy(owner, members)
    assert history.publishers(KEYS[0]) == 0
    history.check(states=False)


def test_a_rollout_that_does_not_wait_leaves_a_gap() -> None:
    """While a target is pending on a joining server, the others must keep it."""
    before = tuple(ShardMember(name) for name in POOL[:3])
    joining = (*before, ShardMember(POOL[3], state="joining"))
    after = (*before, ShardMember(POOL[3]))
    gaps: list[int] = []
    for waits in (False, True):
        history = History(before, frozenset(KEYS), 1)
        for name in names(joining):
            history.deploy(name, joining)
        if waits:
            history.wait()
        for name in names(before):
            history.deploy(name, after)
        gaps.append(sum(history.scrapers(key) == 0 for key in history.steady))
    assert gaps[0] > 0
    assert gaps[1] == 0
