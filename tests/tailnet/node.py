"""A machine of the tailnet: tailscaled, its socket and its state, in a host."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.support import builds

if TYPE_CHECKING:
    import signal
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.tailnet.control import Headscale
    from tests.tailnet.world import Host, Process

_START_S: Final = 120.0
PROXY: Final = "127.0.0.1:1055"
"""The proxy to the tailnet of a tailscaled without a TUN device."""
# No port mapping, no log upload, no contact with Tailscale's own control plane.
_ENVIRONMENT: Final = {
    "TS_DISABLE_PORTMAPPER": "1",
    "TS_NO_LOGS_NO_SUPPORT": "1",
    "TS_PANIC_IF_HIT_MAIN_CONTROL": "1",
    "TS_DEBUG_USE_DERP_HTTP": "1",  # headscale's relay speaks plain HTTP here
}


@dataclass
class Node:
    """One tailscaled."""

    host: Host
    control: Headscale
    version: str
    name: str = ""
    process: Process | None = field(default=None, repr=False)
    tun: bool = True
    """Without a TUN device, tailnet connections arrive on loopback, and outgoing ones need PROXY."""

    def __post_init__(self) -> None:
        self.name = self.name or self.host.name
        self.place = self.host.place if self.name == self.host.name else self.host.place / self.name
        self.place.mkdir(exist_ok=True)
        self.state = self.place / "tailscale"
        self.socket = self.place / "tailscaled.sock"

    def start(self) -> None:
        """Start tailscaled and wait for its socket."""
        # Several on one host need different ports.
        proxy = PROXY if self.name == self.host.name else "127.0.0.1:0"
        self.process = self.host.start(
            builds.tailscaled(self.version),
            f"--statedir={self.state}",
            f"--socket={self.socket}",
            *(
                ["--tun=tailscale0"]
                if self.tun
                else ["--tun=userspace-networking", f"--outbound-http-proxy-listen={proxy}"]
            ),
            "--no-logs-no-support",
            log=str(self.place / "tailscaled"),
            environment={**_ENVIRONMENT, "TS_LOGS_DIR": str(self.place)},
        )
        end = time.monotonic() + _START_S
        while not self.socket.exists():
            if time.monotonic() > end or not self.process.alive:
                raise AssertionError(f"tailscaled did not start: {self.process.said()[-2000:]}")
            time.sleep(0.05)

    def stop(self, number: signal.Signals | None = None) -> None:
        """Stop tailscaled; with SIGKILL it leaves its socket behind."""
        if self.process is not None:
            self.process.end() if number is None else self.process.end(number)

    def forget(self) -> None:
        """Delete the state, as on a reinstalled machine."""
        shutil.rmtree(self.state, ignore_errors=True)

    def up(self, key: str, *flags: str, name: str = "") -> None:
        """Log in with a key."""
        self.name = name or self.name
        self.cli(
            "up",
            f"--login-server={self.control.url}",
            f"--auth-key={key}",
            f"--hostname={self.name}",
            "--netfilter-mode=off",
            "--timeout=30s",
            *flags,
        )

    def cli(self, *words: str, check: bool = True) -> str:
        """Run `tailscale`."""
        program = builds.tailscaled(self.version).with_name("tailscale")
        command = self.host.command(program, f"--socket={self.socket}", *words)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"{self.host.name}: tailscale {words[0]}: {done.stdout}{done.stderr}")
        return done.stdout

    def status(self) -> dict[str, Json]:
        """Return `tailscale status --json`."""
        found: dict[str, Json] = json.loads(self.cli("status", "--json"))
        return found

    def peers(self, *, online: bool = False) -> set[str]:
        """Return the names of the nodes that this one knows, including itself; optionally only those online."""
        status = self.status()
        found: set[str] = set()
        peers = status.get("Peer")
        for peer in (status.get("Self"), *(peers.values() if isinstance(peers, dict) else ())):
            if isinstance(peer, dict) and (peer.get("Online") or not online):
                found.add(str(peer["DNSName"]).partition(".")[0])
        return found

    def self_online(self) -> bool:
        """Tell whether tailscaled is connected to the control plane."""
        own = self.status().get("Self")
        return isinstance(own, dict) and own.get("Online") is True

    @property
    def address(self) -> str:
        """Return its first address in the tailnet."""
        return self.cli("ip", "-1").strip()

    @property
    def program(self) -> Path:
        """Return the `tailscale` of its version."""
        return builds.tailscaled(self.version).with_name("tailscale")
