"""What real tailscaleds answered, recorded: logged out, in a network namespace with loopback alone.

`data/tailscaled/<version>/` holds `status.json`, `watch.ndjson` (mask 4114) and `refused.txt` (another Host) of each;
the host's name is the only thing that was changed.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from clan_discovery.backends.tailscale_wire import Reading, parse_status
from clan_discovery.errors import BackendError
from clan_discovery.localapi import Event, LocalAPI
from tests.support.localapi import Behaviour, localapi

VERSIONS = sorted((Path(__file__).parent / "data/tailscaled").iterdir())


@pytest.mark.parametrize("recorded", VERSIONS, ids=lambda path: path.name)
def test_a_daemon_that_is_logged_out(recorded: Path, tmp_path: Path) -> None:
    """200 with nothing known: typed by the client, an outage to the backend, never an empty tailnet."""
    body = (recorded / "status.json").read_bytes()
    with localapi(tmp_path / "s", Behaviour(body=body)):
        status = LocalAPI(tmp_path / "s").status()
    assert status.BackendState == "NeedsLogin"
    assert (status.Version or "").startswith(recorded.name.removeprefix("v"))
    assert status.peers == ()
    assert status.CurrentTailnet is None
    with pytest.raises(BackendError, match="NeedsLogin"):
        parse_status(body, Reading(backend="t"))


@pytest.mark.parametrize("recorded", VERSIONS, ids=lambda path: path.name)
def test_the_first_messages_of_its_bus(recorded: Path) -> None:
    """The state is in them, and that is a reason to look."""
    lines = (recorded / "watch.ndjson").read_bytes().splitlines()
    events = [msgspec.json.decode(line, type=Event) for line in lines]
    assert events[0].dirty
    assert events[0].State == 2  # NeedsLogin, as a number
    assert json.loads(lines[0])["Version"] == events[0].Version


@pytest.mark.parametrize("recorded", VERSIONS, ids=lambda path: path.name)
def test_it_refuses_another_host(recorded: Path) -> None:
    """As the stand-in does."""
    assert (recorded / "refused.txt").read_text() == "403 invalid localapi request\n"
