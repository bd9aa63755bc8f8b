"""Who may read on an address of the tailnet, against a LocalAPI on a socket."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from clan_discovery.errors import BackendError, InputError
from clan_discovery.localapi.transport import LocalAPIError
from clan_discovery.resident.serving import Serving, WebSettings
from clan_discovery.web.access import TailnetAccess, own_node
from tests.support.localapi import Behaviour, localapi

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from clan_discovery.model import Json

ADDRESS = "100.64.0.1"
NAME = "monitor.tail1a2b3.ts.net"
PEER = "100.64.0.9:5555"
ALLOW = ("tag:admin", "Ann@example.org", "mike@example.org")


def own_status(name: str = NAME, state: str = "Running") -> bytes:
    """Return the status of the machine that serves."""
    own: Json = {"DNSName": f"{name}.", "TailscaleIPs": [ADDRESS, "fd7a:115c:a1e0::1"]}
    return json.dumps({"BackendState": state, "Self": own, "TailscaleIPs": [ADDRESS, "fd7a:115c:a1e0::1"]}).encode()


def owner(login: str | None, *tags: str, **node: Json) -> bytes:
    """Return what `whois` says of a node."""
    found: dict[str, Json] = {"Name": "laptop.tail1a2b3.ts.net.", "Tags": list(tags) or None, **node}
    return json.dumps({"Node": found, "UserProfile": {"LoginName": login}}).encode()


@pytest.fixture
def tailnet(tmp_path: Path) -> Generator[Behaviour]:
    """A tailscaled that is connected."""
    with localapi(tmp_path / "s", Behaviour(body=own_status())) as how:
        yield how


@pytest.fixture
def access(tailnet: Behaviour, tmp_path: Path) -> TailnetAccess:
    """The access to the machine for a tag and a user."""
    assert tailnet.body
    return TailnetAccess(own_node(tmp_path / "s"), ADDRESS, ALLOW)


@pytest.mark.parametrize(
    ("whois", "reason"),
    [
        (owner("ann@example.org"), None),
        (owner("ANN@EXAMPLE.ORG"), None),
        (owner("tagged-devices", "tag:admin"), None),
        (owner("tagged-devices", "tag:server", "tag:admin"), None),
        (owner("eve@example.org"), "the user eve@example.org is not in `web.allow`"),
        (owner("mi\u212ae@example.org"), "the user mi\u212ae@example.org is not in `web.allow`"),
        (owner("ann@example.org.evil"), "the user ann@example.org.evil is not in `web.allow`"),
        (owner("tag:admin"), "the user tag:admin is not in `web.allow`"),
        (owner(None), "the user (unknown) is not in `web.allow`"),
        (owner(""), "the user (unknown) is not in `web.allow`"),
        (owner("e\x1b[1mve"), "the user e\\x1b[1mve is not in `web.allow`"),
        (owner("ann@example.org", "tag:server"), "laptop.tail1a2b3.ts.net has none of the tags in `web.allow`"),
        (owner("ann@example.org", "tag:Admin"), "laptop.tail1a2b3.ts.net has none of the tags in `web.allow`"),
        (owner("ann@example.org", Sharer=7), "laptop.tail1a2b3.ts.net belongs to another tailnet"),
        (owner("ann@example.org", Hostinfo={"ShareeNode": True}), "laptop.tail1a2b3.ts.net belongs to another"),
        (owner("x", "tag:admin", Name="a.other.ts.net."), "a.other.ts.net belongs to another tailnet"),
        (owner("ann@example.org", Name=None), " belongs to another tailnet"),
    ],
)
def test_only_allowed_users_and_tags_are_let_in(
    access: TailnetAccess, tailnet: Behaviour, whois: bytes, reason: str | None
) -> None:
    """A tagged node has no user, and nodes of other tailnets are refused, whatever they have."""
    tailnet.whois = whois
    refusal = access.refusal(ADDRESS, PEER)
    if reason is None:
        assert refusal is None
    else:
        assert refusal is not None
        assert refusal.status == 403
        assert reason in refusal.reason


def test_an_unknown_peer_is_refused(access: TailnetAccess) -> None:
    """The machine has an address of another network, too."""
    refusal = access.refusal(ADDRESS, "192.0.2.1:5555")
    assert refusal == (403, "192.0.2.1:5555 is not a node of this tailnet")


@pytest.mark.parametrize(
    "whois", [b"{}", b"<html>", b'{"Node": null}', b'{"Node": {"Tags": "tag:admin"}}', b"[" * 9999]
)
def test_a_damaged_answer_lets_nobody_in(access: TailnetAccess, tailnet: Behaviour, whois: bytes) -> None:
    tailnet.whois = whois
    refusal = access.refusal(ADDRESS, PEER)
    assert refusal is not None
    assert refusal.status in (403, 503)


def test_without_tailscaled_nobody_is_let_in(tmp_path: Path) -> None:
    """503 with the reason; also if the last answer let the same peer in."""
    with localapi(tmp_path / "s", Behaviour(body=own_status(), whois=owner("ann@example.org"))):
        access = TailnetAccess(own_node(tmp_path / "s"), ADDRESS, ALLOW)
        assert access.refusal(ADDRESS, PEER) is None
    refusal = access.refusal(ADDRESS, PEER)
    assert refusal is not None
    assert refusal.status == 503
    assert refusal.reason.startswith(f"cannot ask tailscaled who has {PEER}: ")


@pytest.mark.parametrize("host", [None, ADDRESS, f"{ADDRESS}:9942", NAME, f"{NAME}.:80", "MONITOR", "monitor:9942"])
def test_the_names_of_the_node_are_answered(access: TailnetAccess, tailnet: Behaviour, host: str | None) -> None:
    tailnet.whois = owner("ann@example.org")
    assert access.refusal(host, PEER) is None


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost", "127.0.0.1", "100.64.0.2", f"{NAME}.evil.example", "tail1a2b3.ts.net", "", "."],
)
def test_other_names_are_refused(access: TailnetAccess, tailnet: Behaviour, host: str) -> None:
    """They may be DNS rebinding; tailscaled is not asked who asks."""
    tailnet.whois = owner("ann@example.org")
    refusal = access.refusal(host, PEER)
    assert refusal == (421, f"Host '{host}' is not this machine: use {ADDRESS} or {NAME}")


def test_a_renamed_node_is_answered(access: TailnetAccess, tailnet: Behaviour, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its names are read again, at most every ten seconds."""
    tailnet.whois = owner("ann@example.org")
    tailnet.body = own_status("other.tail1a2b3.ts.net")
    assert access.refusal("other", PEER) is not None
    asked = tailnet.connections
    later = time.monotonic() + 11
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert access.refusal("other", PEER) is None
    assert access.refusal("monitor", PEER) is not None
    assert access.refusal("evil.example", PEER) is not None
    assert tailnet.connections - asked == 2  # one status and one whois


