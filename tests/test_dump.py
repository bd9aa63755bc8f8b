"""`dump` with real Nix: a clan's inventory, settings and exports as files, also where a part of it cannot be had."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from clan_discovery.inventory.flake import EXPORTS, INVENTORY, SETTINGS, Query
from clan_discovery.publish import locked
from tests.conftest import ROOT
from tests.support.programs import nix_program, program

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run: TypeAlias = Callable[..., Done]

THROWS = 'throw "getPublicValue: Public value db/yggdrasil/address not found!"'


@pytest.fixture(params=["debian", "newer"])
def clan(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a flake of a clan's shape; Nix has a store and a home of its own, and asks no network."""
    nix = nix_program("nix", str(request.param))
    monkeypatch.setenv("PATH", f"{Path(nix).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("NIX_REMOTE", str(tmp_path / "store"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home/.cache"))
    monkeypatch.setenv("NIX_CONFIG", "substituters =\nsandbox = false\nbuild-users-group =")
    return Path(shutil.copytree(ROOT / "tests/nix/flake", tmp_path / "clan"))


def edit(clan: Path, old: str, new: str) -> None:
    """Change the flake."""
    text = (clan / "flake.nix").read_text()
    assert old in text
    (clan / "flake.nix").write_text(text.replace(old, new))


def document(file: Path) -> Json:
    """Read a file that was written whole: JSON, sorted, indented, with a newline at the end."""
    text = file.read_text()
    found: Json = json.loads(text)
    assert text == json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return found


def plain(clan: Path) -> Path:
    """Return a Nix file of the same values, beside no flake."""
    file = clan.parent / "plain/a clan.nix"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f'(import {clan}/flake.nix).outputs {{ self = "/nix/store/{"0" * 32}-source"; }}')
    return file


def commit(directory: Path) -> None:
    """Make a repository of a directory."""
    me = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    for words in (("init", "-q"), ("add", "."), (*me, "commit", "-qm", "clan")):
        subprocess.run([program("git"), *words], cwd=directory, check=True, capture_output=True)


def test_three_files_of_a_flake_and_of_a_plain_file(clan: Path, run: Run, tmp_path: Path) -> None:
    """A scope that throws is null and the others stand; written once, and read by `inventory`."""
    out = tmp_path / "new/out"
    done = run("dump", "--flake", f"path:{clan}", "--output", out)
    files = [out / f"{name}.json" for name in ("inventory", "settings", "exports")]
    assert (done.code, done.err) == (0, "")
    assert done.out == "".join(f"{file}  written\n" for file in files)
    assert sorted(out.iterdir()) == sorted(files)
    assert document(files[1]) == {
        "self-prometheus": {"monitoring": {"exporter": {"db": {"port": 9300}, "monitor": {"port": 9200}}, "server": {}}}
    }
    assert document(files[2]) == {
        "clan-core/tor:tor::db": {"networking": None, "peer": None},
        "clan-core/wireguard:wg::": {
            "networking": {"module": "clan_lib.network.direct", "priority": 1000},
            "peer": None,
        },
        "clan-core/wireguard:wg:peer:db": {"networking": None, "peer": {"hosts": [{"plain": "db.wg"}]}},
        "clan-core/yggdrasil:ygg:default:db": {"networking": None, "peer": None},
    }
    read = run("inventory", "--file", files[0], "--settings", files[1])
    ports = {e["machine"]: e["port"] for e in json.loads(read.out)["exporters"]}
    assert ports == {"db": 9300, "monitor": 9200}
    named = [("--flake", f"path:{clan}"), ("--file", files[0]), ("--file", files[0], "--settings", files[1])]
    assert {run("machines", *words).out for words in named} == {"db\nmonitor\n"}
    stamps = [file.stat().st_mtime_ns for file in files]
    edit(clan, "# As small", "# The flake lies elsewhere in the store now. As small")
    for words in (("--flake", f"path:{clan}"), ("--file", plain(clan))):
        done = run("dump", *words, "--output", out)
        assert (done.code, done.err) == (0, "")
        assert done.out == "".join(f"{file}  unchanged\n" for file in files)
    assert [file.stat().st_mtime_ns for file in files] == stamps
    assert '"_file": "source/clan.nix, via option x"' in files[0].read_text()


