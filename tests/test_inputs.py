"""Every input file is a regular file of a limited size; anything else is one line and an exit code, at once."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from clan_discovery.reading import UnreadableError, read_input
from tests.support.fleet import fleet, inventory

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

CONFIG: Final = """\
inventory: {file: inventory.json, settings: settings.json, exports: exports.json}
backends: {tailscale: {tailnet: {status_file: status.json}}}
output: {directory: targets}
"""
PROGRAM: Final = str(Path(sys.executable).with_name("clan-discovery"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a directory with every kind of input."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    documents: dict[str, Json] = {
        "inventory": inventory(["monitor", "db"]),
        "settings": {},
        "exports": {},
        "status": fleet(["monitor", "db"]),
    }
    for name, document in documents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    return tmp_path


def fifo(file: Path) -> None:
    os.mkfifo(file)


def loop(file: Path) -> None:
    file.symlink_to(file)


def sparse(file: Path) -> None:
    with file.open("wb") as opened:
        opened.truncate(1 << 40)


def a_socket(file: Path) -> None:
    os.chdir(file.parent)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(file.name)


def linked(target: str) -> Callable[[Path], None]:
    return lambda file: file.symlink_to(target)


KINDS: Final[dict[str, tuple[Callable[[Path], None], str]]] = {
    "FIFO": (fifo, "a pipe, not a regular file"),
    "directory": (Path.mkdir, "a directory, not a regular file"),
    "socket": (a_socket, "a socket, not a regular file"),
    "symlink loop": (loop, "Too many levels of symbolic links"),
    "sparse file of 1 TB": (sparse, "is larger than"),
    "/dev/zero": (linked("/dev/zero"), "a device, not a regular file"),
    "/dev/tty": (linked("/dev/tty"), "a device, not a regular file"),
    "/proc/self/pagemap": (linked("/proc/self/pagemap"), "without a size (in /proc?)"),
    "/proc/self/mem": (linked("/proc/self/mem"), "Input/output error"),
    "/proc/self/environ": (linked("/proc/self/environ"), "without a size (in /proc?)"),
    "nothing": (linked("gone"), "No such file or directory"),
    "name of 300 characters": (linked("x" * 300), "File name too long"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["config.yaml", "inventory.json", "settings.json", "exports.json", "status.json"])
def test_an_input_must_be_a_regular_file(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    """One line names the file and its kind. A bad status file is a failed backend."""
    monkeypatch.chdir(home)
    (home / name).unlink()
    make, said = KINDS[kind]
    make(home / name)
    done = run("refresh", "-c", home / "config.yaml")
    assert done.code == (3 if name == "status.json" else 2)
    (line,) = [line for line in done.err.splitlines() if said in line]
    assert name in line
    assert "Traceback" not in done.err


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", ["--file", "--settings"])
def test_an_input_on_the_command_line_must_be_a_regular_file(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch, option: str, kind: str
) -> None:
    """For every command that reads an inventory."""
    monkeypatch.chdir(home)
    make, said = KINDS[kind]
    make(home / "odd.json")
    words = [option, home / "odd.json"]
    if option == "--settings":
        words += ["--file", home / "inventory.json"]
    for command in ("inventory", "machines"):
        done = run(command, *words)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert said in done.err


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("nothing", "name of 300 characters")])
def test_snapshot_replaces_no_special_file(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """It is neither read without end nor replaced."""
    monkeypatch.chdir(home)
    KINDS[kind][0](home / "targets.nix")
    before = (home / "targets.nix").lstat()
    done = run("snapshot", "-c", home / "config.yaml", "--output", home / "targets.nix")
    assert done.code in (2, 5)
    assert (home / "targets.nix").lstat().st_ino == before.st_ino
    assert "targets.nix" in done.err


def test_a_file_that_grows_while_it_is_read(tmp_path: Path) -> None:
    """The limit counts the bytes read, not the size reported before."""
    file = tmp_path / "x"
    file.write_bytes(b"x" * 10)
    assert read_input(file, 10) == b"x" * 10
    with pytest.raises(UnreadableError, match="larger than"):
        read_input(file, 9)
    file.write_bytes(b"")
    assert read_input(file, 9) == b""


def test_standard_input_must_be_a_regular_file(home: Path) -> None:
    """`/dev/stdin` is followed."""
    words = [PROGRAM, "machines", "--file", "/dev/stdin"]
    with (home / "inventory.json").open() as file:
        done = subprocess.run(words, stdin=file, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "db\nmonitor\n")
    done = subprocess.run(words, input="{}", capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is a pipe, not a regular file" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_unreadable_file_is_permission_denied(home: Path, run: Run) -> None:
    """For the file and for its directory."""
    words = ("machines", "--file", home / "inventory.json")
    assert run(*words).code == 0  # imports everything while this user can read it
    for closed in (home / "inventory.json", home):
        closed.chmod(0o700 if closed.is_dir() else 0o600)
        child = os.fork()
        if child == 0:
            os.setgid(65534)
            os.setuid(65534)
            done = run(*words)
            os._exit(0 if (done.code, done.err.count("Permission denied"), done.err.count("\n")) == (2, 1, 1) else 1)
        assert os.waitpid(child, 0)[1] == 0


SEVERAL: Final = """\
import sys
from clan_discovery.cli.main import main
sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")
codes = []
with open("/dev/null", "w", errors="backslashreplace") as out:
    for command in sys.argv[1].split(","):
        codes.append(str(int(main([*command.split(), *sys.argv[2:]], out, sys.stderr))))
