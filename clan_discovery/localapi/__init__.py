"""A typed, synchronous client of tailscaled's LocalAPI on its Unix socket.

It can be used as a library of its own.

    from clan_discovery.localapi import LocalAPI

    api = LocalAPI()                                  # or LocalAPI("/path/to/tailscaled.sock")
    status = api.status()
    for peer in status.peers:
        print(peer.DNSName, peer.TailscaleIPs, peer.Online)
    print(api.whois("100.64.0.2").Node.Name)
    with api.watch() as events:
        for event in events:                          # until the daemon or `events.close()` ends the stream
            print(event.dirty)

Fields have Go's names, which are the JSON's (tailscale, ipn/ipnstate/ipnstate.go). Unknown fields are ignored; each
known field may be absent. Works with tailscaled 1.54 and later. Tailscale declares `status` and `whois` stable, but
not the watch stream, of which only what `Event.dirty` needs is read.

The names in `__all__` are stable within a major version of clan-discovery.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from clan_discovery.localapi.types import (
    Event,
    PeerStatus,
    PeerSummary,
    Status,
    StatusSummary,
    TailnetStatus,
    UserProfile,
    WhoIs,
    WhoIsNode,
)

if TYPE_CHECKING:
    from clan_discovery.localapi.client import DEFAULT_SOCKET, LocalAPI, Watch
    from clan_discovery.localapi.transport import LocalAPIError

__all__ = [
    "DEFAULT_SOCKET",
    "Event",
    "LocalAPI",
    "LocalAPIError",
    "PeerStatus",
    "PeerSummary",
    "Status",
    "StatusSummary",
    "TailnetStatus",
    "UserProfile",
    "Watch",
    "WhoIs",
    "WhoIsNode",
]

# Importing httpx takes 40 ms, which users of the types alone do not need.
_LAZY: Final = {"DEFAULT_SOCKET": "client", "LocalAPI": "client", "LocalAPIError": "transport", "Watch": "client"}


def __getattr__(name: str) -> object:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)
