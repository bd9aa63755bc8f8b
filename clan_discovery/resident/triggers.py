"""What wakes the resident mode before its time: the tailnet's bus, files that change, signals.

Each source only says that something may be new; nobody carries data. A round asks again, so a trigger that lies or
is lost costs a round or an interval, and never a target.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from clan_discovery.localapi.client import LocalAPI
from clan_discovery.localapi.transport import LocalAPIError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from clan_discovery.localapi.client import Watch
    from clan_discovery.resident.log import Log

_SLICE_S: Final = 0.5
_LASTING_S: Final = 5.0
"""A stream that ends sooner than this did not serve: the next try waits longer."""
_SHORT_ENOUGH: Final = 3
"""So many short streams in a row are as good as none."""
_BACKOFF_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
_REFUSED_S: Final = 300.0
"""A daemon that refuses the stream, or is too old for it, is asked again so often; the timer serves until then."""
_LINKS_MOST: Final = 40


class Wake:
    """The reasons to do a round now, gathered until somebody takes them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._reasons: set[str] = set()

    def call(self, reason: str) -> None:
        """Say that there is a reason; from any thread, and from a signal handler."""
        with self._changed:
            self._reasons.add(reason)
            self._changed.notify_all()

    def wait(self, seconds: float) -> frozenset[str]:
        """Wait for a reason, for so long at the most; take all that there are."""
        end = time.monotonic() + seconds
        with self._changed:
            # In slices: a signal handler that calls between the look and the wait wakes nobody.
            while not self._reasons and (left := end - time.monotonic()) > 0:
                self._changed.wait(min(left, _SLICE_S))
            return self._take()

    def settle(self, quiet: float, most: float, now: Callable[[], float]) -> frozenset[str]:
        """Wait until nothing came for `quiet` seconds, for `most` at the most: a burst is one round."""
        end = now() + most
        gathered: frozenset[str] = frozenset()
        while (left := end - now()) > 0:
            more = self.wait(min(quiet, left))
            if not more:
                break
            gathered |= more
            if "stop" in more:
                break
        return gathered

    def _take(self) -> frozenset[str]:
        reasons = frozenset(self._reasons)
        self._reasons.clear()
        return reasons


class Source(Protocol):
    """Something that wakes: a thread with an end."""

    def start(self) -> None:
        """Begin to listen."""
        ...

    def stop(self) -> None:
        """End, within a moment; the thread is gone afterwards."""
        ...


class Bus:
    """Listens to one tailscaled's `watch-ipn-bus`; reconnects with backoff, and logs once when it falls silent."""

    def __init__(self, socket: Path, wake: Wake, log: Log) -> None:
        self._api = LocalAPI(socket, budget=10.0)
        self._wake = wake
        self._log = log
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._watch: Watch | None = None
        self._opened: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"bus {socket}", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Close the stream under its reader, and wait for the thread."""
        self._ended.set()
        with self._lock:
            if self._watch is not None:
                self._watch.close()
        self._thread.join(5.0)

    def _run(self) -> None:
        failures, silent = 0, False
        while not self._ended.is_set():
            self._opened = None
            reason, refused = self._try()
            # Only a stream that was open has served: to hang at the door for long is no success.
            if self._opened is not None and time.monotonic() - self._opened >= _LASTING_S:
                failures, silent = 0, False
            failures += 1
            # A stream that ends once is a restart, and no outage: only the third in a row is.
            if not silent and (reason is not None or failures >= _SHORT_ENOUGH) and not self._ended.is_set():
                silent = True
                what = "no stream of changes from tailscaled: rounds go by the timer"
                self._log.event("warning", what, socket=str(self._api.path), reason=reason or "it ends at once")
            self._ended.wait(_REFUSED_S if refused else _BACKOFF_S[min(failures, len(_BACKOFF_S)) - 1])

    def _try(self) -> tuple[str | None, bool]:
        """Listen until it ends: why there was no stream, or none; and whether the daemon refuses it for good."""
        try:
            self._listen()
        except LocalAPIError as error:
            # A daemon that is starting answers 503; 403 and 404 are for longer.
            return str(error), error.status is not None and error.status < 500
        # The stream ended: the daemon restarts, and may know other things afterwards.
        self._wake.call("bus")
        return None, False

    def _listen(self) -> None:
        watch = self._api.watch()
        with self._lock:
            if self._ended.is_set():
                return
            self._watch = watch
        try:
            with watch:
                self._opened = time.monotonic()
                self._log.event("debug", "listening to tailscaled", socket=str(self._api.path))
                for event in watch:
                    if event.dirty:
                        self._wake.call("bus")
        finally:
            with self._lock:
                self._watch = None


class Files:
    """Listens to files by inotify: also to the links on the way to them, as NixOS swaps those.

    Directories are watched, for a file that is replaced is another file; whether one of ours changed is told by what
    the path leads to now.
    """

    def __init__(self, files: Iterable[tuple[Path, str]], wake: Wake) -> None:
        self._files = tuple(files)
        self._wake = wake
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="files", daemon=True)
        self._known = [identity(file) for file, _ in self._files]

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """End the watch, and wait for the thread."""
        self._ended.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        from watchfiles import watch  # noqa: PLC0415 - only the resident mode watches

        while not self._ended.is_set():
            directories = sorted({d for file, _ in self._files for d in directories_of(file) if d.is_dir()})
            if not directories:
                self._ended.wait(1.0)
                self._look()
                continue
            events = watch(
                *directories,
                watch_filter=None,
                debounce=200,
                step=100,
                stop_event=self._ended,
                rust_timeout=1000,
                yield_on_timeout=True,
                raise_interrupt=False,
                recursive=False,
            )
            for _ in events:
                # Also where nothing came for a second: what changed before the watch began is seen by a look. After
                # a change the way to the files may lead through other directories: watch anew.
                if self._look() or not all(d.is_dir() for d in directories):
                    break
            self._look()

    def _look(self) -> bool:
        """Call for every file that is another one now."""
        changed = False
        for index, (file, reason) in enumerate(self._files):
            now = identity(file)
            if now != self._known[index]:
                self._known[index] = now
                self._wake.call(reason)
                changed = True
        return changed


def identity(file: Path) -> tuple[str, int, int, int] | None:
    """Tell what a path leads to: the real path, inode, size and time of change; None where nothing is."""
    try:
        status = file.stat()
    except OSError:
        return None
    return os.path.realpath(file), status.st_ino, status.st_size, status.st_mtime_ns


def directories_of(file: Path) -> set[Path]:
    """Return every directory in which a link on the way to a file stands, and that of the file itself."""
    found: set[Path] = set()
    path = file.absolute()
    for _ in range(_LINKS_MOST):
        link = next((p for p in [*reversed(path.parents), path] if p.is_symlink()), None)
        if link is None:
            break
        found.add(link.parent)
        rest = path.relative_to(link)
        path = Path(os.path.normpath(link.parent / os.readlink(link) / rest))  # noqa: PTH115 - resolved one at a time
    found.add(path.parent)
    return found