@pytest.mark.parametrize("state", ["NeedsLogin", "Stopped", "Starting", "NoState"])
def test_a_daemon_that_is_not_connected_is_asked_again(tailnet: Behaviour, tmp_path: Path, state: str) -> None:
    """Its addresses are of no use."""
    tailnet.body = own_status(state=state)
    with pytest.raises(LocalAPIError, match=f"not connected: its state is {state}"):
        own_node(tmp_path / "s")


def settings(*sockets: Path, listen: str = f"{ADDRESS}:9942") -> WebSettings:
    """Return settings for an address of the tailnet."""
    return WebSettings(listen, ALLOW, sockets, "c.yaml:1:15")


def test_an_address_of_another_machine_is_an_error(tailnet: Behaviour, tmp_path: Path) -> None:
    """With the addresses of this one."""
    assert tailnet.body
    with pytest.raises(InputError) as caught:
        Serving().open(settings(tmp_path / "s", listen="100.64.0.2:9942"))
    hint = f"(write one of {ADDRESS}, fd7a:115c:a1e0::1)"
    what = "c.yaml:1:15: web.listen: 100.64.0.2 is not an address of this machine in its tailnet"
    assert str(caught.value) == f"{what} {hint}"


def test_an_address_that_is_not_there_yet_is_tried_again(tailnet: Behaviour, tmp_path: Path) -> None:
    """Without tailscaled, and while tailscale0 has no address."""
    serving = Serving()
    for _ in range(2):
        with pytest.raises(BackendError, match="No such file or directory"):
            serving.open(settings(tmp_path / "nothing"))
        with pytest.raises(BackendError, match=f"the address {ADDRESS} is not there yet"):
            serving.open(settings(tmp_path / "nothing", tmp_path / "s"))
    assert tailnet.connections == 2
