"""The owner mark of an output directory: two configs that write into one would empty each other's files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clan_discovery.errors import PublishError
from clan_discovery.model import one_line
from clan_discovery.publish.failure import publish_error
from clan_discovery.publish.writing import write_file
from clan_discovery.reading import UnusableFileError, read_regular

if TYPE_CHECKING:
    from pathlib import Path

MARK_FILE: Final = ".clan-discovery.owner"
"""No scraper's glob matches it: file_sd reads .json, .yml and .yaml alone."""
_MODE: Final = 0o644
_MAX_BYTES: Final = 64 * 1024
_SHOWN: Final = 200
TAKE_OVER: Final = (
    "set output.directory to a directory of its own; or, if that config is not used any more, "
    "hand the directory over: clan-discovery refresh --take-over"
)


def read_owner(directory: Path) -> str | None:
    """Return whose an output directory is; None where it has no mark, empty where the mark is garbled.

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


def owner_complaint(directory: Path, owner: str) -> str | None:
    """Say why this owner may not write into a directory; None where it may.

    A directory without a mark is nobody's. One with a garbled mark belongs to somebody, who is not known: to adopt it
    could empty that owner's files.

    Raises:
        PublishError: as `read_owner`.
    """
    present = read_owner(directory)
    if present is None or present == owner:
        return None
    whose = f"to config {present[:_SHOWN]!r}" if present else "to a config that is not known: its mark is garbled"
    return f"output directory {directory} belongs {whose}, and this is {owner[:_SHOWN]!r}"


def check_owner(directory: Path, owner: str, *, take_over: bool) -> None:
    """Refuse the directory of another owner. The caller holds the lock.

    Raises:
        PublishError: it belongs to another owner; or as `read_owner`.
    """
    complaint = owner_complaint(directory, owner)
    if complaint is not None and not take_over:
        raise PublishError(complaint, hint=TAKE_OVER)


def write_owner(directory: Path, owner: str) -> None:
    """Mark a directory as this owner's; a mark that says so is not written again. The caller holds the lock.

    Raises:
        PublishError: the mark could not be written.
    """
    try:
        write_file(directory / MARK_FILE, f"{owner}\n".encode(), _MODE)
    except OSError as error:
        raise publish_error(f"cannot write the owner mark of {directory}", error) from error