@pytest.mark.parametrize(
    ("old", "new", "name", "said"),
    [
        ("_services.all", "_services.every", "settings", "does not provide attribute"),
        ("config.port = 9200;", "x = 1;", "settings", "attribute 'config' missing"),
        (THROWS, 'abort "no more"', "exports", "'no more'"),
        ("clan.exports =", "clan.outs =", "exports", "does not provide attribute"),
    ],
)
def test_settings_and_exports_may_fail(  # noqa: PLR0917 - a fixture each, and a case
    clan: Path, run: Run, tmp_path: Path, old: str, new: str, name: str, said: str
) -> None:
    """Exit 3, one warning with what Nix said and the mend; the old file stands, the others are written."""
    out = tmp_path / "out"
    out.mkdir()
    (out / f"{name}.json").write_text("the old one")
    edit(clan, old, new)
    done = run("dump", "--flake", f"path:{clan}", "--output", out)
    assert done.code == 3
    assert (out / f"{name}.json").read_text() == "the old one"
    others = [f"{out}/{other}.json  written" for other in ("inventory", "settings", "exports") if other != name]
    assert done.out.splitlines() == others
    (line,) = done.err.splitlines()
    start = f"clan-discovery: warning: {out}/{name}.json stands as it was: flake path:{clan}: nix eval exited with 1: "
    assert line.startswith(start)
    assert said in line
    assert f"(see: nix eval --json path:{clan}#clan." in line  # nothing of git: of a path, Nix sees every file
    (out / f"{name}.json").unlink()
    again = run("dump", "--flake", f"path:{clan}", "--output", out)
    assert again.code == 3
    assert f"{name}.json is not written: " in again.err
    assert not (out / f"{name}.json").exists()


def test_without_an_inventory_nothing_is_written(clan: Path, run: Run, tmp_path: Path) -> None:
    """Exit 2 with the place, though Nix 2.8 has printed a half by then; a directory is not even made."""
    out = tmp_path / "out"
    edit(clan, 'meta.domain = "home.arpa";', 'meta.domain = 1 + "x";')
    done = run("dump", "--flake", f"path:{clan}", "--output", out)
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith(f"clan-discovery: flake path:{clan}: nix eval exited with 1: cannot add a string to an int")
    lines = (clan / "flake.nix").read_text().splitlines()
    number = next(number for number, text in enumerate(lines, 1) if "meta.domain" in text)
    assert re.search(rf"-source/flake\.nix:{number}:\d+ \(see: nix eval", line)
    assert "truncated" not in line
    assert not out.exists()
    edit(clan, 'meta.domain = 1 + "x";', 'meta.domain = "a b";')
    done = run("dump", "--flake", f"path:{clan}", "--output", out)
    assert (done.code, done.out) == (2, "")
    assert "meta.domain" in done.err
    assert not out.exists()


@pytest.mark.parametrize(
    "cut", ["head -c 40", "sed s/.*/[]/", "sed s/.*/[[]]/", "cat /dev/null", """sed 's/.*/{"a":1}/'"""]
)
@pytest.mark.parametrize("query", [INVENTORY, SETTINGS, EXPORTS], ids=lambda query: str(query.name))
def test_an_answer_counts_only_where_it_is_whole(  # noqa: PLR0917 - as above
    clan: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: Query, cut: str
) -> None:
    """Real Nix through a pipe that takes a part away and exits with 0."""
    out = tmp_path / "out"
    assert run("dump", "--flake", f"path:{clan}", "--output", out).code == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    edit(clan, "9300", "9301")
    edit(clan, "db.wg", "db.wg2")
    edit(clan, "home.arpa", "home2.arpa")
    script = tmp_path / "bin/nix"
    script.parent.mkdir()
    real = shutil.which("nix")
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *{query.attribute}*) {real} "$@" | {cut};; *) exec {real} "$@";; esac\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    done = run("dump", "--flake", f"path:{clan}", "--output", out)
    after = {file.name: file.read_bytes() for file in out.iterdir()}
    stands = set(before) if query is INVENTORY else {f"{query.name}.json"}
    assert done.code == (2 if query is INVENTORY else 3)
    assert {name for name in before if before[name] == after[name]} == stands
    assert done.err.count("\n") == 1


