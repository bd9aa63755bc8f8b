"""Outages with a lost state, an edited config or an added backend, in any order."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clan_discovery.backends.static import Static
from clan_discovery.cli.command import Streams
from clan_discovery.cli.cycle import report_backends
from clan_discovery.doctor.examine import examine
from clan_discovery.emit.json import pretty, resolution_document
from clan_discovery.emit.table import notes
from clan_discovery.inventory.clan.declare import Options, declare
from clan_discovery.inventory.clan.wire import parse_inventory
from clan_discovery.model import Endpoint, Exporter
from clan_discovery.publish.state import State
from clan_discovery.resolve.resolver import Policy
from clan_discovery.resolve.trust import Trust
from clan_discovery.round import OutputPaths, Plan, refresh, run_round
from tests.support.fleet import explained, inventory
from tests.support.scripted import Scripted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from clan_discovery.backends.base import Backend
    from clan_discovery.round import Refreshed

NODE = Exporter(type="node", port=9100)
SEEN = frozenset({"a", "b", "c", "d", "e"})
EVENTS = ("the backend fails", "the state is deleted", "the config is edited", "a dead backend is added")


@dataclass
class World:
    """A host whose backends, state and inventory a test changes."""

    place: Path
    machines: tuple[str, ...] = ("a", "b", "c", "d", "e")
    backends: list[Backend] = field(default_factory=lambda: [Scripted(SEEN)])
    jobs: frozenset[str] = frozenset({"node"})
    trust: Trust = field(default_factory=Trust)
    now: float = 1_800_000_000.0

    def refresh(self, after: float = 30.0) -> Refreshed:
        """Run one refresh cycle."""
        self.now += after
        body = json.dumps(inventory(list(self.machines))).encode()
        plan = Plan(
            declared=declare(parse_inventory(body, "test"), Options()),
            backends=tuple(self.backends),
            rules=(),
            jobs=self.jobs,
            policy=Policy(),
            trust=self.trust,
            directory=self.place / "targets",
            state_directory=self.place / "state",
            lock_wait=1.0,
        )
        paths = OutputPaths(plan.directory, plan.state_directory, plan.lock_wait)
        clock = datetime.fromtimestamp(self.now, UTC)
        return refresh(paths, lambda: plan, State(plan.state_directory), lambda: clock)

    def addresses(self) -> dict[str, str]:
        """Return the address of each published machine."""
        groups = json.loads((self.place / "targets/node.json").read_bytes())
        return {group["labels"]["machine"]: group["targets"][0] for group in groups}

    def answers(self, answer: Iterable[str] | None, name: str = "tailnet", fingerprint: str = "scripted") -> None:
        """Let the first backend answer with these machines, or fail for None."""
        found = None if answer is None else frozenset(answer)
        self.backends[0] = Scripted(found, name=name, fingerprint=fingerprint)

    def happens(self, event: str) -> None:
        """Apply one event of `EVENTS`."""
        match event:
            case "the backend fails":
                self.answers(None)
            case "the state is deleted":
                shutil.rmtree(self.place / "state")
            case "the config is edited":
                first = self.backends[0]
                assert isinstance(first, Scripted)
                self.backends[0] = replace(first, fingerprint="edited")
            case _:
                self.backends.append(Scripted(None, name="dead", fingerprint="dead"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a world after one good cycle."""
    found = World(tmp_path)
    found.refresh()
    return found


@pytest.mark.parametrize("events", list(permutations(EVENTS)), ids="; ".join)
def test_no_order_of_events_moves_a_target(world: World, events: Sequence[str]) -> None:
    """A cycle runs after each event. The first answer afterwards is published at once."""
    before = world.addresses()
    for event in events:
        world.happens(event)
        world.refresh()
        assert world.addresses() == before, event
    world.answers(SEEN)
    world.machines = (*world.machines, "f")
    world.refresh()
    assert world.addresses() == {**before, "f": "f.home.arpa:9100"}


@pytest.mark.parametrize("events", list(permutations(EVENTS[2:])), ids="; ".join)
def test_a_new_machine_appears_while_a_backend_fails(world: World, events: Sequence[str]) -> None:
    """A backend that has never answered blocks no change, and memory under another fingerprint is used."""
    before = world.addresses()
    for event in ("the backend fails", *events):
        world.happens(event)
        world.refresh()
    world.machines = (*world.machines, "f")
    assert world.refresh().round.resolution.frozen == ()
    assert world.addresses() == {**before, "f": "f.home.arpa:9100"}


def test_a_failed_backend_does_not_hold_a_file_that_others_complete(world: World) -> None:
    """Every machine has an observed address, so no target depends on the missing answer."""
    world.happens("a dead backend is added")
    world.refresh()
    world.happens("the state is deleted")
    world.answers(SEEN | {"f"})
    world.machines = (*world.machines, "f")
    done = world.refresh()
    assert done.round.resolution.frozen == ()
    assert world.addresses()["f"] == "100.64.0.102:9100"
    assert done.round.exit_code == 3