print(*codes)
"""
"""Run several commands in one process and print their exit codes; a bug prints a traceback and no codes."""


def test_commands_work_below_a_directory_whose_name_is_no_utf8(tmp_path: Path) -> None:
    """Or give an error without a traceback."""
    commands = "refresh,check,show,show -f json,inventory,machines,diff,explain db,doctor,snapshot --output s.json"
    config = CONFIG.replace(", settings: settings.json", "")
    place = os.fsencode(tmp_path) + b"/\xff\xfe"
    os.mkdir(place)  # noqa: PTH102 - bytes
    for name, document in (
        ("config.yaml", config),
        ("inventory.json", json.dumps(inventory(["monitor", "db"], tags={"x": ["gone"]}))),
        ("exports.json", "{}"),
        ("status.json", json.dumps(fleet(["monitor", "db"]))),
    ):
        with open(place + b"/" + name.encode(), "w") as file:  # noqa: PTH123 - bytes
            file.write(document)
    words = [sys.executable, "-c", SEVERAL, commands, "-c"]
    done = subprocess.run([*words, "config.yaml"], cwd=place, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["0"] * 10, done.stderr
    os.unlink(place + b"/status.json")  # noqa: PTH108 - bytes
    absolute = [*(word.encode() for word in words), place + b"/config.yaml"]
    failed = subprocess.run(absolute, cwd=place, capture_output=True, check=False)
    assert len(failed.stdout.split()) == 10, failed.stderr
    assert set(failed.stdout.split()) == {b"0", b"3"}
    assert b"no Unicode" not in failed.stderr


LIMITED: Final = """\
import resource, sys
most = int(sys.argv[1]) << 20
resource.setrlimit(resource.RLIMIT_AS, (most, most))
from clan_discovery.cli.main import entry
sys.argv[1:] = sys.argv[2:]
entry()
"""


@pytest.mark.parametrize("mebibytes", [120, 150, 180, 220])
def test_lack_of_memory_is_one_line(home: Path, mebibytes: int) -> None:
    """Wherever the limit is reached: no traceback, and a documented exit code."""
    machines = [f"machine-{n}" for n in range(60_000)]
    (home / "inventory.json").write_text(json.dumps(inventory(["monitor", *machines])))
    (home / "config.yaml").write_text(CONFIG.replace(", settings: settings.json", ""))
    words = [sys.executable, "-c", LIMITED, str(mebibytes), "check", "-c", str(home / "config.yaml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in (0, 5)
    if done.returncode:
        assert done.stderr.startswith("clan-discovery: ")
        assert done.stderr.count("\n") == 1


CLOCK: Final = """\
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = syscall(SYS_clock_gettime, clock, now);
  if (clock == CLOCK_REALTIME) now->tv_sec = atoll(getenv("FAKE_NOW"));
  return failed;
}
"""


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a library that sets the clock of one process."""
    if shutil.which("cc") is None:
        pytest.skip("cc is not on PATH")
    source = tmp_path_factory.mktemp("clock") / "clock.c"
    source.write_text(CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", source.with_suffix(".so"), source], check=True)
    return source.with_suffix(".so")


@pytest.mark.parametrize("now", [-(10**10), -1, 0, 9_223_372_036, 9_300_000_000, 253_402_300_800])
def test_an_extreme_clock_gives_no_traceback(home: Path, clock: Path, now: int) -> None:
    """Before 1970, near the end of 64-bit nanoseconds (2262), and in the year 10000."""
    (home / "config.yaml").write_text(CONFIG.replace(", settings: settings.json", ""))
    environment = {**os.environ, "LD_PRELOAD": str(clock), "FAKE_NOW": str(now)}
    words = [sys.executable, "-c", SEVERAL, "refresh,show,doctor,explain db", "-c", str(home / "config.yaml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    codes = done.stdout.split()
    assert len(codes) == 4, done.stderr
    assert set(codes) <= {"0", "3", "5"}
    if "5" in codes:
        assert "clan-discovery: a number is out of range: is the system clock right?" in done.stderr


def test_a_bug_has_a_traceback_and_exit_code_5(tmp_path: Path) -> None:
    """The traceback is safe for a terminal, and the exit code is no result."""
    code = """\
import sys, types
from clan_discovery.cli import main, parser
parser.COMMANDS["broken"] = ""
def bug(*_):
    raise ValueError(f"a\\x1b[2J\\nb\\u202e https://u:{'hunter' + str(2)}@host/")
sys.modules["clan_discovery.cli.commands.broken"] = types.SimpleNamespace(
    COMMAND=types.SimpleNamespace(help="", add=bug, run=None)
)
sys.argv[1:] = ["broken"]
main.entry()
"""
    (tmp_path / "x.py").write_text(code)
    done = subprocess.run([sys.executable, tmp_path / "x.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert done.stderr.startswith("Traceback")
    assert done.stderr.replace("\n", "").isprintable()
    assert "***@host" in done.stderr
    assert "hunter2" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("clan-discovery: this is a bug; the old files are kept.")


def test_deeply_nested_json_is_refused_or_read(home: Path, run: Run) -> None:
    """In each input, at each depth."""
    for depth in (90, 200, 400, 800, 980, 3000, 100_000):
        deep = '{"a":' * depth + "1" + "}" * depth
        for name in ("inventory", "settings", "exports", "status"):
            old = (home / f"{name}.json").read_text()
            document = deep
            if name == "inventory":
                document = json.dumps(inventory(["monitor"], exporter={"X": 1})).replace('{"X": 1}', deep)
            (home / f"{name}.json").write_text(document)
            for command in ("check", "show", "inventory"):
                done = run(command, "-c", home / "config.yaml")
                assert done.code in (0, 2, 3)
                assert all(len(line) < 1000 for line in done.err.splitlines())
            (home / f"{name}.json").write_text(old)
