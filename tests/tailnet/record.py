"""Record answers of real tailscaleds, without keys and host details.

python -m tests.tailnet.record

For each version, writes `tests/data/tailscaled/<version>/running.json` (a status with every unusual state of a node)
and `bus.ndjson` (the first bus message of each kind meanwhile, mask 4114).
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import builds
from tests.tailnet.bed import Bed

if TYPE_CHECKING:
    from clan_discovery.model import Json

DATA = Path(__file__).resolve().parents[1] / "data/tailscaled"
_BUS = "http://local-tailscaled.sock/localapi/v0/watch-ipn-bus?mask=4114"
_OBSERVERS = {"monitor": builds.NEW, "older": builds.OLD, "oldest": builds.OLDEST}
_SETTLE_S = 12.0
"""Seconds until headscale reports a stopped node as offline."""


def record(bed: Bed) -> None:
    """Create nodes in every unusual state while each version watches."""
    for name, version in _OBSERVERS.items():
        bed.machine(name, version, exporter=False)
    for name in ("db", "web", "shed", "lamp", "guest", "attic", "kiosk"):
        bed.machine(name, exporter=False)
    bed.join("monitor", "older", "oldest", "db", "shed", "lamp", "kiosk", web="server")
    bed.settled("monitor", ["db", "web", "lamp", "kiosk"])
    buses = {name: _listen(bed, name) for name in _OBSERVERS}
    bed.join("guest")
    ids = bed.control.nodes()
    bed.control.ask("nodes", "rename", "-i", str(ids["shed"]), "depot")
    bed.control.ask("nodes", "tag", "-i", str(ids["web"]), "-t", "tag:server,tag:retired")
    bed.control.ask("nodes", "expire", "-i", str(ids["lamp"]))
    db = bed.machines["db"]
    db.stop()
    time.sleep(_SETTLE_S)
    db.forget()
    db.start()
    db.up(bed.keys[""])
    bed.machines["kiosk"].cli("logout")
    time.sleep(_SETTLE_S * 1.5)
    bed.control.ask("nodes", "delete", "-i", str(ids["guest"]))
    time.sleep(_SETTLE_S / 2)
    for name, version in _OBSERVERS.items():
        buses[name].kill()
        buses[name].wait(10)
        lines = (bed.machines[name].place / "bus").read_text()
        place = DATA / version
        status = json.dumps(bed.machines[name].status(), indent=2, sort_keys=True)
        (place / "running.json").write_text(anonymous(status) + "\n")
        (place / "bus.ndjson").write_text(anonymous("".join(f"{line}\n" for line in _kinds(lines))))
        print(f"recorded {place.name}")  # noqa: T201 - a script


def _listen(bed: Bed, name: str) -> subprocess.Popen[bytes]:
    node = bed.machines[name]
    command = ["curl", "-sN", "--unix-socket", str(node.socket), "-o", str(node.place / "bus"), _BUS]
    return subprocess.Popen(command)


def _kinds(lines: str) -> list[str]:
    """Return the first message of each kind, that is, of each set of non-empty keys."""
    found: dict[tuple[str, ...], str] = {}
    for line in lines.splitlines(keepends=True):
        if not line.endswith("\n"):
            break  # not yet complete
        message: dict[str, Json] = json.loads(line)
        kind = tuple(key for key, value in message.items() if value is not None and key not in ("Version", "SessionID"))
        found.setdefault(kind, line.rstrip())
    return list(found.values())


def anonymous(text: str) -> str:
    """Replace keys and ids by numbers, and remove details of this machine."""
    for pattern in (r"(?<=key:)[0-9a-f]{64}", r'(?<="BackendLogID":")[0-9a-f]{64}', r'(?<="SessionID":")[0-9a-f]+'):
        seen: dict[str, str] = {}
        text = re.sub(pattern, lambda m, seen=seen: seen.setdefault(m[0], f"{len(seen) + 1:0{len(m[0])}x}"), text)
    text = re.sub(r'"OSVersion":"[^"]*"', '"OSVersion":"6.1.0"', text)
    return re.sub(r'"DistroVersion":"[^"]*"', '"DistroVersion":"12"', text)


if __name__ == "__main__":
    with Bed() as made:
        record(made)
