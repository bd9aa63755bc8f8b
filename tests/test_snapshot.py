"""`snapshot`: targets as a file to commit, read by real Nix and not overwritten by a worse answer."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
from typing import TYPE_CHECKING, TypeAlias

import pytest

from clan_discovery.cli.main import main
from clan_discovery.emit.snapshot import observed_machines
from tests.conftest import ROOT
from tests.support.fleet import fleet, inventory, node, status
from tests.support.programs import nix_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run: TypeAlias = Callable[..., Done]

NAMES = ["monitor", "a", "b", "c", "d"]
JOB: Json = {"job_name": "mine", "static_configs": [{"targets": ["x:1"]}]}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a directory with a config, an inventory of five machines and a tailnet that sees four."""
    (tmp_path / "config.yaml").write_text(
        "inventory: {file: inventory.json}\nbackends: {tailscale: {tailnet: {status_file: status.json}}}\n"
        "output: {directory: targets}\n"
    )
    write(tmp_path / "inventory.json", inventory(NAMES, server={"additionalScrapeConfigs": [JOB]}))
    write(tmp_path / "status.json", fleet(NAMES[:4]))
    return tmp_path


def write(file: Path, document: Json) -> None:
    """Write a JSON file."""
    file.write_text(json.dumps(document))


def snapshot(run: Run, home: Path, name: str, *more: str) -> Done:
    """Take a snapshot with the config of this directory."""
    return run("snapshot", "-c", home / "config.yaml", "--output", home / name, *more)


@pytest.mark.parametrize("which", ["debian", "newer"])
def test_nix_and_json_are_equal(home: Path, run: Run, which: str) -> None:
    """The Nix form is that of `show --format nix`, and nix/lib makes the same jobs of both."""
    for name in ("targets.nix", "targets.json"):
        done = snapshot(run, home, name)
        assert (done.code, done.out) == (0, f"{home / name}  written\n")
        assert done.err == "clan-discovery: missing: d\n"
    assert (home / "targets.nix").read_text() == run("show", "-c", home / "config.yaml", "--format", "nix").out
    assert (home / "targets.nix").stat().st_mode & 0o777 == 0o644
    found = json.loads((home / "targets.json").read_bytes())
    assert (home / "targets.json").read_text() == json.dumps(found, indent=2, sort_keys=True) + "\n"
    assert found.keys() == {"additionalScrapeConfigs", "jobs"}
    assert found["additionalScrapeConfigs"] == [JOB]
    assert [group["targets"] for group in found["jobs"]["node"]][-1] == ["100.64.0.1:9100"]
    expression = (
        f"let cd = import {ROOT}/nix/lib; a = import {home}/targets.nix; "
        f"b = builtins.fromJSON (builtins.readFile {home}/targets.json); in "
        "{ same = a == b; jobs = cd.staticJobs a; same_jobs = cd.staticJobs a == cd.staticJobs b; "
        "more = cd.additional b; }"
    )
    words = [nix_program("nix-instantiate", which), "--eval", "--strict", "--json", "--store", "dummy://"]
    read = json.loads(subprocess.run([*words, "-E", expression], capture_output=True, text=True, check=True).stdout)
    assert (read["same"], read["same_jobs"], read["more"]) == (True, True, [JOB])
    assert read["jobs"] == [{"job_name": "node", "static_configs": found["jobs"]["node"]}]


def test_volatile_state_does_not_change_a_snapshot(home: Path, run: Run) -> None:
    """Offline machines, traffic, a relay, the clock: unchanged, and not written."""
    for name in ("targets.nix", "targets.json"):
        snapshot(run, home, name)
        stamp = (home / name).stat().st_mtime_ns
        volatile: dict[str, Json] = {"Online": False, "Relay": "nyc", "RxBytes": 9, "LastSeen": "2026-11-20T00:00:00Z"}
        others = [node(number, machine, **volatile) for number, machine in enumerate(NAMES[1:4], 2)]
        write(home / "status.json", status([node(1, "monitor"), *reversed(others)]))
        done = snapshot(run, home, name)
        assert (done.code, done.out) == (0, f"{home / name}  unchanged\n")
        assert (home / name).stat().st_mtime_ns == stamp
        assert snapshot(run, home, name, "--check").code == 0
    assert not (home / "targets").exists()  # nothing is published or remembered
    assert not (home / "targets.state").exists()


