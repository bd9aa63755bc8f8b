"""The state directory: the memory between refresh cycles, as named files of bytes.

A damaged file is set aside and reported, a failed write is reported, and the cycle goes on. A failed read ends the
cycle, because a temporary read error must not cause the file to be overwritten. The files hold no secrets; their mode
is 0600 because no other user needs them.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.errors import PublishError
from clan_discovery.model import Problem
from clan_discovery.publish.failure import publish_error
from clan_discovery.publish.lock import acquire
from clan_discovery.publish.user import give, whose
from clan_discovery.publish.writing import write_file
from clan_discovery.reading import UnusableFileError, list_names, read_regular

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

_UNWRITABLE: Final = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)
"""Errors that mean that no file can be created. Then nothing changes the state, and no lock is needed."""

_MEMORY: Final = ("index.json", "backend-", "memory-", "history-")


class State(msgspec.Struct):
    """The state directory. `problems` collects what went wrong with it. If `read_only`, nothing in it is changed.

    `hidden`: a read-only state has a file that this user may not read.
    """

    directory: Path
    read_only: bool = False
    hidden: bool = False
    problems: list[Problem] = []

    @property
    def scratch(self) -> Path:
        """Return the directory in which files are prepared before they are moved into place."""
        return self.directory / "publishing"

    @contextlib.contextmanager
    def locked(self, wait: float) -> Generator[None]:
        """Lock the state for one cycle, if it can be written: several output directories may share it.

        Raises:
            PublishError: another process holds it for more than `wait` seconds, or it belongs to another user.
        """
        with contextlib.ExitStack() as held:
            if not self.read_only:
                handle = self._acquire(wait)
                if handle is not None:
                    held.callback(os.close, handle)
            yield

    def _acquire(self, wait: float) -> int | None:
        """Lock the directory; None if no lock can be created in it."""
        with contextlib.suppress(OSError):  # `write` reports it
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return acquire(self.directory, wait)
        except OSError as error:
            if error.errno in _UNWRITABLE:
                return None
            raise publish_error(f"cannot lock the state {self.directory}", error) from error

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if it is absent or was set aside.

        Raises:
            PublishError: the file could not be read. A `read_only` state reports that, and returns None.
        """
        file = self.directory / name
        try:
            return read_regular(file)
        except UnusableFileError as error:
            self.set_aside(name, f"it {error.what}")
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # no file can have this name
                return None
            foreign = _foreign_after(error, file)
            if not self.read_only:
                raise foreign or publish_error(f"cannot read {file}", error) from error
            if not self.hidden:
                self.hidden = True
                hint = "the last good answers cannot be read: run as the owner"
                what = f"cannot read {name}: {error.strerror or error}"
                if isinstance(error, PermissionError):
                    what = "this user may not read it"
                self.report(str(foreign or what), (foreign and foreign.hint) or hint)
        return None

    def foreign_files(self, user: int) -> list[PublishError]:
        """Return an error for each file of the memory that belongs to another user and that `user` cannot read.

        Raises:
            PublishError: the directory could not be listed, or a file could not be inspected.
        """
        try:
            files = [self.directory / name for name in list_names(self.directory, "") if name.startswith(_MEMORY)]
            return [complaint for file in files if (complaint := foreign_file(file, user)) is not None]
        except OSError as error:
            raise publish_error(f"cannot read the state {self.directory}", error) from error

    def write(self, contents: Mapping[str, bytes]) -> bool:
        """Write files in the given order, each only if it differs; on failure, add a problem and return False."""
        if self.read_only:
            return False
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, content in contents.items():
                write_file(self.directory / name, content)
        except OSError as error:
            self.report(f"cannot write the state: {error.strerror or error}")
            return False
        return True

    def set_aside(self, name: str, why: str) -> None:
        """Rename a file that cannot be used, and report it."""
        if self.read_only:
            self.report(f"cannot read {name}: {why}")
            return
        file = self.directory / name
        with contextlib.suppress(OSError):
            file.replace(file.with_name(f"{name}.unreadable"))
        self.report(f"cannot read {name}, which is set aside: {why}")

    def report(self, what: str, hint: str = "this cycle continues without it") -> None:
        """Add a warning about the state to its problems."""
        self.problems.append(Problem(where=f"state {self.directory}", what=what, hint=hint, severity="warning"))


def foreign_file(file: Path, user: int) -> PublishError | None:
    """Say that a file in the state belongs to another user, and what to do; None if `user` can read it.

    Raises:
        OSError: the file could not be inspected.
    """
    status = os.lstat(file)
    owner = status.st_uid
    if user in (owner, 0) or status.st_mode & 0o004:
        return None
    what = f"cannot read {file}: it belongs to {whose(owner, file)}"
    if file.parent.stat().st_uid != user:
        return PublishError(what, hint="run it as that user")
    return PublishError(what, hint=f"{give(file.parent, user)} (or remove the file: its memory is lost then)")


def _foreign_after(error: OSError, file: Path) -> PublishError | None:
    """Return the error for a file of another user; None if the read failed for another reason."""
    if isinstance(error, PermissionError):
        with contextlib.suppress(OSError):  # the directory cannot be searched
            return foreign_file(file, os.geteuid())
    return None
