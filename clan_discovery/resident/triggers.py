"""Wake the resident process early: when the tailnet or a file changes.

A trigger only says that something may have changed; the next refresh cycle asks again. A wrong or lost trigger costs a
cycle or an interval, never a target.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from typing_extensions import override

from clan_discovery.errors import describe
from clan_discovery.localapi.client import LocalAPI
from clan_discovery.localapi.transport import LocalAPIError
from clan_discovery.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from clan_discovery.localapi.client import Watch
    from clan_discovery.resident.events import Events

_MAX_SLEEP_S: Final = 0.5
_POLL_S: Final = 0.25
"""The interval at which files are checked: 0.06 % of a core for four files."""
_LASTING_S: Final = 5.0
"""A stream that ends sooner counts as a failure: the pause before the next try grows."""
_MAX_SHORT_STREAMS: Final = 3
_JOIN_S: Final = 5.0
_PAUSES_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
_REFUSED_PAUSE_S: Final = 300.0
"""The pause after a daemon refused the stream, or is too old for it."""


_NO_STREAM: Final = "no stream of changes from tailscaled: targets are refreshed by the timer"
_NO_TRIGGER: Final = "cannot start a trigger: targets are refreshed by the timer"


class Wake:
    """A queue of reasons to run a refresh cycle now."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._reasons: set[str] = set()

    def call(self, reason: str) -> None:
        """Add a reason; from any thread, and from a signal handler."""
        with self._changed:
            self._reasons.add(reason)
            self._changed.notify_all()

    def wait(self, seconds: float) -> frozenset[str]:
        """Wait for a reason, at most so many seconds; take all reasons."""
        end = time.monotonic() + seconds
        with self._changed:
            while not self._reasons:
                left = end - time.monotonic()
                if left <= 0:
                    break
                # A signal handler that runs just before the wait does not end it, so it must be short.
                self._changed.wait(min(left, _MAX_SLEEP_S))
            # The lock does not keep out a signal handler: its reason would be lost between a copy and a clear.
            reasons, self._reasons = self._reasons, set()
            return frozenset(reasons)

    def settle(self, quiet: float, most: float) -> frozenset[str]:
        """Take reasons until none arrives for `quiet` seconds, for at most `most` seconds.

        So a burst of changes causes one refresh cycle.
        """
        end = time.monotonic() + most
        reasons: frozenset[str] = frozenset()
        while "stop" not in reasons and (left := end - time.monotonic()) > 0:
            more = self.wait(min(quiet, left))
            if not more:
                break
            reasons |= more
        return reasons


class Sources:
    """The triggers of the current config."""

    def __init__(self, wake: Wake, events: Events) -> None:
        self._wake = wake
        self._events = events
        self._watched: tuple[object, ...] = ()
        self._triggers: list[Trigger] = []

    def listen(self, files: Sequence[tuple[Path, str]], sockets: Sequence[Path], *more: Trigger) -> None:
        """Watch these files (each with its reason) and tailscaled's sockets from now on; keep triggers if unchanged.

        `more` are other triggers; those with the same names watch the same.
        """
        watched = (files, sockets, tuple(trigger.name for trigger in more))
        if watched == self._watched:
            self.ensure_started()
            return
        self.stop()
        self._triggers = [BusTrigger(socket, self._wake, self._events) for socket in sockets]
        if files:
            self._triggers.append(FileTrigger(files, self._wake))
        self._triggers += more
        self._watched = watched
        self.ensure_started()

    def ensure_started(self) -> None:
        """Start the triggers that are not started yet; if there is no thread, the next cycle tries again."""
        waiting = [trigger for trigger in self._triggers if not trigger.is_started]
        if not waiting:
            return
        try:
            for trigger in waiting:
                trigger.start()
        except RuntimeError as error:
            self._events.failed(_NO_TRIGGER, error)
        else:
            self._events.recovered(_NO_TRIGGER, "every trigger is started")

    def stop(self) -> None:
        """End all triggers."""
        for trigger in self._triggers:
            trigger.stop()
        self._triggers = []
        self._watched = ()


