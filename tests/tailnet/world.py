"""A network of its own, with hosts on a bridge, and an edge where everything ends that would leave.

Each host is a network and a mount namespace with an `/etc` and a `/run` of its own: a tailscaled that sets up DNS
writes there, and finds no D-Bus of this machine to ask. Hosts have a default route, to the edge, which forwards
nothing and has no way out itself; so a program that tries to reach the Internet sends a packet that is seen, and goes
nowhere. Nothing of this machine's own network is touched, and nothing stays: at its end whatever still runs in a host
is killed, whoever started it, and the namespaces go with the last of it.

Without root, the whole stands in a user namespace, where the kernel lets one be made; and where this user may not open
/dev/net/tun, tailscaleds do without a device.
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
_START_S: Final = 20.0
_TAILNET: Final = ("100.64.0.0/10", "fd7a:115c:a1e0::/48")
# An own /run hides the sockets of this machine's services, an own /etc its resolv.conf.
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
    """Namespaces cannot be made here; the message says why, in one line."""


@dataclass
class Process:
    """A program that runs in a host."""

    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Its number: the program's own, for whatever led to it has become it."""
        return self.popen.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.popen.poll() is None

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 20.0) -> int:
        """Send it, and what it started, a signal, and wait; one that does not obey is killed."""
        self._signal(number)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            return self.popen.wait(10)

    def _signal(self, number: signal.Signals) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.popen.pid, number)

    def said(self) -> str:
        """Return what it has printed so far."""
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
        """Return a command line that runs in this host, and dies with whoever starts it."""
        return [*self.world.enter(self.holder.pid), *(str(word) for word in words)]

    def run(self, *words: str | Path, seconds: float = 30.0, check: bool = True) -> str:
        """Run a command in this host and return what it printed; one that fails fails the test, unless told not to."""
        command = self.command(*words)
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"{self.name}: {' '.join(map(str, words))}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self, *words: str | Path, log: str, environment: Mapping[str, str] | None = None) -> Process:
        """Start a program in this host; it ends with the world at the latest. `log` is appended to."""
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
        """Pull the cable."""
        self.world.run("ip", "link", "set", f"v{self.number}", "down")

    def up(self) -> None:
        """Put it back."""
        self.world.run("ip", "link", "set", f"v{self.number}", "up")

    def end(self) -> None:
        """End its programs, the newest first, then whatever else runs here, and let the namespaces go."""
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
        """Return the words that lead into the namespaces of a holder."""
        user = ["--user", "--preserve-credentials"] if self._user else []
        # After nsenter, for what changes the credentials takes the death signal away.
        return ["nsenter", "--target", str(pid), *user, "--net", "--mount", "setpriv", "--pdeathsig", "KILL"]

    def run(self, *words: str) -> str:
        """Run a command beside the bridge."""
        assert self._holder is not None
        command = [*self.enter(self._holder.pid), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode != 0:
            raise NoWorldError(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def host(self, name: str, number: int | None = None) -> Host:
        """Plug a new host in."""
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
        """Write down every packet on the bridge that goes elsewhere than to one of our hosts.

        A tailnet's address is one of ours too: while tailscaled has no route to it, a scrape of it is sent to the
        default route.
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
        """Return what was seen on the wire that no host of ours is meant to send, as `from > to`."""
        assert self._capture.alive, self._capture.said()
        assert "missed" not in self._capture.said(), "the watch on the wire could not keep up"
        lines = [line for line in self._capture.said().splitlines() if " > " in line]
        return lines[self._forgiven :]

    def forgive(self) -> None:
        """Count no more what was seen so far: the test itself has sent it."""
        self._forgiven += len(self.strangers())


def _hold(words: Sequence[str], script: str) -> subprocess.Popen[bytes]:
    """Start a process that makes namespaces, sets them up and then only holds them; return when they stand."""
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
    """Kill whatever runs in the network namespace of a holder, but for the holder; for a second at the most."""
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
        return 0  # it has ended, or is none of ours


def _end(holder: subprocess.Popen[bytes]) -> None:
    holder.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        holder.wait(10)
    for pipe in (holder.stdout, holder.stderr):
        if pipe is not None:
            pipe.close()
