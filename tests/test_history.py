"""The history: what changed, since when a target has its address, and no writes without a change."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from clan_discovery.memory import HistoryFile, read_history
from clan_discovery.model import (
    Belief,
    BeliefState,
    ChangeRecord,
    Exclusion,
    Frozen,
    Missing,
    Resolution,
    Shard,
    ShardMember,
    Since,
    Stray,
    Target,
)
from clan_discovery.publish.state import State
from clan_discovery.resolve.changes import ShareChange, compare, differing
from clan_discovery.resolve.decoded import DecodedFile
from clan_discovery.resolve.history import History, advance, decode_history
from tests.support.fleet import inventory, node, status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from clan_discovery.resolve.changes import Row
    from tests.conftest import Done

START = 1_800_000_000
FRESH = Belief(backend="tailnet", state=BeliefState.FRESH, snapshot=None)
KEPT = msgspec.structs.replace(FRESH, state=BeliefState.KEPT)


def target(machine: str, address: str, *, job: str = "node", online: bool | None = None, **labels: str) -> Target:
    """Return a target of one job."""
    labels = {"instance": machine, "machine": machine, **labels}
    return Target(
        job, machine, address, labels, observed=True, backend="tailnet", because="", located="", online=online
    )


def resolution(*targets: Target, after: int = 0, beliefs: tuple[Belief, ...] = (FRESH,)) -> Resolution:
    """Return the resolution of a cycle, this many seconds after the first one."""
    return Resolution(
        jobs=("node",),
        targets=targets,
        missing=(),
        unknown=(),
        stray=(),
        ambiguous=(),
        excluded=(),
        beliefs=beliefs,
        problems=(),
        additional_scrape_configs=(),
        taken_at=datetime.fromtimestamp(START + after, UTC),
    )


def advanced(*cycles: Resolution) -> bytes:
    """Return the bytes of the history after these cycles."""
    body: bytes | None = None
    for cycle in cycles:
        body = advance(body, cycle).body or body
    assert body is not None
    return body


def told(*cycles: Resolution) -> list[str]:
    """Return the changes of these cycles, each as a few words."""
    return [
        " ".join(filter(None, (change.what, change.machine, change.job, change.old, change.new)))
        for change in decode_history(advanced(*cycles)).changes
    ]


# --- two sets of targets ----------------------------------------------------------------------------------------------

PLACES = st.dictionaries(
    st.tuples(st.sampled_from(["node", "nginx"]), st.sampled_from("abcdef")),
    st.sampled_from(["10.0.0.1:9", "10.0.0.2:9", "10.0.0.3:9"]),
)


def rows(places: Mapping[tuple[str, str], str], backend: str = "tailnet") -> list[Row]:
    """Return rows of targets whose instance is the machine."""
    return [(job, name, name, address, backend) for (job, name), address in sorted(places.items())]


@given(PLACES, PLACES)
def test_changes_transform_one_set_into_the_other(
    before: dict[tuple[str, str], str], after: dict[tuple[str, str], str]
) -> None:
    """Each has the old address; equal sets have no changes."""
    places = dict(before)
    for change in compare(rows(before), rows(after), START):
        key = change.job, change.instance
        match change.what:
            case "added":
                assert key not in places
                places[key] = change.new
            case "removed":
                assert places.pop(key) == change.old
            case "moved":
                assert places[key] == change.old != change.new
                places[key] = change.new
            case "renamed":
                assert change.new == change.instance
                places[key] = places.pop((change.job, change.old))
            case _:
                pytest.fail(f"{change.what} is of no target")
    assert places == after
    if before == after:
        assert not list(compare(rows(before), rows(after, "dns"), START))


NUMBERS: Final = st.sets(st.sampled_from([0, 1, 2, 998, 999, 1000, 1001, 1002, 1999, 2000, 2001, 2998, 2999]))


@bounded(deadline=None)
@given(st.integers(0, 3000), NUMBERS, NUMBERS)
def test_rows_of_long_lists_that_differ_are_found(size: int, gone: set[int], added: set[int]) -> None:
    """Equal parts are compared many rows at once; what is beside them must not be missed."""
    every = [("node", f"{number:04}", f"{number:04}", "10.0.0.1:9", "") for number in range(size)]
    before = tuple(row for number, row in enumerate(every) if number not in added)
    after = tuple(row for number, row in enumerate(every) if number not in gone)
    lost, new = differing(before, after)
    assert [before[number] for number in lost] == [every[number] for number in sorted(gone - added) if number < size]
    assert [after[number] for number in new] == [every[number] for number in sorted(added - gone) if number < size]


@pytest.mark.parametrize("size", [2, 999, 1000, 1001, 2500])
def test_each_target_keeps_the_time_since_when_it_has_its_address(size: int) -> None:
    names = [f"m{number:04}" for number in range(size)]
    first = resolution(*[target(name, f"{name}:9") for number, name in enumerate(names) if number % 7])
    second = resolution(*[target(name, f"{name}:9") for number, name in enumerate(names) if number % 11], after=60)
    since = decode_history(advanced(first, second)).since()
    assert {instance: found.at for (_, instance, _), found in since.items()} == {
        name: START if number % 7 else START + 60 for number, name in enumerate(names) if number % 11
    }


def test_another_machine_at_the_same_address_is_renamed() -> None:
    """In one job; at another address it is a new machine."""
    before = rows({("node", "laptop"): "10.0.0.1:9", ("node", "x"): "10.0.0.2:9"})
    after = rows({("node", "desktop"): "10.0.0.1:9", ("node", "y"): "10.0.0.3:9"})
    found = [(change.what, change.old, change.new) for change in compare(before, after, START)]
    assert found == [("renamed", "laptop", "desktop"), ("added", "", "10.0.0.3:9"), ("removed", "10.0.0.2:9", "")]


# --- from cycle to cycle ----------------------------------------------------------------------------------------------


def test_the_first_cycle_has_no_changes() -> None:
    """A new or lost history does not report every target."""
    cycle = resolution(*(target(f"m{number}", "10.0.0.1:9") for number in range(100)))
    begun = advance(None, cycle)
    assert begun.changes.is_first
    assert begun.changes.found == ()
    assert begun.body is not None
    assert set(decode_history(begun.body).since().values()) == {Since(START, is_exact=False)}


def test_an_unchanged_cycle_writes_nothing() -> None:
    """Nor does a cycle in which only labels changed."""
    body = advanced(resolution(target("db", "10.0.0.1:9")))
    assert advance(body, resolution(target("db", "10.0.0.1:9"), after=30)).body is None
    assert advance(body, resolution(target("db", "10.0.0.1:9", site="home"), after=30)).body is None
    # A reformatted file has the same content.
    formatted = json.dumps(json.loads(body), indent=2).encode()
    assert advance(formatted, resolution(target("db", "10.0.0.1:9"))).body == body


def test_since_when_a_target_has_its_address() -> None:
    """An unchanged target keeps its time; one that returns starts again.

    The clock may go back.
    """
    cycles = [
        resolution(target("a", "10.0.0.1:9"), target("b", "10.0.0.2:9")),
        resolution(target("a", "10.0.0.1:9"), target("b", "10.0.0.3:9"), after=30),
        resolution(target("a", "10.0.0.1:9"), target("b", "10.0.0.3:9"), target("c", "10.0.0.4:9"), after=60),
    ]
    assert decode_history(advanced(*cycles)).since() == {
        ("node", "a", "10.0.0.1:9"): Since(START, is_exact=False),
        ("node", "b", "10.0.0.3:9"): Since(START + 30, is_exact=True),
        ("node", "c", "10.0.0.4:9"): Since(START + 60, is_exact=True),
    }
    back = decode_history(advanced(*cycles, resolution(target("b", "10.0.0.2:9"), after=-500_000_000)))
    assert [change.at for change in back.changes] == [START + 30, START + 60, *[START - 500_000_000] * 3]
    decode_history(advanced(cycles[0], msgspec.structs.replace(cycles[1], taken_at=datetime(1960, 1, 1, tzinfo=UTC))))


def test_the_last_thousand_changes_are_kept() -> None:
    """Also if one cycle has more."""
    many = [target(f"m{number:04}", "10.0.0.1:9") for number in range(1500)]
    changes = decode_history(advanced(resolution(), resolution(*many), resolution(after=30))).changes
    assert len(changes) == 1000
    assert {change.what for change in changes} == {"removed"}


def test_a_kept_file_has_no_changes() -> None:
    """A change counts when it is written."""
    first, second = resolution(target("db", "10.0.0.1:9")), resolution(target("db", "10.0.0.2:9"), after=30)
    frozen = msgspec.structs.replace(second, frozen=(Frozen("node", "tailnet", 0.0, None, "memory lost"),))
    assert told(first, frozen) == []
    assert told(first, frozen, second) == ["moved db node 10.0.0.1:9 10.0.0.2:9"]
    # The history is lost too, so the addresses in the file are unknown.
    third = resolution(target("db", "10.0.0.3:9"), after=60)
    assert told(frozen, frozen, second) == []
    assert told(frozen, second, third) == ["moved db node 10.0.0.2:9 10.0.0.3:9"]
    assert set(decode_history(advanced(frozen, second)).since().values()) == {Since(START + 30, is_exact=False)}


@pytest.mark.parametrize("is_cached", [False, True])
def test_a_job_without_targets_after_its_file_was_kept_waits_no_longer(*, is_cached: bool) -> None:
    """Nothing else changes in the cycle in which it has a file again; a target that comes later is a change."""
    cache = DecodedFile[History]() if is_cached else None
    empty = resolution(after=30)
    frozen = msgspec.structs.replace(empty, frozen=(Frozen("node", "tailnet", 0.0, None, "memory lost"),))
    body = None
    for cycle in (frozen, frozen, empty, resolution(target("db", "10.0.0.1:9"), after=60)):
        body = advance(body, cycle, cache).body or body
    assert body is not None
    assert [change.what for change in decode_history(body).changes] == ["added"]


def test_state_changes_of_machines_are_recorded_once() -> None:
    """Missing, offline, expired, renamed and back."""
    db, web = target("db", "10.0.0.1:9"), target("web", "10.0.0.2:9")
    seen = resolution(db, web)
    offline = resolution(target("db", "10.0.0.1:9", online=False), web)
    dropped = msgspec.structs.replace(
        resolution(web), excluded=(Exclusion(name="db", reason="offline", detail="", by="tailnet", job="node"),)
    )
    missing = msgspec.structs.replace(seen, missing=(Missing(machine="db", jobs=("node",)),))
    renamed = msgspec.structs.replace(missing, stray=(Stray(name="db-1", backend="tailnet", alias="db"),))
    expired = msgspec.structs.replace(offline, expired=("db",))
    assert told(seen, offline, offline, seen) == ["offline db", "back db offline"]
    assert told(seen, dropped) == ["offline db", "removed db node 10.0.0.1:9"]
    assert told(seen, missing, missing, renamed, seen) == ["missing db", "renamed db missing db-1", "back db renamed"]
    assert told(seen, expired, offline) == ["expired db", "offline db expired"]


def test_an_outage_is_no_return_of_a_machine() -> None:
    """Nor is a decommission."""
    offline = resolution(target("db", "10.0.0.1:9", online=False))
    outage = resolution(target("db", "10.0.0.1:9"), beliefs=(KEPT,))
    missing = msgspec.structs.replace(resolution(target("db", "db.lan:9")), missing=(Missing(machine="db", jobs=()),))
    unknown = msgspec.structs.replace(resolution(target("db", "db.lan:9")), unknown=("db",))
    assert told(offline, outage, offline) == []
    assert told(missing, unknown, missing) == []
    assert told(missing, resolution()) == ["removed db node db.lan:9"]


@given(st.binary(max_size=50), st.integers(0, 500))
def test_a_damaged_history_raises_only_value_error(noise: bytes, place: int) -> None:
    """When it is read and when a cycle is added."""
    first = resolution(target("db", "10.0.0.1:9"))
    second = resolution(target("db", "10.0.0.2:9"), after=30)
    body = advanced(first, second, first)
    for damaged in (noise, body[:place] + noise + body[place:], body[: place % len(body)]):
        try:
            decode_history(damaged)
        except ValueError:
            continue
        assert isinstance(advance(damaged, second).changes.found, tuple)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"version":1', '"version":2'),
        ('"node"', '"../node"'),
        ('"job":"node"', '"job":"a b"'),
        ('"since":[', '"since":[1,'),
        ('"at":', '"at":-'),
        ('"at":', '"at":9999'),
        ('"what":"moved"', '"what":"gone"'),
        ('"began":', '"began":-'),
    ],
)
def test_an_invalid_value_refuses_the_whole_history(old: str, new: str) -> None:
    """A wrong version, job, time or kind of change."""
    body = advanced(resolution(target("db", "10.0.0.1:9")), resolution(target("db", "10.0.0.2:9"), after=30)).decode()
    assert old in body
    with pytest.raises(ValueError, match=r"it has|is no|is not|Invalid|Expected"):
        decode_history(body.replace(old, new).encode())


@pytest.mark.parametrize("is_cached", [False, True])
def test_a_change_of_the_shard_is_found_once(*, is_cached: bool) -> None:
    """Also if nothing else changes, and with what `run` keeps. Order and case of the names do not matter."""
    cache = DecodedFile[History]() if is_cached else None
    cycle = resolution(target("db", "10.0.0.1:9"))
    shards = [
        Shard(member="a", members=tuple(map(ShardMember, names))) for names in (("a",), ("A",), ("b", "a"), ("A", "b"))
    ]
    found: list[ShareChange | None] = []
    body = None
    for shard in (None, shards[0], shards[1], shards[2], shards[3], None, None):
        advanced_to = advance(body, msgspec.structs.replace(cycle, shard=shard), cache)
        found.append(advanced_to.changes.share)
        assert (advanced_to.body is None) == (body is not None and found[-1] is None)
        body = advanced_to.body or body
    zero = ShareChange(0, 0)
    assert found == [None, zero, None, zero, None, ShareChange(1, 0), None]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"replicas":1', '"replicas":0'),
        ('"replicas":1', '"replicas":2'),
        ('"weight":1.0', '"weight":0'),
        ('"weight":1.0', '"weight":1e308'),
        ('"weight":1.0', '"weight":-1'),
        ('"state":"active"', '"state":"joining"'),
        ('"state":"active"', '"state":"x"'),
    ],
)
def test_a_shard_whose_shares_cannot_be_computed_refuses_the_history(old: str, new: str) -> None:
    """Its replicas, weights and states are checked as those of the config."""
    shard = Shard(member="mon1", members=(ShardMember("mon1"),))
    body = advanced(msgspec.structs.replace(resolution(target("db", "10.0.0.1:9")), shard=shard)).decode()
    assert decode_history(body.encode()).shard == shard
    assert old in body
    with pytest.raises(ValueError, match=r"it has|is not|Invalid"):
        decode_history(body.replace(old, new).encode())


# --- the file ---------------------------------------------------------------------------------------------------------


def test_each_output_has_its_own_history(tmp_path: Path) -> None:
    """With one state directory, one output's files are no change of the other."""
    state = State(tmp_path / "state")
    for name, address in (("a", "10.0.0.1:9"), ("b", "10.0.0.2:9"), ("a", "10.0.0.1:9"), ("b", "10.0.0.2:9")):
        changes = HistoryFile.read(state, tmp_path / name).record(resolution(target("db", address)))
        assert changes.found == ()
    assert len(list((tmp_path / "state").glob("history-*.json"))) == 2


