"""Log events of refresh cycles once when they begin and once when they end, not in each cycle."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from clan_discovery import __version__
from clan_discovery.errors import ClanDiscoveryError, describe, first_problems
from clan_discovery.model import BeliefState
from clan_discovery.resident.log import short_span
from clan_discovery.syntax.counting import and_more

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clan_discovery.model import Belief, ChangeRecord, Problem, Resolution, Shard
    from clan_discovery.resident.log import Field, Level, Log
    from clan_discovery.resident.notify import Notify
    from clan_discovery.resolve.changes import ShareChange
    from clan_discovery.round import Plan, Refreshed

NOT_EVALUATED: Final = "cannot evaluate the flake; its last good evaluation is used"
NOT_LOADED: Final = "the new config is invalid; the old one is kept"
INVALID: Final = "the inventory is invalid; the last good one is used"
_REMIND_S: Final = 3600.0
_STATE: Final = "the state is damaged or cannot be written"
_CYCLE_FAILED: Final = "the refresh cycle failed; the old files are kept"
_CHANGES_MOST: Final = 20
"""How many changes of one cycle are logged, each in a line."""
_FILES_MOST: Final = 20
_OF_TARGET: Final[Mapping[str, str]] = {
    "added": "target added",
    "removed": "target removed",
    "moved": "target moved",
    "renamed": "target renamed",
}
_OF_MACHINE: Final[Mapping[str, tuple[Level, str]]] = {
    "missing": ("warning", "machine is missing: no backend sees it"),
    "offline": ("info", "machine is offline"),
    "expired": ("warning", "the tailnet key of the machine has expired"),
    "renamed": ("warning", "another node calls itself like the machine: renamed, or registered again"),
    "back": ("info", "machine is back"),
}


def _counts(resolution: Resolution) -> dict[str, int]:
    """Count the targets, and those of them that a backend sees.

    If there are any: those that no backend is asked about, the share of this server, and those that agents send.
    """
    counts = {"targets": len(resolution.targets), "seen": sum(target.observed for target in resolution.targets)}
    if declared := sum(not target.asked for target in resolution.targets):
        counts["declared"] = declared
    if resolution.shard is not None:
        counts["published"] = len(resolution.published)
    if resolution.pushed:
        counts["pushed"] = len(resolution.pushed)
    return counts


class _Failure(NamedTuple):
    """Why something fails, and when that was logged (monotonic)."""

    reason: str
    logged: float


class Events:
    """The events that were logged: failures, failing backends, held losses and frozen jobs.

    Failures may be logged from any thread. `failed_cycles` counts the refresh cycles of this process that failed.
    """

    def __init__(self, log: Log, notify: Notify) -> None:
        self._log = log
        self._notify = notify
        self._failing_since_log: dict[str, float] = {}
        self._held: set[str] = set()
        self._frozen: set[str] = set()
        self._failures: dict[str, _Failure] = {}
        self._problems: frozenset[Problem] = frozenset()
        self._told: frozenset[ChangeRecord] = frozenset()
        self._told_share: tuple[Shard | None, ShareChange | None] = (None, None)
        self._is_first = True
        self._front = "none"
        self._foreign: frozenset[str] = frozenset()
        self.failed_cycles = 0

    def started(self, config: str, plan: Plan, interval: float) -> None:
        """Log the start of the process and its settings."""
        self._log.event(
            "info",
            "started",
            version=__version__,
            config=config,
            machines=len(plan.declared.machines),
            expected=len(plan.declared.expected),
            jobs=len(plan.jobs),
            backends=",".join(backend.name for backend in plan.backends),
            interval=short_span(interval),
        )

    def stopped(self, reason: str, seconds: float) -> None:
        """Log why the process ends, and after how long."""
        self._log.event("info", "stopped", reason=reason, ran=short_span(seconds))

    def failed(self, what: str, error: Exception | str, *, level: Level = "error", at: str = "") -> None:
        """Log why something failed, and what to do: when the reason changes, and each hour while it lasts.

        `at` distinguishes several inputs that fail in the same way.
        """
        reason = error if isinstance(error, str) else describe(error)
        known, now = self._failures.get(what + at), time.monotonic()
        if known is not None and known.reason == reason and now - known.logged < _REMIND_S:
            return
        self._failures[what + at] = _Failure(reason, now)
        fields = {"at": at} if at else {}
        for line in reason.splitlines():
            fields["reason"] = line
            if isinstance(error, ClanDiscoveryError) and error.hint:
                fields["fix"] = error.hint
            self._log.event(level, what, **fields)

    def fails(self, what: str) -> bool:
        """Tell whether something failed, and has not succeeded since."""
        return what in self._failures

    def answer(self, what: str) -> None:
        """Log the next failure even if it is the same as before, because a user waits for it."""
        if what in self._failures:
            self._failures[what] = _Failure("", 0.0)

    def succeeded(self, what: str, *, at: str = "") -> bool:
        """Note a success, so that the next failure is logged; tell whether it had failed before."""
        return self._failures.pop(what + at, None) is not None

    def recovered(self, what: str, message: str, *, at: str = "") -> None:
        """Log that something succeeds again."""
        if self.succeeded(what, at=at):
            fields = {"at": at} if at else {}
            self._log.event("info", message, **fields)

    def evaluated(self, because: str, seconds: float) -> None:
        """Log that the flake was evaluated; at its interval only at level debug."""
        message = "the flake is evaluated"
        level: Level = "debug" if because == "interval" else "info"
        if self.succeeded(NOT_EVALUATED):
            message, level = "the flake is evaluated again", "info"
        self._log.event(level, message, because=because, took=short_span(seconds))

    def reloaded(self, because: str) -> None:
        """Log that files were read again."""
        self._log.event("info", "reloaded", because=because)

    def cycle_failed(self, error: Exception) -> None:
        """Log why a refresh cycle failed, and count it."""
        self.failed_cycles += 1
        self._notify.send(f"STATUS=failing: {describe(error)[:200]}".partition("\n")[0])
        self.failed(_CYCLE_FAILED, error)

    def cycle_succeeded(self, done: Refreshed, problems: Sequence[Problem]) -> None:
        """Log what a refresh cycle changed, and its new problems; `problems` are those of the state."""
        self.recovered(_CYCLE_FAILED, "refresh cycles succeed again")
        resolution = done.round.resolution
        self._tell_problems(problems, resolution.problems)
        counts = _counts(resolution)
        self._published(done, counts)
        self._tell_share(done)
        self._tell_changes(done.changes.found)
        for belief in resolution.beliefs:
            self.backend(belief)
        frozen = {job.job: job.why for job in resolution.frozen}
        for job in sorted(frozen.keys() - self._frozen):
            self._log.event("warning", "the present file of a job is served as it is", job=job, reason=frozen[job])
        for job in sorted(self._frozen - frozen.keys()):
            self._log.event("info", "the file of a job is written again", job=job)
        self._frozen = set(frozen)
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        status = f"{told}; backends down: {', '.join(sorted(self._failing_since_log)) or 'none'}"
        if self.fails(NOT_EVALUATED):
            status += "; flake: evaluation fails"
        self._notify.send(f"STATUS={status}")

    def _published(self, done: Refreshed, counts: Mapping[str, int]) -> None:
        """Log which files were written; in the first cycle, also if there are none."""
        written = (*done.published.written, *done.published.emptied)
        self._tell_front(done)
        self._tell_foreign(done)
        if written:
            named = [*written[:_FILES_MOST], and_more(len(written), _FILES_MOST)]
            fields: dict[str, Field] = {"files": ",".join(filter(None, named)), **counts}
            if done.changes.summary:
                fields["changes"] = done.changes.summary
            self._log.event("info", "published", **fields)
        elif self._is_first:
            self._log.event("info", "unchanged since the last run", **counts)
        else:
            self._log.event("debug", "unchanged", **counts)
        self._is_first = False

    def _tell_front(self, done: Refreshed) -> None:
        """Log that the file of the reverse proxy was written, and once when it begins to be kept."""
        outcome, resolution = done.published.front, done.round.resolution
        if outcome == "written":
            self._log.event("info", "the file of the front is written", fronts=len(resolution.fronts))
        if outcome == "kept" and self._front != "kept":
            self._log.event("warning", "the present file of the front is kept", reason=resolution.front_kept)
        self._front = outcome

    def _tell_foreign(self, done: Refreshed) -> None:
        """Log each file of others that a scraper reads with ours, when it appears."""
        found = done.foreign_read
        for name in found.keys() - self._foreign:
            file, message = str(done.plan.directory / f"{name}.json"), "a file of others is scraped"
            self._log.event("warning", message, file=file, reason=found[name], fix="move it")
        self._foreign = frozenset(found)

    def _tell_share(self, done: Refreshed) -> None:
        """Log what a change of the shard moves; only once, also while the history cannot be written."""
        resolution, change = done.round.resolution, done.changes.share
        told = resolution.shard, change
        if change is not None and told != self._told_share:
            fields: dict[str, Field] = {"targets": len(resolution.targets), "published": len(resolution.published)}
            if resolution.shard is not None:
                fields |= {"servers": len(resolution.shard.members), "replicas": resolution.shard.replicas}
                fields["changes"] = f"+{change.added} -{change.removed}"
            message = "the shard is removed" if resolution.shard is None else "the shard has changed"
            self._log.event("info", message, **fields)
        self._told_share = told

    def _tell_changes(self, changes: Sequence[ChangeRecord]) -> None:
        """Log the first changes of a cycle, and count the others.

        If the history cannot be written, each cycle finds the same changes again. They are logged once.
        """
        found = {msgspec.structs.replace(change, at=0): change for change in changes}
        news = [change for key, change in found.items() if key not in self._told]
        self._told = frozenset(found)
        for change in news[:_CHANGES_MOST]:
            self._tell_change(change)
        more = len(news) - _CHANGES_MOST
        if more > 0:
            self._log.event("info", "more changes", count=more, see="clan-discovery history")

    def _tell_change(self, change: ChangeRecord) -> None:
        if change.is_of_machine:
            level, message = _OF_MACHINE[change.what]
            fields = {"machine": change.machine, "node": change.new, "was": change.old}
            self._log.event(level, message, **{name: value for name, value in fields.items() if value})
            return
        fields = {
            "machine": change.machine,
            "job": change.job,
            "instance": change.instance,
            "old": change.old,
            "new": change.new,
            "backend": change.backend,
        }
        if change.instance == change.machine:
            del fields["instance"]
        self._log.event("info", _OF_TARGET[change.what], **{name: value for name, value in fields.items() if value})

    def _tell_problems(self, state: Sequence[Problem], found: Sequence[Problem]) -> None:
        """Log what is wrong with the state while it lasts, and each other problem when it appears."""
        if state:
            self.failed(_STATE, "\n".join(map(str, state)), level="warning")
        else:
            self.recovered(_STATE, "the state is read and written again")
        for problem in first_problems([problem for problem in found if problem not in self._problems]):
            self._log.event("warning", str(problem))
        self._problems = frozenset(found)

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
        served, age = belief.state.value, short_span(belief.age)
        self._log.event("warning", message, backend=name, served=served, reason=belief.why, age=age)
