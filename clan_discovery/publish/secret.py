"""Write a file of secrets: only its owner and one group may read it, and no other user may replace it."""

from __future__ import annotations

import grp
import os
import stat
from shlex import quote
from typing import TYPE_CHECKING, Final

from clan_discovery.errors import PublishError, refuse
from clan_discovery.publish.failure import publish_error
from clan_discovery.publish.writing import write_file
from clan_discovery.reading import has_content, open_regular

if TYPE_CHECKING:
    from pathlib import Path

_OWNER: Final = 0o600
_GROUP: Final = 0o640


def write_secret(file: Path, content: bytes, group: str | None) -> bool:
    """Update a file of secrets, with mode 0600, or 0640 if a group may read it; tell whether its content changed.

    Its directory must be there, and no other user may write to it.

    Raises:
        InputError: there is no such group.
        PublishError: it could not be written; the old file is kept.
    """
    number, mode = -1, _OWNER
    if group is not None:
        number, mode = _number_of(group), _GROUP
    try:
        _check_directory(file.parent)
        if has_content(file, content):
            _protect(file, mode, number)
            return False
        return write_file(file, content, mode, number)
    except OSError as error:
        raise publish_error(f"cannot write {file}", error) from error


def _number_of(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        refuse("front.receive.group", f"there is no group {group!r} on this machine", "create it, or remove the key")


def _check_directory(directory: Path) -> None:
    """Refuse a directory in which another user could replace the file."""
    try:
        status = directory.stat()
    except FileNotFoundError:
        what = f"there is no directory {directory}, in which the file of secrets would be"
        raise PublishError(what, hint=f"create it: install -d -m 0755 {quote(str(directory))}") from None
    is_others = status.st_uid not in (0, os.geteuid())
    if is_others or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        what = f"other users can write to {directory}, and could replace a file of secrets there"
        raise PublishError(what, hint="write it to a directory of this user's alone (RuntimeDirectory)")


def _protect(file: Path, mode: int, group: int) -> None:
    """Correct the mode and the group of a file whose content is right."""
    opened = open_regular(file)
    try:
        if group not in (-1, opened.status.st_gid):
            os.fchown(opened.handle, -1, group)
        if opened.status.st_mode & 0o777 != mode:
            os.fchmod(opened.handle, mode)
    finally:
        os.close(opened.handle)