@pytest.mark.parametrize("name", ["targets.nix", "targets.json"])
def test_an_outage_keeps_the_snapshot(home: Path, run: Run, name: str) -> None:
    """Exit 3 with the reason.

    The file is written if it is missing or empty, or with --force.
    """
    assert snapshot(run, home, name).code == 0
    before = (home / name).read_bytes()
    (home / "status.json").write_text("{")
    for more in ((), ("--check",)):
        done = snapshot(run, home, name, *more)
        assert (done.code, done.out) == (3, "")
        assert "backend tailnet: " in done.err
        assert f"{home / name} is kept unchanged: backend tailnet failed" in done.err
        assert (home / name).read_bytes() == before
    done = snapshot(run, home, name, "--force", "--check")
    assert done.code == 3
    assert "a.home.arpa:9100" in done.out
    assert (home / name).read_bytes() == before
    done = snapshot(run, home, name, "--force")
    assert (done.code, done.out) == (3, f"{home / name}  written\n")
    assert "review it before committing" in done.err
    assert b"a.home.arpa:9100" in (home / name).read_bytes()
    (home / name).write_text("")  # an empty file has no snapshot to keep
    done = snapshot(run, home, name)
    assert (done.code, done.out) == (3, f"{home / name}  written\n")
    assert "review it before committing" in done.err


def test_a_held_loss_keeps_the_snapshot(home: Path, run: Run) -> None:
    """Exit 4 if the memory of `refresh` shows that most machines are lost at once."""
    write(home / "status.json", fleet(NAMES))
    run("refresh", "-c", home / "config.yaml")
    assert snapshot(run, home, "targets.nix").code == 0
    before = (home / "targets.nix").read_bytes()
    write(home / "status.json", fleet(NAMES[:1]))
    write(home / "inventory.json", inventory(NAMES))
    done = snapshot(run, home, "targets.nix")
    assert (done.code, done.out) == (4, "")
    assert "is kept unchanged: a loss of tailnet is held" in done.err
    assert (home / "targets.nix").read_bytes() == before
    assert snapshot(run, home, "targets.nix", "--force").code == 4
    assert (home / "targets.nix").read_bytes() != before


@pytest.mark.parametrize("name", ["targets.nix", "targets.json"])
def test_a_loss_is_held_without_a_memory(home: Path, run: Run, name: str) -> None:
    """Without it the file tells which machines were seen; policy.max_shrink limits the loss."""
    names = [*NAMES, "e"]
    write(home / "inventory.json", inventory(names))
    write(home / "status.json", fleet(names))
    assert snapshot(run, home, name).code == 0
    before = (home / name).read_text()
    assert len(observed_machines(before)) == 6
    write(home / "status.json", fleet(["stranger"]))
    for more in ((), ("--check",)):
        done = snapshot(run, home, name, *more)
        assert (done.code, done.out) == (4, "")
        assert "is kept unchanged: of its 6 observed machines, 0 would be left (policy.max_shrink" in done.err
        assert "--force overwrites the file anyway" in done.err
        assert (home / name).read_text() == before
    assert snapshot(run, home, name, "--check", "--force").code == 2
    write(home / "status.json", fleet(names[:2]))  # a third is left
    assert snapshot(run, home, name).code == 4
    write(home / "status.json", fleet(names[:3]))  # half may be lost
    done = snapshot(run, home, name)
    assert (done.code, done.out) == (0, f"{home / name}  written\n")
    assert done.err == "clan-discovery: missing: c, d, e\n"
    write(home / "status.json", fleet(["stranger"]))  # the guard needs more than three
    assert snapshot(run, home, name).code == 0
    assert observed_machines((home / name).read_text()) == set()


