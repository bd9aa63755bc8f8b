"""An isolated network: hosts on a bridge, and an edge that no packet leaves.

Each host is a network and a mount namespace with its own `/etc` and `/run`: tailscaled sets up DNS there, and cannot
reach this machine's D-Bus. The default route leads to the edge, which forwards nothing, so that a packet to the
Internet is seen and dropped. This machine's network is not changed. At the end, every process in a host is killed, and
the namespaces end with the last one.

Without root, it runs in a user namespace if the kernel allows one. If this user cannot open /dev/net/tun, tailscaleds
run without a device.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

V4: Final = "10.77.0."
V6: Final = "fd77::"
EDGE: Final = 254
_START_S: Final = 120.0
_TAILNET: Final = ("100.64.0.0/10", "fd7a:115c:a1e0::/48")
# A separate /run hides the sockets of this machine's services, a separate /etc its resolv.conf.
_HOST_SETUP: Final = """
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir /run/etc && cp -a /etc/. /run/etc/ 2> /dev/null || true
mount --bind /run/etc /etc
rm -f /etc/resolv.conf && : > /etc/resolv.conf
printf '127.0.0.1 localhost\\n::1 localhost\\n127.0.1.1 %s\\n' "$(uname -n)" > /etc/hosts
printf 'hosts: files dns\\n' > /etc/nsswitch.conf
ip link set lo up
"""


class NoWorldError(Exception):
    """Namespaces cannot be created; the message is one line."""


@dataclass
class Process:
    """A program in a host."""

    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Its process id; the commands that entered the host were replaced by it."""
        return self.popen.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.popen.poll() is None

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 20.0) -> int:
        """Send a signal to it and its children, and wait; kill it if it does not end."""
        self._signal(number)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            return self.popen.wait(120)

    def _signal(self, number: signal.Signals) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.popen.pid, number)

    def said(self) -> str:
        """Return its output so far."""
        return self.log.read_text(errors="replace")


