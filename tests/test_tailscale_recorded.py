"""Recorded answers of real tailscaleds.

`data/tailscaled/<version>/` has `status.json`, `watch.ndjson` (mask 4114) and `refused.txt` (another Host) of a daemon
that is logged out. It has `running.json` and `bus.ndjson` of one in a headscale tailnet with unusual nodes
(`python -m tests.tailnet.record`). Only keys, ids and data about the host were changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import msgspec
import pytest

from clan_discovery.backends.tailscale_wire import TailscaleOptions, parse_status
from clan_discovery.errors import BackendError
from clan_discovery.localapi import Event, LocalAPI, Status
from tests.support.fleet import fleet
from tests.support.localapi import Behaviour, localapi

VERSIONS = sorted((Path(__file__).parent / "data/tailscaled").iterdir())


@pytest.mark.parametrize("recorded", VERSIONS, ids=lambda path: path.name)
def test_a_logged_out_daemon_is_an_outage(recorded: Path, tmp_path: Path) -> None:
    """Its status is a valid 200 without nodes, and is never taken for an empty tailnet."""
    body = (recorded / "status.json").read_bytes()
    with localapi(tmp_path / "s", Behaviour(body=body)):
        status = LocalAPI(tmp_path / "s").status()
    assert status.BackendState == "NeedsLogin"
    assert (status.Version or "").startswith(recorded.name.removeprefix("v"))
    assert status.peers == ()
    assert status.CurrentTailnet is None
    with pytest.raises(BackendError, match="NeedsLogin"):
        parse_status(body, TailscaleOptions(backend="t"))


@pytest.mark.parametrize("recorded", VERSIONS, ids=lambda path: path.name)
def test_the_first_bus_message_starts_a_cycle(recorded: Path) -> None:
    """It has the state."""
    lines = (recorded / "watch.ndjson").read_bytes().splitlines()
    events = [msgspec.json.decode(line, type=Event) for line in lines]
    assert events[0].dirty
    assert events[0].State == 2  # NeedsLogin, as a number
    assert json.loads(lines[0])["Version"] == events[0].Version


@pytest.mark.parametrize("recorded", VERSIONS, ids=lambda path: path.name)
def test_the_test_server_refuses_a_host_as_tailscaled_does(recorded: Path) -> None:
    """Compared with the recorded response."""
    assert (recorded / "refused.txt").read_text() == "403 invalid localapi request\n"


@pytest.mark.parametrize("recorded", VERSIONS, ids=lambda path: path.name)
def test_an_unusual_tailnet_is_parsed(recorded: Path) -> None:
    """Names come from the control plane.

    An expired key is offline, although its flag says online.
    """
    found = parse_status((recorded / "running.json").read_bytes(), TailscaleOptions(backend="t", family="any"))
    nodes = {node.name: node for node in found.nodes}
    assert set(nodes) == {"monitor", "older", "oldest", "db", "db-1", "web", "depot", "lamp", "kiosk"}
    assert found.excluded == ()
    assert found.suffix == "tailnet.test"
    assert {name: node.alias for name, node in nodes.items() if node.alias} == {"db-1": "db", "depot": "shed"}
    assert [name for name, node in nodes.items() if node.expired] == ["kiosk", "lamp"]
    assert {name for name, node in nodes.items() if node.online is False} == {"db", "lamp", "kiosk"}
    assert nodes["web"].tags == ("retired", "server")
    assert all(len(node.addresses) == 2 for node in nodes.values())
    typed = msgspec.json.decode((recorded / "running.json").read_bytes(), type=Status)
    assert typed.BackendState == "Running"
    assert len(typed.peers) == 8


@pytest.mark.parametrize("recorded", VERSIONS, ids=lambda path: path.name)
def test_bus_messages_about_machines_start_a_cycle(recorded: Path) -> None:
    """Health, profiles and empty messages do not."""
    lines = (recorded / "bus.ndjson").read_bytes().splitlines()
    kinds: dict[str, bool] = {}
    for line in lines:
        said = [k for k, v in json.loads(line).items() if v is not None and k not in ("Version", "SessionID")]
        kinds[" ".join(said)] = msgspec.json.decode(line, type=Event).dirty
    dull = {"", "Health", "UserProfiles", "Engine"}
    assert kinds == {kind: kind not in dull for kind in kinds}
    wanted = "PeersChanged" if recorded.name == "v1.102.3" else "NetMap"
    assert any(wanted in kind.split() for kind in kinds)
    assert not any("NetMap" in kind.split() for kind in kinds if wanted != "NetMap")


def shape(value: object) -> object:
    """Return the keys of a JSON value and the types of its values."""
    if isinstance(value, dict):
        return {str(key): shape(item) for key, item in cast("dict[str, object]", value).items()}
    return type(value).__name__


def test_the_test_server_has_the_shape_of_the_newest_daemon() -> None:
    """Keys and types are those of the recorded status."""
    newest = next(recorded for recorded in VERSIONS if recorded.name == "v1.102.3")
    real: dict[str, dict[str, dict[str, object]]] = json.loads((newest / "running.json").read_bytes())
    ours: dict[str, dict[str, dict[str, object]]] = json.loads(json.dumps(fleet(["a", "b"])))
    tagged = next(peer for peer in real.pop("Peer").values() if "Tags" in peer and "Expired" not in peer)
    assert shape(next(iter(ours.pop("Peer").values()))) == shape(tagged)
    # Self also has capabilities; this node has no tag.
    assert set(ours.pop("Self")) ^ set(real.pop("Self")) == {"Tags", "Capabilities", "CapMap"}
    assert set(real.pop("User")["1"]) >= set(ours.pop("User"))
    assert shape(ours) == shape(real)