def test_observed_machines_are_read_from_labels() -> None:
    """A machine with two jobs counts once; text within a string is no label."""
    text = """{ jobs.node = [
      { labels = { __meta_clan_observed = "true"; __meta_x = "machine = \\"no\\";"; machine = "a"; }; targets = [ "a" ]; }
      { labels = { __meta_clan_observed = "false"; machine = "b"; x = "__meta_clan_observed = \\"true\\""; }; targets = [ ]; }
      { labels = { __meta_clan_observed = "true"; "machine" = "a"; }; targets = [ ]; }
      { labels = { __meta_clan_observed = "true"; }; targets = [ ]; }
      { labels = { machine = "d"; }; targets = [ ]; }
    ]; }"""  # noqa: E501
    assert observed_machines(text) == {"a"}


@pytest.mark.parametrize("buffering", [1, 1 << 20])
def test_a_closed_pipe_keeps_message_and_exit_code(home: Path, run: Run, buffering: int) -> None:
    """`| head` closes the output at its first line or at its last flush."""
    snapshot(run, home, "targets.nix")
    run("refresh", "-c", home / "config.yaml")
    write(home / "status.json", fleet(["monitor", "x", *NAMES[2:4]]))
    check = ("snapshot", "-c", f"{home}/config.yaml", "--output", f"{home}/targets.nix", "--check")
    for words, code in ((check, 2), (("diff", "-c", f"{home}/config.yaml", "--exit-code"), 1)):
        reader, writer = os.pipe()
        os.close(reader)
        out, err = os.fdopen(writer, "w", buffering), io.StringIO()
        assert main(words, out, err) == code
        assert ("is out of date" in err.getvalue()) == (words is check)
        with contextlib.suppress(BrokenPipeError):
            out.close()


