"""Planted files where we read or write: no hang, no followed link, and the error names the file."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from clan_discovery.cli.main import main
from clan_discovery.errors import PublishError
from clan_discovery.publish.files import prepare, publish, write_alone
from clan_discovery.publish.writing import write_file
from clan_discovery.reading import UnusableFileError, has_content, read_regular
from tests.conftest import Done
from tests.support.fleet import fleet
from tests.support.users import NOBODY, needs_root

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    Run = Callable[..., Done]

KINDS = ["symlink", "symlink to nowhere", "symlink to itself", "fifo", "directory", "device"]
NAMES = ["a", "b", "c", "d", "e"]


def plant(file: Path, kind: str, victim: Path) -> None:
    """Create a file of this kind; `victim` must not change."""
    victim.write_text("precious")
    if file.is_file():
        file.unlink()
    match kind:
        case "symlink":
            file.symlink_to(victim)
        case "symlink to nowhere":
            file.symlink_to(victim.with_name("nowhere"))
        case "symlink to itself":
            file.symlink_to(file)
        case "fifo":
            os.mkfifo(file)
        case "directory":
            file.mkdir(parents=True)
        case "device":
            if os.geteuid() != 0:
                pytest.skip("devices need root")
            os.mknod(file, 0o020644, os.makedev(1, 5))  # /dev/zero: reads without end
        case _:
            file.hardlink_to(victim)


def unharmed(victim: Path) -> bool:
    """Return whether the victim is unchanged and no symlink target was created."""
    return victim.read_text() == "precious" and not victim.with_name("nowhere").exists()


@pytest.fixture
def config(tmp_path: Path, run: Run) -> Path:
    """Do a good cycle; return the config."""
    (tmp_path / "status.json").write_text(json.dumps(fleet(NAMES)))
    file = tmp_path / "config.yaml"
    file.write_text(
        "backends: {tailscale: {tailnet: {status_file: status.json}}}\n"
        "exporters: {node: {select: {tags: [server]}}, systemd: {select: {tags: [server]}}}\n"
        "output: {directory: targets}\nstate: state\n"
    )
    assert run("refresh", "-c", file).code == 0
    return file


def command(name: str, config: Path, *more: object) -> Done:
    """Run a command in this process, and fail if it hangs."""

    def hangs(_number: int, _frame: FrameType | None) -> NoReturn:
        raise TimeoutError("it hangs")

    out, err = io.StringIO(), io.StringIO()
    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(10)
    try:
        code = main([name, "-c", str(config), *map(str, more)], out, err)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return Done(code, out.getvalue(), err.getvalue())


def refresh(config: Path, *more: object) -> Done:
    """Refresh."""
    return command("refresh", config, "-q", *more)


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_target_file_is_overwritten(tmp_path: Path, config: Path, kind: str) -> None:
    """It is reported, and a symlink is not followed; a directory is exit 5."""
    plant(tmp_path / "targets/node.json", kind, tmp_path / "victim")
    before = (tmp_path / "targets/systemd.json").read_bytes()
    (tmp_path / "status.json").write_text(json.dumps(fleet(NAMES[1:])))
    done = refresh(config)
    assert unharmed(tmp_path / "victim")
    if kind == "directory":
        assert done.code == 5
        assert "targets/node.json is a directory" in done.err
        assert "move it away; nothing was written" in done.err
        assert (tmp_path / "targets/systemd.json").read_bytes() == before
    else:
        assert done.code == 0
        assert "node.json was not written by clan-discovery and is overwritten" in done.err
        assert not (tmp_path / "targets/node.json").is_symlink()
        assert (tmp_path / "targets/systemd.json").read_bytes() != before


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_file_of_no_job_is_left_alone(tmp_path: Path, config: Path, kind: str) -> None:
    """It is reported, and `diff` does not read it."""
    plant(tmp_path / "targets/other.json", kind, tmp_path / "victim")
    done = refresh(config)
    assert done.code == 0
    assert "other.json was not written by clan-discovery and is left alone" in done.err
    assert command("diff", config, "--exit-code").code == 0
    assert unharmed(tmp_path / "victim")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["index.json", "backend-tailnet.json"])
def test_a_planted_state_file_is_set_aside(tmp_path: Path, config: Path, kind: str, name: str) -> None:
    """It is reported, and its memory is lost: during an outage the present files are kept."""
    plant(tmp_path / "state" / name, kind, tmp_path / "victim")
    before = (tmp_path / "targets/node.json").read_bytes()
    (tmp_path / "status.json").write_text("")
    shown = command("show", config)
    assert shown.code == 3
    assert f"cannot read {name}: it is a" in shown.err
    done = refresh(config)
    assert done.code == 3
    assert f"cannot read {name}, which is set aside: it is a" in done.err
    assert (tmp_path / "targets/node.json").read_bytes() == before
    (tmp_path / "status.json").write_text(json.dumps(fleet(NAMES)))
    assert refresh(config).err == ""
    assert (tmp_path / "state" / name).is_file()
    assert unharmed(tmp_path / "victim")


@pytest.mark.parametrize("kind", [*KINDS, "hard link"])
@pytest.mark.parametrize(
    "name", ["state/publishing/node.json.publishing", "state/index.json.new", "targets/.clan-discovery.owner.new"]
)
def test_a_planted_temporary_file_is_not_followed(tmp_path: Path, config: Path, kind: str, name: str) -> None:
    """It is removed, or named as in the way."""
    plant(tmp_path / name, kind, tmp_path / "victim")
    (tmp_path / "status.json").write_text(json.dumps(fleet(NAMES[1:])))
    done = refresh(config)
    assert "Traceback" not in done.err
    if kind != "directory":
        assert (done.code, done.err) == (0, "")
        assert "a:9100" not in (tmp_path / "targets/node.json").read_text()
    assert done.code in (0, 5)
    assert unharmed(tmp_path / "victim")


@needs_root
@pytest.mark.parametrize("kind", ["symlink", "another user's", "open to all", "fifo"])
@pytest.mark.parametrize("scratch", ["state/publishing", "targets/.clan-discovery.tmp"])
def test_a_scratch_directory_of_others_is_not_used(tmp_path: Path, config: Path, kind: str, scratch: str) -> None:
    """Other users could replace a prepared file before its rename."""
    place = tmp_path / scratch
    victim = tmp_path / "precious"
    victim.mkdir()
    (victim / "node.json.publishing").write_text("x")
    if place.exists():
        place.rmdir()
    match kind:
        case "symlink":
            place.symlink_to(victim)
        case "another user's":
            place.mkdir()
            os.chown(place, NOBODY, NOBODY)
        case "open to all":
            place.mkdir()
            place.chmod(0o777)
        case _:
            os.mkfifo(place)
    if scratch.startswith("targets"):
        (tmp_path / "state/publishing").rmdir()
        (tmp_path / "state/publishing").touch()
    (tmp_path / "status.json").write_text(json.dumps(fleet(NAMES[1:])))
    done = refresh(config)
    if scratch.startswith("targets"):
        assert done.code == 5
        assert ".clan-discovery.tmp is not a directory of this user's alone" in done.err
    else:
        assert (done.code, done.err) == (0, "")
    assert [file.name for file in victim.iterdir()] == ["node.json.publishing"]


@pytest.mark.parametrize("kind", [*KINDS, "hard link"])
def test_a_planted_temporary_metrics_file_is_not_followed(tmp_path: Path, config: Path, kind: str) -> None:
    """Other users may be able to write to the directory of the textfile collector."""
    plant(tmp_path / "x.prom.new", kind, tmp_path / "victim")
    done = refresh(config, "--metrics-file", tmp_path / "x.prom")
    assert done.code == (5 if kind == "directory" else 0)
    assert "Traceback" not in done.err
    assert unharmed(tmp_path / "victim")


@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_are_read_or_written(tmp_path: Path, kind: str) -> None:
    """Anything else is refused at once and not followed."""
    plant(tmp_path / "f", kind, tmp_path / "victim")
    with pytest.raises(UnusableFileError, match="not a regular file"):
        read_regular(tmp_path / "f")
    with pytest.raises(UnusableFileError, match="not a regular file"):
        has_content(tmp_path / "f", b"")
    with pytest.raises(UnusableFileError, match="not a regular file"):
        write_file(tmp_path / "f", b"new")
    assert unharmed(tmp_path / "victim")


def test_a_file_over_the_limit_is_not_read_to_its_end(tmp_path: Path) -> None:
    """Whatever size the kernel reports."""
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UnusableFileError, match="is larger than"):
        read_regular(tmp_path / "sparse", 1000)
    assert read_regular(Path("/proc/self/status")) != b""
    (tmp_path / "exact").write_bytes(b"x" * 1000)
    assert read_regular(tmp_path / "exact", 1000) == b"x" * 1000


@pytest.mark.parametrize("job", ["../x", "a/b", "", ".", "..", "x\0y", "-x", "x" * 300])
def test_a_job_that_is_no_file_name_is_not_written(tmp_path: Path, job: str) -> None:
    """The writer refuses it and writes no other file."""
    prepare(tmp_path / "targets")
    with pytest.raises(PublishError, match="cannot be the name of a file"):
        publish(tmp_path / "targets", {"node": b"[]\n", job: b"[]\n"}, tmp_path / "scratch")
    assert list((tmp_path / "targets").iterdir()) == []
    if "/" in job or "\0" in job:
        with pytest.raises(PublishError, match="cannot be the name of a file"):
            write_alone(tmp_path / "targets", {f"{job}.json": b"[]\n"})


def test_hostile_file_names_are_escaped(tmp_path: Path, config: Path, run: Run) -> None:
    """A file of ours with such a name is no job."""
    for name in (b"\x1b[2J\n.json", b"\xff\xc2\x9b.json", "\u202e.json".encode()):
        Path(os.fsdecode(os.fsencode(tmp_path / "targets") + b"/" + name)).write_bytes(b"{}")
    ours = (tmp_path / "targets/node.json").read_bytes()
    (tmp_path / "targets/\x1b[31m.json").write_bytes(ours)
    done = run("refresh", "-c", config)
    assert done.code == 0
    assert done.err.count("is left alone") == 4
    assert done.err.replace("\n", "").isprintable()
    assert (tmp_path / "targets/\x1b[31m.json").read_bytes() == ours
    done = run("diff", "-c", config, "--exit-code")
    assert (done.code, done.out) == (0, "nothing would change\n")
