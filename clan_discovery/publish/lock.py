"""Lock a directory for one refresh cycle."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clan_discovery.errors import PublishError
from clan_discovery.model import one_line
from clan_discovery.publish.failure import publish_error
from clan_discovery.publish.user import run_as, user_name
from clan_discovery.reading import open_regular

if TYPE_CHECKING:
    from collections.abc import Generator

LOCK: Final = ".clan-discovery.lock"
"""The name of the lock's file. No scraper's glob matches it: file_sd reads .json, .yml and .yaml alone."""
_MODE: Final = 0o600
_POLL_S: Final = 0.05
_CREATE: Final = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def locked(directory: Path, wait: float, *, keep: bool = False) -> Generator[None]:
    """Hold the lock of a directory, so that an older answer never overwrites a newer one.

    The lock is the kernel's, on a file that only this user can open: nobody else can hold it. It ends with its process.
    `keep` its file: to create and remove it each time would be two changes that a scraper sees.

    Raises:
        PublishError: another process holds it for more than `wait` seconds (the message names the process), or the
            file cannot be made, or is not this user's.
    """
    try:
        handle = acquire(directory, wait)
    except OSError as error:
        raise publish_error(f"cannot lock {directory}", error) from error
    try:
        yield
    finally:
        if not keep:
            with suppress(OSError):
                (directory / LOCK).unlink()
        os.close(handle)


def acquire(directory: Path, wait: float) -> int:
    """Lock a directory and return the handle, which unlocks it when it is closed.

    Raises:
        PublishError: as `locked`.
        OSError: the file does not exist and cannot be made, or cannot be opened.
    """
    file = directory / LOCK
    deadline = time.monotonic() + wait
    while True:
        handle = _open(file)
        try:
            _check(file, handle)
            _wait(handle, directory, deadline, wait)
            if _is_at(file, handle):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # somebody removed the file meanwhile: what is locked is another one


def _open(file: Path) -> int:
    """Open the file, or create it."""
    while True:
        try:
            return open_regular(file).handle
        except FileNotFoundError:
            pass
        except PermissionError as error:
            raise _not_ours(file, error) from error
        try:
            return os.open(file, _CREATE, _MODE)
        except FileExistsError:  # another process was faster
            continue


def _not_ours(file: Path, error: PermissionError) -> PublishError | PermissionError:
    """Say whose the file is that this user may not open; the error itself where that cannot be told."""
    try:
        owner = os.lstat(file).st_uid
    except OSError:
        return error
    what = f"cannot lock {file.parent}: user {user_name(owner)} writes there"
    return PublishError(what, hint=run_as(owner))


def _check(file: Path, handle: int) -> None:
    """Refuse a file that others could lock, or that is also another file."""
    status = os.fstat(handle)
    if status.st_uid != os.geteuid():
        what = f"cannot lock {file.parent}: {file} belongs to user {user_name(status.st_uid)}"
        raise PublishError(what, hint=f"{run_as(status.st_uid)}; or remove the file")
    if status.st_nlink > 1:
        raise PublishError(f"cannot lock {file.parent}: {file} has another hard link", hint="remove the file")
    if status.st_mode & 0o777 != _MODE:
        os.fchmod(handle, _MODE)


def _is_at(file: Path, handle: int) -> bool:
    """Tell whether a file is still the one that is open."""
    try:
        return os.path.samestat(os.lstat(file), os.fstat(handle))
    except FileNotFoundError:
        return False


def _wait(handle: int, directory: Path, deadline: float, wait: float) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                what = f"{directory} is held by {_holder(handle)} (waited {wait:g} s)"
                raise PublishError(what, hint="wait for it, or end it; nothing was changed") from None
        else:
            return
        time.sleep(_POLL_S)


def _holder(handle: int) -> str:
    """Name the process that holds the lock, from the kernel's list (proc(5), /proc/locks)."""
    inode = str(os.fstat(handle).st_ino)
    try:
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            match line.split():
                case [_, "FLOCK", _, _, pid, place, *_] if place.rpartition(":")[2] == inode:
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                    command = b" ".join(words).decode("utf-8", "replace").strip()
                    return f"process {pid} ({one_line(command[:120])})"
                case _:  # `->` before FLOCK: a process that waits
                    continue
    except OSError:
        pass
    return "an unknown process"
