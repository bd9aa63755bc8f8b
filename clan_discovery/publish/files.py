"""Update the target files that changed; read published files back as bytes.

A file is written outside the directory that Prometheus watches, synced, and moved into place with one rename. So a
reader sees either the old file or the new one, and each change is one inotify event. In the watched directory, no
temporary file has a name that a glob matches (in Go, `*` matches names that begin with a dot).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from clan_discovery.errors import PublishError
from clan_discovery.publish.failure import publish_error
from clan_discovery.publish.lock import locked
from clan_discovery.publish.writing import open_directory, write_file, write_new
from clan_discovery.reading import UnusableFileError, has_content, list_names, read_regular, read_start
from clan_discovery.syntax.counting import first_names
from clan_discovery.syntax.labels import is_job
from clan_discovery.syntax.target_file import EMPTY, MARK, job_of_file, join_files, parse_target_file

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Generator, Iterable, Mapping
    from collections.abc import Set as AbstractSet

TARGET_MODE: Final = 0o644
_OTHERS: Final = 0o077
DIRECTORY_MODE: Final = 0o755
_SUFFIX: Final = ".json"
_SCRATCH: Final = ".clan-discovery.tmp"
_TEMPORARY: Final = ".publishing"
"""The suffix of temporary files; only files with this suffix are removed."""
_LOCK_S: Final = 5.0
_START_BYTES: Final = 1024 * 1024
"""How much of a file is read to tell whether it is a target file of ours."""
_WRITABLE_BY_OTHERS: Final = 0o022


FrontOutcome: TypeAlias = Literal["none", "written", "unchanged", "kept"]


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to the target files, by name without suffix: the job, or with `output.split` one of its files.

    `emptied` are our files whose job is gone. `foreign` are files of others, left unchanged. `replaced` are files of
    others that were overwritten because they had the name of a file of a job. `front` says what happened to the file of
    the reverse proxy.
    """

    written: tuple[str, ...]
    unchanged: tuple[str, ...]
    emptied: tuple[str, ...]
    foreign: tuple[str, ...]
    replaced: tuple[str, ...] = ()
    front: FrontOutcome = "none"


def prepare(directory: Path) -> None:
    """Create the output directory.

    Raises:
        PublishError: it is a symlink or not a directory, or it cannot be inspected or created.
    """
    not_a_directory = PublishError(f"output directory {directory} is not a directory", hint="set another one")
    try:
        if _is_link(directory):
            raise PublishError(
                f"output directory {directory} is a symlink",
                hint="set the directory itself: Prometheus does not notice changes behind a symlink at once",
            )
        for path in (*reversed(directory.parents), directory):
            _make_directory(path)
        if not stat.S_ISDIR(directory.stat().st_mode):
            raise not_a_directory
    except NotADirectoryError:
        raise not_a_directory from None
    except OSError as error:
        raise publish_error(f"cannot make the output directory {directory}", error) from error


def _is_link(path: Path) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _make_directory(path: Path) -> None:
    """Create a directory unless the path exists."""
    try:
        path.stat()
    except FileNotFoundError:
        try:
            path.mkdir()
        except FileExistsError:  # another process was faster
            return
        path.chmod(DIRECTORY_MODE)  # regardless of the umask: Prometheus runs as another user


def runtime_directory_warning(directory: Path, runtime_directories: str) -> str | None:
    """Warn if systemd deletes the directory: below /run, or in a RuntimeDirectory (separated by `:`)."""
    full = Path(os.path.abspath(directory))  # noqa: PTH100 - resolve() would follow /var/run, which may be a link
    parents = ["/run", "/var/run", *filter(None, runtime_directories.split(":"))]
    if not any(full.is_relative_to(parent) for parent in parents):
        return None
    return (
        f"output directory {directory} is in a runtime directory: systemd deletes it when the unit ends, and "
        "Prometheus drops every target with it; use StateDirectory"
    )