@pytest.mark.parametrize("name", ["targets.nix", "targets.json"])
def test_check_prints_the_diff(home: Path, run: Run, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 2, and nothing is written. Without a difference: exit 0 and no output."""
    done = snapshot(run, home, name, "--check")
    assert done.code == 2
    assert not (home / name).exists()
    assert f"run clan-discovery snapshot --config {home}/config.yaml --output {home / name})" in done.err
    monkeypatch.setenv("CLAN_DISCOVERY_CONFIG", str(home / "config.yaml"))
    done = run("snapshot", "--output", home / "a b.nix", "--check")
    assert f"run clan-discovery snapshot --output '{home}/a b.nix')" in done.err
    snapshot(run, home, name)
    done = snapshot(run, home, name, "--check")
    assert (done.code, done.out, done.err) == (0, "", "")
    before = (home / name).read_bytes()
    write(home / "status.json", fleet(["monitor", "x", *NAMES[2:4]]))
    done = snapshot(run, home, name, "--check")
    assert done.code == 2
    assert done.out.startswith(f"--- {home / name}\n+++ {home / name}\n@@ ")
    changed = re.findall(r'^([-+]).*"(.+:9100)"', done.out, re.MULTILINE)
    assert changed == [("-", "100.64.0.2:9100"), ("+", "a.tail1a2b3.ts.net:9100")]
    assert (home / name).read_bytes() == before
    (home / name).write_bytes(before.replace(b"\n", b"\r\n"))
    write(home / "status.json", fleet(NAMES[:4]))
    assert snapshot(run, home, name, "--check").code == 2
    assert snapshot(run, home, name).out.endswith("  written\n")
    assert (home / name).read_bytes() == before


@pytest.mark.parametrize(
    "text",
    [
        "{ outputs = _: { }; }",
        '{"machines": {}}',
        "not UTF-8: \udcff",
        '{ additionalScrapeConfigs = [ { job_name = "a"; } ]; discoveryMethod = "dns"; }',
        '{ additionalScrapeConfigs = [ { jobs = "a"; } ]; }',
        '{"additionalScrapeConfigs": ["jobs"], "discoveryMethod": {"jobs": 1}}',
        '{"additionalScrapeConfigs": [], "discoveryMethod": "dns", "jobs": {}}',
    ],
)
@pytest.mark.parametrize("name", ["flake.nix", "inventory.json"])
def test_a_file_that_is_no_snapshot_is_not_replaced(home: Path, run: Run, name: str, text: str) -> None:
    """A mistyped path does not overwrite a flake; --force does."""
    (home / "sub").mkdir()
    file = home / "sub" / name
    file.write_bytes(text.encode(errors="surrogateescape"))
    for more in ((), ("--check",)):
        done = snapshot(run, home, f"sub/{name}", *more)
        assert (done.code, done.out) == (2, "")
        assert "exists and is not a snapshot" in done.err
        assert file.read_bytes() == text.encode(errors="surrogateescape")
    assert snapshot(run, home, f"sub/{name}", "--force").code == 0
    assert b"additionalScrapeConfigs" in file.read_bytes()
    file.write_text(
        '\n{ additionalScrapeConfigs = [ ];\n\n  "jobs" ={ a=[{ b = "}"; }]; }; }\n'
    )  # as another formatter writes it
    assert snapshot(run, home, f"sub/{name}").out.endswith("  written\n")


def test_invalid_output_paths_are_refused(home: Path, run: Run) -> None:
    """A wrong or missing suffix: exit 2.

    A symlink, a directory or an impossible path: exit 5.
    """
    for name in ("targets.yaml", "targets"):
        done = snapshot(run, home, name)
        assert done.code == 2
        assert "does not end in .nix or .json" in done.err
    assert run("snapshot", "-c", home / "config.yaml").code == 2
    (home / "other.nix").write_text("1")
    (home / "link.nix").symlink_to(home / "other.nix")
    assert snapshot(run, home, "link.nix").code == 2
    assert snapshot(run, home, "link.nix", "--force").code == 5
    assert (home / "other.nix").read_text() == "1"
    (home / "dir.nix").mkdir()
    done = snapshot(run, home, "dir.nix")
    assert (done.code, done.out) == (5, "")
    assert "dir.nix is not a regular file" in done.err
    for more in ((), ("--check",)):
        done = snapshot(run, home, f"{'x' * 300}.nix", *more)
        assert (done.code, done.out) == (5, "")
        assert "cannot read" in done.err
        assert "File name too long" in done.err
    if os.path.exists("/proc/1/mem"):  # noqa: PTH110 - where no directory can be created
        done = run("snapshot", "-c", home / "config.yaml", "--output", "/proc/no/targets.nix")
        assert done.code == 5
        assert "Traceback" not in done.err


@pytest.mark.parametrize("name", ["targets.nix", "targets.json"])
def test_hostile_host_names_are_safe_in_a_snapshot(home: Path, run: Run, name: str) -> None:
    """No escape sequence on the terminal, no NUL in the file, and no crash on an unpaired surrogate."""
    evil = "x\x1b[2J\u202e\u2028y"
    others = [node(2, "a", HostName=evil), node(3, "b", HostName="\0")]
    write(home / "status.json", status([node(1, "monitor"), *others]))
    done = snapshot(run, home, name, "--check")
    assert done.code == 2
    assert "[2J" in done.out
    assert not {"\x1b", "\u202e", "\u2028"} & set(done.out + done.err)
    snapshot(run, home, name)
    assert "\\u0000" not in (home / name).read_text()
    assert "\0" not in (home / name).read_text()
    assert snapshot(run, home, name, "--check").out == ""
    (home / "status.json").write_text(json.dumps(fleet(NAMES[:2])).replace('"HostName": "a"', '"HostName": "\\ud800"'))
    assert snapshot(run, home, name, "--force").code in (0, 3)
    nul: Json = {"job_name": "n", "x": "a\0b"}
    write(home / "inventory.json", inventory(NAMES, server={"additionalScrapeConfigs": [nul]}))
    before = (home / name).read_bytes()
    done = snapshot(run, home, name, "--force")
    assert (done.code, done.out) == (2, "")
    assert "Nix has no strings with NUL" in done.err
    assert (home / name).read_bytes() == before
