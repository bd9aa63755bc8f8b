"""Ask the scrapers from time to time, in a thread of its own, and log findings once when they begin and end."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

from clan_discovery.model import Verdict
from clan_discovery.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.model import Verification, Verified
    from clan_discovery.resident.events import Events
    from clan_discovery.resident.log import Log
    from clan_discovery.resident.triggers import Wake

VERIFIED: Final = "verified"
"""The reason with which the loop is woken: it starts no refresh cycle."""
_FIRST_S: Final = 30.0
"""The longest pause before the first check: after a boot, the scrapers start later than this program."""
_FAILED: Final = "cannot verify what the scrapers do"
_NO_ANSWER: Final = "a program cannot be asked, or is not ready"
_LINES_MOST: Final = 20
"""How many findings of one check are logged, each in a line."""


class Verifier:
    """Runs a check every `interval` seconds. It is called by the loop, and never waits for a check."""

    def __init__(self, interval: float, wake: Wake, events: Events, log: Log) -> None:
        self.interval = interval
        self._wake = wake
        self._events = events
        self._findings = Findings(log)
        self._due = time.monotonic() + min(interval, _FIRST_S)
        self._worker: Worker | None = None
        self._result: Verification | Exception | None = None

    def pause(self) -> float:
        """Return the seconds until the next check is due; while one runs, the interval."""
        if self._worker is not None:
            return self.interval
        return max(self._due - time.monotonic(), 0.0)

    def start(self, check: Callable[[], Verification]) -> None:
        """Start a check if it is time, and none runs."""
        if self._worker is not None or self.pause() > 0:
            return
        self._due = time.monotonic() + self.interval
        worker = Worker(partial(self._run, check))
        try:
            worker.start()
        except RuntimeError as error:  # no thread: the next check is tried
            self._events.failed(_FAILED, error)
        else:
            self._worker = worker

    def take(self) -> Verification | None:
        """Return the result of a check that has ended, and log it; None if there is none."""
        if self._worker is None or (self._result is None and self._worker.is_alive()):
            return None
        result, self._result, self._worker = self._result, None, None
        if result is None:
            result = MemoryError("the check ended without a result")
        if isinstance(result, Exception):
            self._events.failed(_FAILED, result)
            return None
        self._events.recovered(_FAILED, "the scrapers are verified again")
        for program in result.asked:
            if program.ok:
                self._events.recovered(_NO_ANSWER, "a program answers again", at=program.name)
            else:
                self._events.failed(_NO_ANSWER, program.reason, level="warning", at=program.name)
        self._findings.update(result)
        return result

    def _run(self, check: Callable[[], Verification]) -> None:
        try:
            self._result = check()
        except Exception as error:  # noqa: BLE001 - law 11: the loop reports it
            self._result = error
        self._wake.call(VERIFIED)


class Findings:
    """The findings that were logged, by job, instance and machine."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._known: dict[tuple[str, str, str], Verdict] = {}

    def update(self, found: Verification) -> None:
        """Log the findings that begin and those that end. A target without an answer now keeps its finding."""
        known = self._known
        now: dict[tuple[str, str, str], Verdict] = {}
        begun: list[Verified] = []
        for target in found.targets:
            key = (target.job, target.instance, target.machine)
            if target.verdict.is_finding:
                now[key] = target.verdict
                if known.get(key) is not target.verdict:
                    begun.append(target)
            elif target.verdict is not Verdict.UP and key in known:
                now[key] = known[key]
        ended = [key for key in known if key not in now]
        self._known = now
        for target in begun[:_LINES_MOST]:
            self._log.event(
                "warning",
                "finding",
                verdict=str(target.verdict),
                job=target.job,
                instance=target.instance,
                scraper=target.scraper,
                reason=target.reason,
                fix=target.fix,
            )
        for key in ended[:_LINES_MOST]:
            self._log.event("info", "finding ended", verdict=str(known[key]), job=key[0], instance=key[1])
        more = max(len(begun) - _LINES_MOST, 0) + max(len(ended) - _LINES_MOST, 0)
        if more:
            self._log.event("warning", "more findings began or ended", count=more, see="clan-discovery verify")
