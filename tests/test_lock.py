"""The lock of a directory: only its user can hold it, and messages about the holder are safe."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from clan_discovery.errors import PublishError
from clan_discovery.publish.files import prepare
from clan_discovery.publish.lock import LOCK, locked
from clan_discovery.publish.state import State
from tests.support.users import NOBODY, as_nobody, give_to_nobody, needs_root

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Done

HOLD = """\
import fcntl, os, sys
user, *paths = sys.argv[1:3]  # what follows is only to be seen in the list of processes
os.setuid(int(user))
held = []
for path in paths:
    try:
        held.append(os.open(path, os.O_RDONLY))
        fcntl.flock(held[-1], fcntl.LOCK_EX)
    except OSError:
        pass
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return an output directory with a released lock, which other users may list."""
    directory = tmp_path / "targets"
    prepare(directory)
    with locked(directory, 1, keep=True):
        pass
    for path in directory.parents:
        if path.stat().st_mode & 0o005 != 0o005:
            path.chmod(path.stat().st_mode | 0o055)
    return directory


def holding(user: int, *words: object) -> subprocess.Popen[bytes]:
    """Start a process that locks those of these paths that it can open; end it with `communicate`."""
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(user), *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    return other


@needs_root
@pytest.mark.parametrize("which", ["directory", "file"])
def test_another_user_cannot_hold_the_lock(place: Path, which: str) -> None:
    """Neither on the directory, which it may read, nor on the file."""
    with holding(NOBODY, place if which == "directory" else place / LOCK) as other:
        with locked(place, 0.1):
            pass
        with State(place).locked(0.1):
            pass
        other.communicate()


def test_the_command_line_of_the_holder_is_escaped(place: Path) -> None:
    """It may have escape sequences, newlines and bidi characters."""
    with holding(os.geteuid(), place / LOCK, "\x1b[2J\x9b31m\u202e\n") as other:
        with pytest.raises(PublishError) as caught, locked(place, 0.1):
            pass
        other.communicate()
    assert f"held by process {other.pid}" in str(caught.value)
    assert str(caught.value).isprintable()


def test_an_unknown_holder_has_a_hint(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a unit hides /proc/locks, the message says how to find the process."""

    def hidden(_: int) -> None:
        return None

    monkeypatch.setattr("clan_discovery.publish.lock._holder", hidden)
    with holding(os.geteuid(), place / LOCK) as other:
        with pytest.raises(PublishError, match="held by another process") as caught, locked(place, 0.1):
            pass
        other.communicate()
    assert f"`fuser {place / LOCK}`" in (caught.value.hint or "")


def test_a_failure_removes_the_lock_that_it_created(tmp_path: Path) -> None:
    """An older lock file is kept."""

    def fail() -> None:
        with pytest.raises(ZeroDivisionError), locked(tmp_path, 0.1, keep=True):
            raise ZeroDivisionError

    fail()
    assert not (tmp_path / LOCK).exists()
    with locked(tmp_path, 0.1, keep=True):
        pass
    fail()
    assert (tmp_path / LOCK).exists()


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "socket", "hard link"])
@pytest.mark.parametrize("which", ["output", "state"])
def test_a_planted_lock_is_refused(tmp_path: Path, kind: str, which: str) -> None:
    """At once and by name; a link is not followed."""
    lock = locked(tmp_path / "d", 0.1) if which == "output" else State(tmp_path / "d").locked(0.1)
    (tmp_path / "d").mkdir()
    file = tmp_path / "d" / LOCK
    victim = tmp_path / "victim"
    victim.write_text("x")
    victim.chmod(0o644)
    with socket.socket(socket.AF_UNIX) as sock:
        match kind:
            case "symlink":
                file.symlink_to(victim)
            case "fifo":
                os.mkfifo(file)
            case "directory":
                file.mkdir()
            case "socket":
                sock.bind(os.path.relpath(file))
            case _:
                file.hardlink_to(victim)
        with pytest.raises(PublishError, match=r"\.clan-discovery\.lock"), lock:
            pass
    assert (victim.read_text(), victim.stat().st_mode & 0o777) == ("x", 0o644)


def test_a_dangling_symlink_as_lock_is_refused(tmp_path: Path) -> None:
    """Its target is not created."""
    (tmp_path / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PublishError, match="is a symlink"), locked(tmp_path, 0.1):
        pass
    assert not (tmp_path / "elsewhere").exists()


@needs_root
def test_the_lock_of_another_user_is_reported(tmp_path: Path, run: Callable[..., Done]) -> None:
    """Exit 5 names the owner, for a user who may not open it and for root."""
    (tmp_path / "status.json").write_text("{}")
    config = tmp_path / "config.yaml"
    config.write_text(
        "backends: {tailscale: {t: {status_file: status.json}}}\nexporters: {node: {select: {}}}\n"
        "output: {directory: targets}\n"
    )
    assert run("refresh", "-c", config).code == 3
    give_to_nobody(tmp_path)
    (tmp_path / "targets").chmod(0o777)
    os.chown(tmp_path / "targets" / LOCK, 0, 0)
    done = as_nobody("refresh", "-c", config)
    assert done.code == 5
    lock = tmp_path / "targets" / LOCK
    assert f"{lock} belongs to user root" in done.err
    assert f"remove {lock}: a refresh by that user left it" in done.err
    for done in (as_nobody("doctor", "-c", config), run("doctor", "-c", config)):
        assert done.code == 5
        assert f"to fix: remove {lock}" in done.out
    os.chown(tmp_path / "targets", 0, 0)
    done = as_nobody("refresh", "-c", config)
    assert done.code == 5
    assert f"if that user does not refresh there any more, remove {lock}" in done.err
    for path in (tmp_path / "targets.state", *(tmp_path / "targets.state").iterdir()):
        os.chown(path, 0, 0)
    os.chown(lock, NOBODY, NOBODY)
    done = run("refresh", "-c", config)
    assert done.code == 5
    assert f"{lock} belongs to another user" in done.err
    assert run("doctor", "-c", config).code == 5
    lock.unlink()
    assert run("refresh", "-c", config).code == 3


def test_the_lock_has_mode_0600(place: Path) -> None:
    """Whatever mode it had, and whatever the umask is."""
    (place / LOCK).chmod(0o644)
    with locked(place, 1, keep=True):
        assert (place / LOCK).stat().st_mode & 0o777 == 0o600
    (place / LOCK).unlink()
    old = os.umask(0o777)
    try:
        with locked(place, 1, keep=True):
            assert (place / LOCK).stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(old)


def test_a_removed_lock_file_does_not_block(place: Path) -> None:
    """The next process creates a new one, and removes it if it leaves no other file."""
    handle = os.open(place / LOCK, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    (place / LOCK).unlink()
    with locked(place, 0.1):
        assert (place / LOCK).exists()
    assert list(place.iterdir()) == []
    os.close(handle)


def test_locking_an_existing_file_changes_no_timestamp(place: Path) -> None:
    """So watchers of the directory see no event."""
    before = place.stat().st_mtime_ns, (place / LOCK).stat().st_mtime_ns, (place / LOCK).stat().st_ctime_ns
    with locked(place, 1, keep=True):
        pass
    assert (place.stat().st_mtime_ns, (place / LOCK).stat().st_mtime_ns, (place / LOCK).stat().st_ctime_ns) == before
