"""Log what happens over refresh cycles: each event when it begins and when it ends, not in each cycle."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from clan_discovery.errors import describe
from clan_discovery.model import BeliefState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.model import Belief, Problem
    from clan_discovery.resident.log import Log
    from clan_discovery.resident.notify import Notify
    from clan_discovery.round import Refreshed

_REMIND_S: Final = 3600.0
_CYCLE_FAILED: Final = "the refresh cycle failed; the old files are kept"


class Events:
    """What was logged already: failures, failing backends, held losses and frozen jobs."""

    def __init__(self, log: Log, notify: Notify) -> None:
        self._log = log
        self._notify = notify
        self._failing_since_log: dict[str, float] = {}
        self._held: set[str] = set()
        self._frozen: set[str] = set()
        self._failures: dict[str, str] = {}

    def failed(self, what: str, error: Exception) -> None:
        """Log why something failed, unless it failed in the same way before."""
        reason = describe(error)
        if self._failures.get(what) != reason:
            self._failures[what] = reason
            for line in reason.splitlines():
                self._log.event("error", what, reason=line)

    def succeeded(self, what: str) -> bool:
        """Forget that something failed, so that its next failure is logged; tell whether it did."""
        return self._failures.pop(what, None) is not None

    def recovered(self, what: str, message: str) -> None:
        """Log that something that failed succeeds."""
        if self.succeeded(what):
            self._log.event("info", message)

    def reloaded(self, because: str) -> None:
        """Log that files were read again."""
        self._log.event("info", "reloaded", because=because)

    def cycle_failed(self, error: Exception) -> None:
        """Log why a refresh cycle failed."""
        self._notify.send(f"STATUS=failing: {describe(error)[:200]}".partition("\n")[0])
        self.failed(_CYCLE_FAILED, error)

    def cycle_succeeded(self, done: Refreshed, problems: Sequence[Problem]) -> None:
        """Log what a refresh cycle changed."""
        self.recovered(_CYCLE_FAILED, "refresh cycles succeed again")
        for problem in problems:
            self._log.event("warning", str(problem))
        resolution = done.round.resolution
        targets, seen = len(resolution.targets), sum(target.observed for target in resolution.targets)
        written = (*done.published.written, *done.published.emptied)
        if written:
            self._log.event("info", "published", files=",".join(written), targets=targets, seen=seen)
        else:
            self._log.event("debug", "unchanged", targets=targets, seen=seen)
        for belief in resolution.beliefs:
            self.backend(belief)
        frozen = {job.job: job.why for job in resolution.frozen}
        for job in sorted(frozen.keys() - self._frozen):
            self._log.event("warning", "the present file of a job is served as it is", job=job, reason=frozen[job])
        for job in sorted(self._frozen - frozen.keys()):
            self._log.event("info", "the file of a job is written again", job=job)
        self._frozen = set(frozen)
        down = ", ".join(sorted(self._failing_since_log)) or "none"
        self._notify.send(f"STATUS={targets} targets, {seen} seen; backends down: {down}")

    def backend(self, belief: Belief) -> None:
        """Log when a backend begins to fail, each hour while it fails, and when it recovers; and a held loss."""
        name = belief.backend
        if belief.state.degraded:
            self._backend_failing(belief)
        elif self._failing_since_log.pop(name, None) is not None:
            self._log.event("info", "backend answers again", backend=name)
        if belief.state is not BeliefState.HELD:
            self._held.discard(name)
        elif name not in self._held:
            self._held.add(name)
            self._log.event("warning", "loss is held", backend=name, reason=belief.why, fix=belief.hint or "")

    def _backend_failing(self, belief: Belief) -> None:
        name, now = belief.backend, time.monotonic()
        logged = self._failing_since_log.get(name)
        if logged is not None and now - logged < _REMIND_S:
            return
        self._failing_since_log[name] = now
        message = "backend fails" if logged is None else "backend still fails"
        if belief.state is BeliefState.PARTIAL:
            message += " for some names"
        self._log.event("warning", message, backend=name, served=belief.state.value, reason=belief.why, age=belief.age)
