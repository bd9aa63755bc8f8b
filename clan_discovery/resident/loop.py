"""The resident mode: rounds on a timer and on triggers, until it is told to stop. The only loop.

A round is the same as the timer unit's: the whole of it under the lock, the same files, the same memory. What the
resident mode adds is when. A config or an inventory that became wrong changes nothing: the last good plan goes on.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from clan_discovery.errors import ClanDiscoveryError, InputError
from clan_discovery.memory import read_counters
from clan_discovery.publish.state import State
from clan_discovery.resident.triggers import Bus, Files, Wake, identity
from clan_discovery.round import refresh, report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from types import FrameType

    from clan_discovery.model import Belief, Report
    from clan_discovery.resident.log import Log
    from clan_discovery.resident.notify import Notify
    from clan_discovery.resident.triggers import Source
    from clan_discovery.round import Places, Plan, Refreshed

_Handler: TypeAlias = "signal.Handlers | Callable[[int, FrameType | None], object] | int | None"
_QUIET_S: Final = 0.1
_SETTLE_MOST_S: Final = 1.0
_REMIND_S: Final = 3600.0
_LONGEST_S: Final = 300.0
"""Where nobody need be asked for long, a round comes so often all the same: it mends what somebody deleted."""
_DUE_S: Final = 0.2
"""So long after the first answer's end the next round comes: what ends together is asked for together."""
_SHORTEST_S: Final = 0.5
_RELOAD: Final = frozenset({"config", "inventory", "hangup"})


@dataclass(frozen=True, slots=True)
class Loaded:
    """A config as the loop needs it: where it writes, how a plan is made of it, and what it is made of."""

    places: Places
    plan: Callable[[], Plan]
    files: tuple[tuple[Path, str], ...]
    sockets: tuple[Path, ...]


class _Stop(BaseException):
    """Raised by SIGTERM in the middle of a question: nothing is being written then."""


