"""Run refresh cycles on a timer and on triggers until the process is stopped.

A refresh cycle is the same as `refresh`: the same lock, files and memory. An invalid config or inventory changes
nothing: the last good plan is used.
"""

from __future__ import annotations

import contextlib
import random
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.errors import BackendError, InputError, PublishError, SupersededError, describe
from clan_discovery.garbage import FrozenHeap, without_collection
from clan_discovery.memory import read_counters
from clan_discovery.model import one_line, span
from clan_discovery.publish.state import State
from clan_discovery.resident.events import NOT_LOADED, Events
from clan_discovery.resident.flake import FlakeTrigger
from clan_discovery.resident.plans import Plans
from clan_discovery.resident.signals import Signals, Stopped
from clan_discovery.resident.triggers import Sources, Wake
from clan_discovery.resident.verifying import VERIFIED, Verifier
from clan_discovery.round import CycleCache, refresh, report
from clan_discovery.syntax.secret import hide_in_urls

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.model import Report, Verification
    from clan_discovery.resident.log import Log
    from clan_discovery.resident.notify import Notify
    from clan_discovery.resident.plans import Loaded
    from clan_discovery.resident.serving import Serving
    from clan_discovery.resident.triggers import Trigger

_QUIET_S: Final = 0.1
_MAX_BURST_S: Final = 1.0
_MAX_PAUSE_S: Final = 300.0
"""The longest pause if no backend is polled; a cycle also restores files that somebody deleted."""
_AFTER_DUE_S: Final = 0.2
"""The delay after the first cached answer expires, so that names that expire together share a refresh cycle."""
_MIN_PAUSE_S: Final = 0.5
_RESEND_S: Final = 1.0
"""The pause before a message that systemd did not receive is sent again."""
_JITTER: Final = 0.1
_RELOAD: Final = frozenset({"config", "hangup"})
_NO_METRICS: Final = "cannot update the metrics"
_NOT_SERVED: Final = "cannot serve HTTP"
_EVALUATE: Final = frozenset({"flake", "hangup"})
_LATE_S: Final = 300.0
"""A refresh cycle that has not ended this long after it was due is reported as hanging: file systems may block."""
_REASON_MOST: Final = 500


