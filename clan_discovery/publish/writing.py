"""Write files atomically: a new file beside the old one, synced, then moved into its place."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from clan_discovery.reading import has_content

if TYPE_CHECKING:
    from pathlib import Path

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_file(path: Path, content: bytes, mode: int = 0o600, group: int = -1) -> bool:
    """Write a file atomically if its content differs; tell whether it did. A new file gets the group, if there is one.

    Raises:
        OSError: it could not be written, or the path is not a regular file; the old file is kept.
    """
    if has_content(path, content):
        return False
    temporary = path.with_name(f"{path.name}.new")
    directory = open_directory(path.parent)  # before the move: after it, the sync must not fail for want of a handle
    try:
        try:
            write_new(temporary, content, mode, group)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        os.fsync(directory)
    finally:
        os.close(directory)
    return True


def write_new(path: Path, content: bytes, mode: int, group: int = -1) -> None:
    """Write and sync a new file. An existing file of this name is removed first, never written through.

    Raises:
        OSError: it could not be written.
    """
    path.unlink(missing_ok=True)
    handle = os.open(path, _FLAGS, mode)
    with open(handle, "wb") as file:  # noqa: PTH123 - a handle, not a path
        if group != -1:
            os.fchown(handle, -1, group)
        file.write(content)
        file.flush()
        os.fchmod(handle, mode)  # regardless of the umask: Prometheus runs as another user
        os.fsync(handle)


def open_directory(directory: Path) -> int:
    """Open a directory to sync it; the caller closes the handle."""
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
