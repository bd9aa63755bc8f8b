"""The only writer: whole files, atomically, only if changed.

A file is written beside the directory that Prometheus watches, synced, and moved into place with one rename, so
that every reader sees the old file or the new one and each change is one event. The temporary file never stands in
the watched directory under a name that a glob matches (`*` matches dotfiles in Go).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clan_discovery.errors import PublishError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from collections.abc import Set as AbstractSet

    from clan_discovery.model import Json

TARGET_MODE: Final = 0o644
_AS_TARGETS: Final[Mapping[str, int]] = {}
DIRECTORY_MODE: Final = 0o755
_EMPTY: Final = b"[]\n"
_MARK: Final = "__meta_clan_observed"
"""Every group that we write bears this label: a file whose groups all do is ours to empty."""
_SCRATCH: Final = ".clan-discovery.tmp"
_ASIDE: Final = ".publishing"
"""What a file is called while it is prepared: only such files are ever removed."""
_POLL_S: Final = 0.05
_LOCK_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a round did to the files: jobs by what became of their file.

    `foreign` are files that are not ours and were left alone; `replaced` are files that were not ours, stood where a
    job's file belongs, and are gone.
    """

    written: tuple[str, ...]
    unchanged: tuple[str, ...]
    emptied: tuple[str, ...]
    foreign: tuple[str, ...]
    replaced: tuple[str, ...] = ()


def prepare(directory: Path) -> None:
    """Make the output directory, or say why it cannot be one.

    Raises:
        PublishError: it is a symlink or no directory, or cannot be made.
    """
    if os.path.islink(directory):  # noqa: PTH114 - Path.is_symlink raises where a name is too long
        raise PublishError(
            f"output directory {directory} is a symlink",
            hint="give the directory itself: Prometheus does not see what changes behind a symlink at once",
        )
    try:
        _make(directory)
    except FileExistsError:
        raise PublishError(f"output directory {directory} is not a directory", hint="give another one") from None
    except OSError as error:
        raise _failed(f"cannot make the output directory {directory}", error) from error


def _make(directory: Path) -> None:
    """Make a directory and what is missing above it, each readable by all: Prometheus is another user."""
    if directory.is_dir():
        return
    if not directory.parent.is_dir():
        _make(directory.parent)
    try:
        directory.mkdir()
    except FileExistsError:
        if directory.is_dir():  # another refresher was first
            return
        raise
    directory.chmod(DIRECTORY_MODE)  # whatever the umask


def runtime_directory_warning(directory: Path, runtime_directories: str) -> str | None:
    """Warn when the directory dies with a unit: below /run, or in systemd's RuntimeDirectory (a `:` list)."""
    full = Path(os.path.abspath(directory))  # noqa: PTH100 - resolve() would follow /var/run, which may be a link
    below = [Path("/run"), Path("/var/run"), *(Path(d) for d in runtime_directories.split(":") if d)]
    if not any(full.is_relative_to(parent) for parent in below):
        return None
    return (
        f"output directory {directory} lies in a runtime directory: systemd deletes it when the unit ends, and "
        "Prometheus drops every target with it; use StateDirectory"
    )


@contextmanager
def locked(directory: Path, wait: float) -> Generator[None]:
    """Hold the directory for one round, so that an older answer never overwrites a newer one.

    The kernel's lock on the directory itself leaves no file behind and dies with its holder.

    Raises:
        PublishError: another process holds it for more than `wait` seconds; the message names it.
    """
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _failed(f"cannot open the output directory {directory}", error) from error
    try:
        _acquire(handle, directory, wait)
        yield
    finally:
        os.close(handle)


def _acquire(handle: int, directory: Path, wait: float) -> None:
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise PublishError(
                    f"{directory} is held by {_holder(handle)} (waited {wait:g} s)",
                    hint="wait for it, or end it; nothing was changed",
                ) from None
            time.sleep(_POLL_S)
        except OSError as error:
            raise _failed(f"cannot lock the output directory {directory}", error) from error
        else:
            return


def _holder(handle: int) -> str:
    """Name the process that holds the lock, from the kernel's own list (Linux: proc(5), /proc/locks)."""
    status = os.fstat(handle)
    wanted = f":{status.st_ino}"
    try:
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].endswith(wanted) and "->" not in fields:
                pid = fields[4]
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                return f"process {pid} ({command.strip()[:120]})"
    except OSError:
        pass
    return "a process that cannot be named from here"