def test_a_damaged_history_is_set_aside(tmp_path: Path) -> None:
    """A new history begins, and the damage is reported."""
    cycle = resolution(target("db", "10.0.0.1:9"))
    HistoryFile.read(State(tmp_path / "state"), tmp_path / "out").record(cycle)
    (file,) = (tmp_path / "state").glob("history-*.json")
    file.write_text("{")
    state = State(tmp_path / "state")
    assert HistoryFile.read(state, tmp_path / "out").record(cycle).is_first
    assert "which is set aside" in str(state.problems[0])
    assert file.with_name(f"{file.name}.unreadable").read_text() == "{"
    history = read_history(State(tmp_path / "state", read_only=True), tmp_path / "out")
    assert history is not None
    assert history.machines() == {"db"}


CONFIG = """\
inventory: {file: inventory.json}
backends: {tailscale: {tailnet: {status_file: status.json}}}
output: {directory: targets}
"""


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Write a config, an inventory of three machines, and a status."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["monitor", "db", "web"])))
    (tmp_path / "status.json").write_text(json.dumps(status([node(1, "monitor"), node(2, "db"), node(3, "web")])))
    return tmp_path


def test_refresh_and_history_show_the_same_changes(world: Path, run: Callable[..., Done]) -> None:
    """`refresh` prints one line, with --verbose one for each change; `history` lists them."""
    config = ("-c", world / "config.yaml")
    assert "no history yet" in run("history", *config).err
    done = run("refresh", "--verbose", *config)
    assert done.err == "clan-discovery: the history begins: the next refresh lists changes\n"
    files = {f: f.stat().st_mtime_ns for f in (world / "targets.state").glob("history-*")}
    done = run("refresh", "--verbose", *config)
    assert done.err == "clan-discovery: no changes\n"
    assert "no change since 20" in run("history", *config).err
    assert files == {f: f.stat().st_mtime_ns for f in (world / "targets.state").glob("history-*")}
    (world / "inventory.json").write_text(json.dumps(inventory(["monitor", "db", "new"])))
    (world / "status.json").write_text(json.dumps(status([node(1, "monitor"), node(9, "db")])))
    before = {f: f.read_bytes() for f in files}
    done = run("refresh", "--verbose", *config)
    assert done.err.splitlines() == [
        "clan-discovery: changes: +1 -1 ~1; 1 machine changed state",
        "clan-discovery: ! new  -     missing",
        "clan-discovery: ~ db   node  moved    100.64.0.2:9100 -> 100.64.0.9:9100  tailnet",
        "clan-discovery: + new  node  added    new.tail1a2b3.ts.net:9100",
        "clan-discovery: - web  node  removed  100.64.0.3:9100                     tailnet",
    ]
    # As after a kill between target files and history: the next cycle finds the same changes.
    for file, body in before.items():
        file.write_bytes(body)
    assert run("refresh", *config).err == "clan-discovery: changes: +1 -1 ~1; 1 machine changed state\n"
    listed = run("history", *config).out.splitlines()
    assert [line[22:] for line in listed] == [
        "new  -     missing",
        "db   node  moved    100.64.0.2:9100 -> 100.64.0.9:9100  tailnet",
        "new  node  added    new.tail1a2b3.ts.net:9100",
        "web  node  removed  100.64.0.3:9100                     tailnet",
    ]
    (change,) = json.loads(run("history", "DB", "--format", "json", *config).out)
    datetime.fromisoformat(change.pop("at"))
    assert change == {
        "machine": "db",
        "job": "node",
        "instance": "db",
        "what": "moved",
        "old": "100.64.0.2:9100",
        "new": "100.64.0.9:9100",
        "backend": "tailnet",
    }
    done = run("history", "bd", *config)
    assert done.code == 2
    assert "'bd' has no target, and no change since" in done.err
    assert "did you mean 'db'?" in done.err


