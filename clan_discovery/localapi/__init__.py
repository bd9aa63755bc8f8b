"""A client of tailscaled's LocalAPI: sync, typed, over its unix socket. Usable by itself.

    from clan_discovery.localapi import LocalAPI

    api = LocalAPI()                                  # or LocalAPI("/path/to/tailscaled.sock")
    status = api.status()
    for peer in status.peers:
        print(peer.DNSName, peer.TailscaleIPs, peer.Online)
    print(api.whois("100.64.0.2").Node.Name)
    with api.watch() as events:
        for event in events:                          # newline-delimited, until the daemon or you end it
            print(event.dirty)

Fields bear Go's names, which are the JSON's (tailscale, ipn/ipnstate/ipnstate.go); unknown fields are ignored, every
known one may be absent. Works with tailscaled from 1.54 on. `status` and `whois` are declared stable by Tailscale,
the watch stream is not: only what `Event.dirty` needs is read of it.

Stable within a major version of clan-discovery: the names in `__all__`.
"""

from __future__ import annotations

from clan_discovery.localapi.client import DEFAULT_SOCKET, LocalAPI, Watch
from clan_discovery.localapi.transport import LocalAPIError
from clan_discovery.localapi.types import Event, Node, PeerStatus, Status, TailnetStatus, UserProfile, WhoIs

__all__ = [
    "DEFAULT_SOCKET",
    "Event",
    "LocalAPI",
    "LocalAPIError",
    "Node",
    "PeerStatus",
    "Status",
    "TailnetStatus",
    "UserProfile",
    "Watch",
    "WhoIs",
]