def publish(
    directory: Path, jobs: Mapping[str, bytes], scratch: Path, *, keep: AbstractSet[str] = frozenset()
) -> Published:
    """Bring the target files up to date: all are written aside before the first is moved into place.

    A job of ours that is no longer among `jobs` becomes `[]`. `scratch` is a directory on the same file system;
    where a rename from it does not work, a directory within the output directory serves for the moment. Jobs in `keep`
    keep the file that is present.

    Raises:
        PublishError: a file could not be written; those not yet moved are as they were.
    """
    jobs = {job: content for job, content in jobs.items() if job not in keep}
    stale, foreign = _others(directory, jobs.keys() | keep)
    wanted = {**jobs, **dict.fromkeys(stale, _EMPTY)}
    changed = {job: content for job, content in wanted.items() if not _stands(directory / f"{job}.json", content)}
    replaced = [job for job in changed if not _looks_ours(directory / f"{job}.json")]
    for job in changed:
        if (directory / f"{job}.json").is_dir():
            raise PublishError(f"{directory / job}.json is a directory", hint="move it away; nothing was written")
    if changed:
        _replace(directory, {f"{job}.json": content for job, content in changed.items()}, scratch)
    return Published(
        written=tuple(sorted(changed.keys() & jobs.keys())),
        unchanged=tuple(sorted(jobs.keys() - changed.keys())),
        emptied=tuple(sorted(changed.keys() - jobs.keys())),
        foreign=tuple(sorted(foreign)),
        replaced=tuple(sorted(replaced)),
    )


def write_file(path: Path, content: bytes, mode: int = 0o600) -> bool:
    """Write one file of our own atomically, if it differs; True if it did.

    Raises:
        OSError: it could not be written; the old one stands.
    """
    if _same(path, content):
        return False
    aside = path.with_name(f"{path.name}.new")
    try:
        _write_aside(aside, content, mode)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    _sync(path.parent)
    return True


def write_files(directory: Path, contents: Mapping[str, bytes]) -> frozenset[str]:
    """Bring files up to date that people keep, and return those that differed: all are written before one is moved.

    A file that stands keeps its mode: what somebody has closed to others stays closed.

    Raises:
        PublishError: a file could not be written, or the directory not made; those not yet moved are as they were.
    """
    changed = {name: content for name, content in contents.items() if not _same(directory / name, content)}
    if not changed:
        return frozenset()
    for file in (directory / name for name in changed):
        if os.path.lexists(file) and (file.is_symlink() or not file.is_file()):
            what = f"{file} is no regular file, and would be replaced by one"
            raise PublishError(what, hint="move it away; nothing was written")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory, _LOCK_S):
            _replace_within(directory, changed, _modes(directory, changed))
    except OSError as error:
        raise _failed(f"cannot write {' and '.join(str(directory / name) for name in changed)}", error) from error
    return frozenset(changed)


def _others(directory: Path, jobs: AbstractSet[str]) -> tuple[list[str], list[str]]:
    """Find target files of jobs that are gone, and files that somebody else put there."""
    stale: list[str] = []
    foreign: list[str] = []
    for file in directory.glob("*.json"):
        if file.stem not in jobs:
            ours = _is_ours(file)
            if ours is None:
                continue
            (stale if ours else foreign).append(file.stem)
    return stale, foreign


def _is_ours(file: Path) -> bool | None:
    """Tell whether a file is ours to empty; None where it is not there, or empty already."""
    groups = _groups(file)
    if groups is None:
        return False if file.exists() else None
    return all(_bears_mark(group) for group in groups) if groups else None


def _looks_ours(file: Path) -> bool:
    """Tell by its beginning whether a file that is to be replaced is ours, empty or not there."""
    try:
        if not file.is_file():  # a FIFO would be waited on
            return True
        with file.open("rb") as opened:
            head = opened.read(1 << 16)
    except OSError:
        return True
    return _MARK.encode() in head or head.strip() in (b"", b"[]")


def _groups(file: Path) -> Sequence[Json] | None:
    """Read a target file; None where there is none that can be read. Never waits on a FIFO."""
    try:
        if not file.is_file():
            return None
        groups: Json = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return groups if isinstance(groups, Sequence) and not isinstance(groups, str) else None


def target_jobs(directory: Path) -> list[str]:
    """Return the jobs that have a file of ours in a directory, sorted."""
    return sorted(file.stem for file in directory.glob("*.json") if _is_ours(file))