def test_show_and_explain_say_since_when(world: Path, run: Callable[..., Done]) -> None:
    """What was there when the history began was there before; a target that is elsewhere than published has no date."""
    config = ("-c", world / "config.yaml")
    assert run("refresh", "-q", *config).code == 0
    (world / "status.json").write_text(json.dumps(status([node(1, "monitor"), node(9, "db"), node(3, "web")])))
    shown = run("show", "db", "web", "--since", *config).out.splitlines()
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert [line.split()[5:-1] for line in shown[1:3]] == [[], ["before", today]]
    assert "at this address since" not in run("explain", "db", *config).out
    assert f"at this address since: before {today}" in run("explain", "web", *config).out
    (file,) = (world / "targets.state").glob("history-*")
    stored = json.loads(file.read_bytes())
    stored["began"] -= 60
    file.write_text(json.dumps(stored))
    assert f"at this address since: {today}" in run("explain", "web", *config).out
    (explained,) = json.loads(run("explain", "web", "--format", "json", *config).out)
    (target,) = explained["targets"]
    assert target["there_since_is_exact"] is True
    assert target["there_since"].startswith(today)
    file.write_bytes(b"{}")
    done = run("explain", "web", *config)
    assert "at this address since" not in done.out
    assert file.name in done.err
    assert run("show", "--since", "--format", "json", *config).code == 2
    assert run("show", "--since", "--by", "machine", *config).code == 2


def test_hostile_names_in_the_history_are_escaped(world: Path, run: Callable[..., Done]) -> None:
    """The file may be damaged or planted."""
    assert run("refresh", "-q", "-c", world / "config.yaml").code == 0
    (file,) = (world / "targets.state").glob("history-*")
    stored = json.loads(file.read_bytes())
    stored["changes"] = [msgspec.to_builtins(ChangeRecord(at=START, what="missing", machine="e\x1b[31mvil\u202e"))]
    file.write_text(json.dumps(stored))
    for words in ([], ["--format", "json"]):
        out = run("history", *words, "-c", world / "config.yaml").out
        assert "\x1b" not in out
        assert "\u202e" not in out
        assert "vil" in out
