"""Check as which user files are written: what root writes, another user may not be able to read."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from clan_discovery.errors import PublishError
from clan_discovery.publish.failure import publish_error

if TYPE_CHECKING:
    from pathlib import Path


def refuse_root(directory: Path) -> None:
    """Refuse to write as root into a directory of another user.

    Raises:
        PublishError: this is root, and the directory belongs to another user; or it could not be looked at.
    """
    if os.geteuid() != 0:
        return
    try:
        owner = directory.stat().st_uid
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # nothing has such a name, and nothing gets it
            return
        raise publish_error(f"cannot look at {directory}", error) from error
    if owner != 0:
        what = f"{directory} belongs to user {user_name(owner)}, who could not read what root writes there"
        raise PublishError(what, hint=run_as(owner))


def run_as(uid: int) -> str:
    """Say how to run a command as a user."""
    return f"run it as that user: sudo -u {user_name(uid)} clan-discovery refresh ..."


def user_name(uid: int) -> str:
    """Return the name of a user; the number as sudo reads it (`#1000`) where there is no name."""
    import pwd  # noqa: PLC0415 - only for a message

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"'#{uid}'"
