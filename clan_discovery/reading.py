"""Reads input files: regular files only, bounded in size, without waiting for a writer."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class UnreadableError(Exception):
    """An input cannot be read. `why` completes a sentence: `cannot read the config: is a directory`.

    `cause` is the system's error, if there is one.
    """

    def __init__(self, why: str, cause: OSError | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.cause = cause


def read_regular(file: Path, most: int) -> bytes:
    """Read a whole regular file of at most `most` bytes; a symlink to one is followed.

    Raises:
        UnreadableError: it is missing, cannot be read, is no regular file, or is too large.
    """
    try:
        # Opening a FIFO or a device must not block.
        handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise UnreadableError(_reason(file, error), error) from None
    except ValueError:
        raise UnreadableError("its name holds a NUL, or is no text") from None
    try:
        return _read(handle, most)
    except OSError as error:
        raise UnreadableError(_said(error), error) from None
    except MemoryError:
        raise UnreadableError("there is not enough memory for it") from None
    finally:
        os.close(handle)


def _read(handle: int, most: int) -> bytes:
    status = os.fstat(handle)
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise UnreadableError(f"is {_KINDS.get(kind, 'something else')}, not a regular file")
    if status.st_size > most:
        raise UnreadableError(f"is larger than {most >> 20} MiB")
    if status.st_size == 0:
        # Files in /proc have no size; some of them never end, and others wait.
        if os.read(handle, 4096):
            raise UnreadableError("is a file without a size (in /proc?), not a regular file")
        return b""
    parts: list[bytes] = []
    left = most + 1  # it may grow while it is read
    while left > 0 and (part := os.read(handle, min(left, status.st_size + 1))):
        parts.append(part)
        left -= len(part)
    if left == 0:
        raise UnreadableError(f"is larger than {most >> 20} MiB")
    return b"".join(parts)


def _reason(file: Path, error: OSError) -> str:
    """Say why a file cannot be opened. A socket, and a device without a driver, cannot be: say what it is."""
    try:
        kind = stat.S_IFMT(file.stat().st_mode)
    except (OSError, ValueError):
        kind = stat.S_IFREG
    if kind in (stat.S_IFREG, stat.S_IFLNK):
        return _said(error)
    return f"is {_KINDS.get(kind, 'something else')}, not a regular file"


def _said(error: OSError) -> str:
    return error.strerror or type(error).__name__


def is_closed(file: Path) -> bool:
    """Tell whether a file exists and other users may not read it."""
    try:
        return not file.stat().st_mode & stat.S_IROTH
    except (OSError, ValueError):
        return False
