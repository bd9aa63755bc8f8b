"""One process of `run` and one fault after another: it logs each once, keeps the files, and recovers."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.fleet import inventory
from tests.support.localapi import Behaviour, localapi
from tests.support.programs import eventually, free_port, get
from tests.test_run import PROGRAM, addresses, body, replace, write_world

if TYPE_CHECKING:
    from collections.abc import Generator

FAULT_S = 1.6
"""A fault lasts for at least one cycle of the timer, which comes every second."""


@dataclass
class Life:
    """The process under test: its config, its log so far, and the status of the tailnet."""

    process: subprocess.Popen[bytes]
    config: Path
    port: int
    tailnet: Behaviour
    log: list[str] = field(default_factory=list[str])
    deaf: threading.Event = field(default_factory=threading.Event)
    machines: list[str] = field(default_factory=lambda: ["monitor"])

    def published(self) -> bytes:
        """Return the bytes of the target file."""
        return (self.config.parent / "targets/node.json").read_bytes()

    def declare(self) -> None:
        """Declare one more machine."""
        self.machines.append(f"m{len(self.machines)}")
        replace(self.config.parent / "inventory.json", json.dumps(inventory(self.machines)))

    def recovers(self) -> None:
        """Wait until every declared machine is published."""
        eventually("recovered", lambda: set(addresses(self.config)) == set(self.machines))
        assert self.process.poll() is None

    @contextlib.contextmanager
    def fault(self, *, most: int = 2) -> Generator[None]:
        """Check that no file changes during the faults of the block, and at most `most` errors are logged."""
        before, lines = self.published(), len(self.log)
        yield
        time.sleep(FAULT_S)
        assert self.process.poll() is None
        assert self.published() == before
        told = [line for line in self.log[lines:] if "level=error" in line or "level=warning" in line]
        assert len(told) <= most, told
        assert all(line.startswith("ts=") for line in self.log), self.log


@pytest.fixture
def life(tmp_path: Path) -> Generator[Life]:
    """Start the process with a metrics listener and a full notify socket."""
    config = write_world(tmp_path, ["monitor"])
    port = free_port()
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        localapi(tmp_path / "s", Behaviour(body=body("monitor"))) as tailnet,
    ):
        systemd.bind(str(tmp_path / "notify"))
        words = [PROGRAM, "run", "-c", str(config), "--interval", "1s", "--metrics-listen", f"127.0.0.1:{port}"]
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        pipe, stderr = os.pipe()
        with subprocess.Popen(words, stderr=stderr, env=environment) as process:
            os.close(stderr)
            life = Life(process, config, port, tailnet)
            reader = threading.Thread(target=_read, args=(pipe, life), daemon=True)
            reader.start()
            try:
                life.recovers()
                eventually("listening", lambda: tailnet.watchers == 1)
                yield life
                life.recovers()
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 0
            finally:
                process.kill()
                reader.join(5)
    assert "Traceback" not in "".join(life.log)


def _read(pipe: int, life: Life) -> None:
    """Read the log until it ends or `deaf` is set."""
    part, rest = b"x", b""
    while part and not life.deaf.is_set():
        if select.select([pipe], [], [], 0.1)[0]:
            part = os.read(pipe, 1 << 16)
            *lines, rest = (rest + part).split(b"\n")
            life.log += [line.decode() for line in lines]
    os.close(pipe)


def first_free_descriptor(process: int) -> int:
    """Return the lowest number that is not always the descriptor of an open file: a cycle opens files for a moment."""
    always = set(range(1000))
    for _ in range(20):
        always &= {int(name) for name in os.listdir(f"/proc/{process}/fd")}  # noqa: PTH208
        time.sleep(0.1)
    return next(number for number in range(1000) if number not in always)


@contextlib.contextmanager
def limited(process: subprocess.Popen[bytes], what: int, soft: int) -> Generator[None]:
    """Set a limit of a running process while the block lasts."""
    old, hard = resource.prlimit(process.pid, what)
    resource.prlimit(process.pid, what, (soft, hard))
    try:
        yield
    finally:
        resource.prlimit(process.pid, what, (old, hard))


def test_survives_missing_and_damaged_files(life: Life) -> None:
    """Config, inventory and state: missing, damaged, or replaced by special files."""
    good, config = life.config.read_text(), life.config
    file = config.parent / "inventory.json"
    declared = file.read_text()
    with life.fault(most=5):
        config.unlink()
        time.sleep(0.5)
        os.mkfifo(config)
        time.sleep(0.5)
        config.unlink()
        config.mkdir()
        time.sleep(0.5)
        config.rmdir()
        for target in ("/dev/zero", "/proc/self/mountinfo"):
            config.symlink_to(target)
            time.sleep(0.5)
            config.unlink()
        replace(config, good)
    with life.fault(most=3):
        replace(file, "{")
        life.process.send_signal(signal.SIGHUP)
    replace(file, declared)
    state = life.config.parent / "targets.state"
    with life.fault(most=3):
        shutil.rmtree(state)
        state.write_text("")
    state.unlink()
    life.declare()


def test_survives_resource_limits(life: Life) -> None:
    """No file descriptors, no memory, no space.

    Changes during the limit are read after it.
    """
    number = life.process.pid
    files = first_free_descriptor(number)
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_connection(("127.0.0.1", life.port), 30))
        with limited(life.process, resource.RLIMIT_NOFILE, files), life.fault(most=6):
            text = life.config.read_text().replace("labels: {late: no}\n", "")
            replace(life.config, f"{text}labels: {{late: yes}}\n".replace("yes", '"yes"'))
        eventually("read afterwards", lambda: b'"late":"yes"' in life.published())
        assert b"clan_discovery_targets" in get(f"http://127.0.0.1:{life.port}/metrics")
    size = int(Path(f"/proc/{number}/statm").read_text().split()[0]) * resource.getpagesize()
    with limited(life.process, resource.RLIMIT_AS, size), life.fault(most=8):
        life.tailnet.body = body(*(f"x{index}" for index in range(20_000)), *life.machines)
    life.tailnet.body = body(*life.machines)
    with limited(life.process, resource.RLIMIT_FSIZE, 1), life.fault(most=8):
        life.declare()
    life.recovers()


def test_survives_floods_and_lost_peers(life: Life) -> None:
    """Many triggers and signals, a stopped daemon, clients that reset, and a closed log."""
    with life.fault(most=0):
        for _ in range(10_000):
            life.tailnet.emit(b'{"PeersChanged": [{}]}')
        for _ in range(1000):
            life.process.send_signal(signal.SIGHUP)
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", life.port), 30) as sock:
                sock.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    asked = life.tailnet.connections
    time.sleep(1)
    assert life.tailnet.connections - asked <= 6
    with life.fault(most=2):
        life.tailnet.body = b'{"BackendState": "Running", "Peer": [[['
        life.tailnet.drop_watchers.set()
    life.tailnet.drop_watchers.clear()
    life.tailnet.body = body("monitor")
    life.deaf.set()
    time.sleep(0.3)
    life.tailnet.body = b""
    time.sleep(FAULT_S)
    life.declare()


_WITHOUT_THREADS = """
import importlib, os, pkgutil, resource, signal, sys, clan_discovery, idna, http.client
from pathlib import Path
from clan_discovery.assemble import make_plan
from clan_discovery.cli.main import entry
from clan_discovery.config.load import load_config
for module in pkgutil.walk_packages(clan_discovery.__path__, "clan_discovery."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)  # the other user may not be able to read the modules
make_plan(load_config(Path(sys.argv[3])))
os.setgroups([])
os.setgid(60123)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 100))
signal.signal(signal.SIGUSR1, lambda *_: resource.setrlimit(resource.RLIMIT_NPROC, (100, 100)))
os.setuid(60123)
entry()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="root is needed to become a user whose threads are limited")
def test_survives_without_threads() -> None:
    """As another user with RLIMIT_NPROC: two backends are asked, and other threads start later."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name, contextlib.ExitStack() as stack:
        place = Path(name)
        config = write_world(place, ["monitor", "db"])
        text = config.read_text().replace("{tailnet: ", f"{{other: {{socket: {place}/t}}, tailnet: ")
        config.write_text(text)
        place.chmod(0o777)
        for socket_, machine in (("s", "monitor"), ("t", "db")):
            stack.enter_context(localapi(place / socket_, Behaviour(body=body(machine))))
            (place / socket_).chmod(0o666)
        port = free_port()
        log = stack.enter_context((place / "log").open("wb"))
        words = [sys.executable, "-c", _WITHOUT_THREADS, "run", "-c", str(config)]
        words += ["--interval", "1s", "--metrics-listen", f"127.0.0.1:{port}"]
        with subprocess.Popen(words, stderr=log) as process:
            try:
                observed = {"monitor": "100.64.0.1:9100", "db": "100.64.0.1:9100"}
                eventually("both are asked", lambda: addresses(config) == observed)
                time.sleep(FAULT_S)
                assert process.poll() is None
                process.send_signal(signal.SIGUSR1)
                eventually("served", lambda: b"clan_discovery_targets" in get(f"http://127.0.0.1:{port}/metrics"))
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 0
            finally:
                process.kill()
        told = (place / "log").read_text()
    for line in (
        "cannot serve HTTP",
        "cannot start a trigger",
        "HTTP is served",
        "every trigger is",
    ):
        assert told.count(line) == 1, told
    assert "Traceback" not in told


def test_works_in_a_directory_whose_name_is_no_utf8(tmp_path: Path) -> None:
    """Its files are read, watched and written, and the log is valid text."""
    place = tmp_path / os.fsdecode(b"\xff\xe9")
    place.mkdir()
    (place / "inventory.json").write_text(json.dumps(inventory(["monitor"])))
    config = place / "config.yaml"
    config.write_text(
        "inventory: {file: inventory.json}\noutput: {directory: targets}\nbackends: {tailscale: {t: {socket: s}}}\n"
    )
    environment = {**os.environ, "NOTIFY_SOCKET": "@nobody"}
    with (
        localapi(tmp_path / "s", Behaviour(body=body("monitor"))),
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen([PROGRAM, "run", "-c", config, "--interval", "1s"], stderr=log, env=environment) as process,
    ):
        try:
            (place / "s").symlink_to(tmp_path / "s")
            eventually("published", lambda: addresses(config) == {"monitor": "100.64.0.1:9100"})
            replace(place / "inventory.json", "{")
            eventually("told", lambda: "the inventory is invalid" in (tmp_path / "log").read_text())
            replace(place / "inventory.json", json.dumps(inventory(["monitor", "db"])))
            eventually("published", lambda: set(addresses(config)) == {"monitor", "db"})
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert "UnicodeEncodeError" not in (tmp_path / "log").read_text()