def publish(
    directory: Path, files: Mapping[str, bytes], scratch: Path, *, keep: AbstractSet[str] = frozenset()
) -> Published:
    """Update the target files; all are written before the first is moved into place.

    `files` has the content of each file by name without suffix; they are moved in this order. A file of ours that is
    not among them becomes `[]` after all others are in place: a target that has moved to another file is in both for a
    moment, never in none. `scratch` is a directory on the same file system; if a rename from it does not work, a
    temporary directory in the output directory is used. The files of jobs in `keep` are not changed.

    Raises:
        PublishError: a file could not be read or written; files that were not moved yet are unchanged.
    """
    files = {name: content for name, content in files.items() if name not in keep}
    _check_names(files, _is_target_file)
    try:
        stale, foreign = _other_files(directory, files.keys(), keep)
        wanted = {**files, **dict.fromkeys(stale, EMPTY)}
        changed = {name: body for name, body in wanted.items() if not _is_current(_file(directory, name), body)}
        replaced = [name for name in changed if not _looks_ours(_file(directory, name))]
    except OSError as error:
        raise publish_error(f"cannot read the target files in {directory}", error) from error
    if changed:
        _replace(directory, {f"{name}{_SUFFIX}": content for name, content in changed.items()}, scratch)
    return Published(
        written=tuple(sorted(changed.keys() & files.keys())),
        unchanged=tuple(sorted(files.keys() - changed.keys())),
        emptied=tuple(sorted(changed.keys() - files.keys())),
        foreign=tuple(sorted(foreign)),
        replaced=tuple(sorted(replaced)),
    )


def check_front(file: Path, mark: bytes) -> None:
    """Raise PublishError if the file of the reverse proxy is not ours, or is no file. `mark` is in each one of ours."""
    with _errors_about(file.parent, [file.name]):
        start = read_start(file, _START_BYTES) or b""
        if start.strip() and mark not in start:
            hint = "set another `front.file`, or move it away; nothing was written to it"
            raise PublishError(f"{file} was not made by clan-discovery", hint=hint)


def publish_front(file: Path, content: bytes, mark: bytes) -> FrontOutcome:
    """Update the file of the reverse proxy, readable by all; its directory is created. `mark` is in each file of ours.

    Raises:
        PublishError: it could not be written, or the file is not ours; the old one is kept.
    """
    check_front(file, mark)
    with _errors_about(file.parent, [file.name]):
        for path in (*reversed(file.parent.parents), file.parent):
            _make_directory(path)
        if has_content(file, content, TARGET_MODE):
            return "unchanged"
        write_file(file, content, TARGET_MODE)
    return "written"


def read_jobs(directory: Path, jobs: Container[str] = ()) -> dict[str, bytes]:
    """Return the list of each job in our target files; several files of one job are joined.

    `jobs` are the known jobs, so that `node.3.json` is not taken for a file of `node` if there is a job `node.3`.

    Published files are not used as memory, so there are only two callers. `diff` compares them with what a refresh
    would write. If a backend's memory is lost, the loss guard counts their observed targets.

    Raises:
        PublishError: the directory or a file could not be read.
    """
    found: dict[str, list[bytes]] = {}
    try:
        for name in _names_in(directory):
            body = _read(_file(directory, name)) if _is_target_file(name) else None
            if body is not None and parse_target_file(body) is not None:
                found.setdefault(job_of_file(name, jobs), []).append(body)
    except OSError as error:
        raise publish_error(f"cannot read the target files in {directory}", error) from error
    return {job: join_files(bodies) for job, bodies in found.items()}


def write_files(directory: Path, contents: Mapping[str, bytes], *, closed: bool = False) -> frozenset[str]:
    """Update files that are not target files, and return the names of those that changed.

    All are written before the first is moved into place. An existing file keeps its mode. With `closed`, other users
    lose access to every file, also to unchanged ones.

    Raises:
        PublishError: a file or the directory could not be written; files that were not moved yet are unchanged.
    """
    with _errors_about(directory, contents):
        changed = _changed(directory, contents)
        if closed:
            _close(directory / name for name in contents.keys() - changed.keys())
        if not changed:
            return frozenset()
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory, _LOCK_S):
            _replace_regular(directory, changed, closed=closed)
    return frozenset(changed)


def stale_files(directory: Path, names: AbstractSet[str], jobs: AbstractSet[str]) -> list[str]:
    """Return the names without suffix of our other files with targets of these jobs, from another `output.split`.

    Raises:
        PublishError: the directory or a file could not be read.
    """
    stale, _ = _other_or_error(directory, names)
    return [name for name in stale if job_of_file(name, jobs) in jobs]


