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
from clan_discovery.publish.user import quoted, whose
from clan_discovery.reading import open_regular

if TYPE_CHECKING:
    from collections.abc import Generator

LOCK: Final = ".clan-discovery.lock"
"""The name of the lock file. file_sd does not read it: it reads only .json, .yml and .yaml."""
_MODE: Final = 0o600
_ROOT: Final = 0
_POLL_S: Final = 0.02
_CREATE: Final = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def locked(directory: Path, wait: float, *, keep: bool = False) -> Generator[None]:
    """Hold the lock of a directory, so that an older answer never overwrites a newer one.

    It is flock(2) on a file that only this user can open, so no other user can hold it. It ends with its process. With
    `keep`, the file is kept afterwards: a scraper that watches the directory would notice each creation and removal. If
    the block fails, a file that this call created is removed anyway.

    Raises:
        PublishError: another process holds it for more than `wait` seconds (the message names the process), or the
            file cannot be created, or belongs to another user.
    """
    try:
        handle, is_new = _acquire(directory, wait)
    except OSError as error:
        raise publish_error(f"cannot lock {directory}", error) from error
    try:
        yield
        is_new = False
    finally:
        if is_new or not keep:
            with suppress(OSError):
                (directory / LOCK).unlink()
        os.close(handle)


def acquire(directory: Path, wait: float) -> int:
    """Lock a directory and return the handle; closing it unlocks the directory.

    Raises:
        PublishError: as `locked`.
        OSError: the file cannot be opened or created.
    """
    return _acquire(directory, wait)[0]


def lock_complaint(directory: Path, user: int) -> PublishError | None:
    """Say why a user could not lock a directory; None if the user can, or there is no lock file. Changes nothing."""
    file = directory / LOCK
    try:
        handle = _open_existing(file, user)
        try:
            _check(file, handle, user)
        finally:
            os.close(handle)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PublishError as error:
        return error
    except OSError as error:
        return publish_error(f"cannot lock {directory}", error)
    return None


def _acquire(directory: Path, wait: float) -> tuple[int, bool]:
    """Lock a directory; return the handle, and whether the file is new."""
    file = directory / LOCK
    deadline = time.monotonic() + wait
    while True:
        handle, is_new = _open(file)
        try:
            _check(file, handle, os.geteuid())
            if os.fstat(handle).st_mode & 0o777 != _MODE:
                os.fchmod(handle, _MODE)
            _wait(directory, handle, deadline, wait)
            if _is_at(file, handle):
                return handle, is_new
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the file was removed or replaced meanwhile: try again with the new one


def _open(file: Path) -> tuple[int, bool]:
    """Open the file, or create it."""
    while True:
        try:
            return _open_existing(file, os.geteuid()), False
        except FileNotFoundError:
            pass
        try:
            return _create(file), True
        except FileExistsError:  # another process was faster
            continue


def _create(file: Path) -> int:
    """Create the file. If root creates it, it is given to the owner of the directory, who must be able to open it."""
    handle = os.open(file, _CREATE, _MODE)
    try:
        if os.geteuid() == _ROOT and (owner := file.parent.stat().st_uid) != _ROOT:
            os.fchown(handle, owner, -1)
    except BaseException:
        os.close(handle)
        file.unlink(missing_ok=True)
        raise
    return handle


def _open_existing(file: Path, user: int) -> int:
    try:
        return open_regular(file).handle
    except PermissionError as error:
        try:
            owner = os.lstat(file).st_uid
        except OSError:  # the directory cannot be searched
            raise error from None
        raise _foreign(file, owner, user) from error


def _check(file: Path, handle: int, user: int) -> None:
    """Refuse a file that another user could lock, or that has another hard link."""
    status = os.fstat(handle)
    is_owners = user == _ROOT and status.st_uid == file.parent.stat().st_uid
    if status.st_uid != user and not is_owners:
        raise _foreign(file, status.st_uid, user)
    if status.st_nlink > 1:
        raise PublishError(f"cannot lock {file.parent}: {file} has another hard link", hint="remove the file")


def _foreign(file: Path, owner: int, user: int) -> PublishError:
    """Return the error for a lock file of another user.

    The hint does not suggest running as its owner, because the state belongs to `user`.
    """
    hint = f"if that user does not refresh there any more, remove {quoted(file)}"
    with suppress(OSError):
        if file.parent.stat().st_uid == user:
            hint = f"remove {quoted(file)}: a refresh by that user left it"
    return PublishError(f"cannot lock {file.parent}: {file} belongs to {whose(owner, file)}", hint=hint)


def _is_at(file: Path, handle: int) -> bool:
    """Tell whether the path still leads to the open file."""
    try:
        return os.path.samestat(os.lstat(file), os.fstat(handle))
    except FileNotFoundError:
        return False


def take(handle: int, deadline: float) -> bool:
    """Lock an open file; False if another process still holds it at the deadline (monotonic clock)."""
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
        else:
            return True
        time.sleep(_POLL_S)


def _wait(directory: Path, handle: int, deadline: float, wait: float) -> None:
    if take(handle, deadline):
        return
    holder = _holder(handle)
    hint = "wait for it, or end it; nothing was changed"
    if holder is None:  # /proc may be hidden from a unit (ProcSubset=pid)
        hint = (
            f"find it as root with `fuser {quoted(directory / LOCK)}`, and wait for it, or end it; nothing was changed"
        )
    raise PublishError(f"{directory} is held by {holder or 'another process'} (waited {wait:g} s)", hint=hint)


def _holder(handle: int) -> str | None:
    """Name the process that holds the lock, from the kernel's list (proc(5), /proc/locks)."""
    inode = str(os.fstat(handle).st_ino)
    try:
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            match line.split():
                case [_, "FLOCK", _, _, pid, place, *_] if place.rpartition(":")[2] == inode:
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                    command = b" ".join(words).decode("utf-8", "replace").strip()
                    return f"process {pid} ({one_line(command[:120])})"
                case _:  # also processes that wait for the lock: their lines have `->` before FLOCK
                    continue
    except OSError:
        pass
    return None