@dataclass
class Host:
    """One host: an address on the bridge, and programs."""

    world: World
    name: str
    number: int
    holder: subprocess.Popen[bytes]
    place: Path
    started: list[Process] = field(default_factory=list[Process])

    @property
    def v4(self) -> str:
        """Its IPv4 address on the bridge."""
        return f"{V4}{self.number}"

    def command(self, *words: str | Path) -> list[str]:
        """Return a command line that runs in this host and ends with its parent."""
        return [*self.world.enter(self.holder.pid), *(str(word) for word in words)]

    def run(self, *words: str | Path, seconds: float = 120.0, check: bool = True) -> str:
        """Run a command in this host and return its output; by default, a failure fails the test."""
        command = self.command(*words)
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"{self.name}: {' '.join(map(str, words))}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self, *words: str | Path, log: str, environment: Mapping[str, str] | None = None) -> Process:
        """Start a program in this host; it ends with the world. Appends to `log`."""
        file = self.place / f"{log}.log"
        with file.open("ab") as output:
            popen = subprocess.Popen(
                self.command(*words),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        process = Process(popen, file)
        self.started.append(process)
        return process

    def down(self) -> None:
        """Disconnect the host."""
        self.world.run("ip", "link", "set", f"v{self.number}", "down")

    def up(self) -> None:
        """Connect it again."""
        self.world.run("ip", "link", "set", f"v{self.number}", "up")

    def end(self) -> None:
        """Stop its programs, the newest first, then all other processes, and end the namespaces."""
        try:
            for process in reversed(self.started):
                process.end()
            _sweep(self.holder.pid)
        finally:
            _end(self.holder)


class World:
    """The network; a context manager."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.hosts: dict[str, Host] = {}
        self._forgiven = 0
        self.tun = os.access("/dev/net/tun", os.R_OK | os.W_OK)
        self._user = ["--user", "--map-root-user"] if os.geteuid() != 0 else []
        self._holder: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        for tool in ("ip", "unshare", "nsenter", "setpriv"):
            if shutil.which(tool) is None:
                raise NoWorldError(f"{tool} is not on PATH (Debian: iproute2, util-linux)")
        self._holder = _hold(["unshare", *self._user, "--net", "--mount"], "ip link set lo up")
        try:
            self.run("ip", "link", "add", "br0", "type", "bridge")
            self.run("ip", "link", "set", "br0", "up")
            self.edge = self.host("edge", EDGE)
            self._capture = self._watch_the_wire()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as ends:
            if self._holder is not None:
                ends.callback(_end, self._holder)
            for host in self.hosts.values():
                ends.callback(host.end)
        self.hosts.clear()
        self._holder = None

    def enter(self, pid: int) -> list[str]:
        """Return the command that enters the namespaces of a holder."""
        user = ["--user", "--preserve-credentials"] if self._user else []
        # After nsenter, because a change of credentials clears the death signal.
        return ["nsenter", "--target", str(pid), *user, "--net", "--mount", "setpriv", "--pdeathsig", "KILL"]

    def run(self, *words: str) -> str:
        """Run a command in the namespace of the bridge."""
        assert self._holder is not None
        command = [*self.enter(self._holder.pid), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode != 0:
            raise NoWorldError(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def host(self, name: str, number: int | None = None) -> Host:
        """Add a host."""
        assert self._holder is not None
        number = number if number is not None else len(self.hosts)
        place = self.place / name
        place.mkdir()
        enter = [*self.enter(self._holder.pid), "unshare", "--net", "--mount"]
        host = Host(self, name, number, _hold(enter, _HOST_SETUP), place)
        self.hosts[name] = host
        wire = ["ip", "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns"]
        self.run(*wire, str(host.holder.pid))
        self.run("ip", "link", "set", f"v{number}", "master", "br0", "up")
        try:
            host.run("ip", "addr", "add", f"{host.v4}/24", "dev", "eth0")
            host.run("ip", "addr", "add", f"{V6}{number:x}/64", "dev", "eth0", "nodad")
            host.run("ip", "link", "set", "eth0", "up")
            if number != EDGE:
                host.run("ip", "route", "add", "default", "via", f"{V4}{EDGE}")
                host.run("ip", "-6", "route", "add", "default", "via", f"{V6}{EDGE:x}")
        except AssertionError as error:
            raise NoWorldError(str(error).strip()) from error
        return host

    def _watch_the_wire(self) -> Process:
        """Log each packet on the bridge that is not for one of our hosts.

        Tailnet addresses count as ours: without a route of tailscaled, a scrape of them takes the default route.
        """
        assert self._holder is not None
        log = self.place / "wire.log"
        words = [sys.executable, "-m", "tests.tailnet.wire", "br0", f"{V4}0/24", f"{V6}/64", *_TAILNET]
        with log.open("wb") as output:
            command = [*self.enter(self._holder.pid), *words]
            popen = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        process = Process(popen, log)
        self.edge.started.append(process)
        end = time.monotonic() + _START_S
        while "listening on" not in process.said():
            if time.monotonic() > end or not process.alive:
                raise NoWorldError(f"nobody watches the wire: {(process.said().splitlines() or ['no word'])[-1]}")
            time.sleep(0.05)
        return process

    def strangers(self) -> list[str]:
        """Return the packets that no host should send, as `from > to`."""
        assert self._capture.alive, self._capture.said()
        assert "missed" not in self._capture.said(), "the watch on the wire could not keep up"
        lines = [line for line in self._capture.said().splitlines() if " > " in line]
        return lines[self._forgiven :]

    def forgive(self) -> None:
        """Ignore the packets seen so far, which the test itself sent."""
        self._forgiven += len(self.strangers())


def _hold(words: Sequence[str], script: str) -> subprocess.Popen[bytes]:
    """Start a process that creates, sets up and holds namespaces; return when they are ready."""
    line = f"set -eu\n{script}\necho ready\nexec sleep infinity"
    command = [*words, "setpriv", "--pdeathsig", "KILL", "sh", "-c", line]
    holder = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stderr is not None
    if holder.stdout.readline() != b"ready\n":
        said = holder.stderr.read().decode(errors="replace").strip()
        _end(holder)
        raise NoWorldError(said.splitlines()[-1] if said else "unshare failed")
    return holder


def _sweep(holder: int) -> None:
    """Kill all processes in the network namespace of a holder except the holder, within a second."""
    end = time.monotonic() + 1.0
    namespace = _namespace(holder)
    while time.monotonic() < end:
        found = [pid for pid in _processes() if pid != holder and _namespace(pid) == namespace]
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _processes() -> list[int]:
    return [int(place.name) for place in Path("/proc").iterdir() if place.name.isdigit()]


def _namespace(pid: int) -> int:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return 0  # it has ended, or belongs to another user


def _end(holder: subprocess.Popen[bytes]) -> None:
    holder.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        holder.wait(10)
    for pipe in (holder.stdout, holder.stderr):
        if pipe is not None:
            pipe.close()
