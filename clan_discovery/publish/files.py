"""Write whole files atomically, only if they change; read the published ones back as bytes.

A file is written beside the directory that Prometheus watches, synced, and moved into place with one rename: every
reader sees the old file or the new one, and each change is one inotify event. A temporary file never has a name in the
watched directory that a glob matches (in Go, `*` matches names that begin with a dot).
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clan_discovery.errors import PublishError
from clan_discovery.publish.failure import publish_error
from clan_discovery.publish.lock import locked
from clan_discovery.syntax.counting import first_names
from clan_discovery.syntax.target_file import MARK, parse_target_file

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping
    from collections.abc import Set as AbstractSet

TARGET_MODE: Final = 0o644
_OTHERS: Final = 0o077
DIRECTORY_MODE: Final = 0o755
_EMPTY: Final = b"[]\n"
_SCRATCH: Final = ".clan-discovery.tmp"
_TEMPORARY: Final = ".publishing"
"""The suffix of a file while it is written: only such files are ever removed."""
_LOCK_S: Final = 5.0
_MAX_BYTES: Final = 256 * 1024 * 1024
"""The largest target file that is read; one of 100,000 targets has about 50 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What happened to the target files, as jobs.

    `emptied` are files of ours whose job is gone. `foreign` are files that are not ours, and were left alone.
    `replaced` are files that were not ours, and were overwritten because they have the name of a job's file.
    """

    written: tuple[str, ...]
    unchanged: tuple[str, ...]
    emptied: tuple[str, ...]
    foreign: tuple[str, ...]
    replaced: tuple[str, ...] = ()


def prepare(directory: Path) -> None:
    """Create the output directory.

    Raises:
        PublishError: it is a symlink, not a directory, or cannot be created.
    """
    if os.path.islink(directory):  # noqa: PTH114 - Path.is_symlink raises if a name is too long
        raise PublishError(
            f"output directory {directory} is a symlink",
            hint="set the directory itself: Prometheus does not notice changes behind a symlink at once",
        )
    try:
        for path in (*reversed(directory.parents), directory):
            if not path.is_dir():
                path.mkdir(exist_ok=True)  # another process may be faster
                path.chmod(DIRECTORY_MODE)  # whatever the umask: Prometheus is another user
    except FileExistsError:
        raise PublishError(f"output directory {directory} is not a directory", hint="set another one") from None
    except OSError as error:
        raise publish_error(f"cannot make the output directory {directory}", error) from error


def runtime_directory_warning(directory: Path, runtime_directories: str) -> str | None:
    """Warn if systemd deletes the directory: below /run, or in a RuntimeDirectory (separated by `:`)."""
    full = Path(os.path.abspath(directory))  # noqa: PTH100 - resolve() would follow /var/run, which may be a link
    parents = ["/run", "/var/run", *filter(None, runtime_directories.split(":"))]
    if not any(full.is_relative_to(parent) for parent in parents):
        return None
    return (
        f"output directory {directory} lies in a runtime directory: systemd deletes it when the unit ends, and "
        "Prometheus drops every target with it; use StateDirectory"
    )


def publish(
    directory: Path, jobs: Mapping[str, bytes], scratch: Path, *, keep: AbstractSet[str] = frozenset()
) -> Published:
    """Update the target files: all are written before the first is moved into place.

    A file of ours whose job is not in `jobs` becomes `[]`. `scratch` is a directory on the same file system; if a
    rename from it does not work, a temporary directory in the output directory is used. Jobs in `keep` keep their
    present file.

    Raises:
        PublishError: a file could not be written; those not moved yet are unchanged.
    """
    jobs = {job: content for job, content in jobs.items() if job not in keep}
    stale, foreign = _other_files(directory, jobs.keys() | keep)
    wanted = {**jobs, **dict.fromkeys(stale, _EMPTY)}
    changed = {job: content for job, content in wanted.items() if not _is_current(_file(directory, job), content)}
    replaced = [job for job in changed if not _looks_ours(_file(directory, job))]
    for job in changed:
        if _file(directory, job).is_dir():
            what = f"{_file(directory, job)} is a directory"
            raise PublishError(what, hint="move it away; nothing was written")
    if changed:
        _replace(directory, {f"{job}.json": content for job, content in changed.items()}, scratch)
    return Published(
        written=tuple(sorted(changed.keys() & jobs.keys())),
        unchanged=tuple(sorted(jobs.keys() - changed.keys())),
        emptied=tuple(sorted(changed.keys() - jobs.keys())),
        foreign=tuple(sorted(foreign)),
        replaced=tuple(sorted(replaced)),
    )


def read_jobs(directory: Path) -> dict[str, bytes]:
    """Return the bytes of the target files of ours, by job.

    Published files are not memory, so only two callers read them: `diff` compares them with what a refresh would write,
    and where a backend's memory is lost, the loss guard counts their observed targets.
    """
    found = {file.stem: _read(file) for file in sorted(directory.glob("*.json"))}
    return {job: body for job, body in found.items() if parse_target_file(body) is not None}


def write_file(path: Path, content: bytes, mode: int = 0o600) -> bool:
    """Write a file atomically if its content differs; tell whether it did.

    Raises:
        OSError: it could not be written; the old file is kept.
    """
    if _has_content(path, content):
        return False
    temporary = path.with_name(f"{path.name}.new")
    try:
        _write_synced(temporary, content, mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)
    return True


def write_files(directory: Path, contents: Mapping[str, bytes], *, closed: bool = False) -> frozenset[str]:
    """Update files for people, and return those that changed: all are written before one is moved.

    A file that exists keeps its mode, so that one that is closed to others stays closed. With `closed`, each file is
    closed to others afterwards, also one that is unchanged.

    Raises:
        PublishError: a file could not be written, or the directory not created; those not moved yet are unchanged.
    """
    changed = {name: content for name, content in contents.items() if not _has_content(directory / name, content)}
    if closed:
        with _errors_about(directory, contents):
            _close(directory / name for name in contents.keys() - changed.keys())
    if not changed:
        return frozenset()
    with _errors_about(directory, changed):
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory, _LOCK_S):
            _replace_regular(directory, changed, closed=closed)
    return frozenset(changed)


def write_alone(directory: Path, contents: Mapping[str, bytes]) -> frozenset[str]:
    """Do as `write_files` without a lock: a Nix build is alone in its output directory.

    Raises:
        PublishError: as `write_files`.
    """
    changed = {name: content for name, content in contents.items() if not _has_content(directory / name, content)}
    with _errors_about(directory, changed):
        directory.mkdir(parents=True, exist_ok=True)
        if changed:
            _replace_regular(directory, changed)
    return frozenset(changed)


def _close(files: Iterable[Path]) -> None:
    """Take the permissions of other users from files."""
    for file in files:
        mode = file.stat().st_mode & 0o777
        if mode & _OTHERS:
            file.chmod(mode & ~_OTHERS)


def _replace_regular(directory: Path, contents: Mapping[str, bytes], *, closed: bool = False) -> None:
    """Replace files, each with the mode that it has, less the permissions of others if `closed`."""
    modes: dict[str, int] = {}
    for name in contents:
        file = directory / name
        if file.is_file() and not file.is_symlink():
            modes[name] = file.stat().st_mode & 0o777
        elif os.path.lexists(file):
            what = f"{file} is not a regular file, and would be replaced by one"
            raise PublishError(what, hint="move it away; nothing was written")
        if closed:
            modes[name] = modes.get(name, TARGET_MODE) & ~_OTHERS
    _replace_inside(directory, contents, modes)


@contextlib.contextmanager
def _errors_about(directory: Path, names: Iterable[str]) -> Generator[None]:
    """Raise an OSError as the PublishError that names the files."""
    try:
        yield
    except OSError as error:
        files = first_names([str(directory / name) for name in names], 3)
        raise publish_error(f"cannot write {files or directory}", error) from error


def _file(directory: Path, job: str) -> Path:
    return directory / f"{job}.json"


def _other_files(directory: Path, jobs: Iterable[str]) -> tuple[list[str], list[str]]:
    """Find files of ours whose job is gone, and files that are not ours."""
    stale: list[str] = []
    foreign: list[str] = []
    known = set(jobs)
    for file in directory.glob("*.json"):
        if file.stem not in known:
            targets = parse_target_file(_read(file))
            if targets:
                stale.append(file.stem)
            elif targets is None and file.exists():
                foreign.append(file.stem)
    return stale, foreign


def _looks_ours(file: Path) -> bool:
    """Tell whether a file is ours, also where it is damaged, or empty or absent."""
    body = _read(file)
    return MARK.encode() in body or body.strip() in (b"", b"[]")


def _read(file: Path) -> bytes:
    """Read a file; nothing if it cannot be read, or is too large. Never blocks on a FIFO."""
    try:
        if not file.is_file() or file.stat().st_size > _MAX_BYTES:
            return b""
        return file.read_bytes()
    except OSError:
        return b""


def _is_current(path: Path, content: bytes) -> bool:
    """Tell whether a target file has this content already; a wrong mode is fixed without a write."""
    if not _has_content(path, content):
        return False
    with contextlib.suppress(OSError):
        if path.stat().st_mode & 0o777 != TARGET_MODE:
            path.chmod(TARGET_MODE)
    return True


def _has_content(path: Path, content: bytes) -> bool:
    try:
        if path.is_symlink() or path.stat().st_size != len(content):
            return False
        return path.read_bytes() == content
    except OSError:
        return False


def _replace(directory: Path, contents: Mapping[str, bytes], scratch: Path) -> None:
    try:
        if not _is_usable(scratch, directory):
            _replace_inside(directory, contents, {})
            return
        try:
            _replace_from(scratch, directory, contents, {})
        except OSError as error:
            if error.errno != errno.EXDEV:  # a mount in between
                raise
            _replace_inside(directory, contents, {})
    except OSError as error:
        raise publish_error(f"cannot write target files in {directory}", error) from error


def _replace_inside(directory: Path, contents: Mapping[str, bytes], modes: Mapping[str, int]) -> None:
    """Replace files from a temporary directory in the same directory."""
    scratch = directory / _SCRATCH
    if scratch.is_symlink():
        scratch.unlink()
    scratch.mkdir(mode=0o700, exist_ok=True)
    try:
        _replace_from(scratch, directory, contents, modes)
    finally:
        with contextlib.suppress(OSError):
            scratch.rmdir()


def _is_usable(scratch: Path, directory: Path) -> bool:
    """Tell whether `scratch` is, or can become, a writable directory on the same file system."""
    try:
        if scratch.is_symlink():
            return False
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.access(scratch, os.W_OK) and scratch.stat().st_dev == directory.stat().st_dev
    except OSError:
        return False


def _replace_from(scratch: Path, directory: Path, contents: Mapping[str, bytes], modes: Mapping[str, int]) -> None:
    """Write all files, then move all."""
    _remove_temporary(scratch)  # of a process that was killed; the lock tells that it has ended
    temporary = {name: scratch / f"{name}{_TEMPORARY}" for name in contents}
    try:
        for name, content in contents.items():
            _write_synced(temporary[name], content, modes.get(name, TARGET_MODE))
        for name, file in temporary.items():
            file.rename(directory / name)
    finally:
        _remove_temporary(scratch)
    _sync(directory)


def _remove_temporary(scratch: Path) -> None:
    """Remove files that were written here and not moved, and nothing else."""
    for file in scratch.glob(f"*{_TEMPORARY}"):
        with contextlib.suppress(OSError):
            if file.is_file() or file.is_symlink():
                file.unlink()


def _write_synced(path: Path, content: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with open(handle, "wb") as file:  # noqa: PTH123 - a handle, not a path
        file.write(content)
        file.flush()
        os.fchmod(handle, mode)  # whatever the umask: Prometheus reads it as another user
        os.fsync(handle)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