def test_a_file_is_kept_without_memory_until_max_age(world: World) -> None:
    """From the first cycle without memory.

    Then machines get their declared addresses or names.
    """
    before = world.addresses()
    world.happens("the state is deleted")
    world.happens("the backend fails")
    assert world.refresh().round.exit_code == 3
    world.refresh(after=86_000)
    assert world.addresses() == before
    world.refresh(after=1_000)
    assert world.addresses() == {name: f"{name}.home.arpa:9100" for name in world.machines}
    world.machines = (*world.machines, "f")
    world.refresh()
    assert world.addresses()["f"] == "f.home.arpa:9100"


def test_without_a_file_declared_names_are_published_at_once(world: World) -> None:
    """There is nothing to keep, in this cycle or a later one."""
    shutil.rmtree(world.place)
    world.happens("the backend fails")
    done = world.refresh()
    assert (done.round.exit_code, done.round.resolution.frozen) == (3, ())
    world.machines = (*world.machines, "f")
    world.refresh()
    assert world.addresses() == {name: f"{name}.home.arpa:9100" for name in world.machines}


def test_a_kept_file_is_reported(world: World) -> None:
    """In the table, `explain`, JSON and stderr: the file differs from the resolved targets."""
    world.happens("the state is deleted")
    world.happens("the backend fails")
    done = world.refresh()
    resolution = done.round.resolution
    why = "backend tailnet has no answer, and its memory is lost"
    assert any(note.startswith("frozen: node: ") for note in notes(resolution))
    lines = explained("a", done.plan.declared, resolution)
    assert f"    not written: job node keeps its present file: {why}" in lines
    (frozen,) = json.loads(pretty(resolution_document(resolution)))["frozen"]
    assert (frozen["job"], frozen["backend"], frozen["why"]) == ("node", "tailnet", why)
    err = io.StringIO()
    report_backends(resolution, Streams(io.StringIO(), err))
    said = err.getvalue()
    until = f"{datetime.fromtimestamp(world.now + 86_400, UTC):%Y-%m-%d %H:%M} UTC"
    assert f"job node: keeps its present file until {until} at the latest, the new targets" in said
    assert frozen["until"] == datetime.fromtimestamp(world.now + 86_400, UTC).isoformat()
    assert "there is no last good answer" in said
    assert "unseen machines get" not in said
    found = examine(done.plan, resolution, {}, datetime.fromtimestamp(world.now, UTC), "")
    (said,) = [finding.what for finding in found if finding.about == "backend tailnet"]
    assert said.endswith(f"; these jobs keep their present files: node (until {until} at the latest)")


