"""`dump` with real Nix: a clan's inventory, settings and exports as files, also where a part of it cannot be had."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from clan_discovery.inventory import process
from clan_discovery.inventory.queries import EXPORTS, INVENTORY, SETTINGS, NixQuery
from clan_discovery.publish.lock import locked
from tests.conftest import ROOT
from tests.support.programs import eventually, nix_program, program

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run: TypeAlias = Callable[..., Done]

PACKAGE = f"/nix/store/{'0' * 32}-borg"
THROWS = 'throw "getPublicValue: Public value db/yggdrasil/address not found!"'


@pytest.fixture(params=["debian", "newer"])
def clan(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a minimal clan flake; Nix has its own store and home directory, and no network."""
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
    """Read a file, and check that it is sorted and indented JSON with a final newline."""
    text = file.read_text()
    found: Json = json.loads(text)
    assert text == json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return found


def plain(clan: Path) -> Path:
    """Return a Nix file of the same values, in a directory without a flake."""
    file = clan.parent / "plain/a clan.nix"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f'(import {clan}/flake.nix).outputs {{ self = "/nix/store/{"0" * 32}-source"; }}')
    return file


def commit(directory: Path) -> None:
    """Make a repository of a directory."""
    me = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    for words in (("init", "-q"), ("add", "."), (*me, "commit", "-qm", "clan")):
        subprocess.run([program("git"), *words], cwd=directory, check=True, capture_output=True)


