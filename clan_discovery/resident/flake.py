"""Evaluate a flake in parallel with refresh cycles, and detect changes of its files."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from typing_extensions import override

from clan_discovery.publish.lock import LOCK
from clan_discovery.resident.triggers import Trigger
from clan_discovery.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from clan_discovery.inventory.nix import Evaluation
    from clan_discovery.resident.triggers import Wake

_POLL_S: Final = 1.0
_SHARE: Final = 2000
"""Looking at the files takes at most 0.05 % of a core."""
_JOIN_S: Final = 10.0
_WATCHED: Final = (".nix", ".json", ".toml", ".lock")
_NEVER_WRITTEN: Final = (".nix", ".toml", "flake.lock")
"""The files that are watched of a flake whose directory is itself an output or state directory."""
_MAX_ENTRIES: Final = 20_000


class Flake(NamedTuple):
    """A flake to evaluate: how, how often (seconds; None: never by itself), and its directory if it is a local one.

    `own` are the directories that this process writes to; changes there are ignored.
    """

    reference: str
    evaluate: Callable[[Callable[[], bool] | None], Evaluation]
    every: float | None
    directory: Path | None
    own: tuple[Path, ...] = ()


class Evaluator:
    """Runs one evaluation at a time in a thread, and keeps its result until it is taken.

    `reference` is the flake of the newest evaluation: the config may name another one when it ends.
    """

    def __init__(self, wake: Wake) -> None:
        self.reference: str | None = None
        self._wake = wake
        self._thread: Worker | None = None
        self._cancelled = threading.Event()
        self._result: Evaluation | Exception | None = None

    @property
    def is_busy(self) -> bool:
        """Tell whether an evaluation runs, or its result was not taken."""
        return self._thread is not None

    def start(self, flake: Flake) -> None:
        """Start an evaluation; raise RuntimeError if there is no thread for it."""
        self._cancelled = threading.Event()
        self.reference = flake.reference
        thread = Worker(partial(self._run, flake, self._cancelled))
        thread.start()
        self._thread = thread

    def take(self) -> Evaluation | Exception | None:
        """Return the result of an evaluation that has ended; None if there is none."""
        if self._thread is None or (self._result is None and self._thread.is_alive()):
            return None
        result, self._result, self._thread = self._result, None, None
        return result or RuntimeError("the evaluation ended without a result")

    def cancel(self) -> None:
        """Tell the running evaluation to end; its result is an error."""
        self._cancelled.set()

    def stop(self) -> None:
        """End Nix, and wait for it."""
        self.cancel()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _run(self, flake: Flake, cancelled: threading.Event) -> None:
        try:
            self._result = flake.evaluate(cancelled.is_set)
        except Exception as error:  # noqa: BLE001 - law 11: the loop reports it
            self._result = error
        self._wake.call("evaluated")


class FlakeTrigger(Trigger):
    """Looks at the files of a local flake; `known` is what `look` returned before it was evaluated."""

    def __init__(self, directory: Path, own: tuple[Path, ...], known: int | None, wake: Wake) -> None:
        super().__init__(f"flake {directory} without {own}")
        self._directory = directory
        self._own = own
        self._known = known
        self._wake = wake

    @override
    def run(self) -> None:
        pause = _POLL_S
        while not self._stopped.wait(pause):
            with contextlib.suppress(Exception):  # law 11: the thread must not end
                start = time.thread_time()
                now = look(self._directory, self._own)
                pause = max(_POLL_S, (time.thread_time() - start) * _SHARE)
                if now is not None and now != self._known:
                    self._known = now
                    self._wake.call("flake")


def look(directory: Path, own: Iterable[Path] = ()) -> int | None:
    """Return a value that identifies the content of a flake's files; None if they cannot be read.

    These are flake.lock and the .nix, .json and .toml files of the directory and of those below it, nearest first, and
    the index and HEAD of its git repository: a new file is part of a flake when it is added to the index. Output and
    state directories below it are left out: those in `own`, and those of other configs, which hold a lock.
    """
    try:
        return hash(tuple(_files(directory, own)))
    except OSError:
        return None


def _files(directory: Path, own: Iterable[Path]) -> Iterator[tuple[str | int, ...]]:
    for file in _git_files(directory):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            yield _identity(str(file), file.stat())
    skipped = frozenset(_inodes(own))
    top = str(directory)
    watched: tuple[str, ...] = _WATCHED
    waiting = deque([top])
    entries = 0
    while waiting and entries < _MAX_ENTRIES:
        try:
            place = waiting.popleft()
            with os.scandir(place) as found:
                inside = sorted(found, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        entries += len(inside)
        if _is_written(place, inside, skipped):
            if place != top:
                continue
            watched = _NEVER_WRITTEN
        for entry in inside:
            with contextlib.suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.startswith("."):
                        waiting.append(entry.path)
                elif entry.name.endswith(watched):
                    yield _identity(entry.path, entry.stat(follow_symlinks=False))


def _is_written(place: str, inside: list[os.DirEntry[str]], skipped: frozenset[tuple[int, int]]) -> bool:
    """Tell whether a directory is an output or state directory: one of `skipped`, or one with a lock."""
    return any(entry.name == LOCK for entry in inside) or not skipped.isdisjoint(_inodes([place]))


def _inodes(directories: Iterable[str | Path]) -> Iterator[tuple[int, int]]:
    """Yield the device and inode of each directory that exists."""
    for directory in directories:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = Path(directory).stat()
            yield status.st_dev, status.st_ino


def _identity(name: str, status: os.stat_result) -> tuple[str | int, ...]:
    return name, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _git_files(directory: Path) -> tuple[Path, ...]:
    """Return the index and HEAD of the repository that a directory is in; of a worktree, its own."""
    for parent in (directory, *directory.parents):
        git = parent / ".git"
        if git.is_file():
            with git.open("rb") as file:
                line = file.read(4096).partition(b"\n")[0]
            git = parent / os.fsdecode(line.removeprefix(b"gitdir:").strip())
        if git.is_dir():
            return git / "index", git / "HEAD"
    return ()
