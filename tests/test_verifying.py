"""`run --verify-interval`: checks in a thread of their own, and findings in the log."""

from __future__ import annotations

import io
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from clan_discovery.assemble import directories, make_plan
from clan_discovery.config.load import load_config
from clan_discovery.model import Program, Verdict, Verification, Verified
from clan_discovery.resident.events import Events
from clan_discovery.resident.log import Log
from clan_discovery.resident.loop import Daemon
from clan_discovery.resident.notify import Notify
from clan_discovery.resident.plans import Loaded
from clan_discovery.resident.serving import Serving
from clan_discovery.resident.triggers import Wake
from clan_discovery.resident.verifying import Findings, Verifier
from tests.support.programs import eventually
from tests.test_run import write_world

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Report, Resolution
    from tests.conftest import Done


def found(*verdicts: Verdict, asked: tuple[Program, ...] = ()) -> Verification:
    """Return a verification of targets m0, m1, ... with these verdicts."""
    targets = tuple(
        Verified(job="node", machine=f"m{i}", instance=f"m{i}", address="10.0.0.1:1", verdict=verdict, reason="why")
        for i, verdict in enumerate(verdicts)
    )
    return Verification(at=1.0, targets=targets, asked=asked)


def verifier(interval: float) -> tuple[Verifier, io.StringIO]:
    """Return a verifier whose first check is due, and its log."""
    stream = io.StringIO()
    log = Log(stream)
    made = Verifier(interval, Wake(), Events(log, Notify(None)), log)
    eventually("a check is due", lambda: made.pause() == 0)
    return made, stream


def result_of(made: Verifier, check: Callable[[], Verification]) -> list[Verification | None]:
    """Run one check, and return its result."""
    results: list[Verification | None] = []
    eventually("a check is due", lambda: made.pause() == 0)
    made.start(check)

    def is_done() -> bool:
        results.append(made.take())
        return made.pause() < made.interval or results[-1] is not None

    eventually("the check ends", is_done)
    return [results[-1]]


def test_check_that_hangs_delays_nobody() -> None:
    """No second check is started meanwhile, and its result still counts."""
    made, _ = verifier(0.01)
    ends, started = threading.Event(), 0

    def hang() -> Verification:
        nonlocal started
        started += 1
        ends.wait(60)
        return found(Verdict.UP)

    begin = time.monotonic()
    for _ in range(5):
        made.start(hang)
        assert made.take() is None
        assert made.pause() == made.interval
        time.sleep(0.02)
    assert time.monotonic() - begin < 50
    ends.set()
    eventually("the result is there", lambda: made.take() == found(Verdict.UP))
    assert started == 1


def test_check_that_fails_is_logged_once() -> None:
    made, stream = verifier(0.01)

    def fail() -> Verification:
        raise ZeroDivisionError("a bug")

    for _ in range(3):
        assert result_of(made, fail) == [None]
    assert stream.getvalue().count("cannot verify what the scrapers do") == 1
    assert result_of(made, lambda: found(Verdict.UP)) == [found(Verdict.UP)]
    assert stream.getvalue().count("the scrapers are verified again") == 1


def test_program_that_does_not_answer_is_logged_once() -> None:
    made, stream = verifier(0.01)
    for ok in (False, False, True):
        program = Program(name="prometheus", url="http://127.0.0.1:9", ok=ok, reason="refused")
        result_of(made, partial(found, asked=(program,)))
    assert stream.getvalue().splitlines() == [
        'level=warning msg="a program cannot be asked, or is not ready" at=prometheus reason=refused',
        'level=info msg="a program answers again" at=prometheus',
    ]


def test_finding_is_logged_when_it_begins_and_when_it_ends() -> None:
    """A target without an answer keeps its finding; another verdict is a new finding."""
    stream = io.StringIO()
    findings = Findings(Log(stream))
    for verdict in (Verdict.UP, Verdict.DOWN, Verdict.DOWN, Verdict.UNKNOWN, Verdict.DOWN, Verdict.EMPTY, Verdict.UP):
        findings.update(found(verdict, Verdict.PENDING))
    assert [line.split(" job=")[0] for line in stream.getvalue().splitlines()] == [
        "level=warning msg=finding verdict=down",
        "level=warning msg=finding verdict=empty",
        'level=info msg="finding ended" verdict=empty',
    ]


def test_many_findings_are_a_few_lines() -> None:
    stream = io.StringIO()
    findings = Findings(Log(stream))
    findings.update(found(*[Verdict.DOWN] * 1000))
    assert len(stream.getvalue().splitlines()) == 21
    assert "count=980" in stream.getvalue()
    findings.update(found())
    assert len(stream.getvalue().splitlines()) == 42


def test_loop_takes_results_without_a_cycle_of_their_own(tmp_path: Path) -> None:
    """Metrics and site get the newest result. While a check hangs, refresh cycles go on."""
    loaded = load_config(write_world(tmp_path, ["monitor"]))
    hangs = threading.Event()
    checks: list[Resolution] = []
    reports: list[Report] = []
    serving = Serving()

    def check(resolution: Resolution) -> Verification:
        checks.append(resolution)
        if len(checks) > 1:
            hangs.wait(60)
        return found(Verdict.DOWN)

    once = Loaded(directories(loaded), lambda _: make_plan(loaded), files=(), sockets=(), verify=check)
    daemon = Daemon(
        lambda: once,
        Log(io.StringIO()),
        Notify(None),
        interval=1.0,
        verify_interval=0.05,
        max_cycles=3,
        on_cycle=reports.append,
        serving=serving,
    )
    begin = time.monotonic()
    try:
        assert daemon.run() == 0
    finally:
        hangs.set()
    assert time.monotonic() - begin > 1.8
    assert len(checks) == 2
    assert checks[0].targets == reports[0].resolution.targets
    assert reports[-1].verification == found(Verdict.DOWN)
    assert {report.verify_interval for report in reports} == {0.05}
    # One for each cycle, and one for the result of the first check.
    assert len(reports) == 4


@pytest.mark.parametrize("time_", ["9s", "2d", "5"])
def test_interval_out_of_bounds(time_: str, tmp_path: Path, run: Callable[..., Done]) -> None:
    done = run("run", "-c", tmp_path / "config.yaml", "--verify-interval", time_)
    assert done.code == 2
    assert f"argument --verify-interval: invalid duration '{time_}'" in done.err
