"""Convert an OSError into a PublishError that says which files are kept."""

from __future__ import annotations

import errno
from typing import Final

from clan_discovery.errors import PublishError
from clan_discovery.reading import UnusableFileError

_HINTS: Final = {
    errno.ENOSPC: "the disk is full; the old files are kept",
    errno.EROFS: "the file system is read-only; the old files are kept",
    errno.EACCES: "this user may not do that; the old files are kept",
}


def publish_error(what: str, error: OSError) -> PublishError:
    """Return the error for a step that failed."""
    if isinstance(error, UnusableFileError):
        return PublishError(f"{error.path} {error.what}", hint="move it away; nothing was written")
    reason = error.strerror or type(error).__name__
    if error.filename is not None and str(error.filename) not in what:
        reason += f": {error.filename}"
    return PublishError(f"{what}: {reason}", hint=_HINTS.get(error.errno or 0, "the old files are kept"))
