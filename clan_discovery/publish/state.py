"""The state directory: what is remembered between refresh cycles, as named files of bytes.

A file that is damaged is set aside and reported, a write that fails is reported, and the cycle goes on. A read that
fails ends the cycle: what could not be read for a moment is not lost, and must not be overwritten. Nothing secret is in
it; it is 0600 because nobody else needs it.
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
"""Why no file can be created: then nobody changes the state, and no lock is needed. `write` reports it."""

_MEMORY: Final = ("index.json", "backend-", "memory-", "history-")


class State(msgspec.Struct):
    """The state directory. `problems` gathers what went wrong with it; `read_only` leaves it as it is.

    `hidden`: something is there that this user may not read, and that was left as it is.
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
        """Hold the state for one cycle, if it can be written: refreshers of several outputs may share it.

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
        """Lock the directory; None where no lock can be created in it."""
        with contextlib.suppress(OSError):  # `write` reports it
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return acquire(self.directory, wait)
        except OSError as error:
            if error.errno in _UNWRITABLE:
                return None
            raise publish_error(f"cannot lock the state {self.directory}", error) from error

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None where there is none, or where it was set aside.

        Raises:
            PublishError: the file could not be read. A `read_only` state reports that, and returns None.
        """
        file = self.directory / name
        try:
            return read_regular(file)
        except UnusableFileError as error:
            self.set_aside(name, f"it {error.what}")
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # no file has such a name
                return None
            foreign = _foreign_after(error, file)
            if not self.read_only:
                raise foreign or publish_error(f"cannot read {file}", error) from error
            if not self.hidden:
                self.hidden = True
                hint = "what is remembered is not known here: run as the owner"
                what = f"cannot read {name}: {error.strerror or error}"
                if isinstance(error, PermissionError):
                    what = "this user may not read it"
                self._complain(str(foreign or what), (foreign and foreign.hint) or hint)
        return None

    def foreign_files(self, user: int) -> list[PublishError]:
        """Report the files of memory that a user could not read, because they belong to another one.

        Raises:
            PublishError: the directory could not be listed, or a file could not be looked at.
        """
        try:
            files = [self.directory / name for name in list_names(self.directory, "") if name.startswith(_MEMORY)]
            return [complaint for file in files if (complaint := foreign_file(file, user)) is not None]
        except OSError as error:
            raise publish_error(f"cannot read the state {self.directory}", error) from error

    def write(self, contents: Mapping[str, bytes]) -> bool:
        """Write files in the given order, each only if it differs; False, with a problem, where one failed."""
        if self.read_only:
            return False
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, content in contents.items():
                write_file(self.directory / name, content)
        except OSError as error:
            self._complain(f"cannot write the state: {error.strerror or error}")
            return False
        return True

    def set_aside(self, name: str, why: str) -> None:
        """Move a file away that cannot be used, and report it."""
        if self.read_only:
            self._complain(f"cannot read {name}: {why}")
            return
        file = self.directory / name
        with contextlib.suppress(OSError):
            file.replace(file.with_name(f"{name}.unreadable"))
        self._complain(f"cannot read {name}, which is set aside: {why}")

    def _complain(self, what: str, hint: str = "this cycle continues without it") -> None:
        self.problems.append(Problem(where=f"state {self.directory}", what=what, hint=hint, severity="warning"))


def foreign_file(file: Path, user: int) -> PublishError | None:
    """Say how a user gets at a closed file of another user in the state; None where it is this user's, or open.

    Raises:
        OSError: the file could not be looked at.
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
    """Say whose a file is that this user may not read; None where that is not why."""
    if isinstance(error, PermissionError):
        with contextlib.suppress(OSError):  # the directory is closed
            return foreign_file(file, os.geteuid())
    return None
