"""The owner mark: an output directory belongs to one config and one user."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clan_discovery.assemble import directories
from clan_discovery.cli.main import main
from clan_discovery.config.load import load_config
from clan_discovery.errors import InputError, PublishError
from clan_discovery.publish.files import prepare
from clan_discovery.publish.lock import LOCK
from clan_discovery.publish.mark import MARK_FILE, check_owner, owner_complaint, read_owner, write_owner
from tests.support.fleet import fleet
from tests.support.programs import eventually
from tests.support.users import NOBODY, as_nobody, give_to_nobody, needs_root

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Done

    Run = Callable[..., Done]

PROGRAM = str(Path(sys.executable).with_name("clan-discovery"))


def write_config(place: Path, name: str, job: str, more: str = "") -> Path:
    """Write a config that selects every machine for one job, into the directory that all share."""
    (place / "status.json").write_text(json.dumps(fleet(["a", "b", "c"])))
    file = place / f"{name}.yaml"
    file.write_text(
        "backends: {tailscale: {tailnet: {status_file: status.json}}}\n"
        f"exporters: {{{job}: {{port: 1, select: {{tags: [server]}}}}}}\n"
        f"output: {{directory: targets{more}}}\nstate: state-{name}\n"
    )
    return file


def files(place: Path) -> dict[str, bytes]:
    """Return the published files."""
    return {file.name: file.read_bytes() for file in (place / "targets").glob("[!.]*")}


def test_another_config_is_refused_until_it_takes_over(tmp_path: Path, run: Run) -> None:
    """Exit 5 names both owners and `--take-over`. Then the first config is refused."""
    one, two = write_config(tmp_path, "one", "x"), write_config(tmp_path, "two", "y")
    assert run("refresh", "-c", one).code == 0
    before = files(tmp_path)
    done = run("refresh", "-c", two)
    assert done.code == 5
    assert f"belongs to config '{one}', and this is '{two}'" in done.err
    assert "refresh --take-over" in done.err
    assert files(tmp_path) == before
    assert not list((tmp_path / "state-two").glob("*.json"))
    done = run("refresh", "-c", two, "--take-over", "--quiet")
    assert done.code == 0
    assert done.err == f"clan-discovery: took over {tmp_path / 'targets'} from config '{one}'\n"
    assert json.loads(files(tmp_path)["x.json"]) == []
    assert run("refresh", "-c", two, "--take-over").err == ""
    two.rename(tmp_path / "three.yaml")
    assert f"config '{two}' (that file does not exist any more)" in run("refresh", "-c", one).err
    (tmp_path / "three.yaml").rename(two)
    assert run("refresh", "-c", two).code == 0


@settings(max_examples=15)
@given(st.lists(st.sampled_from(["one", "two", "three"]), min_size=2, max_size=5))
def test_two_configs_never_empty_each_others_files(turns: list[str]) -> None:
    """The first config owns the directory, with separate states, or without the earlier state."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for turn in turns:
            config = write_config(place, turn, f"job-{turn}")
            done = refresh(config)
            assert done == (0 if turn == turns[0] else 5)
            (place / f"state-{turns[0]}/index.json").unlink(missing_ok=True)
            assert set(files(place)) == {f"job-{turns[0]}.json"}
            assert len(json.loads(files(place)[f"job-{turns[0]}.json"])) == 3


def refresh(config: Path) -> int:
    """Refresh in this process."""
    return main(["refresh", "-c", str(config)], io.StringIO(), io.StringIO())