def foreign_files(directory: Path, names: AbstractSet[str]) -> list[str]:
    """Return the names without suffix of files that are not ours and have none of these names.

    Raises:
        PublishError: the directory or a file could not be read.
    """
    return _other_or_error(directory, names)[1]


def _other_or_error(directory: Path, names: AbstractSet[str]) -> tuple[list[str], list[str]]:
    try:
        return _other_files(directory, names, frozenset())
    except OSError as error:
        raise publish_error(f"cannot read the target files in {directory}", error) from error


def write_alone(directory: Path, contents: Mapping[str, bytes]) -> frozenset[str]:
    """Update files as `write_files` does, without a lock: a Nix build has its output directory to itself.

    Raises:
        PublishError: as `write_files`.
    """
    with _errors_about(directory, contents):
        changed = _changed(directory, contents)
        directory.mkdir(parents=True, exist_ok=True)
        if changed:
            _replace_regular(directory, changed)
    return frozenset(changed)


def _changed(directory: Path, contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files whose content differs from what is on disk."""
    _check_names(contents, _is_plain)
    return {name: content for name, content in contents.items() if not has_content(directory / name, content)}


def _check_names(names: Iterable[str], is_valid: Callable[[str], bool]) -> None:
    """Refuse names that would lead out of the directory."""
    for name in names:
        if not is_valid(name):
            raise PublishError(f"{name[:80]!r} cannot be the name of a file", hint="nothing was written")


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


def _replace_regular(directory: Path, contents: Mapping[str, bytes], *, closed: bool = False) -> None:
    """Replace regular files. Each keeps its mode; if `closed`, without the permissions of other users."""
    modes: dict[str, int] = {}
    for name in contents:
        with contextlib.suppress(FileNotFoundError):
            modes[name] = os.lstat(directory / name).st_mode & 0o777
        if closed:
            modes[name] = modes.get(name, TARGET_MODE) & ~_OTHERS
    _replace_inside(directory, contents, modes)


def _close(files: Iterable[Path]) -> None:
    """Remove the permissions of other users from files."""
    for file in files:
        mode = file.stat().st_mode & 0o777
        if mode & _OTHERS:
            file.chmod(mode & ~_OTHERS)


@contextlib.contextmanager
def _errors_about(directory: Path, names: Iterable[str]) -> Generator[None]:
    """Convert an OSError into a PublishError that names the files."""
    try:
        yield
    except UnusableFileError as error:
        what = f"{error.path} is not a regular file, and would be replaced by one"
        raise PublishError(what, hint="move it away; nothing was written") from error
    except OSError as error:
        files = first_names([str(directory / name) for name in names], 3)
        raise publish_error(f"cannot write {files or directory}", error) from error


def _file(directory: Path, name: str) -> Path:
    return directory / f"{name}{_SUFFIX}"


def _names_in(directory: Path) -> list[str]:
    return [name.removesuffix(_SUFFIX) for name in list_names(directory, _SUFFIX)]


def _is_target_file(name: str) -> bool:
    """Tell whether a file without suffix has the name of a job, or of one of the files of a job."""
    return is_job(job_of_file(name, ()))


def _other_files(directory: Path, names: AbstractSet[str], keep: AbstractSet[str]) -> tuple[list[str], list[str]]:
    """Find files that are not among these names: those of ours that have targets, and those that are not ours.

    Without the files of jobs in `keep`.
    """
    stale: list[str] = []
    foreign: list[str] = []
    for name in _names_in(directory):
        if name in names or job_of_file(name, keep) in keep:
            continue
        body = _read(_file(directory, name))
        targets = parse_target_file(body) if body is not None and _is_target_file(name) else None
        if targets:
            stale.append(name)
        elif targets is None:
            foreign.append(name)
    return stale, foreign


def _is_current(file: Path, content: bytes) -> bool:
    """Tell whether a target file has this content.

    False for a symlink or a device, which the rename replaces. A directory raises, because it cannot be replaced.
    """
    try:
        return has_content(file, content, TARGET_MODE)
    except UnusableFileError as error:
        if error.is_directory:
            raise
        return False


def _looks_ours(file: Path) -> bool:
    """Tell whether a file is ours; damaged, empty and absent files count as ours."""
    try:
        start = read_start(file, _START_BYTES) or b""
    except UnusableFileError:
        return False
    return MARK.encode() in start or start.strip() in (b"", b"[]")


def _read(file: Path) -> bytes | None:
    """Read a file; None if it is absent or not a regular file of a valid size. Other failures are raised."""
    try:
        return read_regular(file)
    except UnusableFileError:
        return None


def _replace(directory: Path, contents: Mapping[str, bytes], scratch: Path) -> None:
    try:
        if not _is_usable(scratch, directory):
            _replace_own(directory, contents, scratch)
            return
        try:
            _replace_from(scratch, directory, contents, {})
        except OSError as error:
            if error.errno != errno.EXDEV:  # raised if there is a mount point between the directories
                raise
            _replace_own(directory, contents, scratch)
    except OSError as error:
        raise publish_error(f"cannot write target files in {directory}", error) from error


def _replace_own(directory: Path, contents: Mapping[str, bytes], scratch: Path) -> None:
    """Replace target files from a directory inside the output directory.

    Root refuses this in a directory of another user, who could swap the temporary directory for another one.
    """
    if os.geteuid() == 0 and directory.stat().st_uid != 0:
        what = f"{directory} belongs to another user: root prepares no files inside it, and cannot use {scratch}"
        raise PublishError(what, hint=f"chown root {directory}, or set `state` on its file system; nothing was written")
    _replace_inside(directory, contents, {})


def _replace_inside(directory: Path, contents: Mapping[str, bytes], modes: Mapping[str, int]) -> None:
    """Replace files by way of a temporary directory inside their directory."""
    scratch = directory / _SCRATCH
    with contextlib.suppress(FileExistsError):
        scratch.mkdir(mode=0o700)
    if not _is_ours(scratch):
        what = f"{scratch} is not a directory of this user's alone"
        raise PublishError(what, hint="files are prepared there; move it away; nothing was written")
    try:
        _replace_from(scratch, directory, contents, modes)
    finally:
        with contextlib.suppress(OSError):
            scratch.rmdir()


def _is_usable(scratch: Path, directory: Path) -> bool:
    """Tell whether `scratch` is, or can become, a directory of ours on the same file system."""
    try:
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(scratch) or not os.access(scratch, os.W_OK | os.X_OK):
            return False
        return scratch.stat().st_dev == directory.stat().st_dev
    except OSError:
        return False


def _is_ours(scratch: Path) -> bool:
    """Tell whether only this user can write to a directory, and it is not a symlink."""
    status = os.lstat(scratch)
    is_private = status.st_uid == os.geteuid() and not status.st_mode & _WRITABLE_BY_OTHERS
    return stat.S_ISDIR(status.st_mode) and is_private


def _replace_from(scratch: Path, directory: Path, contents: Mapping[str, bytes], modes: Mapping[str, int]) -> None:
    """Write all files, then move all of them."""
    _remove_temporary(scratch)  # left by a process that was killed; this one holds the lock, so that one has ended
    temporary = {name: scratch / f"{name}{_TEMPORARY}" for name in contents}
    watched = open_directory(directory)  # before the first move: after it, the sync must not fail for want of a handle
    try:
        for name, content in contents.items():
            write_new(temporary[name], content, modes.get(name, TARGET_MODE))
        _move(temporary, directory, watched)
    finally:
        os.close(watched)
        _remove_temporary(scratch)


def _move(temporary: Mapping[str, Path], directory: Path, watched: int) -> None:
    """Move files into place.

    Raises:
        OSError: the first move failed; all old files are kept.
        PublishError: a later move or the sync failed; the hint says how many files are in place.
    """
    moved = 0
    try:
        for name, file in temporary.items():
            file.rename(directory / name)
            moved += 1
        os.fsync(watched)
    except OSError as error:
        if moved == 0:
            raise
        what = f"cannot write all target files in {directory}: {error.strerror or type(error).__name__}"
        hint = f"{moved} of {len(temporary)} changed files are in place; the next cycle writes the others"
        if moved == len(temporary):
            hint = "the new files are in place, but a crash may bring the old ones back"
        raise PublishError(what, hint=hint) from error


def _remove_temporary(scratch: Path) -> None:
    """Remove temporary files that were not moved, and nothing else."""
    for name in list_names(scratch, _TEMPORARY):
        with contextlib.suppress(OSError):  # another process may have created it as a directory
            (scratch / name).unlink()
