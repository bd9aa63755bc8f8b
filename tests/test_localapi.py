"""The LocalAPI client as a library."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import pytest

from clan_discovery.localapi import LocalAPI, LocalAPIError
from tests.support.fleet import node, status
from tests.support.localapi import Behaviour, localapi

if TYPE_CHECKING:
    from pathlib import Path


def test_status_is_typed_and_tolerant(tmp_path: Path) -> None:
    """Fields have the names in Go, unknown ones are ignored, peers are sorted."""
    document = status([node(1, "me"), node(3, "b"), node(2, "a", Future={"x": 1})], NewField=[1])
    with localapi(tmp_path / "s", Behaviour(body=json.dumps(document).encode())):
        found = LocalAPI(tmp_path / "s").status()
    assert found.BackendState == "Running"
    assert found.Self is not None
    assert found.Self.DNSName == "me.tail1a2b3.ts.net."
    assert [peer.HostName for peer in found.peers] == ["a", "b"]
    assert found.peers[0].Tags == ["tag:server"]


def test_whois_returns_a_node_or_none(tmp_path: Path) -> None:
    """404 means that no node has the address."""
    answer = {"Node": {"Name": "db.ts.net.", "Online": None, "Hostinfo": {"Distro": "nixos"}}, "UserProfile": None}
    with localapi(tmp_path / "s", Behaviour(whois=json.dumps(answer).encode())) as how:
        found = LocalAPI(tmp_path / "s").whois("100.64.0.2")
        assert found.Node.Name == "db.ts.net."
        assert found.Node.Hostinfo == {"Distro": "nixos"}
        how.whois = b""
        with pytest.raises(LocalAPIError, match="no match") as caught:
            LocalAPI(tmp_path / "s").whois("100.64.0.9")
        assert caught.value.status == 404


def test_an_answer_of_another_type_is_an_error(tmp_path: Path) -> None:
    """It names the type."""
    with localapi(tmp_path / "s", Behaviour(body=b'{"BackendState": 7}')), pytest.raises(LocalAPIError, match="Status"):
        LocalAPI(tmp_path / "s").status()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_response_that_is_cut_off_is_an_error(tmp_path: Path, *, chunked: bool) -> None:
    """Also if the received part parses."""
    body = b'{"BackendState": "Running"}' + b" " * 100
    how = Behaviour(body=body, truncate=50, chunked=chunked)
    with localapi(tmp_path / "s", how), pytest.raises(LocalAPIError):
        LocalAPI(tmp_path / "s").get("status")


def test_a_header_that_is_not_ascii_is_ignored(tmp_path: Path) -> None:
    """Only the body is used."""
    how = Behaviour(body=b"{}", header=("X-Name", "b\xfcro"))
    with localapi(tmp_path / "s", how):
        assert LocalAPI(tmp_path / "s").get("status") == b"{}"


EVENTS = [
    (b'{"Version": "1.90.1", "State": 6}', True),
    (b'{"NetMap": {"Peers": []}}', True),
    (b'{"NetMap": null}', False),
    (b'{"PeersChanged": [{}]}', True),
    (b'{"PeersRemoved": [7]}', True),
    (b'{"PeerChangedPatch": [{}]}', True),
    (b'{"PeerChanges": [{}]}', True),
    (b'{"SelfChange": {}}', True),
    (b'{"Health": {"Warnings": {}}, "Engine": {}, "Future": 1}', False),
]


def test_the_stream_of_changes(tmp_path: Path) -> None:
    """Any message that may change nodes is a change, for each version; closing wakes the reader."""
    how = Behaviour(events=[event for event, _ in EVENTS])
    with localapi(tmp_path / "s", how):
        found: list[bool] = []
        with LocalAPI(tmp_path / "s").watch() as events:

            def read() -> None:
                found.extend(event.dirty for event in events)

            reader = threading.Thread(target=read)
            reader.start()
            deadline = time.monotonic() + 60
            while len(found) < len(EVENTS) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert reader.is_alive()  # silent, and open
            events.close()
            reader.join(30)
            assert not reader.is_alive()
    assert found == [dirty for _, dirty in EVENTS]
    assert how.masks == ["4114"]


def test_a_stream_that_ends_or_is_refused(tmp_path: Path) -> None:
    """A restart ends the iteration.

    Without permission: 403 with the message of tailscaled.
    """
    how = Behaviour(events=[b"{}"])
    with localapi(tmp_path / "s", how):
        threading.Timer(0.3, how.drop_watchers.set).start()
        with LocalAPI(tmp_path / "s").watch() as events:
            assert len(list(events)) == 1
        how.watch_status = 403
        with (
            pytest.raises(LocalAPIError, match="watch ipn bus access denied") as caught,
            LocalAPI(tmp_path / "s").watch(),
        ):
            pass
        assert caught.value.status == 403
    with pytest.raises(LocalAPIError, match="No such file"), LocalAPI(tmp_path / "s").watch():
        pass


def test_an_invalid_stream_is_our_error(tmp_path: Path) -> None:
    """No other exception is raised."""
    with (
        localapi(tmp_path / "s", Behaviour(events=[b"nonsense"])),
        LocalAPI(tmp_path / "s").watch() as events,
        pytest.raises(LocalAPIError, match="does not parse"),
    ):
        list(events)


def test_a_long_message_is_joined_once(tmp_path: Path) -> None:
    """A netmap of ten megabytes takes no quadratic time."""
    line = b'{"NetMap": {"x": "' + b"y" * (10 << 20) + b'"}}'
    with localapi(tmp_path / "s", Behaviour(events=[line])), LocalAPI(tmp_path / "s").watch() as events:
        assert next(iter(events)).dirty
