"""A failed read is not an empty answer: the cycle ends with exit 5, or without a history it goes on."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clan_discovery.errors import PublishError
from clan_discovery.publish.files import prepare, publish, read_jobs
from clan_discovery.publish.state import State
from tests.support.fleet import fleet, inventory
from tests.support.forked import traced
from tests.support.users import as_nobody, give_to_nobody, needs_root

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.conftest import Done

    Run = Callable[..., Done]

PROGRAM = str(Path(sys.executable).with_name("clan-discovery"))
CONFIG = """\
inventory: {file: inventory.json}
backends: {tailscale: {tailnet: {status_file: status.json}}}
exporters: {systemd: {select: {tags: [server]}}}
output: {directory: targets}
state: state
"""
NAMES = ["a", "b", "c", "d", "e", "monitor"]


def world(place: Path, run: Run) -> Path:
    """Do a good cycle, make the backend fail, and delete a state file; return the config."""
    (place / "config.yaml").write_text(CONFIG)
    (place / "inventory.json").write_text(json.dumps(inventory(NAMES)))
    (place / "status.json").write_text(json.dumps(fleet(NAMES)))
    assert run("refresh", "-c", place / "config.yaml").code == 0
    (place / "status.json").write_text('{"BackendState": "NeedsLogin"}')
    assert run("refresh", "-c", place / "config.yaml").code == 3
    return place / "config.yaml"


def contents(place: Path) -> dict[str, bytes]:
    """Return the bytes of all published and state files; for the index, which counts failures, only its name."""
    files = [f for d in ("targets", "state") for f in sorted((place / d).glob("*")) if f.is_file()]
    return {str(f): b"" if f.name == "index.json" else f.read_bytes() for f in files}


def calls(place: Path, config: Path) -> list[tuple[str, int, str]]:
    """Return the system calls of a refresh on our files: name, number among calls of that name, arguments."""
    trace = place / "trace"
    options = ["-y", "-o", str(trace), "-e", "trace=openat,read,getdents64,newfstatat,lstat"]
    assert traced(options, "refresh", "-c", config).code == 3
    numbers: dict[str, int] = {}
    found: list[tuple[str, int, str]] = []
    for line in trace.read_text(errors="replace").splitlines():
        match = re.match(r"\d+ +(\w+)\((.*)", line)
        if match is None or "resumed" in line:
            continue
        numbers[match[1]] = numbers.get(match[1], 0) + 1
        if f"{place}/targets" in match[2] or f"{place}/state" in match[2]:
            found.append((match[1], numbers[match[1]], match[2]))
    return found


def inject(config: Path, call: str, number: int, error: str) -> Done:
    """Refresh with one failing system call."""
    options = ["-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={number}"]
    return traced(options, "refresh", "-c", config)


@pytest.mark.parametrize(
    ("call", "error", "wanted"),
    [
        ("openat", "EMFILE", ("index.json", "backend-tailnet.json")),
        ("openat", "EIO", ("node.json",)),
        ("newfstatat", "EACCES", ("index.json", "systemd.json")),
        ("read", "EIO", ("index.json", "backend-tailnet.json", "node.json")),
        ("getdents64", "EIO", ("targets",)),
    ],
)
def test_a_failing_call_changes_no_file(tmp_path: Path, run: Run, call: str, error: str, wanted: Sequence[str]) -> None:
    """Also during an outage. The next cycle is as if nothing had happened."""
    config = world(tmp_path, run)
    before = contents(tmp_path)
    seen = calls(tmp_path, config)
    before = contents(tmp_path)
    tried = 0
    for name in wanted:
        numbers = [number for what, number, rest in seen if what == call and re.search(rf"/{name}[\">]", rest)]
        for number in numbers[:1]:  # later calls write the state, and their failure is reported
            done = inject(config, call, number, error)
            assert done.code == 5, (name, number, done.err)
            assert "Traceback" not in done.err
            assert contents(tmp_path) == before
            tried += 1
    assert tried == len(wanted)
    assert run("refresh", "-c", config).code == 3
    assert (tmp_path / "targets/node.json").read_bytes() == before[f"{tmp_path}/targets/node.json"]


@pytest.mark.parametrize("error", ["EIO", "EACCES"])
def test_an_unreadable_history_holds_up_no_target(tmp_path: Path, run: Run, error: str) -> None:
    """It is a log: the targets are published, the file stays as it is, and a warning names it."""
    config = world(tmp_path, run)
    (history,) = (tmp_path / "state").glob("history-*.json")
    before = history.read_bytes()
    (number,) = [n for what, n, rest in calls(tmp_path, config) if what == "openat" and f"/{history.name}" in rest]
    (tmp_path / "status.json").write_text(json.dumps(fleet([*reversed(NAMES)])))
    targets = (tmp_path / "targets/node.json").read_bytes()
    done = inject(config, "openat", number, error)
    assert done.code == 0, done.err
    assert f"{history.name}: " in done.err
    assert "this cycle's changes are not recorded" in done.err
    assert (tmp_path / "targets/node.json").read_bytes() != targets
    assert history.read_bytes() == before
    assert "changes: +0 -0 ~12" in run("refresh", "-c", config).err


def test_a_failed_listing_without_memory_changes_no_file(tmp_path: Path, run: Run) -> None:
    """The loss guard counts the files; a directory that looks empty would disable it."""
    config = world(tmp_path, run)
    (tmp_path / "state/index.json").unlink()
    before = (tmp_path / "targets/node.json").read_bytes()
    done = inject(config, "getdents64", first_listing(tmp_path, config), "EIO")
    assert done.code == 5, done.err
    assert (tmp_path / "targets/node.json").read_bytes() == before


def first_listing(place: Path, config: Path) -> int:
    """Return the number of the call that first lists the output directory; the index is removed again."""
    number = next(n for what, n, rest in calls(place, config) if what == "getdents64" and f"{place}/targets>" in rest)
    (place / "state/index.json").unlink()
    return number


def test_a_limit_on_file_descriptors_moves_no_target(tmp_path: Path, run: Run) -> None:
    """For any limit: exit 3 (the outage), 2 (the config cannot be read) or 5."""
    config = world(tmp_path, run)
    before = contents(tmp_path)
    codes: set[int] = set()
    for limit in range(3, 12):
        done = subprocess.run(
            [PROGRAM, "refresh", "-c", str(config)],
            capture_output=True,
            check=False,
            preexec_fn=partial(resource.setrlimit, resource.RLIMIT_NOFILE, (limit, limit)),
        )
        codes.add(done.returncode)
        files = contents(tmp_path)
        assert {n: b for n, b in files.items() if "/targets/" in n} == {
            n: b for n, b in before.items() if "/targets/" in n
        }
        assert not list((tmp_path / "state").glob("*.unreadable"))
    assert 3 in codes


@needs_root
@pytest.mark.parametrize("name", ["state/index.json", "state/backend-tailnet.json", "targets/systemd.json", "targets"])
def test_a_file_without_read_permission_is_not_absent(tmp_path: Path, run: Run, name: str) -> None:
    """The service's user may not read a file: exit 5, and no file is moved."""
    config = world(tmp_path, run)
    give_to_nobody(tmp_path)
    os.chown(tmp_path / name, 0, 0)
    (tmp_path / name).chmod(0o700)
    before = contents(tmp_path)
    done = as_nobody("refresh", "-c", config)
    assert done.code == 5, done.err
    assert contents(tmp_path) == before