def read_jobs(directory: Path) -> dict[str, bytes]:
    """Return the present target files that are ours, by job."""
    return {job: (directory / f"{job}.json").read_bytes() for job in target_jobs(directory)}


def published(directory: Path, job: str) -> list[tuple[str, dict[str, str]]]:
    """Return the targets (address, labels) that stand in a job's file and are ours; none where it cannot be read."""
    found: list[tuple[str, dict[str, str]]] = []
    for group in _groups(directory / f"{job}.json") or ():
        match group:
            case {"targets": [str(address)], "labels": {"__meta_clan_observed": str(observed), **labels}}:
                texts = {str(name): value for name, value in labels.items() if isinstance(value, str)}
                found.append((address, {**texts, "__meta_clan_observed": observed}))
            case _:
                continue
    return found


def _bears_mark(group: Json) -> bool:
    match group:
        case {"labels": {"__meta_clan_observed": str()}}:
            return True
        case _:
            return False


def _stands(path: Path, content: bytes) -> bool:
    """Tell whether this file is there already; a wrong mode is mended without a write."""
    if not _same(path, content):
        return False
    with contextlib.suppress(OSError):
        if path.stat().st_mode & 0o777 != TARGET_MODE:
            path.chmod(TARGET_MODE)
    return True


def _same(path: Path, content: bytes) -> bool:
    try:
        if path.is_symlink() or path.stat().st_size != len(content):
            return False
        return path.read_bytes() == content
    except OSError:
        return False


def _replace(directory: Path, contents: Mapping[str, bytes], scratch: Path) -> None:
    try:
        if _beside(scratch, directory) and _replace_through(scratch, directory, contents):
            return
        # The state directory is on another file system, or cannot be written.
        _replace_within(directory, contents)
    except OSError as error:
        raise _failed(f"cannot write target files in {directory}", error) from error


def _modes(directory: Path, names: Iterable[str]) -> dict[str, int]:
    """Return the modes of those files that stand."""
    return {name: (directory / name).stat().st_mode & 0o777 for name in names if (directory / name).is_file()}


def _replace_within(directory: Path, contents: Mapping[str, bytes], modes: Mapping[str, int] = _AS_TARGETS) -> None:
    """Replace files through a directory of the moment, inside."""
    within = directory / _SCRATCH
    if within.is_symlink():
        within.unlink()
    within.mkdir(mode=0o700, exist_ok=True)
    try:
        if not _replace_through(within, directory, contents, modes):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    finally:
        with contextlib.suppress(OSError):
            within.rmdir()


def _beside(scratch: Path, directory: Path) -> bool:
    """Tell whether files can be prepared in `scratch`: a directory that can be made, on the same file system."""
    try:
        if scratch.is_symlink():
            return False
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.access(scratch, os.W_OK) and scratch.stat().st_dev == directory.stat().st_dev
    except OSError:
        return False


def _replace_through(
    scratch: Path, directory: Path, contents: Mapping[str, bytes], modes: Mapping[str, int] = _AS_TARGETS
) -> bool:
    """Write all, then move all; False where the first move shows that there is a mount between the two."""
    _tidy(scratch)  # of a round that was killed; the lock says that it is over
    try:
        for name, content in contents.items():
            _write_aside(scratch / f"{name}{_ASIDE}", content, modes.get(name, TARGET_MODE))
        for name in contents:
            (scratch / f"{name}{_ASIDE}").rename(directory / name)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        raise
    finally:
        _tidy(scratch)
    _sync(directory)
    return True


def _tidy(scratch: Path) -> None:
    """Remove what was prepared here and not moved, and nothing else."""
    for left in scratch.glob(f"*{_ASIDE}"):
        with contextlib.suppress(OSError):
            if left.is_file() or left.is_symlink():
                left.unlink()


def _write_aside(path: Path, content: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with open(handle, "wb") as file:  # noqa: PTH123 - a handle, not a path
        file.write(content)
        file.flush()
        os.fchmod(handle, mode)  # whatever the umask: another user's Prometheus reads this
        os.fsync(handle)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _failed(what: str, error: OSError) -> PublishError:
    hints = {
        errno.ENOSPC: "the disk is full; the old files stand",
        errno.EROFS: "the file system is read-only; the old files stand",
        errno.EACCES: "this user may not write there; the old files stand",
    }
    reason = error.strerror or type(error).__name__
    return PublishError(f"{what}: {reason}", hint=hints.get(error.errno or 0, "the old files stand"))
