"""Lock a directory for one refresh cycle."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clan_discovery.errors import PublishError
from clan_discovery.publish.failure import publish_error

if TYPE_CHECKING:
    from collections.abc import Generator

_POLL_S: Final = 0.05


@contextmanager
def locked(directory: Path, wait: float) -> Generator[None]:
    """Hold the lock of a directory, so that an older answer never overwrites a newer one.

    The lock is the kernel's, on the directory itself: it leaves no file behind and ends with its process.

    Raises:
        PublishError: another process holds it for more than `wait` seconds; the message names the process.
    """
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise publish_error(f"cannot open the output directory {directory}", error) from error
    try:
        _acquire(handle, directory, wait)
        yield
    finally:
        os.close(handle)


def _acquire(handle: int, directory: Path, wait: float) -> None:
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                what = f"{directory} is held by {_holder(handle)} (waited {wait:g} s)"
                raise PublishError(what, hint="wait for it, or end it; nothing was changed") from None
        except OSError as error:
            raise publish_error(f"cannot lock the output directory {directory}", error) from error
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
                    return f"process {pid} ({command[:120]})"
                case _:  # `->` before FLOCK: a process that waits
                    continue
    except OSError:
        pass
    return "an unknown process"