def test_the_owner_is_the_path_of_the_config(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path, a symlink that a rebuild changes, and $CLAN_DISCOVERY_CONFIG give one owner."""
    store = write_config(tmp_path, "store-1", "x")
    (tmp_path / "etc.yaml").symlink_to(store)
    assert run("refresh", "-c", tmp_path / "etc.yaml").code == 0
    assert read_owner(tmp_path / "targets") == f"{tmp_path}/etc.yaml"
    write_config(tmp_path, "store-2", "x")
    (tmp_path / "etc.yaml").unlink()
    (tmp_path / "etc.yaml").symlink_to("store-2.yaml")
    assert run("refresh", "-c", tmp_path / "etc.yaml").code == 0
    monkeypatch.chdir(tmp_path)
    for path in ("etc.yaml", "./etc.yaml", "targets/../etc.yaml"):
        assert run("refresh", "-c", path).code == 0
    monkeypatch.setenv("CLAN_DISCOVERY_CONFIG", "etc.yaml")
    assert run("refresh").code == 0
    assert run("refresh", "-c", "store-2.yaml").code == 5


def test_an_owner_name_does_not_depend_on_the_path(tmp_path: Path, run: Run) -> None:
    """The NixOS module sets a name, because its config has another path after each rebuild."""
    for name in ("store-1", "store-2"):
        assert run("refresh", "-c", write_config(tmp_path, name, "x", ", owner: monitoring")).code == 0
    assert (tmp_path / "targets" / MARK_FILE).read_text() == "monitoring\n"


@pytest.mark.parametrize("owner", ["''", '"a\\nb"', '"\\e[2J"', "x" * 201, "5", '"\\u202e"'])
def test_an_owner_is_one_line(tmp_path: Path, owner: str) -> None:
    """It is printed, and stored in a file of one line."""
    with pytest.raises(InputError, match=r"output\.owner"):
        load_config(write_config(tmp_path, "c", "x", f", owner: {owner}"))


def test_a_path_of_any_bytes_is_one_line(tmp_path: Path) -> None:
    """The owner may be the path of a config, which may have any bytes."""
    file = tmp_path / os.fsdecode(b"a\n\xff\x1b[2J.yaml")
    file.write_bytes(write_config(tmp_path, "c", "x").read_bytes())
    owner = directories(load_config(file)).owner
    assert owner.isprintable()
    prepare(tmp_path / "targets")
    write_owner(tmp_path / "targets", owner)
    assert read_owner(tmp_path / "targets") == owner


@pytest.mark.parametrize("mark", [b"", b"\n", b"\xff\n", b"a\nb\n", b"\x1b[2J\n", b"x" * 100_000, "\u202e\n".encode()])
def test_an_invalid_mark_is_another_owner(tmp_path: Path, run: Run, mark: bytes) -> None:
    """Without this, another config's files could be emptied.

    `--take-over` writes the mark again.
    """
    config = write_config(tmp_path, "c", "x")
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / MARK_FILE).write_bytes(mark)
    done = run("refresh", "-c", config)
    assert done.code == 5
    assert "its mark is damaged" in done.err
    assert done.err[:-1].isprintable()
    assert run("refresh", "-c", config, "--take-over").code == 0
    assert run("refresh", "-c", config).code == 0


@needs_root
def test_a_directory_is_handed_over_as_its_user(tmp_path: Path) -> None:
    """The command in the message succeeds."""
    (tmp_path / MARK_FILE).write_text("other\n")
    complaint = owner_complaint(tmp_path, "me", 54321)
    assert complaint is not None
    assert "run `sudo -u '#54321' clan-discovery refresh --take-over` once" in (complaint.hint or "")
    complaint = owner_complaint(tmp_path, "me", os.geteuid())
    assert complaint is not None
    assert "run `clan-discovery refresh --take-over` once with it, as user root" in (complaint.hint or "")


def test_a_long_owner_is_cut_in_a_message(tmp_path: Path) -> None:
    """Any program may have written the mark."""
    (tmp_path / MARK_FILE).write_text("x" * 5000 + "\n")
    with pytest.raises(PublishError) as caught:
        check_owner(tmp_path, "me", take_over=False)
    assert len(str(caught.value)) < 500


def test_the_mark_is_written_once_and_only_with_targets(tmp_path: Path, run: Run) -> None:
    """Not by an unchanged cycle or with an invalid inventory.

    A directory without a mark is adopted.
    """
    config = write_config(tmp_path, "c", "x")
    (tmp_path / "targets").mkdir()
    broken = tmp_path / "broken.yaml"
    broken.write_text(config.read_text() + "inventory: {file: missing.json}\n")
    assert run("refresh", "-c", broken).code == 2
    assert read_owner(tmp_path / "targets") is None
    assert run("refresh", "-c", config).code == 0
    before = (tmp_path / "targets" / MARK_FILE).stat(), (tmp_path / "targets").stat().st_mtime_ns
    assert run("refresh", "-c", config).code == 0
    assert ((tmp_path / "targets" / MARK_FILE).stat().st_ino, (tmp_path / "targets").stat().st_mtime_ns) == (
        before[0].st_ino,
        before[1],
    )
    assert before[0].st_mode & 0o777 == 0o644


def test_refresh_output_marks_the_directory(tmp_path: Path, run: Run) -> None:
    """`refresh --output DIR` writes the same owner there."""
    one, two = write_config(tmp_path, "one", "x"), write_config(tmp_path, "two", "y")
    assert run("refresh", "-c", one).code == 0
    assert run("refresh", "-c", two, "--output", tmp_path / "elsewhere").code == 0
    assert read_owner(tmp_path / "elsewhere") == str(two)
    assert run("refresh", "-c", one, "--output", tmp_path / "elsewhere").code == 5


def test_run_survives_a_take_over_of_its_directory(tmp_path: Path, run: Run) -> None:
    """It logs an error, writes nothing, and continues when it owns the directory again."""
    one, two = write_config(tmp_path, "one", "x"), write_config(tmp_path, "two", "y")
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([PROGRAM, "run", "-c", str(one), "--interval", "1s"], stderr=stderr)
    try:
        eventually("it publishes", lambda: len(json.loads(files(tmp_path).get("x.json", b"[]"))) == 3)
        assert run("refresh", "-c", two, "--take-over").code == 0
        eventually("it says whose it is", lambda: f"belongs to config '{two}'" in log.read_text())
        assert json.loads(files(tmp_path)["x.json"]) == []
        assert run("refresh", "-c", one, "--take-over").code == 0
        eventually("it goes on", lambda: "refresh cycles succeed again" in log.read_text())
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(60)


def test_doctor_reports_another_owner(tmp_path: Path, run: Run) -> None:
    """Before a refresh is refused."""
    one, two = write_config(tmp_path, "one", "x"), write_config(tmp_path, "two", "y")
    assert run("refresh", "-c", one).code == 0
    assert run("doctor", "-c", one).code == 0
    done = run("doctor", "-c", two)
    assert done.code == 5
    assert f"belongs to config '{one}'" in done.out
    assert "to fix: if it is the same config at another path, run `clan-discovery refresh --take-over` once" in done.out
    done = run("diff", "-c", two)
    assert done.code == 0
    assert f"warning: `refresh` would be refused: output directory {tmp_path / 'targets'} belongs to" in done.err
    assert run("diff", "-c", one).err == ""
    (tmp_path / "targets" / MARK_FILE).unlink()
    (tmp_path / "targets" / MARK_FILE).mkdir()
    done = run("doctor", "-c", one)
    assert done.code == 5
    assert f"{MARK_FILE} is a directory" in done.out


# --- the user ---------------------------------------------------------------------------------------------------------


def give(uid: int, *paths: Path) -> None:
    """Change the owner of paths and everything below them."""
    for path in paths:
        for file in (path, *path.rglob("*")):
            os.chown(file, uid, uid)


@needs_root
def test_root_does_not_refresh_with_the_state_of_another_user(tmp_path: Path, run: Run) -> None:
    """It would leave files that the service cannot read.

    The error has the right command.
    """
    config = write_config(tmp_path, "c", "x")
    assert run("refresh", "-c", config).code == 0
    give(54321, tmp_path / "state-c")
    (tmp_path / "status.json").write_text(json.dumps(fleet(["a"])))
    before = files(tmp_path)
    for more in ((), ("--accept-shrink",)):
        done = run("refresh", "-c", config, *more)
        assert done.code == 5
        assert f"{tmp_path / 'state-c'} belongs to user '#54321'" in done.err
        assert "with the same options: sudo -u '#54321' clan-discovery refresh" in done.err
        assert f"sudo chown -R root {tmp_path / 'state-c'}" in done.err
    assert files(tmp_path) == before
    (tmp_path / "state-c").chmod(0o755)
    done = run("refresh", "-c", config)
    assert "set `state` to a directory of this user's own" in done.err
    assert "chown" not in done.err  # it may be a system directory
    os.chown(tmp_path / "targets", 54321, 54321)
    give(54321, tmp_path / "targets")
    done = run("doctor", "-c", config)
    assert done.code == 0
    assert "sudo -u '#54321' clan-discovery refresh" in done.out
    assert "WARN" not in done.out
    assert "to fix" not in done.out


@needs_root
def test_root_writes_into_a_directory_of_another_user(tmp_path: Path, run: Run) -> None:
    """If the state belongs to root.

    The files are readable, and the lock belongs to the directory's owner.
    """
    config = write_config(tmp_path, "c", "x")
    (tmp_path / "targets").mkdir()
    give_to_nobody(tmp_path)
    give(0, tmp_path)
    tmp_path.chmod(0o755)
    os.chown(tmp_path / "targets", NOBODY, NOBODY)
    for _ in range(2):
        assert run("refresh", "-c", config).code == 0
        assert (tmp_path / "targets" / LOCK).stat().st_uid == NOBODY
    assert (tmp_path / "state-c" / LOCK).stat().st_uid == 0
    assert run("doctor", "-c", config).code == 0
    theirs = write_config(tmp_path, "theirs", "x", f", owner: {config}")
    (tmp_path / "state-theirs").mkdir()
    os.chown(tmp_path / "state-theirs", NOBODY, NOBODY)
    assert as_nobody("refresh", "-c", theirs).code == 0


@needs_root
def test_root_prepares_no_files_in_a_directory_of_another_user(tmp_path: Path, run: Run) -> None:
    """Its owner could replace the directory of prepared files by a symlink."""
    config = write_config(tmp_path, "c", "x")
    (tmp_path / "targets").mkdir()
    os.chown(tmp_path / "targets", 54321, 54321)
    (tmp_path / "state-c").mkdir()
    (tmp_path / "state-c/publishing").write_text("unusable")
    done = run("refresh", "-c", config)
    assert done.code == 5
    assert f"chown root {tmp_path / 'targets'}" in done.err


@needs_root
@pytest.mark.parametrize("missing", ["output", "state", "both"])
def test_root_creates_no_directory_for_another_user(tmp_path: Path, run: Run, missing: str) -> None:
    """Before the first cycle of a service, only the parent directory belongs to its user."""
    config = write_config(tmp_path, "c", "x")
    service = tmp_path / "service"
    service.mkdir()
    os.chown(service, 54321, 54321)
    places = {"output": tmp_path / "targets", "state": tmp_path / "state-c"}
    for name in places:
        if missing in (name, "both"):
            places[name] = service / "new" / name
    text = config.read_text().replace("directory: targets", f"directory: {places['output']}")
    config.write_text(text.replace("state: state-c", f"state: {places['state']}"))
    done = run("refresh", "-c", config)
    assert done.code == 5
    assert f"{service} belongs to user '#54321'" in done.err
    assert list(service.iterdir()) == []
    assert run("doctor", "-c", config).code == 0
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    assert run("refresh", "-c", config).code == 0


@needs_root
def test_a_refused_user_evaluates_nothing(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbering an evaluation would write the state."""
    nix = tmp_path / "bin/nix"
    nix.parent.mkdir()
    nix.write_text(f"#!/bin/sh\ntouch {tmp_path}/evaluated\necho '{{}}'\n")
    nix.chmod(0o755)
    monkeypatch.setenv("PATH", f"{nix.parent}:{os.environ['PATH']}")
    config = write_config(tmp_path, "c", "x")
    config.write_text(config.read_text() + f"inventory: {{flake: {tmp_path}}}\n")
    (tmp_path / "state-c").mkdir()
    os.chown(tmp_path / "state-c", 54321, 54321)
    done = run("refresh", "-c", config)
    assert done.code == 5
    assert "belongs to user '#54321'" in done.err
    assert list((tmp_path / "state-c").iterdir()) == []
    assert not (tmp_path / "evaluated").exists()


@needs_root
def test_a_refused_user_leaves_no_lock(tmp_path: Path, run: Run) -> None:
    """In a group-writable directory, with its own state or that of the other user."""
    one = write_config(tmp_path, "one", "x")
    two = write_config(tmp_path, "two", "y")
    give_to_nobody(tmp_path)
    give(0, tmp_path)
    tmp_path.chmod(0o755)
    assert run("refresh", "-c", one).code == 0
    (tmp_path / "targets").chmod(0o777)
    (tmp_path / "targets" / LOCK).unlink()
    (tmp_path / "state-two").mkdir()
    os.chown(tmp_path / "state-two", NOBODY, NOBODY)
    done = as_nobody("refresh", "-c", one)
    assert done.code == 5
    assert f"{tmp_path / 'state-one'} belongs to user root" in done.err
    done = as_nobody("refresh", "-c", two)
    assert done.code == 5
    assert f"belongs to config '{one}'" in done.err
    assert not (tmp_path / "targets" / LOCK).exists()
    assert run("refresh", "-c", one).code == 0


@needs_root
def test_files_of_root_in_the_state_are_reported_with_the_fix(tmp_path: Path, run: Run) -> None:
    """`doctor` reports them to either user."""
    config = write_config(tmp_path, "c", "x")
    assert run("refresh", "-c", config).code == 0
    give_to_nobody(tmp_path)
    os.chown(tmp_path / "state-c/index.json", 0, 0)
    command = f"sudo chown -R nobody {tmp_path / 'state-c'}"
    done = as_nobody("refresh", "-c", config)
    assert done.code == 5
    assert "index.json: it belongs to user root" in done.err
    assert command in done.err
    for done in (as_nobody("doctor", "-c", config), run("doctor", "-c", config)):
        assert done.code == 5
        assert f"to fix: {command}" in done.out
    subprocess.run(command.removeprefix("sudo ").split(), check=True)
    assert as_nobody("refresh", "-c", config).code == 0
    assert as_nobody("doctor", "-c", config).code == 0


@needs_root
def test_an_unmapped_user_is_not_compared(tmp_path: Path, run: Run) -> None:
    """In a user namespace, the kernel shows 65534 for every user outside of it."""
    config = write_config(tmp_path, "c", "x")
    (tmp_path / "state-c").mkdir()
    os.chown(tmp_path / "state-c", 65534, 65534)
    done = run("refresh", "-c", config)
    assert f"belongs to another user (see: ls -ldn {tmp_path / 'state-c'})" in done.err
    assert "sudo -u" not in done.err
