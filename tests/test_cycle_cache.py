"""A cycle with the cache of `run` gives byte for byte what one without gives."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
from hypothesis import example, given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from clan_discovery.assemble import make_plan
from clan_discovery.config.load import load_config
from clan_discovery.emit.metrics import render
from clan_discovery.model import Exporter, Machine
from clan_discovery.publish.state import State
from clan_discovery.resolve.targets import Candidate, Naming, Place, TargetCache, Targets
from clan_discovery.round import CycleCache, OutputPaths, refresh, report
from tests.support.fleet import inventory, node, status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from clan_discovery.model import Json, Node, Target
    from clan_discovery.round import Plan, Refreshed
    from tests.support.fleet import Object

START: Final = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
NAMES: Final = ("monitor", "db", "web", "Mail", "own_host", "spare", "phone")
CONFIGS: Final = (
    "",
    "policy: {offline: {grace: 1m}}\nlabels: {site: home}\n",
    "exporters: {node: {address: name}}\npolicy: {absent: drop}\n",
    "ignore: {names: [web]}\naliases: {spare: db}\n",
    "exporters: {nginx: {select: {tags: {any: [server]}}}}\n",
    "shard: {member: monitor, replicas: 1, members: [monitor, other]}\n",
)
SPLITS: Final = (1, 3, 2, 4, 3, 3)
"""The number of target files of each job in these configs."""
CHANGES: Final[tuple[Object, ...]] = (
    {},
    {"RxBytes": 17, "LastHandshake": "2026-05-06T07:08:09Z"},
    {"TailscaleIPs": ["100.99.0.9"]},
    {"TailscaleIPs": None, "AllowedIPs": None},
    {"TailscaleIPs": ["127.0.0.1"]},
    {"Tags": ["tag:server", "tag:%{HOME}"]},
    {"Tags": None},
    {"Online": False},
    {"Expired": True},
    {"OS": "iOS"},
    {"HostName": "db"},
    {"DNSName": None},
    {"DNSName": "db.tail1a2b3.ts.net."},
    {"ShareeNode": True},
)


class World:
    """A config, an inventory and a status, which change; cycles in one directory with a cache, in another without."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.output = "first"
        self.cache = CycleCache()
        self.nodes: dict[str, Object] = {name: {} for name in NAMES[:4]}
        self.now = START
        self.running = True
        self.daemon: Object = {}
        self.plan: Plan | None = None
        self.configure(0)
        self.declare(5, 1)
        self.answer()

    def configure(self, number: int) -> None:
        """Use another config."""
        backend = f"backends: {{tailscale: {{tailnet: {{status_file: {self.place}/status.json}}}}}}\n"
        self.plan = None
        output = f"output: {{directory: targets, split: {SPLITS[number]}}}\n"
        text = f"inventory: {{file: inventory.json}}\n{output}{backend}{CONFIGS[number]}"
        (self.place / "config.yaml").write_text(text)

    def declare(self, machines: int, exporters: int) -> None:
        """Use another inventory: so many machines, with so many exporters on each."""
        self.plan = None
        found = inventory(list(NAMES[:machines]))
        for port in range(exporters - 1):
            settings: Object = {"exporterType": "node" if port else "systemd", "port": 9200 + port}
            role: Json = {"exporter": {"tags": ["all"], "settings": settings}}
            instances = found["instances"]
            assert isinstance(instances, dict)
            found["instances"] = {**instances, f"more{port}": {"module": {"name": "prometheus"}, "roles": role}}
        (self.place / "inventory.json").write_text(json.dumps(found))

    def stop(self) -> None:
        """Let the daemon know nothing from now on."""
        self.running = False

    def refresh_beside(self) -> None:
        """Let another process run a cycle in both directories."""
        self.answer()
        for way in ("with", "without"):
            self.cycle(way, cached=False)

    def lose_memory(self) -> None:
        """Delete the memory of trust."""
        for way in ("with", "without"):
            (self.place / way / self.output / "state/index.json").unlink(missing_ok=True)

    def move(self) -> None:
        """Use another output directory and another state from now on, or the first ones again."""
        self.output = "second" if self.output == "first" else "first"

    def answer(self) -> None:
        """Write the status of the daemon."""
        nodes = [node(NAMES.index(name) + 1, name, **given) for name, given in self.nodes.items()]
        body = status([node(99, "self"), *nodes], **self.daemon) if self.running else {"BackendState": "Starting"}
        (self.place / "status.json").write_text(json.dumps(body))

    def cycle(self, way: str, *, cached: bool = True) -> Refreshed:
        """Run a cycle `with` or `without` the cache, in the directory of this way."""
        directory = self.place / way / self.output
        places = OutputPaths(directory / "targets", directory / "state", 5.0)

        if self.plan is None:
            self.plan = make_plan(load_config(self.place / "config.yaml"))
        plan = msgspec.structs.replace(
            self.plan, directory=places.directory, state_directory=places.state_directory, owner=""
        )
        cache = self.cache if way == "with" and cached else None
        return refresh(places, lambda: plan, State(places.state_directory), lambda: self.now, cache=cache)

    def outcome(self, way: str) -> dict[str, bytes]:
        """Run a cycle, and return everything that it made: files, memory, resolution, metrics and changes."""
        done = self.cycle(way)
        round_ = msgspec.structs.replace(done.round, durations={})
        files = [file for file in (self.place / way).rglob("*") if file.is_file()]
        found = {str(file.relative_to(self.place / way)): file.read_bytes() for file in files}
        found["resolution"] = msgspec.json.encode(done.round.resolution)
        found["metrics"] = render(report(round_, done.plan))
        found["changes"] = msgspec.json.encode(done.changes)
        found["published"] = msgspec.json.encode(done.published)
        found |= {f"list of {job}": body or b"" for job, body in done.lists.items()}
        return found