class Daemon:
    """The resident process. `load` reads the config; `interval`, `verify_interval` and `watchdog` are in seconds.

    `on_cycle` gets the metrics after each refresh cycle, and `serving` serves them; `max_cycles` ends the process after
    so many (for tests). `clock` returns the time, aware (UTC).
    """

    def __init__(
        self,
        load: Callable[[], Loaded],
        log: Log,
        notify: Notify,
        *,
        interval: float = 30.0,
        verify_interval: float | None = None,
        watchdog: float | None = None,
        max_cycles: int | None = None,
        on_cycle: Callable[[Report], None] | None = None,
        serving: Serving | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self.wake = Wake()
        self._load = load
        self._notify = notify
        self._watchdog = watchdog
        self._max_cycles = max_cycles
        self._on_cycle = on_cycle
        self._serving = serving
        self._clock = clock or _now
        self._schedule = Schedule(interval)
        self._events = Events(log, notify)
        self._signals = Signals(self.wake)
        self._sources = Sources(self.wake, self._events)
        self._verifier: Verifier | None = None
        if verify_interval is not None:
            self._verifier = Verifier(verify_interval, self.wake, self._events, log)
        self._verification: Verification | None = None
        self._report: Report | None = None
        self._cycles = 0
        self._cache = CycleCache()
        self._heap = FrozenHeap()
        self._reasons: frozenset[str] = frozenset()
        self._unread: frozenset[str] = frozenset()
        self._unsent: dict[str, tuple[str, ...]] = {}
        self._failing = "no refresh cycle has succeeded yet: see the log"
        self._late_at = float("inf")
        if serving is not None:
            serving.site = msgspec.structs.replace(serving.site, health=self.health)

    def health(self) -> str:
        """Return why refresh cycles do not succeed, in one line; empty while they do. Other threads ask, too."""
        late = time.monotonic() - self._late_at
        if late > 0:
            return f"a refresh cycle was due {span(late + _LATE_S)} ago and has not ended"
        return self._failing

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit code.

        Raises:
            InputError: the config or the inventory is invalid at the start.
        """
        start = time.monotonic()
        with self._signals.handled():
            try:
                with self._signals.interruptible():  # the first evaluation of a flake may take minutes
                    plans = Plans(self._load, self._events, self.wake)
            except Stopped:
                self._events.stopped(self._signals.reason, time.monotonic() - start)
                return 0
            self._serve(plans)
            self._events.started(plans.loaded.name, plans.plan, self._schedule.interval)
            try:
                self._loop(plans)
            except Stopped:
                pass
            finally:
                self._notify.send("STOPPING=1", "STATUS=stopping")
                self._sources.stop()
                plans.stop()
                self._events.stopped(self._signals.reason or "done", time.monotonic() - start)
        return 0

    def _loop(self, plans: Plans) -> None:
        """Run refresh cycles; an exception ends only the cycle in which it was raised (law 11)."""
        while not self._signals.stopped and self._cycles != self._max_cycles:
            try:
                self._step(plans)
            except Exception as error:  # noqa: BLE001 - see the docstring
                self._schedule.set_due(None, polls=True)
                with contextlib.suppress(Exception):  # no memory to log it with
                    self._cycle_failed(error)
                time.sleep(_MIN_PAUSE_S)

    def _step(self, plans: Plans) -> None:
        """Run a refresh cycle, and wait for the next one."""
        reasons, self._reasons = self._reasons, frozenset()
        self._unread |= reasons & _RELOAD
        if self._unread:
            self._reload(plans, reasons)
        if reasons & _EVALUATE:
            plans.evaluate_again(",".join(sorted(reasons & _EVALUATE)), cancel="hangup" in reasons)
        plans.tend()
        self._listen(plans)
        if self._cycles > 0:
            self._serve_again(plans)
        # A failing daemon may trigger many cycles, so only those of the timer count for the loss guard.
        counts = not reasons and self._schedule.counts(time.monotonic())
        self._cycles += 1
        self._cycle(plans, counts=counts)
        if self._cycles == 1:
            self._tell("READY=1")
        self._send()
        if self._cycles != self._max_cycles:
            self._heap.settle()
            plans.tend()
            self._reasons = self._wait(plans)

    def _listen(self, plans: Plans) -> None:
        """Watch the inputs of the newest config, and start triggers that could not be started before."""
        loaded = plans.newest_config
        more: list[Trigger] = []
        flake = loaded.flake
        if flake is not None and flake.directory is not None:
            more.append(FlakeTrigger(flake.directory, flake.own, plans.seen, self.wake))
        self._sources.listen(loaded.watched, loaded.sockets, *more)

    def _serve(self, plans: Plans) -> None:
        """Serve HTTP where the newest config says.

        Without a thread, and while an address of the tailnet is not there yet, the next cycle tries again.

        Raises:
            InputError: another program listens there, or it is no address of this machine.
        """
        if self._serving is None:
            return
        try:
            self._serving.open(plans.newest_config.web)
        except (BackendError, RuntimeError) as error:
            self._events.failed(_NOT_SERVED, error)
        else:
            self._events.recovered(_NOT_SERVED, "HTTP is served")

    def _serve_again(self, plans: Plans) -> None:
        """Serve HTTP as `_serve`; an address that is not available is tried again in the next cycle."""
        try:
            self._serve(plans)
        except InputError as error:
            self._events.failed(_NOT_SERVED, error)

    def _cycle(self, plans: Plans, *, counts: bool) -> None:
        """Run one refresh cycle; an exception ends the cycle, not the process (law 11)."""
        self._feed_watchdog()
        self._schedule.set_due(None, polls=True)
        state = _state_of(plans)
        try:
            with without_collection():
                self._refresh(plans, state, counts=counts)
        except Exception as error:  # noqa: BLE001 - see the docstring
            if isinstance(error, SupersededError):
                plans.superseded()
            self._cycle_failed(error)
        else:
            self._failing = ""
        self._publish_metrics(plans, state)

    def _publish_metrics(self, plans: Plans, state: State) -> None:
        """Update the metrics; log it if that fails."""
        try:
            self._update_metrics(plans, state)
        except Exception as error:  # noqa: BLE001 - see the docstring
            self._events.failed(_NO_METRICS, error)
        else:
            self._events.recovered(_NO_METRICS, "the metrics are updated again")

    def _cycle_failed(self, error: Exception) -> None:
        self._failing = "the last refresh cycle failed; the old files are kept"
        self._failing += f": {one_line(hide_in_urls(describe(error)))[:_REASON_MOST]}"
        self._events.cycle_failed(error)

    def _refresh(self, plans: Plans, state: State, *, counts: bool) -> None:
        """Refresh the target files. This is the only place that uses `round`."""
        with self._signals.interruptible():
            done = refresh(
                plans.loaded.places,
                plans.newest,
                state,
                self._clock,
                before_writing=self._signals.uninterruptible,
                counts=counts,
                cache=self._cache,
            )
        self._schedule.set_due(done.round.due, polls=done.round.polls)
        self._events.cycle_succeeded(done, state.problems)
        self._report = report(done.round, done.plan)
        if self._serving is not None:
            self._serving.update(done)

    def _update_metrics(self, plans: Plans, state: State) -> None:
        """Update the metrics with the newest report; nothing to do before a cycle has succeeded."""
        if self._report is None:
            return
        counters = self._report.counters
        with contextlib.suppress(PublishError):  # the state may be why the cycle failed
            counters = read_counters(state)  # failures count, too
        now = self._clock().timestamp()
        self._report = msgspec.structs.replace(
            self._report,
            counters=counters,
            failed_cycles=self._events.failed_cycles,
            config=plans.config_status(now),
            inventory=plans.inventory_status(now),
            flake=plans.flake_status(now),
            verification=self._verification,
        )
        if self._verifier is not None:
            self._report = msgspec.structs.replace(self._report, verify_interval=self._verifier.interval)
        if self._serving is not None:
            self._serving.update_metrics(self._report)
        if self._on_cycle is not None:
            self._on_cycle(self._report)

    def _wait(self, plans: Plans) -> frozenset[str]:
        """Wait for the next cycle or a trigger; return the reasons of the triggers."""
        end = time.monotonic() + min(self._schedule.pause(self._clock().timestamp()), plans.pause())
        self._late_at = end + _LATE_S
        while not self._signals.stopped:
            left = end - time.monotonic()
            if left <= 0:
                break
            left = min(left, self._verify(plans))
            reasons = self.wake.wait(min(left, self._watchdog or left, _RESEND_S if self._unsent else left))
            self._feed_watchdog()
            self._send()
            if reasons - {VERIFIED}:
                return reasons | self.wake.settle(_QUIET_S, _MAX_BURST_S)
        return frozenset()

    def _verify(self, plans: Plans) -> float:
        """Take the result of a check of the scrapers, and start the next one; return the pause until then.

        A refresh cycle never waits for it.
        """
        if self._verifier is None or self._report is None:
            return _MAX_PAUSE_S
        found = self._verifier.take()
        if found is not None:
            self._verification = found
            self._publish_metrics(plans, _state_of(plans))
        self._verifier.start(partial(plans.loaded.verify, self._report.resolution))
        return self._verifier.pause()

    def _tell(self, state: str, *more: str) -> None:
        """Send a state to systemd, and repeat it until systemd receives it."""
        self._unsent.pop(state, None)
        self._unsent[state] = (state, *more)
        self._send()

    def _send(self) -> None:
        """Send the messages that were not received yet, in order."""
        for state, message in list(self._unsent.items()):
            if not self._notify.send(*message):
                return
            del self._unsent[state]

    def _feed_watchdog(self) -> None:
        if self._watchdog is not None:
            self._notify.send("WATCHDOG=1")

    def _reload(self, plans: Plans, reasons: frozenset[str]) -> None:
        """Load the config again; an invalid one changes nothing, and is read again in the next cycle.

        The file may be valid, and only the read may have failed.
        """
        if reasons & _RELOAD:
            self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        if "hangup" in reasons:  # a person gets an answer each time; a file that changes all the time does not
            self._events.answer(NOT_LOADED)
        try:
            with self._signals.interruptible():
                plans.reload()
        except Exception as error:  # noqa: BLE001 - law 11: a file must not stop the process
            self._events.failed(NOT_LOADED, error)
        else:
            self._events.succeeded(NOT_LOADED)
            self._events.reloaded(",".join(sorted(self._unread)))
            self._unread = frozenset()
        if reasons & _RELOAD:
            self._tell("READY=1")


class Schedule:
    """The time between refresh cycles: `interval` seconds, up to a tenth more or less."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._due: float | None = None
        self._polls = True
        self._counted: float | None = None

    def set_due(self, due: float | None, *, polls: bool) -> None:
        """Store when a backend is due (seconds since the epoch), and whether any backend is polled."""
        self._due, self._polls = due, polls

    def pause(self, now: float) -> float:
        """Return the seconds until the next cycle; `now` is in seconds since the epoch."""
        pause = _MAX_PAUSE_S
        if self._polls:
            pause = self.interval * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - not a secret
        if self._due is not None:
            pause = min(pause, max(self._due + _AFTER_DUE_S - now, _MIN_PAUSE_S))
        return pause

    def counts(self, now: float) -> bool:
        """Tell whether a cycle counts for the loss guard: at most one for each interval (`now` is monotonic)."""
        earliest = 1 - _JITTER
        if self._counted is not None and now - self._counted < self.interval * earliest:
            return False
        self._counted = now
        return True


def _state_of(plans: Plans) -> State:
    return State(plans.loaded.places.state_directory)


def _now() -> datetime:
    return datetime.now(UTC)
