"""Show on a terminal what a command waits for: one line on stderr after a second, erased at the end."""

from __future__ import annotations

import _thread
import contextlib
import os
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from clan_discovery.backends.base import Timed
from clan_discovery.inventory.nix import TIMEOUT_S, named
from clan_discovery.model import one_line
from clan_discovery.syntax.counting import plural
from clan_discovery.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path
    from typing import TextIO

    from clan_discovery.backends.base import Backend
    from clan_discovery.config.load import LoadedConfig

_AFTER_S: Final = 1.0
_EVERY_S: Final = 0.2
_CLEAR: Final = "\r\x1b[K"
"""To the beginning of the line, and erase it (ECMA-48, EL)."""


class _Wait(NamedTuple):
    """What is waited for, since when (monotonic), and for how many seconds at most."""

    what: str
    since: float
    at_most: float


class Waits:
    """What a command waits for at this moment. Threads may end a wait."""

    def __init__(self) -> None:
        self._waits: dict[str, _Wait] = {}

    def begin(self, name: str, what: str, at_most: float) -> None:
        """Wait for something, for so many seconds at most; `name` ends it."""
        self._waits[name] = _Wait(what, time.monotonic(), at_most)

    def end(self, name: str) -> None:
        """End a wait; nothing happens if there is none of this name."""
        self._waits.pop(name, None)

    @contextlib.contextmanager
    def during(self, what: str, at_most: float) -> Generator[None]:
        """Wait while the block runs."""
        self.begin(what, what, at_most)
        try:
            yield
        finally:
            self.end(what)

    def evaluating(self, reference: str | Path | None, questions: int = 1) -> contextlib.AbstractContextManager[None]:
        """Wait while the block evaluates a flake or a Nix file; None: it evaluates nothing."""
        if reference is None:
            return contextlib.nullcontext()
        return self.during(f"evaluating {named(reference)} with nix", questions * TIMEOUT_S)

    def asking(self, backends: Sequence[Backend]) -> None:
        """Wait for every backend that may take long; `end` with its name ends it."""
        for backend in backends:
            if isinstance(backend, Timed):
                self.begin(backend.name, f"asking {backend.asks}", backend.budget)

    def line(self, now: float, columns: int) -> str:
        """Return what to show: the oldest wait, with its time and the number of others; empty in the first second."""
        waits = [wait for wait in list(self._waits.values()) if now - wait.since >= _AFTER_S]
        if not waits:
            return ""
        oldest = min(waits, key=lambda wait: wait.since)
        time_ = f", {now - oldest.since:.0f} s of {oldest.at_most:.0f} s"
        if len(waits) > 1:
            time_ += f" (and {plural(len(waits) - 1, 'other')})"
        room = max(columns - len(time_) - 1, 0)  # a character in the last column would start another line
        what = one_line(oldest.what)
        if len(what) > room:
            what = f"{what[: max(room - 3, 0)]}..."
        return f"{what}{time_}"[: columns - 1]


def flake_of(loaded: LoadedConfig | None) -> str | None:
    """Return the flake that is evaluated for a config, if one is."""
    if loaded is None or loaded.config.inventory is None:
        return None
    return loaded.config.inventory.flake


def can_rewrite(err: TextIO) -> bool:
    """Tell whether a stream is a terminal that can erase a line."""
    return err.isatty() and os.environ.get("TERM", "dumb") != "dumb"


@contextlib.contextmanager
def progress(err: TextIO) -> Generator[Waits]:
    """Show what the block waits for, if `err` is a terminal that can erase a line. Write nothing else in the block."""
    waits = Waits()
    if not can_rewrite(err):
        yield waits
        return
    line = _Line(err, waits)
    worker = Worker(line.run)
    with contextlib.suppress(RuntimeError):  # no thread can be started: nothing is shown
        worker.start()
    try:
        yield waits
    finally:
        line.over.release()
        worker.join(_AFTER_S)  # a terminal that is stopped with Ctrl-S blocks the thread


class _Line:
    """The line on the terminal, which a thread rewrites."""

    def __init__(self, err: TextIO, waits: Waits) -> None:
        self._err = err
        self._waits = waits
        self.over: Final = _thread.allocate_lock()
        self.over.acquire()

    def run(self) -> None:
        """Rewrite the line while its text changes, until it is over; then erase it."""
        import shutil  # noqa: PLC0415 - saves 5 ms without a terminal

        shown = ""
        while not self.over.acquire(timeout=_EVERY_S):
            text = self._waits.line(time.monotonic(), shutil.get_terminal_size().columns)
            if text != shown:
                self._write(f"{_CLEAR}{text}")
                shown = text
        if shown:
            self._write(_CLEAR)

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._err.write(text)
            self._err.flush()
