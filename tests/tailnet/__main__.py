"""A tailnet to try things: start it and open a shell on the machine that scrapes.

python -m tests.tailnet              open a shell; the tailnet ends with it
python -m tests.tailnet COMMAND...   run a command instead
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support import builds
from tests.support.builds import NotBuiltError
from tests.tailnet.bed import Bed
from tests.tailnet.server import Server
from tests.tailnet.world import NoWorldError

_MACHINES = {
    "monitor": builds.OLD,
    "db": builds.NEW,
    "web": builds.OLDEST,
    "nas": builds.NEW,
    "guest": builds.NEW,
    "attic": builds.NEW,
}
_WELCOME = """\
You are on `monitor`, one of six machines of a tailnet that exists only here; the network ends at its edge.
  declared: monitor, db, web, nas and attic, which nobody has logged in; guest is a stranger
  config.yaml, inventory.json   what clan-discovery reads (CLAN_DISCOVERY_CONFIG is set)
  ../db/tailscaled.sock         another machine's tailscaled: tailscale --socket ../db/tailscaled.sock down
  headscale nodes list          the control plane
try: clan-discovery show    clan-discovery run &    tailscale down; clan-discovery show    clan-discovery doctor
"""


def bring_up(bed: Bed) -> Server:
    """Start the machines, log in all but one, and set up the server without starting its programs."""
    for name, version in _MACHINES.items():
        bed.machine(name, version)
    bed.join("monitor", "db", "nas", "guest", web="server")
    bed.settled("monitor", ["db", "web", "nas", "guest"])
    server = Server(bed.machines["monitor"], ("monitor", "db", "web", "nas", "attic"))
    (server.place / "config.yaml").write_text(
        "inventory: {file: inventory.json}\n"
        f"backends: {{tailscale: {{tailnet: {{socket: {server.node.socket}}}}}}}\n"
        "output: {directory: targets}\n"
    )
    return server


def environment(bed: Bed, server: Server) -> dict[str, str]:
    """Return the environment of the shell: three commands on PATH that use this tailnet."""
    commands = bed.place / "bin"
    commands.mkdir()
    for name, command in {
        "tailscale": f"{server.node.program} --socket={server.node.socket}",
        "headscale": f"{builds.headscale()} -c {bed.control.config}",
        "clan-discovery": f"{sys.executable} -m clan_discovery",
    }.items():
        (commands / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (commands / name).chmod(0o755)
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"
    project = str(Path(__file__).resolve().parents[2])
    config = str(server.place / "config.yaml")
    return {**os.environ, "PATH": path, "PYTHONPATH": project, "CLAN_DISCOVERY_CONFIG": config, "PS1": "monitor$ "}


def main(command: list[str]) -> int:
    """Bring the tailnet up, run the command or a shell in it, and take it down."""
    try:
        builds.build_all("tailnet", lambda line: print(line, flush=True))  # noqa: T201 - somebody waits
        with Bed() as bed:
            server = bring_up(bed)
            if not command:
                sys.stdout.write(_WELCOME)
            words = server.host.command(*(command or ["bash", "--norc", "-i"]))
            return subprocess.run(words, cwd=server.place, env=environment(bed, server), check=False).returncode
    except (NotBuiltError, NoWorldError) as error:
        sys.stderr.write(f"no tailnet here: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
