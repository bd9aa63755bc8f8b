"""The log of `run`: start, stop and changes, in plain lines of limited length."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest

from clan_discovery.assemble import directories, make_plan
from clan_discovery.config.load import load_config
from clan_discovery.model import Belief, BeliefState, ChangeRecord
from clan_discovery.publish.state import State
from clan_discovery.resident.events import Events
from clan_discovery.resident.log import Log
from clan_discovery.resident.loop import Daemon
from clan_discovery.resident.notify import Notify
from clan_discovery.resident.plans import Loaded
from clan_discovery.resolve.changes import Changes, ShareChange
from clan_discovery.round import refresh
from tests.support.fleet import inventory, node, status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Report
    from clan_discovery.round import Refreshed

CONFIG = """\
inventory: {file: inventory.json}
backends: {tailscale: {tailnet: {status_file: status.json}}}
output: {directory: targets}
"""
RENAMED = "another node calls itself like the machine: renamed, or registered again"
STARTED = (
    "level=info msg=started version=1 config=/config.yaml machines=2 expected=2 jobs=1 backends=tailnet interval=30s"
)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Write a config, an inventory and a status."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["monitor", "db"])))
    (tmp_path / "status.json").write_text(json.dumps(status([node(1, "monitor"), node(2, "db")])))
    return tmp_path


def daemon_of(place: Path, stream: io.StringIO, cycles: int, on_cycle: Callable[[Report], None]) -> Daemon:
    """Return a loop in this process that logs to a stream."""

    def load() -> Loaded:
        loaded = load_config(place / "config.yaml")
        return Loaded(directories(loaded), lambda _: make_plan(loaded), (), (), name=str(loaded.file))

    return Daemon(load=load, log=Log(stream), notify=Notify(None), max_cycles=cycles, on_cycle=on_cycle)


def done_with(place: Path, *changes: ChangeRecord) -> Refreshed:
    """Do a cycle; return it with these changes."""
    loaded = load_config(place / "config.yaml")
    places = directories(loaded)
    done = refresh(places, lambda: make_plan(loaded), State(places.state_directory), lambda: datetime.now(UTC))
    return msgspec.structs.replace(done, changes=Changes(changes))


def test_the_log_from_start_to_stop(world: Path) -> None:
    """A machine moves, goes offline and returns; after a second start nothing changes."""
    steps = iter([node(9, "db"), node(9, "db", Online=False), node(9, "db")])

    def on_cycle(_: Report) -> None:
        if step := next(steps, None):
            (world / "status.json").write_text(json.dumps(status([node(1, "monitor"), step])))
        daemon.wake.call("status")

    stream = io.StringIO()
    daemon = daemon_of(world, stream, 4, on_cycle)
    assert daemon.run() == 0
    daemon = daemon_of(world, stream, 1, on_cycle)
    assert daemon.run() == 0
    told = re.sub(r"version=\S+", "version=1", stream.getvalue()).replace(str(world), "")
    lines = re.sub(r"ran=\d+s", "ran=1s", told).splitlines()
    assert lines == [
        STARTED,
        "level=info msg=published files=node targets=2 seen=2",
        'level=info msg=published files=node targets=2 seen=2 changes="+0 -0 ~1"',
        'level=info msg="target moved" machine=db job=node old=100.64.0.2:9100 new=100.64.0.9:9100 backend=tailnet',
        'level=info msg="machine is offline" machine=db',
        'level=info msg="machine is back" machine=db was=offline',
        "level=info msg=stopped reason=done ran=1s",
        STARTED,
        'level=info msg="unchanged since the last run" targets=2 seen=2',
        "level=info msg=stopped reason=done ran=1s",
    ]


def test_twenty_changes_are_lines_and_the_others_a_count(world: Path) -> None:
    """Changes found again because the history cannot be written are logged once."""
    changes = [
        ChangeRecord(at=0, what="added", machine=f"m{number}", job="node", instance=f"m{number}:1", new="10.0.0.1:9")
        for number in range(25)
    ]
    done = done_with(world, *changes)
    stream = io.StringIO()
    events = Events(Log(stream), Notify(None))
    events.cycle_succeeded(done, [])
    told = stream.getvalue().splitlines()
    assert told[1] == 'level=info msg="target added" machine=m0 job=node instance=m0:1 new=10.0.0.1:9'
    assert told[20].startswith('level=info msg="target added" machine=m19 ')
    assert told[21:] == ['level=info msg="more changes" count=5 see="clan-discovery history"']
    later = tuple(msgspec.structs.replace(change, at=30) for change in changes)
    events.cycle_succeeded(msgspec.structs.replace(done, changes=Changes(later)), [])
    assert stream.getvalue().splitlines() == [*told, told[0]]


def test_change_of_the_shard_is_told_once(world: Path) -> None:
    """And what it moved; also while the history cannot be written, so that each cycle finds it again."""
    stream = io.StringIO()
    events = Events(Log(stream), Notify(None))
    steps = [
        ("", None),
        ("{member: monitor, members: [monitor, db]}", ShareChange(0, 2)),
        ("{member: monitor, members: [monitor, db]}", ShareChange(0, 2)),
    ]
    steps += [("{member: monitor, members: [monitor, db]}", None), ("", ShareChange(2, 0)), ("", None)]
    for shard, change in steps:
        if shard:
            (world / "config.yaml").write_text(f"{CONFIG}shard: {shard}\n")
        else:
            (world / "config.yaml").write_text(CONFIG)
        done = done_with(world)
        events.cycle_succeeded(msgspec.structs.replace(done, changes=Changes(share=change)), [])
    assert [line for line in stream.getvalue().splitlines() if "the shard " in line] == [
        'level=info msg="the shard has changed" targets=2 published=0 servers=2 replicas=1 changes="+0 -2"',
        'level=info msg="the shard is removed" targets=2 published=2',
    ]


def test_every_change_has_a_message(world: Path) -> None:
    """A change that needs a person is a warning."""
    machine = [ChangeRecord(at=0, what=what, machine="db") for what in ("missing", "offline", "expired")]
    changes = [
        *machine,
        ChangeRecord(at=0, what="renamed", machine="db", old="missing", new="db-1"),
        ChangeRecord(at=0, what="back", machine="db", old="expired"),
        ChangeRecord(at=0, what="removed", machine="db", job="node", instance="db", old="10.0.0.1:9"),
        ChangeRecord(at=0, what="renamed", machine="b", job="node", instance="b", old="a", new="b"),
    ]
    stream = io.StringIO()
    Events(Log(stream), Notify(None)).cycle_succeeded(done_with(world, *changes), [])
    assert stream.getvalue().splitlines()[1:] == [
        'level=warning msg="machine is missing: no backend sees it" machine=db',
        'level=info msg="machine is offline" machine=db',
        'level=warning msg="the tailnet key of the machine has expired" machine=db',
        f'level=warning msg="{RENAMED}" machine=db node=db-1 was=missing',
        'level=info msg="machine is back" machine=db was=expired',
        'level=info msg="target removed" machine=db job=node old=10.0.0.1:9',
        'level=info msg="target renamed" machine=b job=node old=a new=b',
    ]


def test_lines_have_a_timestamp_outside_journald() -> None:
    """RFC 3339 in UTC; journald adds its own."""

    def clock() -> datetime:
        return datetime(2026, 11, 21, 22, 41, 56, 123_456, UTC)

    stream = io.StringIO()
    Log(stream, clock=clock).event("info", "x")
    Log(stream, "json", clock=clock).event("info", "x")
    Log(stream, journal=True, clock=clock).event("info", "x")
    assert stream.getvalue().splitlines() == [
        "ts=2026-11-21T22:41:56.123Z level=info msg=x",
        '{"ts": "2026-11-21T22:41:56.123Z", "level": "info", "msg": "x"}',
        "<6>level=info msg=x",
    ]


def test_an_age_is_rounded() -> None:
    """No twelve decimals."""
    stream = io.StringIO()
    events = Events(Log(stream), Notify(None))
    events.backend(Belief(backend="t", state=BeliefState.KEPT, snapshot=None, why="down", age=301.949966))
    events.evaluated("start", 12.345)
    assert " age=5m" in stream.getvalue()
    assert " took=12s" in stream.getvalue()


def test_a_file_of_others_that_is_scraped_is_told_once(world: Path) -> None:
    """And again after it was away."""
    (world / "config.yaml").write_text(CONFIG.replace("{directory: targets}", "{directory: targets, split: 2}"))
    stream, foreign = io.StringIO(), world / "targets/node.extra.json"
    events = Events(Log(stream), Notify(None))
    for is_there in (False, True, True, False, True):
        foreign.unlink(missing_ok=True)
        if is_there:
            foreign.write_text('[{"targets": ["x:1"]}]')
        events.cycle_succeeded(done_with(world), [])
    told = [line for line in stream.getvalue().splitlines() if "a file of others is scraped" in line]
    assert len(told) == 2
    assert "node.extra.json" in told[0]
    assert 'reason="job node reads node.*.json"' in told[0]