def test_a_held_loss_without_memory_keeps_the_files(world: World) -> None:
    """There is no last good answer; the files are kept until the loss is accepted."""
    world.happens("the state is deleted")
    world.answers({"a"})
    err = io.StringIO()
    report_backends(world.refresh().round.resolution, Streams(io.StringIO(), err))
    assert "held: the present files are kept" in err.getvalue()
    assert "at the latest" not in err.getvalue()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_show_as_another_user_does_not_count_the_state_as_lost() -> None:
    """`show` asks the backend and reports what it cannot read."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        world = World(Path(place))
        world.refresh()
        world.happens("the backend fails")
        plan = world.refresh().plan
        state = State(plan.state_directory, read_only=True)
        os.seteuid(65534)
        try:
            found = run_round(plan, state, datetime.fromtimestamp(world.now, UTC))
        finally:
            os.seteuid(0)
    assert found.resolution.frozen == ()
    assert [problem.what for problem in state.problems] == ["this user may not read it"]
    assert "owner" in (state.problems[0].hint or "")


def test_a_loss_without_memory_is_measured_by_the_files(world: World) -> None:
    """It is held until accepted or seen often enough.

    Machines that are no longer declared do not count.
    """
    before = world.addresses()
    world.happens("the state is deleted")
    world.backends = [Scripted(frozenset({"a"}))]
    done = world.refresh()
    assert done.round.exit_code == 4
    assert "of 5 observed targets in the files 1 would be left" in done.round.held[0].why
    assert world.addresses() == before
    for _ in range(8):
        assert world.refresh().round.exit_code == 4
    assert world.refresh().round.exit_code == 0
    assert world.addresses()["b"] == "b.ts.net:9100"


def test_a_loss_without_memory_is_accepted_on_demand(world: World) -> None:
    """As any other held loss."""
    world.happens("the state is deleted")
    world.backends = [Scripted(frozenset({"a"}))]
    world.trust = Trust(accept_shrink=True)
    assert world.refresh().round.exit_code == 0
    assert world.addresses()["b"] == "b.ts.net:9100"


def test_fewer_declared_machines_are_no_loss_without_memory(world: World) -> None:
    """Only targets that are still declared are counted."""
    world.happens("the state is deleted")
    world.machines = ("a",)
    world.backends = [Scripted(frozenset({"a"}))]
    assert world.refresh().round.exit_code == 0
    assert world.addresses() == {"a": "100.64.0.97:9100"}


def test_a_loss_after_a_config_change_is_not_held(world: World) -> None:
    """The memory is valid but was made with other settings, so nothing is compared."""
    world.backends = [Scripted(frozenset({"a"}), fingerprint="edited")]
    assert world.refresh().round.exit_code == 0
    assert world.addresses()["b"] == "b.ts.net:9100"


def pool(*hosts: str) -> Static:
    """Return a list of targets of the job `node`; it locates no machine."""
    endpoints = tuple(Endpoint(host=h, exporter=NODE, machine=h, because="", backend="lab") for h in hosts)
    return Static(name="lab", machines={}, endpoints=endpoints)


def test_targets_of_another_backend_do_not_replace_missing_ones(world: World) -> None:
    """The count is the same but the targets are others, so the file is kept."""
    world.backends.append(pool("x1.example", "x2.example"))
    world.refresh()
    before = world.addresses()
    world.happens("the state is deleted")
    world.happens("the backend fails")
    world.backends[1] = pool(*(f"x{i}.example" for i in range(9)))
    assert world.refresh().round.exit_code == 3
    assert world.addresses() == before


def test_targets_of_other_backends_hide_no_loss_without_memory(world: World) -> None:
    """Machines are compared by name; listed targets are counted separately."""
    world.backends.append(pool(*(f"x{i}.example" for i in range(9))))
    world.refresh()
    before = world.addresses()
    world.happens("the state is deleted")
    world.answers("")
    assert world.refresh().round.exit_code == 4
    assert world.addresses() == before


def test_a_kept_file_still_waits_for_a_renamed_backend(world: World) -> None:
    """The state has the fingerprint of the backend, also without an answer."""
    before = world.addresses()
    world.happens("the state is deleted")
    world.happens("the backend fails")
    world.refresh()
    world.answers(None, name="renamed")
    world.refresh()
    assert world.addresses() == before


def test_a_backend_that_is_edited_and_then_renamed_keeps_its_answer(world: World) -> None:
    """One step after the other, during an outage."""
    before = world.addresses()
    for name, fingerprint in (("tailnet", "edited"), ("renamed", "edited")):
        world.answers(None, name=name, fingerprint=fingerprint)
        assert world.refresh().round.degraded[0].state == "kept"
        assert world.addresses() == before


def test_two_backends_that_swap_their_names_keep_their_answers(world: World) -> None:
    """Memory is found by fingerprint, not by name."""
    world.backends = [Scripted(frozenset("ab"), name="one", fingerprint="1")]
    world.backends.append(Scripted(frozenset("cde"), name="two", fingerprint="2"))
    world.refresh()
    before = world.addresses()
    world.backends = [Scripted(None, name="two", fingerprint="1"), Scripted(None, name="one", fingerprint="2")]
    world.refresh()
    assert world.addresses() == before


def test_a_backend_that_is_renamed_back_has_its_newest_answer(world: World) -> None:
    """Not the older answer that it had under that name."""
    world.answers(SEEN, name="other")
    world.refresh(after=80_000)
    world.answers(None)
    assert world.refresh(after=10_000).round.degraded[0].age == 10_000
    assert world.addresses()["a"] == "100.64.0.97:9100"


def test_an_answer_older_than_max_age_holds_no_loss(world: World) -> None:
    """It is not compared with the new one."""
    world.answers("a")
    assert world.refresh(after=100_000).round.exit_code == 0


def test_an_outage_does_not_end_a_hold_without_memory(world: World) -> None:
    """Neither its time nor its cycles count towards policy.shrink_after."""
    world.happens("the state is deleted")
    codes: list[int] = []
    for turn in range(16):
        world.answers(None if turn % 4 == 3 else "a")
        codes.append(world.refresh().round.exit_code)
    assert codes == [4, 4, 4, 3] * 3 + [0, 0, 0, 3]


def test_files_of_other_jobs_hold_nothing(world: World) -> None:
    """A removed job is emptied, a file whose name is no valid text is left alone."""
    targets = world.place / "targets"
    (targets / "removed.json").write_bytes((targets / "node.json").read_bytes())
    (targets / os.fsdecode(b"\xff.json")).write_bytes(b"[]\n")
    world.happens("the state is deleted")
    world.answers("a")
    done = world.refresh()
    assert (done.round.exit_code, [job.job for job in done.round.resolution.frozen]) == (4, ["node"])
    assert (targets / "removed.json").read_bytes() == b"[]\n"
