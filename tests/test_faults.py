"""The fault table of docs/reliability.md: each row against the program, after a good cycle with nine machines.

An outage removes and moves no target. Machines that the tailnet proves absent are removed. Published files always
parse. The outcome of each row is that of the document, word for word.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clan_discovery.assemble import directories, make_plan
from clan_discovery.config.load import load_config
from clan_discovery.publish.state import State
from clan_discovery.round import refresh
from tests.conftest import ROOT
from tests.support.fleet import fleet, inventory, node, status
from tests.support.localapi import Behaviour, localapi
from tests.support.programs import promtool_accepts

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Done
    from tests.support.fleet import Object

NAMES = ["monitor", *(f"m{number}" for number in range(1, 9))]
PROGRAM = str(Path(sys.executable).with_name("clan-discovery"))


@dataclass(frozen=True)
class Fault:
    """A fault of tailscaled: how the LocalAPI behaves, and what `refresh` then does."""

    how: Behaviour | None
    code: int = 3
    kept: bool = True


def state(name: str) -> Fault:
    """Return the fault of a daemon in this state that still lists its peers."""
    return Fault(Behaviour(body=json.dumps(fleet(NAMES, BackendState=name)).encode()))


FAULTS: dict[str, Fault] = {
    "socket missing": Fault(None),
    "hung after connect": Fault(Behaviour(hang=True)),
    "dripping": Fault(Behaviour(body=b"{" * 300, drip=0.02)),
    "truncated": Fault(Behaviour(body=json.dumps(fleet(NAMES)).encode(), truncate=500)),
    "garbage": Fault(Behaviour(body=b"\x00\xffgarbage")),
    "empty body": Fault(Behaviour(body=b"")),
    "null": Fault(Behaviour(body=b"null")),
    "HTTP 403": Fault(Behaviour(status=403, body=b"invalid localapi request")),
    "HTTP 500": Fault(Behaviour(status=500, body=b"server has no local backend")),
    "HTTP 503": Fault(Behaviour(status=503, body=b"no backend")),
    "NeedsLogin": state("NeedsLogin"),
    "Stopped": state("Stopped"),
    "NoState": state("NoState"),
    "Starting": state("Starting"),
    "Running without a tailnet": Fault(Behaviour(body=json.dumps(fleet(NAMES, CurrentTailnet=None)).encode())),
    "Running, empty after nine machines": Fault(
        Behaviour(body=json.dumps(fleet(["monitor"], Peer=None)).encode()), code=4
    ),
}


def write_world(place: Path, timeout: str = "700ms") -> Path:
    """Write a config with a socket, an inventory of nine machines, and a rule; return the config."""
    (place / "inventory.json").write_text(json.dumps(inventory(NAMES)))
    (place / "config.yaml").write_text(
        "inventory: {file: inventory.json}\n"
        f"backends: {{tailscale: {{tailnet: {{socket: {place}/s, timeout: {timeout}}}}}}}\n"
        "exporters: {nginx: {select: {tags: [server]}}}\n"
        "output: {directory: targets}\n"
    )
    return place / "config.yaml"


def published(place: Path) -> dict[str, bytes]:
    """Return the bytes of every target file."""
    return {file.name: file.read_bytes() for file in (place / "targets").glob("[!.]*")}


def good(place: Path, run: Callable[..., Done]) -> dict[str, bytes]:
    """Do a cycle that succeeds; return the published files."""
    config = write_world(place)
    with localapi(place / "s", Behaviour(body=json.dumps(fleet(NAMES)).encode())):
        assert run("refresh", "-c", config).code == 0
    return published(place)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_daemon(tmp_path: Path, run: Callable[..., Done], name: str) -> None:
    """Three cycles with the fault change no byte.

    A cycle without it publishes what a fresh start would.
    """
    before = good(tmp_path, run)
    fault = FAULTS[name]
    for _ in range(3):
        if fault.how is None:
            done = run("refresh", "-c", tmp_path / "config.yaml")
        else:
            fault.how.ended.clear()
            with localapi(tmp_path / "s", fault.how):
                done = run("refresh", "-c", tmp_path / "config.yaml")
        assert done.code == fault.code
        assert "Traceback" not in done.err
        assert published(tmp_path) == before
    with localapi(tmp_path / "s", Behaviour(body=json.dumps(fleet(NAMES)).encode())):
        assert run("refresh", "-c", tmp_path / "config.yaml").code == 0
    assert published(tmp_path) == before
    promtool_accepts(tmp_path / "targets")


def test_a_leftover_socket_keeps_the_files(tmp_path: Path, run: Callable[..., Done]) -> None:
    """No daemon listens on it."""
    before = good(tmp_path, run)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
    assert run("refresh", "-c", tmp_path / "config.yaml").code == 3
    assert published(tmp_path) == before


@pytest.mark.parametrize("mebibytes", [100, 1024])
def test_bodies_of_any_size(tmp_path: Path, run: Callable[..., Done], mebibytes: int) -> None:
    """A body over the limit is not read to its end, a smaller one is no status; memory is bounded for both."""
    before = good(tmp_path, run)
    config = write_world(tmp_path, timeout="30s")
    with localapi(tmp_path / "s", Behaviour(body=b" " * (mebibytes << 20))):
        measured = subprocess.run([PROGRAM, "refresh", "-c", str(config)], capture_output=True, text=True, check=False)
    assert measured.returncode == 3
    assert ("larger than 256 MiB" in measured.stderr) == (mebibytes > 256)
    assert published(tmp_path) == before


def test_flapping_in_every_cycle(tmp_path: Path, run: Callable[..., Done]) -> None:
    """Twenty cycles, every other one an outage: only the first one writes."""
    before = good(tmp_path, run)
    stamps = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "targets").iterdir()}
    how = Behaviour(body=json.dumps(fleet(NAMES)).encode())
    with localapi(tmp_path / "s", how):
        for turn in range(20):
            how.status = 500 if turn % 2 else 200
            assert run("refresh", "-q", "-c", tmp_path / "config.yaml").code == (3 if turn % 2 else 0)
    assert published(tmp_path) == before
    assert {f.name: f.stat().st_mtime_ns for f in (tmp_path / "targets").iterdir()} == stamps


@pytest.mark.parametrize(("year", "kept"), [(2025, True), (2036, False)])
def test_a_clock_that_jumps(tmp_path: Path, run: Callable[..., Done], year: int, kept: bool) -> None:  # noqa: FBT001
    """A year back, nothing expires; ten years ahead, the memory is older than policy.max_age."""
    before = good(tmp_path, run)
    loaded = load_config(tmp_path / "config.yaml")
    places = directories(loaded)
    clock = datetime(year, 1, 1, tzinfo=UTC)
    done = refresh(places, lambda: make_plan(loaded), State(places.state_directory), lambda: clock)
    assert done.round.exit_code == 3
    assert (published(tmp_path) == before) == kept
    assert {t.machine for t in done.round.resolution.targets if t.job == "node"} == set(NAMES)
    with localapi(tmp_path / "s", Behaviour(body=json.dumps(fleet(NAMES)).encode())):
        assert run("refresh", "-c", tmp_path / "config.yaml").code == 0
    assert published(tmp_path) == before


HOSTILE = [
    "x\x1b[31m\x07",
    "a\nb",
    "n" * 10_000,
    "q\"uo'te",
    "${HOME}",
    "%{HOME}",
    'x",instance="db',
    "../../etc/passwd",
    "ünïcödé",
    "\u202eevil",
]


def test_a_hostile_tailnet(tmp_path: Path, run: Callable[..., Done]) -> None:
    """Hostile labels and DNS names break no file, no terminal and no other machine's target."""
    nodes = [node(1, "monitor"), node(2, "db", HostName="monitor")]
    for number, name in enumerate(HOSTILE, 10):
        nodes.append(node(number, f"h{number}", HostName=name))
        nodes.append(node(number + 100, "x", DNSName=f"{name}.tail1a2b3.ts.net.", Tags=[f"tag:{name}"]))
    nodes += [node(number, "same") for number in range(1000, 6000)]
    config = write_world(tmp_path)
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["monitor", "db", "same"])))
    text = config.read_text().replace("{tags: [server]}", "{}")
    config.write_text(text)
    with localapi(tmp_path / "s", Behaviour(body=json.dumps(status(nodes)).encode())):
        done = run("refresh", "-c", config)
        shown = run("show", "-c", config)
    assert done.code == 0
    promtool_accepts(tmp_path / "targets")
    groups = json.loads((tmp_path / "targets/node.json").read_bytes())
    found = {g["labels"]["machine"]: g["targets"] for g in groups}
    assert found == {"monitor": ["100.64.0.1:9100"], "db": ["100.64.0.2:9100"], "same": ["same.home.arpa:9100"]}
    assert b"%{" not in (tmp_path / "targets/nginx.json").read_bytes()
    for text in (done.out, done.err, shown.out, shown.err):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", text)
    assert "same: ambiguous: 5000 nodes claim the name" in done.err


def test_every_fault_is_documented() -> None:
    """Each has a row in docs/reliability.md with the observed exit code."""
    text = (ROOT / "docs/reliability.md").read_text()
    rows: dict[str, Object] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) >= 3 and cells[0] in FAULTS:
            rows[cells[0]] = {"code": cells[2]}
    assert rows.keys() == FAULTS.keys()
    for name, fault in FAULTS.items():
        assert rows[name] == {"code": str(fault.code)}, name
