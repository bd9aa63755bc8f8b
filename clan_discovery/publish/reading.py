"""Read files whole: only regular ones, never through a symlink, bounded in size, and without waiting for a writer.

Only a file that is not there (ENOENT, or a parent that is no directory) is absent. Every other failure is an error: a
read that fails for a moment must not look like an empty directory.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES: Final = 256 * 1024 * 1024
"""The largest file that is read; target files and snapshots of 100,000 targets have about 50 MB."""
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS: Final = {
    stat.S_IFLNK: "a symlink",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class UnusableFileError(OSError):
    """What has this name cannot be used: it is not a regular file, or is too large. No read failed."""

    def __init__(self, path: Path, what: str, *, is_too_large: bool = False) -> None:
        super().__init__(errno.EINVAL, what, str(path))
        self.path = path
        self.what = what
        self.is_too_large = is_too_large


class Opened(NamedTuple):
    """A regular file that is open for reading; the caller closes `handle`."""

    handle: int
    status: os.stat_result


def open_regular(path: Path) -> Opened:
    """Open a regular file.

    Raises:
        UnusableFileError: something else has this name.
        OSError: it could not be opened.
    """
    _check_regular(path, os.lstat(path))  # before it is opened: to open a device may do something
    handle = os.open(path, _FLAGS)
    try:
        status = os.fstat(handle)
        _check_regular(path, status)
    except BaseException:
        os.close(handle)
        raise
    return Opened(handle, status)


def _check_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise UnusableFileError(path, f"is {kind}, not a regular file")


def read_regular(path: Path, most: int = MAX_BYTES) -> bytes | None:
    """Return the content of a file; None where there is none.

    Raises:
        UnusableFileError: it is not a regular file, or has more than `most` bytes.
        OSError: it could not be read.
    """
    body = read_start(path, most + 1)
    if body is not None and len(body) > most:
        raise UnusableFileError(path, f"is larger than {most} bytes", is_too_large=True)
    return body


def read_start(path: Path, most: int) -> bytes | None:
    """Return at most `most` bytes from the start of a file; None where there is none. Raises as `read_regular`."""
    try:
        opened = open_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return _read(opened, most)
    finally:
        os.close(opened.handle)


def has_content(path: Path, content: bytes, mode: int | None = None) -> bool:
    """Tell whether a file has this content; one that has gets `mode`, if given. Raises as `read_regular`."""
    try:
        opened = open_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        if opened.status.st_size != len(content) or _read(opened, len(content) + 1) != content:
            return False
        if mode is not None and opened.status.st_mode & 0o777 != mode:
            os.fchmod(opened.handle, mode)
    finally:
        os.close(opened.handle)
    return True


def list_names(directory: Path, suffix: str) -> list[str]:
    """Return the names in a directory that end in `suffix`, sorted; none where there is no directory.

    Raises:
        OSError: it could not be listed.
    """
    try:
        return sorted(file.name for file in directory.iterdir() if file.name.endswith(suffix))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(opened: Opened, most: int) -> bytes:
    """Read to the end, or `most` bytes, whatever size the kernel tells."""
    parts: list[bytes] = []
    left = most
    while left > 0:
        part = os.read(opened.handle, min(left, opened.status.st_size + 1))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