@needs_root
@pytest.mark.parametrize("name", ["systemd.json", "others.json"])
def test_doctor_names_a_file_that_stops_each_refresh(tmp_path: Path, run: Run, name: str) -> None:
    """A refresh cannot tell whether a file that it may not read is ours."""
    config = world(tmp_path, run)
    (tmp_path / "targets" / name).touch()
    give_to_nobody(tmp_path)
    os.chown(tmp_path / "targets" / name, 0, 0)
    (tmp_path / "targets" / name).chmod(0o600)
    assert as_nobody("refresh", "-c", config).code == 5
    done = as_nobody("doctor", "-c", config)
    assert done.code == 5
    assert f"this user cannot read {name}, so a refresh" in done.out
    assert "the next refresh fixes it" not in done.out


def test_a_missing_file_is_absent(tmp_path: Path) -> None:
    """A missing directory, a missing file, and a parent that is no directory."""
    (tmp_path / "file").touch()
    for place in (tmp_path / "nothing", tmp_path / "file", tmp_path / "file/below"):
        assert State(place).read("index.json") is None
        assert read_jobs(place) == {}


@pytest.mark.parametrize("mode", [0o000, 0o300])
@needs_root
def test_a_directory_that_cannot_be_listed(tmp_path: Path, mode: int) -> None:
    """It is not empty: `diff` and the loss guard get an error."""
    prepare(tmp_path / "targets")
    publish(tmp_path / "targets", {"node": b"[]\n"}, tmp_path / "scratch")
    os.chown(tmp_path / "targets", 65534, 65534)
    (tmp_path / "targets").chmod(mode)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setuid(65534)
            read_jobs(tmp_path / "targets")
        except PublishError:
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (("rename", 1, "EIO"), "the old files are kept"),
        (("rename", 2, "EIO"), "1 of 2 changed files are in place"),
        (("fsync", 1, "EIO"), "the old files are kept"),
        (("fsync", 3, "EIO"), "a crash may bring the old ones back"),
        (("fchmod", 1, "EPERM"), "the old files are kept"),
    ],
)
def test_a_failed_write_reports_the_files_in_place(
    tmp_path: Path, run: Run, fault: tuple[str, int, str], said: str
) -> None:
    """Exit 5. Each file is the old or the new one, and the next cycle updates all."""
    config = world(tmp_path, run)
    (tmp_path / "status.json").write_text(json.dumps(fleet([name for name in NAMES if name != "a"])))
    old = {f.name: f.read_bytes() for f in (tmp_path / "targets").glob("*.json")}
    done = inject(config, *fault)
    assert done.code == 5, done.err
    assert said in done.err
    new = {f.name: f.read_bytes() for f in (tmp_path / "targets").glob("*.json")}
    assert run("refresh", "-c", config).code == 0
    final = {f.name: f.read_bytes() for f in (tmp_path / "targets").glob("*.json")}
    assert final != old
    assert all(body in (old[name], final[name]) for name, body in new.items())
    assert not list((tmp_path / "state/publishing").iterdir())


def test_a_limit_on_the_size_of_files(tmp_path: Path, run: Run) -> None:
    """RLIMIT_FSIZE: exit 5, the old files are kept, and no temporary file is left."""
    config = world(tmp_path, run)
    (tmp_path / "status.json").write_text(json.dumps(fleet([*NAMES, *(f"m{n}" for n in range(50))])))
    before = contents(tmp_path)
    done = subprocess.run(
        [PROGRAM, "refresh", "-c", str(config)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (5000, 5000)),
    )
    assert done.returncode == 5
    assert "File too large" in done.stderr
    assert contents(tmp_path) == before
    assert not list((tmp_path / "state/publishing").iterdir())


@needs_root
def test_an_unchanged_cycle_works_on_a_read_only_file_system(tmp_path: Path, run: Run) -> None:
    """Neither the lock nor the owner mark has to be written."""
    mount = tmp_path / "mount"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], check=True)
    try:
        config = world(mount, run)
        (mount / "status.json").write_text(json.dumps(fleet(NAMES)))
        assert run("refresh", "-c", config).code == 0
        subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        done = run("refresh", "-c", config)
        assert done.code == 0
        assert "cannot write the state: Read-only file system" in done.err
    finally:
        subprocess.run(["umount", str(mount)], check=True)
