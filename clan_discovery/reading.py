"""Read regular files as a whole, with a size limit, and without blocking on pipes.

Inputs that a user names may be symlinks; our own files (state, target files, marks, locks) may not. One of our files is
absent only on ENOENT or ENOTDIR. Every other failure is an error: a temporary read error must not look like an empty
directory.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES: Final = 256 * 1024 * 1024
"""The largest file that is read. Target files of 100,000 targets have about 50 MB, a status of 100,000 nodes 120 MB."""
_PIECE: Final = 1024 * 1024
_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS: Final = {
    stat.S_IFLNK: "a symlink",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class UnusableFileError(OSError):
    """A file is not a regular file, or is too large. It is not a read error."""

    def __init__(self, path: Path, what: str, *, is_too_large: bool = False, is_directory: bool = False) -> None:
        super().__init__(errno.EINVAL, what, str(path))
        self.path = path
        self.what = what
        self.is_too_large = is_too_large
        self.is_directory = is_directory


class UnreadableError(Exception):
    """An input cannot be read. `why` completes a sentence: `cannot read the config: is a directory`.

    `cause` is the system's error, if there is one.
    """

    def __init__(self, why: str, cause: OSError | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.cause = cause


def read_input(file: Path, most: int) -> bytes:
    """Read an input of at most `most` bytes; a symlink to a regular file is followed.

    Raises:
        UnreadableError: it is missing, cannot be read, is not a regular file, or is too large.
    """
    try:
        opened = _open(file, file.stat(), _FLAGS)
        try:
            return _read_sized(file, opened, most)
        finally:
            os.close(opened.handle)
    except UnusableFileError as error:
        raise UnreadableError(error.what, error) from None
    except OSError as error:
        raise UnreadableError(error.strerror or type(error).__name__, error) from None
    except ValueError:
        raise UnreadableError("its name contains a NUL or is not text") from None
    except MemoryError:
        raise UnreadableError("there is not enough memory for it") from None


def _read_sized(file: Path, opened: Opened, most: int) -> bytes:
    size = opened.status.st_size
    if size == 0 and os.read(opened.handle, 4096):  # some files in /proc never end, others block
        raise UnusableFileError(file, "is a file without a size (in /proc?), not a regular file")
    if size <= most:  # it may grow while it is read
        body = _read(opened, most + 1)
        if len(body) <= most:
            return body
    raise UnusableFileError(file, f"is larger than {most >> 20} MiB", is_too_large=True)


class Opened(NamedTuple):
    """A regular file that is open for reading; the caller closes `handle`."""

    handle: int
    status: os.stat_result


def open_regular(path: Path) -> Opened:
    """Open a regular file; a symlink is not followed.

    Raises:
        UnusableFileError: it is not a regular file.
        OSError: it could not be opened.
    """
    return _open(path, os.lstat(path), _FLAGS | os.O_NOFOLLOW)


def _open(path: Path, status: os.stat_result, flags: int) -> Opened:
    _check_regular(path, status)  # before it is opened: opening a device may have side effects
    handle = os.open(path, flags)
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
        is_directory = stat.S_ISDIR(status.st_mode)
        raise UnusableFileError(path, f"is {kind}, not a regular file", is_directory=is_directory)


def read_regular(path: Path, most: int = MAX_BYTES) -> bytes | None:
    """Return the content of a file; None if it is absent.

    Raises:
        UnusableFileError: it is not a regular file, or has more than `most` bytes.
        OSError: it could not be read.
    """
    body = read_start(path, most + 1)
    if body is not None and len(body) > most:
        raise UnusableFileError(path, f"is larger than {most} bytes", is_too_large=True)
    return body


def read_start(path: Path, most: int) -> bytes | None:
    """Return at most `most` bytes from the start of a file; None if it is absent. Raises as `read_regular`."""
    try:
        opened = open_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return _read(opened, most)
    finally:
        os.close(opened.handle)


def has_content(path: Path, content: bytes, mode: int | None = None) -> bool:
    """Tell whether a file has this content, and if so set its `mode`, if given. Raises as `read_regular`."""
    try:
        opened = open_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        if opened.status.st_size != len(content) or not _has_rest(opened.handle, content):
            return False
        if mode is not None and opened.status.st_mode & 0o777 != mode:
            os.fchmod(opened.handle, mode)
    finally:
        os.close(opened.handle)
    return True


def _has_rest(handle: int, content: bytes) -> bool:
    """Tell whether the rest of a file is this content, without holding both in memory."""
    at = 0
    while part := os.read(handle, _PIECE):
        if not content.startswith(part, at):
            return False
        at += len(part)
    return at == len(content)


def list_names(directory: Path, suffix: str) -> list[str]:
    """Return the names in a directory that end in `suffix`, sorted; empty if there is no directory.

    Raises:
        OSError: it could not be listed.
    """
    try:
        return sorted(file.name for file in directory.iterdir() if file.name.endswith(suffix))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(opened: Opened, most: int) -> bytes:
    """Read to the end, or `most` bytes; the size in the status is only a hint."""
    parts: list[bytes] = []
    left = most
    while left > 0:
        part = os.read(opened.handle, min(left, opened.status.st_size + 1))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def is_closed(file: Path) -> bool:
    """Tell whether a file exists and other users may not read it."""
    try:
        return not file.stat().st_mode & stat.S_IROTH
    except (OSError, ValueError):
        return False