Step: TypeAlias = "Callable[[World], None]"


def changed(name: str, change: Object) -> Step:
    """Return the step that gives a node these fields, or adds it."""

    def step(world: World) -> None:
        world.nodes[name] = change

    return step


def removed(name: str) -> Step:
    """Return the step that removes a node, if it is there."""

    def step(world: World) -> None:
        world.nodes.pop(name, None)

    return step


def replied(changes: Object) -> Step:
    """Return the step after which the daemon answers, with these fields."""

    def step(world: World) -> None:
        world.running, world.daemon = True, changes

    return step


def declared(machines: int, exporters: int) -> Step:
    """Return the step that changes the inventory."""

    def step(world: World) -> None:
        world.declare(machines, exporters)

    return step


def configured(number: int) -> Step:
    """Return the step that changes the config."""

    def step(world: World) -> None:
        world.configure(number)

    return step


REPLIES: Final[tuple[Object, ...]] = (
    {},
    {"MagicDNSSuffix": "other.ts.net", "CurrentTailnet": {"Name": "other"}},
    {"Self": node(99, "self", Online=False)},
)
STEPS: Final[st.SearchStrategy[Step]] = st.one_of(
    st.builds(changed, st.sampled_from(NAMES), st.sampled_from(CHANGES)),
    st.builds(removed, st.sampled_from(NAMES)),
    st.builds(replied, st.sampled_from(REPLIES)),
    st.builds(declared, st.integers(1, len(NAMES)), st.integers(1, 3)),
    st.builds(configured, st.integers(0, len(CONFIGS) - 1)),
    st.sampled_from([World.stop, World.lose_memory, World.refresh_beside, World.move]),
)


@bounded(max_examples=12, deadline=None)
@example([(declared(5, 1), True), (declared(5, 3), True), (declared(5, 1), True)])
@example([(changed("web", CHANGES[2]), False), (World.refresh_beside, False), (changed("web", {}), True)])
@example([(changed("web", CHANGES[2]), False), (World.refresh_beside, False), (World.stop, True)])
@example([(changed("db", CHANGES[2]), True), (changed("web", CHANGES[2]), True), (changed("db", {}), True)])
@example([(changed("web", {"ShareeNode": True}), True), (changed("db", CHANGES[2]), True)])
@example([(changed("web", {"TailscaleIPs": ["127.0.0.1"]}), True), (changed("db", CHANGES[2]), True)])
@example([(World.move, True), (changed("db", CHANGES[2]), True), (World.move, True), (World.stop, True)])
@given(st.lists(st.tuples(STEPS, st.booleans()), min_size=1, max_size=6))
def test_the_cache_changes_nothing(steps: list[tuple[Step, bool]]) -> None:
    """Nodes, the daemon, the inventory and the config change in any order; all that a cycle makes is compared."""
    with tempfile.TemporaryDirectory() as place:
        world = World(Path(place))
        assert world.outcome("with") == world.outcome("without")
        for step, is_seen in steps:
            step(world)
            world.answer()
            world.now += timedelta(seconds=45)
            if is_seen:
                assert world.outcome("with") == world.outcome("without")


