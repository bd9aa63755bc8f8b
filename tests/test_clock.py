"""Tests with a clock that jumps: answers still expire, and a temporary jump loses nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clan_discovery.backends.tailscale_wire import TailscaleOptions, parse_status
from clan_discovery.dnsclient.cache import Cache, TtlBounds
from clan_discovery.dnsclient.lookup import Found
from clan_discovery.dnsclient.message import Question
from clan_discovery.elapsed import Behind, elapsed, noted
from clan_discovery.model import Failure, Group, Node, Outage, Snapshot
from clan_discovery.publish.state import State
from clan_discovery.resolve.memory import IndexEntry, Memory
from clan_discovery.resolve.resolver import Policy
from clan_discovery.resolve.trust import Trust, believe
from clan_discovery.round import OutputPaths, Plan, refresh
from tests.support.fleet import fleet
from tests.support.scripted import Scripted

if TYPE_CHECKING:
    from pathlib import Path

    from clan_discovery.model import Answer, Belief

NOW: Final = 1_800_000_000.0
DAY: Final = 86400.0
YEAR: Final = 365 * DAY
STEP: Final = 1800.0
ANSWER: Final = Snapshot(backend="t", nodes=tuple(Node(n, ("100.64.0.1",)) for n in "abcdef"), suffix="ts.net")
DOWN: Final = Outage(backend="t", reason="down")
errors = st.sampled_from([0.0, -YEAR, -DAY, -3600.0, -1.0, 1.0, 3600.0, 23 * 3600.0, DAY, YEAR, 10 * YEAR])
"""Errors of the clock, in seconds."""


def cycle(answer: Answer, memory: Memory, now: float) -> tuple[Belief, Memory]:
    """Run one cycle, and encode and decode its memory as the index does."""
    belief, after = believe(answer, memory, Trust(), fingerprint="f", now=now)
    entry = IndexEntry.of(after, "f", (), own=False)
    return belief, entry.memory(after.last.snapshot if after.last is not None else None)


@pytest.mark.parametrize("ahead", [1.0, 3600.0, 23 * 3600.0, DAY, YEAR, 10 * YEAR])
def test_outage_ends_if_the_clock_was_ahead_at_the_last_answer(ahead: float) -> None:
    """The age counts from the first cycle with a correct clock, also once the clock reaches the stored timestamp."""
    belief, memory = cycle(ANSWER, Memory(), NOW + ahead)
    real = 0.0
    while real <= DAY + 2 * STEP:
        real += STEP
        belief, memory = cycle(DOWN, memory, NOW + real)
        if real <= DAY - STEP:
            assert belief.state == "kept", real
    assert belief.state == "expired"


@pytest.mark.parametrize("jump", [-10 * YEAR, -YEAR, -DAY, -3600.0, 3600.0, DAY, YEAR, 10 * YEAR])
@pytest.mark.parametrize("cycles", [1, 3])
def test_temporary_clock_jump_loses_no_answer(jump: float, cycles: int) -> None:
    """During an outage; afterwards the answer has its true age."""
    _, memory = cycle(ANSWER, Memory(), NOW)
    _, memory = cycle(DOWN, memory, NOW + 60)
    for number in range(cycles):
        belief, memory = cycle(DOWN, memory, NOW + 120 + 60 * number + jump)
        assert belief.state == ("kept" if jump < DAY else "expired")
    belief, memory = cycle(DOWN, memory, NOW + 600)
    assert belief.state == "kept"
    assert 600 <= belief.age <= 600 + 60 * cycles
    belief, _ = cycle(DOWN, memory, NOW + DAY + 601)
    assert belief.state == "expired"


@given(errors, st.lists(errors, max_size=8), st.sampled_from([60.0, 1800.0, 3600.0]))
@example(23 * 3600.0, [], 1800.0)
@example(YEAR, [0.0, -YEAR], 1800.0)
@example(10 * YEAR, [YEAR, 3600.0], 3600.0)
@example(23 * 3600.0, [3600.0], 60.0)
def test_outage_ends_after_any_clock_error(at_answer: float, walk: list[float], interval: float) -> None:
    """With a correct clock again, an answer is kept for at most `max_age` and a cycle."""
    _, memory = cycle(ANSWER, Memory(), NOW + at_answer)
    real = 0.0
    for error in walk:
        real += STEP
        _, memory = cycle(DOWN, memory, NOW + real + error)
    states: list[str] = []
    right = real
    # One cycle to notice that the clock is right, and one in which it passes the timestamp of the answer.
    while real <= right + DAY + 2 * interval:
        real += interval
        belief, memory = cycle(DOWN, memory, NOW + real)
        states.append(belief.state)
    assert states[-1] == "expired"
    assert states == sorted(states, reverse=True)  # kept, then expired, and never kept again
    recovered, memory = cycle(ANSWER, memory, NOW + real)
    assert recovered.state == "fresh"
    assert memory.last is not None
    assert memory.last.age(NOW + real) == 0


@given(st.lists(errors, min_size=1, max_size=6))
def test_clock_jumps_after_an_answer_lose_nothing(walk: list[float]) -> None:
    """With a correct clock again, the answer is minutes old and is kept."""
    _, memory = cycle(ANSWER, Memory(), NOW)
    real = 0.0
    for error in walk:
        real += 60
        _, memory = cycle(DOWN, memory, NOW + real + error)
    belief, _ = cycle(DOWN, memory, NOW + real + 60)
    assert belief.state == "kept"
    assert real + 60 <= belief.age <= 2 * (real + 60) + 3600 * len(walk)


@given(st.floats(0, 1e9), st.lists(st.floats(0, 1e9), max_size=20))
def test_elapsed_time_is_bounded(since: float, walk: list[float]) -> None:
    """It is never negative, and each reading adds at most an hour while the clock is behind."""
    behind: Behind | None = None
    for count, now in enumerate(walk):
        behind = noted(since, now, behind)
        assert 0 <= elapsed(since, now, behind) <= max(now - since, 0) + 3600 * count
        assert elapsed(since, now, behind) >= now - since


@given(errors, st.lists(errors, max_size=5))
def test_offline_time_survives_clock_errors(first: float, walk: list[float]) -> None:
    """With a correct clock again, the time counts at least from then on."""
    offline = Snapshot(backend="t", nodes=(Node("a", ("100.64.0.1",), online=False),))
    _, memory = cycle(offline, Memory(), NOW + first)
    real = 0.0
    for error in walk:
        real += 60
        _, memory = cycle(offline, memory, NOW + real + error)
    right = real + 60
    _, memory = cycle(offline, memory, NOW + right)
    belief, memory = cycle(offline, memory, NOW + right + 60)
    assert belief.offline["a"] >= 60
    if first == 0:
        assert belief.offline["a"] <= 2 * (right + 60) + 3600 * len(walk)


@pytest.mark.parametrize("jump", [-10 * YEAR, -DAY, -3600.0, 3 * DAY, 10 * YEAR])
def test_clock_jump_does_not_accept_a_held_loss(jump: float) -> None:
    """The clock jumps once and back."""
    _, memory = cycle(ANSWER, Memory(), NOW)
    loss = Snapshot(backend="t", nodes=ANSWER.nodes[:1], suffix="ts.net")
    belief, memory = cycle(loss, memory, NOW + 30)
    for now in (60, 90 + jump, 120):
        belief, memory = cycle(loss, memory, NOW + now)
        # The loss guard compares with a last good answer that is not too old; ten years later there is none.
        if not (now > DAY):
            assert belief.state == "held", now
        else:
            return
    for now in range(150, 1200, 30):
        belief, memory = cycle(loss, memory, NOW + now)
        if belief.state == "fresh":
            break
    assert belief.state == "fresh"


@pytest.mark.parametrize("jump", [-YEAR, -3600.0])
def test_failing_group_keeps_its_machines_if_the_clock_was_behind(jump: float) -> None:
    """And they still expire after `max_age`."""
    failing = Snapshot(backend="t", groups={"": Group((Failure("x", "SERVFAIL", "*"),))}, suffix="ts.net")
    _, memory = cycle(ANSWER, Memory(), NOW)
    for now in (30, 60 + jump, 90, 120):
        belief, memory = cycle(failing, memory, NOW + now)
        assert belief.snapshot is not None
        assert len(belief.snapshot.nodes) == 6, now
    belief, memory = cycle(failing, memory, NOW + 2 * DAY)
    assert belief.snapshot is not None
    assert belief.snapshot.nodes == ()


def test_failing_group_expires_if_the_clock_was_ahead() -> None:
    """Its machines are removed `max_age` after the clock is correct."""
    failing = Snapshot(backend="t", groups={"": Group((Failure("x", "SERVFAIL", "*"),))}, suffix="ts.net")
    _, memory = cycle(ANSWER, Memory(), NOW + 10 * YEAR)
    real, left = 0.0, 6
    while left and real < 2 * DAY:
        real += STEP
        belief, memory = cycle(failing, memory, NOW + real)
        assert belief.snapshot is not None
        left = len(belief.snapshot.nodes)
    assert DAY <= real <= DAY + 2 * STEP


def frozen(place: Path, answer: frozenset[str] | None, now: float) -> tuple[str, ...]:
    """Run one cycle; return the jobs whose present file is kept."""
    from tests.test_kill_and_disk import NODE, declared_by  # noqa: PLC0415

    plan = Plan(
        declared=declared_by(frozenset("ab")),
        backends=(Scripted(answer),),
        rules=(),
        jobs=frozenset({NODE.type}),
        policy=Policy(),
        trust=Trust(),
        directory=place / "targets",
        state_directory=place / "state",
        lock_wait=1.0,
    )
    places = OutputPaths(plan.directory, plan.state_directory, plan.lock_wait)
    done = refresh(places, lambda: plan, State(plan.state_directory), lambda: datetime.fromtimestamp(now, UTC))
    return tuple(job.job for job in done.round.resolution.frozen)


@pytest.mark.parametrize("error", [-YEAR, 0.0, 10 * YEAR])
def test_frozen_file_is_kept_for_max_age(tmp_path: Path, error: float) -> None:
    """The state is lost while the clock is wrong: `max_age` counts from when the clock is correct."""
    assert frozen(tmp_path, frozenset("ab"), NOW) == ()
    (tmp_path / "state/index.json").unlink()
    assert frozen(tmp_path, None, NOW + 60 + error) == ("node",)
    assert frozen(tmp_path, None, NOW + 120) == (() if error < 0 else ("node",))
    if error >= 0:
        for hour in range(1, 25):
            assert frozen(tmp_path, None, NOW + 3600 * hour) == ("node",)
        assert frozen(tmp_path, None, NOW + DAY + 180) == ()


@pytest.mark.parametrize("jump", [-YEAR, -60.0])
def test_frozen_file_stays_frozen_if_the_clock_was_behind(tmp_path: Path, jump: float) -> None:
    """The clock is behind for one cycle."""
    assert frozen(tmp_path, frozenset("ab"), NOW) == ()
    (tmp_path / "state/index.json").unlink()
    for now in (60, 120 + jump, 180, DAY - 60):
        assert frozen(tmp_path, None, NOW + now) == ("node",), now


@given(errors, st.lists(errors, max_size=5))
def test_cached_answer_expires_after_any_clock_error(at_answer: float, walk: list[float]) -> None:
    """A DNS answer that is used while no server responds."""
    question = Question("db.example", "A")
    cache = Cache()
    cache.store(question, Found(("10.0.0.1",), 300), TtlBounds(5, 3600), NOW + at_answer)
    real = 0.0
    for error in walk:
        real += 60
        cache = Cache.from_bytes(cache.to_bytes())
        cache.note(NOW + real + error)
    right = real + 60
    cache.note(NOW + right)
    if at_answer == 0:
        assert cache.get(question, NOW + right, DAY) is not None
    real = right
    while real <= right + DAY + STEP:
        real += STEP
        cache.note(NOW + real)
    if not 0 <= real - at_answer <= 300:
        assert cache.get(question, NOW + real, DAY) is None


def test_clock_readings_are_saved_in_the_state() -> None:
    """After a restart, the age of an answer includes the time that the clock was behind."""
    snapshot = parse_status(json.dumps(fleet(["a"])).encode(), TailscaleOptions(backend="t"))
    _, memory = cycle(snapshot, Memory(), NOW + YEAR)
    belief, memory = cycle(DOWN, memory, NOW)
    belief, memory = cycle(DOWN, memory, NOW + 3600)
    assert belief.age == 3600


@pytest.mark.parametrize("end", [0.0, 9.0e9, 1.37e11, 1.5e11, 253402300798.0])
@pytest.mark.parametrize("lost", [False, True])
def test_extreme_clock_values_raise_nothing(tmp_path: Path, end: float, lost: bool) -> None:  # noqa: FBT001
    """1970, after 2262, and 9999: the state stays readable, and the clock may be corrected."""
    assert frozen(tmp_path, frozenset("ab"), NOW) == ()
    before = (tmp_path / "targets/node.json").read_bytes()
    if lost:
        (tmp_path / "state/index.json").unlink()
    frozen(tmp_path, None, NOW + 60)
    frozen(tmp_path, None, end)
    assert frozen(tmp_path, None, NOW + 120) == (("node",) if lost and end < NOW else ())
    assert not list((tmp_path / "state").glob("*.unreadable"))
    if not lost or end < NOW:
        assert (tmp_path / "targets/node.json").read_bytes() == before
    frozen(tmp_path, frozenset("ab"), end)
    frozen(tmp_path, None, end)
    assert not list((tmp_path / "state").glob("*.unreadable"))