@dataclass(slots=True)
class Daemon:
    """The loop. `load` reads the config; `interval` is in seconds, each wait up to a tenth longer or shorter."""

    load: Callable[[], Loaded]
    log: Log
    notify: Notify
    interval: float = 30.0
    watchdog: float | None = None
    most_rounds: int | None = None
    on_round: Callable[[Report], None] | None = None
    wake: Wake = field(default_factory=Wake)
    _sources: list[Source] = field(default_factory=list["Source"])
    _listening: tuple[object, ...] = ()
    _asking: bool = False
    _stopped: bool = False
    _down: dict[str, float] = field(default_factory=dict[str, float])
    _held: frozenset[str] = frozenset()
    _last_error: str = ""
    _last_wrong: str = ""
    _plan: Plan | None = None
    _made_of: tuple[object, ...] = ()
    _report: Report | None = None
    _due: float | None = None
    _polls: bool = True
    _counted: float = 0.0

    def run(self) -> int:
        """Loop until SIGTERM or SIGINT; return the exit code.

        Raises:
            InputError: the config or the inventory is wrong at the start.
        """
        loaded = self.load()
        self._take(loaded)  # what is wrong at the start is said at the start
        before = self._handle_signals()
        try:
            self._loop(loaded)
        except _Stop:
            pass
        finally:
            self.notify.send("STOPPING=1", "STATUS=stopping")
            self._listen((), ())
            for number, handler in before.items():
                signal.signal(number, handler)
        return 0

    def _loop(self, loaded: Loaded) -> None:
        self._listen(loaded.files, loaded.sockets)
        ready = False
        rounds = 0
        reasons: frozenset[str] = frozenset()
        while not self._stopped:
            self._round(loaded, counts=not reasons and self._counts())
            rounds += 1
            if not ready:
                self.notify.send("READY=1")
                ready = True
            if self.most_rounds is not None and rounds >= self.most_rounds:
                return
            reasons = self._wait()
            if reasons & _RELOAD and not self._stopped:
                loaded = self._reload(loaded, reasons)

    def _counts(self) -> bool:
        """Say whether a round is one of those after which a loss is believed: as often as the timer's, no oftener."""
        now = time.monotonic()
        if self._counted and now - self._counted < self.interval * 0.9:
            return False
        self._counted = now
        return True

    def _wait(self) -> frozenset[str]:
        """Wait for the next round or a reason, whichever is first; feed the watchdog meanwhile."""
        due = time.monotonic() + self._pause()
        while not self._stopped and (left := due - time.monotonic()) > 0:
            reasons = self.wake.wait(left if self.watchdog is None else min(left, self.watchdog))
            if self.watchdog is not None:
                self.notify.send("WATCHDOG=1")
            if reasons:
                return reasons | self.wake.settle(_QUIET_S, _SETTLE_MOST_S, time.monotonic)
        return frozenset()

    def _pause(self) -> float:
        """Return the seconds until the next round: the interval, or until an answer ends, where that is sooner.

        Where no backend has to be polled, the answers alone say when.
        """
        pause = self.interval * random.uniform(0.9, 1.1) if self._polls else _LONGEST_S  # noqa: S311 - no secret
        if self._due is None:
            return pause
        return min(pause, max(self._due - _now().timestamp() + _DUE_S, _SHORTEST_S))

    def _reload(self, loaded: Loaded, reasons: frozenset[str]) -> Loaded:
        self.notify.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            fresh = self.load()
            self._take(fresh)
        except InputError as error:
            for problem in error.problems:
                self.log.event("error", "the new config is wrong; the old one goes on", problem=str(problem))
            fresh = loaded
        else:
            self.log.event("info", "reloaded", because=",".join(sorted(reasons & _RELOAD)))
            self._listen(fresh.files, fresh.sockets)
        self.notify.send("READY=1")
        return fresh

    def _listen(self, files: Iterable[tuple[Path, str]], sockets: Iterable[Path]) -> None:
        """Listen to these from now on; nothing is restarted that need not be."""
        wanted = (tuple(files), tuple(sockets))
        if wanted == self._listening:
            return
        for source in self._sources:
            source.stop()
        self._sources = [Bus(socket, self.wake, self.log) for socket in wanted[1]]
        if wanted[0]:
            self._sources.append(Files(wanted[0], self.wake))
        for source in self._sources:
            source.start()
        self._listening = wanted

    def _take(self, loaded: Loaded) -> Plan:
        """Make the plan of what was loaded, and remember of which files it was made."""
        made_of = _identities(loaded)
        self._plan = loaded.plan()
        self._made_of = made_of
        self._last_wrong = ""
        return self._plan

    def _newest_plan(self, loaded: Loaded) -> Plan:
        """Return the plan, made anew where a file is another one now; one that became wrong leaves the last good."""
        if self._plan is not None and self._made_of == _identities(loaded):
            return self._plan
        try:
            return self._take(loaded)
        except InputError as error:
            if self._plan is None:
                raise
            if str(error) != self._last_wrong:
                self._last_wrong = str(error)
                for problem in error.problems:
                    self.log.event("error", "the inventory is wrong; the last good one goes on", problem=str(problem))
            return self._plan

    def _round(self, loaded: Loaded, *, counts: bool) -> None:
        state = State(loaded.places.state_directory)
        if self.watchdog is not None:
            self.notify.send("WATCHDOG=1")
        self._due, self._polls = None, True
        try:
            self._asking = True
            done = refresh(
                loaded.places,
                partial(self._newest_plan, loaded),
                state,
                _now,
                before_writing=self._begin_writing,
                counts=counts,
            )
        except ClanDiscoveryError as error:
            self._fail(error)
            if self.on_round is not None and self._report is not None:
                self._report = msgspec.structs.replace(self._report, counters=read_counters(state))
                self.on_round(self._report)
            return
        finally:
            self._asking = False
        if self._last_error:
            self.log.event("info", "rounds succeed again")
            self._last_error = ""
        self._due, self._polls = done.round.due, done.round.polls
        self._tell(done, state)
        self._report = report(done.round, done.plan)
        if self.on_round is not None:
            self.on_round(self._report)

    def _begin_writing(self) -> None:
        self._asking = False

    def _fail(self, error: ClanDiscoveryError) -> None:
        """Log a failure once, not at each round."""
        if str(error) != self._last_error:
            self._last_error = str(error)
            for line in str(error).splitlines():
                self.log.event("error", "the round failed; the old files stand", reason=line)
        self.notify.send(f"STATUS=failing: {str(error).splitlines()[0][:200]}")

    def _tell(self, done: Refreshed, state: State) -> None:
        for problem in state.problems:
            self.log.event("warning", str(problem))
        written = (*done.published.written, *done.published.emptied)
        targets = done.round.resolution.targets
        seen = sum(target.observed for target in targets)
        if written:
            self.log.event("info", "published", files=",".join(written), targets=len(targets), seen=seen)
        else:
            self.log.event("debug", "unchanged", targets=len(targets), seen=seen)
        for belief in done.round.resolution.beliefs:
            self.tell_backend(belief)
        down = ", ".join(sorted(self._down)) or "none"
        self.notify.send(f"STATUS={len(targets)} targets, {seen} seen; backends down: {down}")

    def tell_backend(self, belief: Belief) -> None:
        """Log an outage when it begins, when it ends, and every hour between; a hold when it begins."""
        name, now = belief.backend, time.monotonic()
        if belief.state in ("partial", "kept", "expired", "unknown"):
            if name not in self._down or now - self._down[name] >= _REMIND_S:
                what = "backend still fails" if name in self._down else "backend fails"
                what += " for some names" if belief.state == "partial" else ""
                self._down[name] = now
                self.log.event("warning", what, backend=name, served=belief.state, reason=belief.why, age=belief.age)
        elif name in self._down:
            del self._down[name]
            self.log.event("info", "backend answers again", backend=name)
        if belief.state == "held" and name not in self._held:
            self.log.event("warning", "loss is held", backend=name, reason=belief.why, mend=belief.hint or "")
        self._held = self._held | {name} if belief.state == "held" else self._held - {name}

    def _handle_signals(self) -> dict[signal.Signals, _Handler]:
        before: dict[signal.Signals, _Handler] = {}
        if threading.current_thread() is not threading.main_thread():
            return before  # signals are the main thread's
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, self._on_stop)
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._on_hangup)
        return before

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.stop()
        if self._asking:
            self._asking = False
            raise _Stop

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.wake.call("hangup")

    def stop(self) -> None:
        """End the loop after the round that is under way; from any thread."""
        self._stopped = True
        self.wake.call("stop")


def _now() -> datetime:
    return datetime.now(UTC)


def _identities(loaded: Loaded) -> tuple[object, ...]:
    """Tell which files a plan is made of: a status file is no part of it."""
    return tuple(identity(file) for file, reason in loaded.files if reason != "status")
