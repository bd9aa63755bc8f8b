"""Check the user that writes files: another user may not be able to read or lock them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final, NamedTuple

from clan_discovery.errors import PublishError
from clan_discovery.publish.failure import publish_error

_ROOT: Final = 0
_OTHERS: Final = 0o077
_OVERFLOW: Final = 65534
"""The uid that the kernel shows in a user namespace (PrivateUsers=) for every user outside of it."""


class _Owner(NamedTuple):
    """The owner of a path, or of its nearest existing parent; `path` is the one that exists."""

    path: Path
    uid: int
    mode: int


def check_user(directory: Path, state: Path) -> None:
    """Refuse to refresh as a user who does not own the state. Writes nothing.

    The state has mode 0700, so two users cannot share it. Root may write to an output directory of another user, which
    all users can read. Root does not create the state or the output directory inside a directory of another user:
    before the first cycle of a service, only the parent directory belongs to the service's user.

    Raises:
        PublishError: the state belongs to another user, or root would create a directory inside one of another user,
            or a directory could not be inspected.
    """
    me = os.geteuid()
    owner = _owner(state)
    if owner.path == state and owner.uid != me:
        what = f"the state {state} belongs to {whose(owner.uid, state)}, who could not read what this user writes there"
        other = "set `state` to a directory of this user's own"
        if not owner.mode & _OTHERS:  # the mode that this program sets; never suggest chown of /var/lib
            other = give(state, me)
        raise PublishError(what, hint=f"{run_as(owner.uid)}; or, if only this user is to refresh: {other}")
    if me == _ROOT:
        _check_parent(owner, state)
        _check_parent(_owner(directory), directory)


def _check_parent(owner: _Owner, wanted: Path) -> None:
    if owner.path != wanted and owner.uid != _ROOT:
        what = f"{owner.path} belongs to {whose(owner.uid, owner.path)}, who could not use {wanted} if root made it"
        raise PublishError(what, hint=f"{run_as(owner.uid)}; or, if root is to refresh: mkdir -p {quoted(wanted)}")


def refresher(state: Path) -> int:
    """Return the user who refreshes with this state: the owner of the state if this is root, else this user.

    Raises:
        PublishError: the directory could not be inspected.
    """
    return os.geteuid() or _owner(state).uid


def _owner(path: Path) -> _Owner:
    for place in (path, *path.absolute().parents):
        try:
            status = place.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:  # no file can have this name: its parent is inspected
                raise publish_error(f"cannot look at {place}", error) from error
        else:
            return _Owner(place, status.st_uid, status.st_mode)
    return _Owner(Path("/"), _ROOT, 0o755)


def run_as(uid: int) -> str:
    """Say how to run a command as a user."""
    if uid == _OVERFLOW:
        return "run it as that user, with the same options"
    return f"run it as that user, with the same options: {sudo(uid)}clan-discovery refresh ..."


def sudo(uid: int) -> str:
    """Return the `sudo` prefix to run a command as this user; empty for the current user."""
    return "" if uid in (os.geteuid(), _OVERFLOW) else f"sudo -u {_name(uid)} "


def give(path: Path, uid: int) -> str:
    """Return the command that changes the owner of a file, or of a directory with its files."""
    name = _name(uid).strip("'#")
    return f"sudo chown -R {name} {quoted(path)}"


def whose(uid: int, path: Path) -> str:
    """Name the user who owns a path."""
    if uid == _OVERFLOW:
        return f"another user (see: ls -ldn {quoted(path)})"
    return f"user {_name(uid)}"


def quoted(path: Path) -> str:
    """Return a path as a shell reads it."""
    import shlex  # noqa: PLC0415 - only for a message

    return shlex.quote(str(path))


def _name(uid: int) -> str:
    """Return the name of a user; if there is none, the number as sudo reads it (`#1000`)."""
    import pwd  # noqa: PLC0415 - only for a message

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"'#{uid}'"
