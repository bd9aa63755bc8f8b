"""Publishing: atomic files, only changed files written, and the state directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.errors import PublishError
from clan_discovery.memory import Memories
from clan_discovery.model import Counters, Node, Snapshot
from clan_discovery.publish.files import prepare, publish, read_jobs, runtime_directory_warning, write_files
from clan_discovery.publish.lock import locked
from clan_discovery.publish.state import State
from clan_discovery.reading import has_content
from clan_discovery.resolve.memory import Held, Memory, Remembered
from clan_discovery.syntax.target_file import EMPTY, MARK, Split, join_targets
from tests.support.programs import program
from tests.support.scripted import Scripted

if TYPE_CHECKING:
    from collections.abc import Generator

OURS = b'[\n{"labels":{"__meta_clan_observed":"true"},"targets":["a:1"]}\n]\n'
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return an output directory."""
    directory = tmp_path / "targets"
    prepare(directory)
    return directory


def scratch(directory: Path) -> Path:
    """Return the directory in which files are prepared."""
    return directory.parent / "state" / "tmp"


@given(st.dictionaries(st.sampled_from(["node", "a", "b"]), st.binary(max_size=40), max_size=3))
def test_publishing_again_writes_nothing(jobs: dict[str, bytes]) -> None:
    """The files are the given bytes."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "targets"
        prepare(directory)
        first = publish(directory, jobs, scratch(directory))
        assert set(first.written) == set(jobs)
        before = {f.name: f.stat().st_mtime_ns for f in directory.iterdir()}
        second = publish(directory, jobs, scratch(directory))
        assert (second.written, set(second.unchanged)) == ((), set(jobs))
        assert {f.name: f.stat().st_mtime_ns for f in directory.iterdir()} == before
        assert {f.stem: f.read_bytes() for f in directory.iterdir()} == jobs


def test_only_changed_files_are_written_with_mode_0644(place: Path) -> None:
    """Whatever the umask is.

    The file of a removed job becomes empty; foreign files are not changed.
    """
    (place / "foreign.json").write_text('[{"targets": ["x:1"]}]')
    old = os.umask(0o077)
    try:
        publish(place, {"node": OURS, "nginx": OURS}, scratch(place))
        assert (place / "nginx.json").stat().st_mode & 0o777 == 0o644
        done = publish(place, {"node": OURS}, scratch(place))
    finally:
        os.umask(old)
    assert (done.written, done.unchanged, done.emptied, done.foreign) == ((), ("node",), ("nginx",), ("foreign",))
    assert (place / "nginx.json").read_bytes() == EMPTY
    assert (place / "node.json").stat().st_mode & 0o777 == 0o644
    assert (place / "foreign.json").read_text() == '[{"targets": ["x:1"]}]'
    assert sorted(f.name for f in place.iterdir()) == ["foreign.json", "nginx.json", "node.json"]


def test_a_changed_mode_is_restored_without_a_write(place: Path) -> None:
    """The bytes are unchanged, so there is no rename."""
    publish(place, {"node": OURS}, scratch(place))
    (place / "node.json").chmod(0o600)
    inode = (place / "node.json").stat().st_ino
    publish(place, {"node": OURS}, scratch(place))
    assert (place / "node.json").stat().st_mode & 0o777 == 0o644
    assert (place / "node.json").stat().st_ino == inode


def test_only_a_directory_is_accepted_as_output(tmp_path: Path) -> None:
    """A symlink and a file are refused; a missing directory is created."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    with pytest.raises(PublishError, match="is a symlink"):
        prepare(tmp_path / "link")
    with pytest.raises(PublishError, match="not a directory"):
        prepare(tmp_path / "file")
    with pytest.raises(PublishError, match="not a directory"):
        prepare(tmp_path / "file" / "below")
    prepare(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_only_our_target_files_are_read(place: Path) -> None:
    """Foreign files, FIFOs, directories and dangling symlinks are skipped."""
    publish(place, {"node": OURS, "empty": EMPTY}, scratch(place))
    (place / "foreign.json").write_text('[{"targets": ["x:1"], "labels": {}}]')
    (place / "half.json").write_bytes(OURS.replace(b"\n]", b',{"targets":["x:1"],"labels":{}}\n]'))
    (place / "broken.json").write_bytes(OURS[:-3])
    (place / "notes.txt").write_bytes(OURS)
    (place / "directory.json").mkdir()
    (place / "link.json").symlink_to(place / "nowhere")
    os.mkfifo(place / "fifo.json")
    assert read_jobs(place) == {"node": OURS, "empty": EMPTY}


def test_a_runtime_directory_as_output_is_a_warning() -> None:
    """The unit's stop makes systemd delete it."""
    assert runtime_directory_warning(Path("/run/clan-discovery"), "")
    assert runtime_directory_warning(Path("/var/run/x"), "")
    assert runtime_directory_warning(Path("/opt/x/y"), "/opt/a:/opt/x")
    assert runtime_directory_warning(Path("/var/lib/clan-discovery/targets"), "") is None


def test_a_held_lock_is_an_error_after_a_short_wait(place: Path) -> None:
    """The message names the process that holds it."""
    code = (
        "import sys, time; from pathlib import Path; from clan_discovery.publish.lock import locked\n"
        "with locked(Path(sys.argv[1]), 1):\n    print('held', flush=True); time.sleep(30)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(place)], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(PublishError) as caught, locked(place, 0.3):
            pass
        assert f"process {other.pid}" in str(caught.value)
    finally:
        other.kill()
        other.communicate()
    with locked(place, 2):  # the kernel released the lock of the killed process
        pass


@pytest.fixture
def small(tmp_path: Path) -> Generator[Path]:
    """Mount a tmpfs of 64 KiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@needs_root
def test_a_full_disk(small: Path) -> None:
    """All old files are kept, and no temporary file is left."""
    directory = small / "targets"
    prepare(directory)
    jobs = {"node": OURS, "nginx": OURS}
    publish(directory, jobs, scratch(directory))
    with pytest.raises(PublishError, match="No space left") as caught:
        publish(directory, {"nginx": OURS * 2, "node": b"x" * 200_000}, scratch(directory))
    assert "the old files are kept" in (caught.value.hint or "")
    assert {f.stem: f.read_bytes() for f in directory.iterdir()} == jobs
    assert list(scratch(directory).iterdir()) == []


@needs_root
def test_a_disk_that_is_too_full_for_another_number_of_files(small: Path) -> None:
    """No file is moved: a target that is to move to another file would be in none."""
    directory = small / "targets"
    prepare(directory)
    groups = [{"labels": {MARK: "true", "machine": f"m{number}"}, "targets": ["a:1"]} for number in range(300)]
    whole = join_targets([json.dumps(group).encode() for group in groups])
    publish(directory, Split(2).files({"node": whole}), scratch(directory))
    before = {file.name: file.read_bytes() for file in directory.iterdir()}
    (small / "ballast").write_bytes(b"x" * 12_000)
    with pytest.raises(PublishError, match="No space left"):
        publish(directory, Split(4).files({"node": whole}), scratch(directory))
    assert {file.name: file.read_bytes() for file in directory.iterdir()} == before
    assert list(scratch(directory).iterdir()) == []
    (small / "ballast").unlink()
    done = publish(directory, Split(4).files({"node": whole}), scratch(directory))
    assert done.written == tuple(f"node.{number}" for number in range(4))


@needs_root
def test_write_files_on_a_full_disk_replaces_none(small: Path) -> None:
    """All files are written before the first rename, and no temporary file is left."""
    old = {"a.json": OURS, "b.json": OURS}
    assert write_files(small / "new/out", old) == set(old)
    with pytest.raises(PublishError, match=r"cannot write .*a\.json, .*b\.json: No space left"):
        write_files(small / "new/out", {"a.json": OURS * 2, "b.json": b"x" * 200_000})
    assert {f.name: f.read_bytes() for f in (small / "new/out").iterdir()} == old
    assert write_files(small / "new/out", {"a.json": OURS * 2, "b.json": OURS}) == {"a.json"}


@needs_root
def test_a_read_only_file_system(small: Path) -> None:
    """The old files are kept, and an unchanged cycle succeeds."""
    directory = small / "targets"
    prepare(directory)
    publish(directory, {"node": OURS}, scratch(directory))
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    with pytest.raises(PublishError, match="Read-only file system"):
        publish(directory, {"node": OURS * 2}, scratch(directory))
    assert publish(directory, {"node": OURS}, scratch(directory)).unchanged == ("node",)
    assert (directory / "node.json").read_bytes() == OURS
    with pytest.raises(PublishError, match="Read-only"):
        prepare(small / "new")


@needs_root
def test_a_state_directory_on_another_file_system(small: Path, place: Path) -> None:
    """Files are then prepared in a temporary subdirectory of the output, which no glob of a scraper matches."""
    publish(place, {"node": OURS}, small / "tmp")
    assert (place / "node.json").read_bytes() == OURS
    assert sorted(f.name for f in place.iterdir()) == ["node.json"]


def test_a_changed_file_is_one_rename_event(place: Path) -> None:
    """An unchanged cycle raises no event."""
    inotify = program("inotifywait")
    publish(place, {"node": OURS}, scratch(place))
    words = [inotify, "-m", "--format", "%e %f", str(place)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watch:
        try:
            assert watch.stdout is not None
            assert watch.stderr is not None
            for line in watch.stderr:
                if "Watches established" in line:
                    break
            publish(place, {"node": OURS}, scratch(place))
            publish(place, {"node": OURS * 2}, scratch(place))
            (place / "the-end").touch()
            events = list(iter(watch.stdout.readline, "CREATE the-end\n"))
        finally:
            watch.kill()
    assert [line for line in events if not line.startswith(("OPEN", "CLOSE", "ACCESS"))] == ["MOVED_TO node.json\n"]


WRITER = """
import sys
from pathlib import Path
from clan_discovery.publish.files import prepare, publish
from clan_discovery.publish.lock import locked
directory = Path(sys.argv[1])
prepare(directory)
print("ready", flush=True)
for turn in range(100000):
    group = b'{"targets":["all-%d:1"]}' % turn
    jobs = {job: b"[" + b",".join([group] * 2000) + b"]" for job in ("a", "b")}
    with locked(directory, 1):
        publish(directory, jobs, directory.parent / "state" / "tmp")
"""


def test_sigkill_leaves_whole_files(tmp_path: Path) -> None:
    """Twenty kills while publishing: every file parses and comes from one cycle."""
    directory = tmp_path / "targets"
    for turn in range(20):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.02 + 0.0037 * turn)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for file in directory.glob("[!.]*"):
            assert file.suffix == ".json"
            assert len({g["targets"][0] for g in json.loads(file.read_bytes())}) == 1
    assert {f.name for f in directory.glob("[!.]*")} == {"a.json", "b.json"}
    publish(directory, {"a": OURS, "b": OURS}, directory.parent / "state" / "tmp")
    assert list((directory.parent / "state" / "tmp").iterdir()) == []


# --- the state ------------------------------------------------------------------------------------------------------

MEMORY = Memory(
    last=Remembered(
        snapshot=Snapshot(backend="t", nodes=(Node("a", ("100.64.0.1",), labels={"__meta_x": "ü"}),), suffix="ts.net"),
        taken_at=12.5,
        fingerprint="f",
    ),
    held={"": Held(names=frozenset({"a"}), since=3.0, rounds=2)},
)
BACKENDS = [Scripted(None, name="t", fingerprint="f")]


def save(directory: Path) -> None:
    """Write the memory of one backend."""
    Memories.read(State(directory), BACKENDS).save({"t": MEMORY}, {"t": b"own"}, Counters(rounds=1))


def load(state: State) -> Memories:
    """Read the memory of the backends."""
    return Memories.read(state, BACKENDS)


def test_the_memory_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Mode 0600. An unchanged snapshot is not written again."""
    save(tmp_path / "s")
    found = load(State(tmp_path / "s"))
    assert (found.load("t", None), found.own("t"), found.counters.rounds) == (MEMORY, b"own", 1)
    assert (found.load("other", None), found.own("other")) == (Memory(), b"")
    assert found.lost == set()
    file = tmp_path / "s" / "backend-t.json"
    assert file.stat().st_mode & 0o777 == 0o600
    inode = file.stat().st_ino
    save(tmp_path / "s")
    assert file.stat().st_ino == inode


def test_a_renamed_backend_keeps_its_memory(tmp_path: Path) -> None:
    """A new name with the settings of a removed backend takes its memory; other settings do not."""
    save(tmp_path)
    found = Memories.read(State(tmp_path), [Scripted(None, name="new", fingerprint="f")])
    last = found.load("new", None).last
    assert last is not None
    assert (last.snapshot.backend, last.snapshot.nodes[0].name, found.own("new")) == ("new", "a", b"own")
    assert Memories.read(State(tmp_path), [Scripted(None, name="new", fingerprint="x")]).load("new", None) == Memory()
    two = [Scripted(None, name="new", fingerprint="f"), *BACKENDS]
    assert Memories.read(State(tmp_path), two).load("new", None) == Memory()


@given(st.binary(max_size=60), st.sampled_from(["index.json", "backend-t.json"]))
def test_a_damaged_state_is_set_aside(garbage: bytes, name: str) -> None:
    """A warning; the cycle goes on, and the memory counts as lost."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        save(directory)
        file = directory / name
        body = file.read_bytes()
        middle = len(body) // 2
        file.write_bytes(body[:middle] + b"\x00" + garbage)
        state = State(directory)
        found = load(state)
        assert found.load("t", None).last is None
        assert found.lost == {"t"}
        assert len(state.problems) == 1
        assert (directory / f"{file.name}.unreadable").exists()
        save(directory)
        assert load(State(directory)).load("t", None) == MEMORY


def test_a_state_of_another_version_is_set_aside(tmp_path: Path) -> None:
    """Also if the rest looks valid."""
    save(tmp_path)
    index = json.loads((tmp_path / "index.json").read_bytes())
    (tmp_path / "index.json").write_text(json.dumps({**index, "version": 3}))
    state = State(tmp_path, read_only=True)
    assert load(state).lost == {"t"}
    assert "version 3" in str(state.problems[0])
    assert (tmp_path / "index.json").exists()  # `show` changes nothing


@pytest.mark.parametrize("name", ["x\0y", "../x", "a/b"])
def test_an_index_with_a_name_that_is_no_file_is_set_aside(tmp_path: Path, name: str) -> None:
    """Names in the index become parts of file names."""
    save(tmp_path)
    index = json.loads((tmp_path / "index.json").read_bytes())
    index["backends"] = {name: {**index["backends"]["t"]}}
    (tmp_path / "index.json").write_text(json.dumps(index))
    state = State(tmp_path)
    assert load(state).lost == {"t"}
    assert "is not the name of a backend" in str(state.problems[0])


def test_a_missing_memory_file_counts_as_lost(tmp_path: Path) -> None:
    """The index says that it existed."""
    save(tmp_path)
    (tmp_path / "memory-t").unlink()
    found = load(State(tmp_path))
    assert (found.own("t"), found.lost) == (b"", {"t"})


def test_a_state_directory_that_cannot_be_created(tmp_path: Path) -> None:
    """It is reported as a problem; nothing is raised."""
    (tmp_path / "file").touch()
    state = State(tmp_path / "file" / "state")
    load(state).save({"t": MEMORY}, {}, Counters())
    assert "cannot write the state" in str(state.problems[0])


def test_write_files_keeps_the_mode_of_a_file(tmp_path: Path) -> None:
    """A private file stays private.

    A new file is readable by all, and so is every target file.
    """
    assert write_files(tmp_path, {"a.json": b"1", "b.json": b"1"}) == {"a.json", "b.json"}
    (tmp_path / "a.json").chmod(0o600)
    assert write_files(tmp_path, {"a.json": b"2", "b.json": b"2", "c.json": b"2"}) == {"a.json", "b.json", "c.json"}
    modes = {name: (tmp_path / f"{name}.json").stat().st_mode & 0o777 for name in "abc"}
    assert modes == {"a": 0o600, "b": 0o644, "c": 0o644}
    (tmp_path / "b.json").chmod(0o600)
    publish(tmp_path, {"b": b"[]\n"}, tmp_path / "scratch")
    assert (tmp_path / "b.json").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("size", [1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20 + 5])
def test_one_different_byte_of_a_file_is_found(tmp_path: Path, size: int) -> None:
    """The file is compared in pieces, because target files may have 76 MB."""
    file, body = tmp_path / "file", bytes(size)
    file.write_bytes(body)
    assert has_content(file, body)
    assert not has_content(file, body + b"x")
    for at in (0, size // 2, size - 1):
        other = bytearray(body)
        other[at] = 1
        assert not has_content(file, bytes(other))


def test_absent_file_has_no_content(tmp_path: Path) -> None:
    assert not has_content(tmp_path / "file", b"")
    (tmp_path / "file").touch()
    assert has_content(tmp_path / "file", b"")