def test_unchanged_machines_are_reused(tmp_path: Path) -> None:
    """After the change of one node, only its targets are made again; a counter of bytes is no change."""
    world = World(tmp_path)
    world.declare(5, 2)
    before = world.cycle("with")
    world.nodes |= {"db": {"TailscaleIPs": ["100.99.0.9"]}, "web": {"RxBytes": 17}}
    world.answer()
    after = world.cycle("with")
    old, new = ({(t.job, t.labels["instance"]): t for t in d.round.resolution.targets} for d in (before, after))
    assert {target.machine for key, target in new.items() if target is not old[key]} == {"db"}
    nodes = [{node.name: node for node in _nodes(done)} for done in (before, after)]
    assert {name for name, found in nodes[1].items() if found is not nodes[0][name]} == {"db", "self"}
    again = world.cycle("with")
    assert all(one is other for one, other in zip(_targets(after), _targets(again), strict=True))
    assert {job: body is after.lists[job] for job, body in again.lists.items()} == {"node": True, "systemd": True}


def test_a_warning_comes_in_each_cycle() -> None:
    """A target with a label that is left out, or with a host that cannot be written, is made again."""
    bad = Exporter(type="node", port=9100, labels=(("bad-label", "x"),))
    candidates = [candidate("db", bad), candidate("db", Exporter(type="other", port=9100), host="no host")]
    cache = TargetCache()
    found: list[list[str]] = []
    for _ in range(2):
        targets = offered(candidates)
        assert len(list(targets.write(cache=cache))) == 2
        found.append([problem.what for problem in targets.problems])
    assert len(found[0]) == 2
    assert found[0] == found[1]


def test_a_warning_of_several_machines_comes_while_one_of_them_is_left() -> None:
    """Their labels are made once, so only the first of them warns."""
    bad = Exporter(type="node", port=9100, labels=(("bad-label", "x"),))
    cache = TargetCache()
    for machines in (["db", "web"], ["web"]):
        targets = offered([candidate(name, bad) for name in machines])
        assert len(list(targets.write(cache=cache))) == len(machines)
        assert len(targets.problems) == 1


def test_an_instance_depends_on_the_other_exporters_of_the_machine() -> None:
    """One is added or removed, or an agent sends it; the candidate that stays is the same."""
    exporters = [candidate("db", Exporter(type="node", port=port)) for port in (9100, 9200)]
    one, both = ["db"], ["db:9100", "db:9200"]
    cache = TargetCache()
    for first, last, instances in ((0, 1, one), (0, 2, both), (1, 2, one), (0, 2, both), (0, 1, one)):
        targets = offered(exporters[first:last])
        assert [target.labels["instance"] for target in targets.write(cache=cache)] == instances
    sent = {("node", "db")}
    for beside, instance in ((set[tuple[str, str]](), "db"), (sent, "db:9100"), (set[tuple[str, str]](), "db")):
        (target,) = offered(exporters[:1]).write(beside, cache)
        assert target.labels["instance"] == instance


def candidate(machine: str, exporter: Exporter, host: str = "10.0.0.1") -> Candidate:
    """Return a candidate at a declared address."""
    return Candidate(Machine(name=machine), exporter, Place(host, observed=False, backend=None, located=""), "test")


def offered(candidates: Iterable[Candidate]) -> Targets:
    """Return the targets of a cycle with these candidates."""
    targets = Targets((), Naming())
    for one in candidates:
        targets.offer(one)
    return targets


def _targets(done: Refreshed) -> tuple[Target, ...]:
    return done.round.resolution.targets


def _nodes(done: Refreshed) -> tuple[Node, ...]:
    (belief,) = done.round.resolution.beliefs
    assert belief.snapshot is not None
    return belief.snapshot.nodes