def test_what_git_does_not_know_nix_does_not_see(
    clan: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint is `git add`; Nix's own warnings are shown where it failed, each once, and only there."""
    commit(clan)
    monkeypatch.chdir(clan)
    (clan / "domain.nix").write_text('"home.arpa"\n')
    edit(clan, 'meta.domain = "home.arpa"', "meta.domain = import ./domain.nix")
    done = run("dump", "--flake", ".", "--output", tmp_path / "out")
    assert done.code == 2
    warning, line = done.err.splitlines()
    assert warning == f"clan-discovery: warning: flake .: Git tree '{clan}' is dirty"
    assert "domain.nix" in line
    assert "(uncommitted new files are invisible to a git flake: git add them; see: nix eval" in line
    subprocess.run([program("git"), "add", "."], check=True)
    done = run("dump", "--flake", ".", "--output", tmp_path / "out")
    assert (done.code, done.err) == (0, "")
    edit(clan, "clan._services", "clan._renamed")
    edit(clan, "clan.exports", "clan.renamed")
    done = run("dump", "--flake", ".", "--output", tmp_path / "out")
    assert done.code == 3
    assert done.err.count("is dirty") == 1
    assert done.err.count("git add them") == 2


def test_the_commands_that_are_named_can_be_run(clan: Path, run: Run, tmp_path: Path) -> None:
    """In a shell they print what is written; the documentation names the same."""
    assert run("dump", "--flake", f"path:{clan}", "--output", tmp_path / "out").code == 0
    config = os.environ["NIX_CONFIG"] + "\nexperimental-features = nix-command flakes"
    for query in (INVENTORY, SETTINGS, EXPORTS):
        for reference in (f"path:{clan}", plain(clan)):
            words = ["bash", "-c", query.command(reference)]
            done = subprocess.run(words, capture_output=True, check=True, env={**os.environ, "NIX_CONFIG": config})
            said, written = json.loads(done.stdout), json.loads((tmp_path / f"out/{query.name}.json").read_bytes())
            if query is INVENTORY:  # its places in the store are shortened
                said, written = said["machines"], written["machines"]
            assert said == written
    pages = (ROOT / "docs/inventory.md").read_text() + (ROOT / "docs/nix.md").read_text()
    assert all(query.command() in pages for query in (INVENTORY, SETTINGS, EXPORTS))


def test_what_stands_in_the_way_of_the_files(clan: Path, run: Run, tmp_path: Path) -> None:
    """A link, a file where the directory should be, another one who writes: exit 5, and what was there stands."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "exports.json").symlink_to(tmp_path / "elsewhere.json")
    done = run("dump", "--flake", f"path:{clan}", "--output", out)
    assert done.code == 5
    assert "exports.json is no regular file" in done.err
    assert [file.name for file in out.iterdir()] == ["exports.json"]
    (out / "exports.json").unlink()
    with locked(out, 1):
        done = run("dump", "--flake", f"path:{clan}", "--output", out)
    assert done.code == 5
    assert f"{out} is held by process {os.getpid()}" in done.err
    assert list(out.iterdir()) == []
    (tmp_path / "file").touch()
    done = run("dump", "--flake", f"path:{clan}", "--output", tmp_path / "file")
    assert (done.code, done.out) == (5, "")
    assert "Traceback" not in done.err


def test_words_that_name_no_clan(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither or both of a flake and a file, an attribute, no directory, no Nix: exit 2."""
    out = ("--output", tmp_path / "out")
    assert run("dump", *out).code == 2
    assert run("dump", "--flake", ".", "--file", "x.nix", *out).code == 2
    assert run("dump", "--flake", ".").code == 2
    assert "give what stands before the `#`" in run("dump", "--flake", ".#clan", *out).err
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run("dump", "--flake", ".", *out)
    assert done.code == 2
    assert "nix is not on PATH" in done.err
    assert not (tmp_path / "out").exists()