def test_dump_writes_three_files(clan: Path, run: Run, tmp_path: Path) -> None:
    """From a flake and from a plain file. A part that cannot be evaluated is null; `inventory` reads the files."""
    out = tmp_path / "new/out"
    done = run("dump", "--flake", f"path:{clan}", "--output", out)
    files = [out / f"{name}.json" for name in ("inventory", "settings", "exports")]
    assert (done.code, done.err) == (0, "")
    assert done.out == "".join(f"{file}  written\n" for file in files)
    assert sorted(out.iterdir()) == sorted(files)
    assert document(files[1]) == {
        "clan-core-borgbackup": {"backup": {"client": {"db": None, "monitor": {"package": PACKAGE}}}},
        "self-prometheus": {
            "monitoring": {"exporter": {"db": {"port": 9300}, "monitor": {"port": 9200}}, "server": {}}
        },
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
def test_failed_settings_or_exports_keep_the_old_file(  # noqa: PLR0917 - a fixture each, and a case
    clan: Path, run: Run, tmp_path: Path, old: str, new: str, name: str, said: str
) -> None:
    """Exit 3, one warning with Nix's message and a hint; the other files are written."""
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
    start = f"clan-discovery: warning: {out}/{name}.json is kept unchanged: flake path:{clan}: nix eval exited with 1: "
    assert line.startswith(start)
    assert said in line
    assert f"(see: nix eval --json path:{clan}#clan." in line  # no git hint: for a path, Nix sees every file
    (out / f"{name}.json").unlink()
    again = run("dump", "--flake", f"path:{clan}", "--output", out)
    assert again.code == 3
    assert f"{name}.json is not written: " in again.err
    assert not (out / f"{name}.json").exists()


def test_failed_inventory_writes_nothing(clan: Path, run: Run, tmp_path: Path) -> None:
    """Exit 2 with the position, although Nix 2.8 prints half an answer; no directory is created."""
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


def test_signal_during_start_leaves_no_nix_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """It arrives after the program runs and before its process id is known."""
    started: list[subprocess.Popen[bytes]] = []

    popen = subprocess.Popen

    def interrupted(
        words: list[str], *, stdin: int, stdout: int, stderr: int, start_new_session: bool
    ) -> subprocess.Popen[bytes]:
        started.append(popen(words, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=start_new_session))
        os.kill(os.getpid(), signal.SIGTERM)
        return started[-1]

    monkeypatch.setattr("clan_discovery.inventory.process.subprocess.Popen", interrupted)
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    try:
        with pytest.raises(process.EndedError):
            process.run(["sleep", "600"], seconds=60, most=1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (told, started[0].poll()) == ([signal.SIGTERM], -signal.SIGTERM)


@pytest.mark.parametrize(
    "cut", ["head -c 40", "sed s/.*/[]/", "sed s/.*/[[]]/", "cat /dev/null", """sed 's/.*/{"a":1}/'"""]
)
@pytest.mark.parametrize("query", [INVENTORY, SETTINGS, EXPORTS], ids=lambda query: str(query.name))
def test_truncated_output_of_nix_is_refused(  # noqa: PLR0917 - as above
    clan: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: NixQuery, cut: str
) -> None:
    """Real Nix through a pipe that removes a part and exits with 0."""
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


def test_untracked_file_gets_a_git_add_hint(
    clan: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warnings of Nix are printed only if an evaluation fails, each once."""
    commit(clan)
    monkeypatch.chdir(clan)
    (clan / "domain.nix").write_text('"home.arpa"\n')
    edit(clan, 'meta.domain = "home.arpa"', "meta.domain = import ./domain.nix")
    done = run("dump", "--flake", ".", "--output", tmp_path / "out")
    assert done.code == 2
    warning, line = done.err.splitlines()
    assert warning == f"clan-discovery: warning: flake .: Git tree '{clan}' is dirty"
    assert "domain.nix" in line
    assert "(a git flake does not contain untracked files: git add them; see: nix eval" in line
    subprocess.run([program("git"), "add", "."], check=True)
    done = run("dump", "--flake", ".", "--output", tmp_path / "out")
    assert (done.code, done.err) == (0, "")
    edit(clan, "clan._services", "clan._renamed")
    edit(clan, "clan.exports", "clan.renamed")
    done = run("dump", "--flake", ".", "--output", tmp_path / "out")
    assert done.code == 3
    assert done.err.count("is dirty") == 1
    assert done.err.count("git add them") == 2


def test_printed_nix_commands_can_be_run(clan: Path, run: Run, tmp_path: Path) -> None:
    """They print what is written; the documentation has the same commands."""
    assert run("dump", "--flake", f"path:{clan}", "--output", tmp_path / "out").code == 0
    config = os.environ["NIX_CONFIG"] + "\nexperimental-features = nix-command flakes"
    for query in (INVENTORY, SETTINGS, EXPORTS):
        for reference in (f"path:{clan}", plain(clan)):
            words = ["bash", "-c", query.command(reference)]
            done = subprocess.run(words, capture_output=True, check=True, env={**os.environ, "NIX_CONFIG": config})
            said, written = json.loads(done.stdout), json.loads((tmp_path / f"out/{query.name}.json").read_bytes())
            if query is INVENTORY:  # store paths in it are shortened
                said, written = said["machines"], written["machines"]
            assert said == written
    pages = (ROOT / "docs/inventory.md").read_text() + (ROOT / "docs/nix.md").read_text()
    assert all(query.command() in pages for query in (INVENTORY, SETTINGS, EXPORTS))


def test_unwritable_output_changes_nothing(clan: Path, run: Run, tmp_path: Path) -> None:
    """A symlink, a file instead of the directory, another writer: exit 5."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "exports.json").symlink_to(tmp_path / "elsewhere.json")
    done = run("dump", "--flake", f"path:{clan}", "--output", out)
    assert done.code == 5
    assert "exports.json is not a regular file" in done.err
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


def test_invalid_arguments_are_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both or neither of --flake and --file, an attribute, a missing directory, no Nix: exit 2."""
    out = ("--output", tmp_path / "out")
    assert run("dump", *out).code == 2
    assert run("dump", "--flake", ".", "--file", "x.nix", *out).code == 2
    assert run("dump", "--flake", ".").code == 2
    assert "remove the `#` and what follows it" in run("dump", "--flake", ".#clan", *out).err
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run("dump", "--flake", ".", *out)
    assert done.code == 2
    assert "nix is not on PATH" in done.err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that replaces nix by a shell script, to simulate its failures."""
    file = tmp_path / "bin/nix"
    file.parent.mkdir()
    monkeypatch.setenv("PATH", f"{file.parent}:{os.environ['PATH']}")

    def write(text: str) -> None:
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    return write


def gone(file: Path) -> bool:
    """Tell whether the process whose id is in a file has ended; an orphan may stay a zombie until init reaps it."""
    number = file.read_text().strip()
    try:
        stat = Path(f"/proc/{number}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


@pytest.fixture
def _heeded() -> Generator[None]:
    """Handle signals, so that child processes get the defaults: an ignored signal (nohup) would be inherited."""
    numbers = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_heeded")
@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGRTMIN, signal.SIGKILL],
)
def test_nix_ends_with_dump(script: Callable[[str], None], tmp_path: Path, number: int) -> None:
    """Nix and its children are ended and waited for; one that ignores SIGTERM is killed."""
    script(f"trap '' TERM\nsleep 600 & echo $! > {tmp_path}/child.new; echo $$ > {tmp_path}/nix\n"
           f"mv {tmp_path}/child.new {tmp_path}/child; wait; wait; wait; sleep 600")  # fmt: skip
    words = [sys.executable, "-m", "clan_discovery", "dump", "--flake", ".", "--output", str(tmp_path / "out")]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE) as process:
        try:
            eventually("nix runs", (tmp_path / "child").exists)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert b"Traceback" not in said
    eventually("nix and its child are gone", lambda: gone(tmp_path / "nix") and gone(tmp_path / "child"))
    assert not (tmp_path / "out").exists()


def test_program_without_a_guard_process_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no second process can be started, the first one would outlive this one."""
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def refused(
        words: list[str], *, stdin: int, stdout: int, stderr: int, start_new_session: bool
    ) -> subprocess.Popen[bytes]:
        if started:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        started.append(popen(words, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=start_new_session))
        return started[0]

    monkeypatch.setattr("clan_discovery.inventory.process.subprocess.Popen", refused)
    with pytest.raises(BlockingIOError):
        process.run(["sleep", "600"], seconds=60, most=1)
    assert started[0].poll() == -signal.SIGTERM


@pytest.mark.parametrize("text", ["sleep 600", "exec >&- 2>&-; sleep 600"], ids=["silent", "closed"])
def test_cancelled_program_ends_at_once(text: str) -> None:
    """The caller waits for at most a tenth of a second, even if the streams are closed already."""
    start = time.monotonic()
    with pytest.raises(process.CancelledError):
        process.run(["sh", "-c", text], seconds=60, most=1, cancelled=lambda: time.monotonic() > start + 0.2)
    assert time.monotonic() - start < 50


def test_failing_nix_is_reported_with_a_hint(
    script: Callable[[str], None], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed, too slow, or prints without end."""
    dump = ("dump", "--flake", ".", "--output", "out")
    script("kill -KILL $$")
    done = run(*dump)
    assert done.code == 2
    start = "clan-discovery: flake .: nix eval was killed by SIGKILL (out of memory? check the kernel log; "
    assert done.err.startswith(start)
    script("echo error: oh >&2; kill -SEGV $$")
    assert "nix eval was killed by SIGSEGV: oh (see: nix eval --json .#" in run(*dump).err
    script("kill -40 $$")
    assert "nix eval was killed by signal 40 (see: " in run(*dump).err
    monkeypatch.setattr("clan_discovery.inventory.nix.MAX_BYTES", 1 << 20)
    for text in ("exec cat /dev/zero", "exec cat /dev/zero >&2"):
        script(text)
        done = run(*dump)
        assert done.code == 2
        assert "flake .: nix eval printed more than 1 MiB, and was ended (see: nix eval" in done.err
    monkeypatch.setattr("clan_discovery.inventory.nix.TIMEOUT_S", 0.2)
    for text in ("exec sleep 600", "exec >&- 2>&-; exec sleep 600"):
        script(text)
        done = run(*dump)
        assert done.code == 2
        assert "nix eval took more than 0 s (is it waiting for the network? see: nix eval" in done.err


@pytest.mark.parametrize("words", [("--flake", "a\0b"), ("--flake", "a\ud800"), ("--file", "a\0.nix")])
def test_nul_and_surrogates_in_arguments_are_refused(run: Run, words: tuple[str, str]) -> None:
    """With an error instead of a traceback."""
    program("nix")
    done = run("dump", *words, "--output", "out")
    assert done.code == 2
    assert "contains NUL or half of a surrogate pair, which no command accepts" in done.err


def test_messages_of_nix_are_cut(script: Callable[[str], None], run: Run) -> None:
    """The first 500 characters of an error, and five warnings, each once; for old and new versions of Nix."""
    script("for i in 1 2 3 4 5 6 7; do echo warning: w$i; echo evaluation warning: w$i; done >&2\n"
           "printf 'error: %01000d' 7 >&2; exit 1")  # fmt: skip
    done = run("dump", "--flake", ".", "--output", "out")
    assert done.code == 2
    *warnings, line = done.err.splitlines()
    assert warnings == [f"clan-discovery: warning: flake .: w{i}" for i in range(1, 6)]
    assert f"exited with 1: {'0' * 497}... (see: " in line
    script("echo 'evaluation warning: of newer Nix' >&2; exit 1")
    assert run("dump", "--flake", ".", "--output", "out").err.startswith("clan-discovery: warning: flake .: of newer")


def test_store_hash_is_removed_from_messages(script: Callable[[str], None], run: Run, tmp_path: Path) -> None:
    """Also for a store other than /nix/store."""
    place = f"/home/u/.local/share/nix/root/nix/store/{'0' * 32}-source/clan.nix"
    inventory: Json = {"machines": {}, "instances": {}, "x": {"_file": place}}
    script(f"case \"$*\" in *inventorySer*) echo '{json.dumps(inventory)}';; *) echo '{{}}';; esac")
    done = run("dump", "--flake", ".", "--output", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert '"_file": "source/clan.nix"' in (tmp_path / "inventory.json").read_text()


def test_write_error_does_not_hide_the_evaluation_error(
    script: Callable[[str], None], run: Run, tmp_path: Path
) -> None:
    """Nix's message about the settings is printed, too, and the path of what cannot be written."""
    inventory = '{"machines": {}, "instances": {}}'
    script(f"case \"$*\" in *inventorySer*) echo '{inventory}';; *) echo error: because >&2; exit 1;; esac")
    out = tmp_path / ("x" * 300)
    done = run("dump", "--flake", ".", "--output", out)
    assert (done.code, done.out) == (5, "")
    assert done.err.count("nix eval exited with 1: because") == 2
    assert f"cannot write {out}/inventory.json: File name too long" in done.err


FLEET = """
{ outputs = { self }: {
  nixosConfigurations = {
    nas = { pkgs = throw "pkgs"; config = { system = throw "system"; services = { jellyfin = throw "jellyfin";
      clan-discovery = {
        enable = throw "enable";
        expose.jellyfin = { port = 8096; front = null; type = "jellyfin"; };
        adoptScrapeConfigs = [ { job_name = "caddy"; static_configs = [ { targets = [ "localhost:2020" ]; } ];
          basic_auth.password = throw "secret"; honor_labels = null; } ];
      };
    }; }; };
    bare.config.services = { };
    broken.config.services.clan-discovery.expose = throw "broken";
    dino.config.services.clan-discovery.tags = [ "laptop" ];
    dino.config.services.clan-discovery.agent = {
      enable = true;
      urls = throw "not evaluated";
      logs = { enable = true; backend = "victorialogs"; package = throw "not evaluated"; };
    };
    rex.config.services.clan-discovery.agent = { enable = true; logs = { enable = true; backend = "loki"; }; };
  };
  darwinConfigurations.mac.config.services.clan-discovery.expose.ollama.port = 11434;
}; }
"""


def test_dump_of_what_machines_expose(clan: Path, run: Run, tmp_path: Path) -> None:
    """Of a flake without a clan; only these options are evaluated, and no value that is not read is written."""
    (clan / "flake.nix").write_text(FLEET)
    done = run("dump", "--exposed", "--flake", f"path:{clan}", "--output", tmp_path)
    assert (done.code, done.out, done.err) == (0, f"{tmp_path / 'exposed.json'}  written\n", "")
    assert document(tmp_path / "exposed.json") == {
        "machines": {
            "bare": {"adopted": [], "expose": {}},
            "broken": None,
            "dino": {"adopted": [], "agent": True, "agent_logs": True, "expose": {}, "tags": ["laptop"]},
            "mac": {"adopted": [], "expose": {"ollama": {"port": 11434}}},
            "nas": {
                "adopted": [
                    {"basic_auth": True, "job_name": "caddy", "static_configs": [{"targets": ["localhost:2020"]}]}
                ],
                "expose": {"jellyfin": {"front": None, "port": 8096, "type": "jellyfin"}},
            },
            "rex": {"adopted": [], "agent": True, "expose": {}},
        }
    }
    (tmp_path / "c.yaml").write_text("inventory: {exposed: exposed.json}\n")
    shown = run("show", "-c", tmp_path / "c.yaml", "--format", "json")
    assert [target["job"] for target in json.loads(shown.out)["targets"]] == ["caddy", "jellyfin", "ollama"]
    pushed = [(target["machine"], target["job"]) for target in json.loads(shown.out)["pushed"]]
    assert pushed == [("dino", "vlagent"), ("dino", "vmagent"), ("rex", "vmagent")]


def test_dump_of_what_the_machines_of_a_clan_expose(clan: Path, run: Run, tmp_path: Path) -> None:
    """Beside the other files; a failure keeps the old file."""
    edit(clan, "clan.exports =", "nixosConfigurations.db.config.services = { }; clan.exports =")
    words = ("dump", "--exposed", "--flake", f"path:{clan}", "--output", tmp_path / "out")
    done = run(*words)
    assert (done.code, done.err) == (0, "")
    names = ("inventory", "settings", "exports", "exposed")
    assert done.out == "".join(f"{tmp_path / 'out' / name}.json  written\n" for name in names)
    edit(clan, "nixosConfigurations.db", 'nixosConfigurations.x = abort "gone"; nixosConfigurations.db')
    done = run(*words)
    assert done.code == 3
    assert f"{tmp_path}/out/exposed.json is kept unchanged: flake path:{clan}: " in done.err
    assert document(tmp_path / "out/exposed.json") == {"machines": {"db": {"adopted": [], "expose": {}}}}


def test_dump_of_a_flake_without_machines(clan: Path, run: Run, tmp_path: Path) -> None:
    """Exit 2, and nothing is written."""
    (clan / "flake.nix").write_text("{ outputs = { self }: { }; }")
    done = run("dump", "--exposed", "--flake", f"path:{clan}", "--output", tmp_path / "out")
    assert done.code == 2
    assert "nixosConfigurations" in done.err
    assert not (tmp_path / "out").exists()
