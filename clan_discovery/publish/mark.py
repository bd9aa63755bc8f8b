"""The owner mark of an output directory: two configs with one directory would empty each other's files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from clan_discovery.errors import PublishError
from clan_discovery.model import one_line
from clan_discovery.publish.failure import publish_error
from clan_discovery.publish.user import sudo, whose
from clan_discovery.publish.writing import write_file
from clan_discovery.reading import UnusableFileError, read_regular

if TYPE_CHECKING:
    from pathlib import Path

MARK_FILE: Final = ".clan-discovery.owner"
"""The name of the mark. file_sd does not read it: it reads only .json, .yml and .yaml."""
_MODE: Final = 0o644
_MAX_BYTES: Final = 64 * 1024
_SHOWN: Final = 200


def read_owner(directory: Path) -> str | None:
    """Return the owner of an output directory; None if it has no mark, empty if the mark is damaged.

    Raises:
        PublishError: the mark could not be read, or is not a regular file.
    """
    try:
        body = read_regular(directory / MARK_FILE, _MAX_BYTES)
    except OSError as error:
        if isinstance(error, UnusableFileError) and error.is_too_large:
            return ""
        raise publish_error(f"cannot read the owner mark of {directory}", error) from error
    if body is None:
        return None
    try:
        name = body.decode().removesuffix("\n")
    except UnicodeDecodeError:
        return ""
    if name != one_line(name):
        return ""
    return name


def owner_complaint(directory: Path, owner: str, user: int) -> PublishError | None:
    """Say why this owner may not write to a directory, and what to do; None if it may.

    `user` is the user that refreshes, for the command in the hint. A directory without a mark has no owner. One with a
    damaged mark has an unknown owner: taking it over could empty that owner's files.

    Raises:
        PublishError: as `read_owner`.
    """
    present = read_owner(directory)
    if present is None or present == owner:
        return None
    what = f"output directory {directory} belongs to {_described(present)}, and this is {owner[:_SHOWN]!r}"
    hint = (
        f"if it is the same config at another path, run `{sudo(user)}clan-discovery refresh --take-over` once with it, "
        f"as {whose(user, directory)}, or set output.owner in it if its path changes again; else set output.directory "
        "to a directory of its own"
    )
    return PublishError(what, hint=hint)


def _described(owner: str) -> str:
    if not owner:
        return "an unknown config: its mark is damaged"
    described = f"config {owner[:_SHOWN]!r}"
    if owner.startswith("/") and _is_missing(owner):
        described += " (that file does not exist any more)"
    return described


def _is_missing(file: str) -> bool:
    try:
        os.lstat(file)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def check_owner(directory: Path, owner: str, *, take_over: bool) -> str | None:
    """Refuse the directory of another owner. The caller holds the lock.

    With `take_over`, return the other owner instead of raising; None if there is none.

    Raises:
        PublishError: it belongs to another owner; or as `read_owner`.
    """
    complaint = owner_complaint(directory, owner, os.geteuid())
    if complaint is None:
        return None
    if not take_over:
        raise complaint
    return _described(read_owner(directory) or "")


def write_owner(directory: Path, owner: str) -> None:
    """Write the owner mark of a directory unless it is right already. The caller holds the lock.

    Raises:
        PublishError: the mark could not be written.
    """
    try:
        write_file(directory / MARK_FILE, f"{owner}\n".encode(), _MODE)
    except OSError as error:
        raise publish_error(f"cannot write the owner mark of {directory}", error) from error
