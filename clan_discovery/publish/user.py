"""Check as which user files are written: what one user writes, another may not be able to read or to lock."""

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
"""In a user namespace (PrivateUsers=), the kernel shows this for every user outside of it."""


class _Owner(NamedTuple):
    """Whose a path is, or is to be: `path` is the nearest parent that exists."""

    path: Path
    uid: int
    mode: int


def check_user(directory: Path, state: Path) -> None:
    """Refuse to refresh as a user to whom the state does not belong. Writes nothing.

    The state is 0700, so two users cannot share it. Root may write into an output directory of another user, which is
    readable by all. It makes neither directory in one of another user: before the first cycle of a service, only the
    directory above belongs to the service's user.

    Raises:
        PublishError: the state belongs to another user, or root would make a directory in one of another user; or a
            directory could not be looked at.
    """
    me = os.geteuid()
    owner = _owner(state)
    if owner.path == state and owner.uid != me:
        what = f"the state {state} belongs to {whose(owner.uid, state)}, who could not read what this user writes there"
        other = "set `state` to a directory of this user's own"
        if not owner.mode & _OTHERS:  # as this program makes it; never advise to give /var/lib away
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
    """Return the user who refreshes with this state: for root, its owner; for any other user, this one.

    Raises:
        PublishError: the directory could not be looked at.
    """
    return os.geteuid() or _owner(state).uid


def _owner(path: Path) -> _Owner:
    for place in (path, *path.absolute().parents):
        try:
            status = place.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:  # nothing has such a name, and nothing gets it
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
    """Return what to type before a command that this user is to run; empty for the present one."""
    return "" if uid in (os.geteuid(), _OVERFLOW) else f"sudo -u {_name(uid)} "


def give(path: Path, uid: int) -> str:
    """Return the command that gives a directory with its files, or a file, to a user."""
    name = _name(uid).strip("'#")
    return f"sudo chown -R {name} {quoted(path)}"


def whose(uid: int, path: Path) -> str:
    """Name the user to whom a path belongs."""
    if uid == _OVERFLOW:
        return f"another user (see: ls -ldn {quoted(path)})"
    return f"user {_name(uid)}"


def quoted(path: Path) -> str:
    """Return a path as a shell reads it."""
    import shlex  # noqa: PLC0415 - only for a message

    return shlex.quote(str(path))


def _name(uid: int) -> str:
    """Return the name of a user; the number as sudo reads it (`#1000`) where there is no name."""
    import pwd  # noqa: PLC0415 - only for a message

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"'#{uid}'"
