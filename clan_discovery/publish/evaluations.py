"""Number the evaluations of a flake, so that an older one never replaces a newer one.

An evaluation takes minutes and does not hold the lock of a refresh cycle. It gets the next number when it starts. A
cycle is published only if its number is not smaller than the last published one. No clock is read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias, TypeVar

import msgspec

from clan_discovery.publish.failure import publish_error
from clan_discovery.publish.lock import take

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_FILE: Final = "evaluations.json"
_MAX_BYTES: Final = 1 << 16
_MAX_OUTPUTS: Final = 100
_LOCK_S: Final = 2.0
_PASSING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EAGAIN})
"""Temporary errors, which are raised. After any other error, evaluations are not numbered and none is refused."""
_T = TypeVar("_T")
_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Record(msgspec.Struct, forbid_unknown_fields=True):
    """The last number given out, and the last one published, by output directory."""

    issued: _Number = 0
    published: dict[str, _Number] = {}


def begin(state: Path) -> int | None:
    """Return the number of an evaluation that starts now; None if the state directory cannot be written.

    Raises:
        PublishError: a temporary error prevents reading or writing the record.
    """

    def issue(record: _Record) -> int:
        # A published number above `issued` means that the record is damaged: the next evaluation must not be refused.
        record.issued = max(record.issued, *record.published.values(), 0) + 1
        return record.issued

    return _update(state, issue)


def admit(state: Path, output: Path, number: int | None) -> bool:
    """Record that an evaluation is published; return False if a newer one was published already.

    Without a number, or without a usable record, the result is True.

    Raises:
        PublishError: as `begin`.
    """
    if number is None:
        return True

    def publish(record: _Record) -> bool:
        name = _key(output)
        if number < record.published.get(name, 0):
            return False
        record.published.pop(name, None)
        record.published[name] = number  # at the end: the oldest entries are deleted below
        for oldest in list(record.published)[:-_MAX_OUTPUTS]:
            del record.published[oldest]
        record.issued = max(record.issued, number)  # after the record was lost, old numbers are not issued again
        return True

    return _update(state, publish) is not False


def _update(state: Path, change: Callable[[_Record], _T]) -> _T | None:
    """Change the record under its own lock, which is held only for this change; None if that is impossible."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(state / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, handle)
            if not take(handle, time.monotonic() + _LOCK_S):
                raise BlockingIOError(errno.EAGAIN, "another process holds it")
            body = os.pread(handle, _MAX_BYTES, 0)
            record = _Record()
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                record = msgspec.json.decode(body, type=_Record)
            result = change(record)
            changed = msgspec.json.encode(record)
            if changed != body:
                os.pwrite(handle, changed, 0)
                os.ftruncate(handle, len(changed))
    except OSError as error:
        if error.errno in _PASSING:
            raise publish_error(f"cannot number an evaluation in {state / _FILE}", error) from error
        return None
    return result


def _key(output: Path) -> str:
    """Return a key of 64 characters for a directory, so that long paths do not make the record large."""
    import hashlib  # noqa: PLC0415 - only for a flake

    return hashlib.sha256(os.fsencode(os.path.realpath(output))).hexdigest()