class Trigger(Worker):
    """A thread that wakes the loop until it is stopped."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._stopped.set()
        if self.is_started:
            self.join(_JOIN_S)


class _Ended(NamedTuple):
    """How a stream of changes ended: why it failed, if so, and for how many seconds it was open (None: never)."""

    reason: str | None
    refused: bool = False
    lasted: float | None = None


class BusTrigger(Trigger):
    """Watches one tailscaled's `watch-ipn-bus`: reconnects with a growing pause, and logs why an outage began."""

    def __init__(self, socket: Path, wake: Wake, events: Events) -> None:
        super().__init__(f"bus {socket}")
        self._api = LocalAPI(socket)
        self._wake = wake
        self._events = events
        self._lock = threading.Lock()
        self._watch: Watch | None = None

    @override
    def stop(self) -> None:
        """Close the stream while the thread reads it, and wait for the thread."""
        self._stopped.set()
        with self._lock:
            if self._watch is not None:
                self._watch.close()
        super().stop()

    @override
    def run(self) -> None:
        failures = 0
        reason: str | None = None
        while not self._stopped.is_set():
            try:
                ended = self._listen()
            except Exception as error:  # noqa: BLE001 - law 11: the thread must not end
                ended = _Ended(describe(error))
            if ended.lasted is not None and ended.lasted >= _LASTING_S:
                failures, reason = 0, None
                self._succeeded()
            failures += 1
            # One stream that ends is a restart of tailscaled; several in a row are an outage.
            is_outage = ended.reason is not None or failures >= _MAX_SHORT_STREAMS
            if is_outage and not self._stopped.is_set():
                reason = reason or ended.reason or "it ends at once"
                self._events.failed(_NO_STREAM, reason, level="warning", at=str(self._api.path))
            pause = _REFUSED_PAUSE_S if ended.refused else _PAUSES_S[min(failures, len(_PAUSES_S)) - 1]
            self._stopped.wait(pause)

    def _succeeded(self) -> None:
        self._events.recovered(_NO_STREAM, "tailscaled's stream of changes is open again", at=str(self._api.path))

    def _listen(self) -> _Ended:
        """Open the stream and read it until it ends."""
        opened: float | None = None
        try:
            watch = self._api.watch()
            with self._lock:
                if self._stopped.is_set():
                    return _Ended(None)
                self._watch = watch
            with watch:
                opened = time.monotonic()
                for event in watch:
                    if time.monotonic() - opened >= _LASTING_S:
                        self._succeeded()
                    if event.dirty:
                        self._wake.call("bus")
            self._wake.call("bus")  # the daemon restarts, and may know other peers then
            reason, refused = None, False
        except LocalAPIError as error:
            # A daemon that is starting answers 503; 403 and 404 do not go away soon.
            reason, refused = str(error), error.status in range(400, 500)
        finally:
            with self._lock:
                self._watch = None
        lasted = time.monotonic() - opened if opened is not None else None
        return _Ended(reason, refused, lasted)


class FileTrigger(Trigger):
    """Checks files several times a second, symlinks in their paths included (NixOS replaces those).

    inotify would need a watch on every directory with such a symlink, and is no faster (docs/benchmarks.md).
    """

    def __init__(self, files: Iterable[tuple[Path, str]], wake: Wake) -> None:
        super().__init__("files")
        self._wake = wake
        self._reasons = dict(files)
        self._known = {file: identity(file) for file in self._reasons}

    @override
    def run(self) -> None:
        while not self._stopped.wait(_POLL_S):
            for file, known in self._known.items():
                now = identity(file)
                if now != known:
                    self._known[file] = now
                    self._wake.call(self._reasons[file])


def identity(file: Path) -> tuple[int, ...] | None:
    """Return a value that identifies the content of the file at a path; None if it does not exist.

    It includes the change time, because a new file may get the inode of a deleted one, and in the Nix store all files
    have the same modification time.
    """
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
