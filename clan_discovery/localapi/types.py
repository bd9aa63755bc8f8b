"""What tailscaled answers, as types. Pure. Lenient: unknown fields are ignored, each known one may be absent or null.

Sources: tailscale, ipn/ipnstate/ipnstate.go (`Status`, `PeerStatus`), client/tailscale/apitype (`WhoIsResponse`),
ipn/backend.go (`Notify`). Times stay text: Go writes nine digits of a second and the year 1 for "never".
"""

from __future__ import annotations

from typing import Final

import msgspec

_ABSENT: Final = msgspec.Raw(b"null")


class PeerStatus(msgspec.Struct, gc=False):
    """A node of the tailnet as this one sees it (`ipnstate.PeerStatus`)."""

    ID: str | None = None
    """Stable node id: the one identity that lasts."""
    NodeID: int | None = None
    PublicKey: str | None = None
    """`nodekey:<hex>`; another one after each re-key."""
    HostName: str | None = None
    """What the node calls itself: not unique, and no identity."""
    DNSName: str | None = None
    """FQDN with a trailing dot, given by the control plane."""
    OS: str | None = None
    UserID: int | None = None
    TailscaleIPs: list[str] | None = None
    AllowedIPs: list[str] | None = None
    Tags: list[str] | None = None
    """ACL tags, `tag:` included."""
    PrimaryRoutes: list[str] | None = None
    Online: bool | None = None
    """Old news where `Self.Online` is false."""
    LastSeen: str | None = None
    KeyExpiry: str | None = None
    """RFC 3339; absent where the key does not expire."""
    Expired: bool | None = None
    ShareeNode: bool | None = None
    ExitNode: bool | None = None
    ExitNodeOption: bool | None = None
    Relay: str | None = None


class TailnetStatus(msgspec.Struct, gc=False):
    """The tailnet (`ipnstate.TailnetStatus`)."""

    Name: str | None = None
    MagicDNSSuffix: str | None = None
    MagicDNSEnabled: bool | None = None


class Status(msgspec.Struct, gc=False):
    """The daemon and its tailnet (`ipnstate.Status`)."""

    Version: str | None = None
    BackendState: str | None = None
    """`Running`, or why the rest means nothing: `NoState`, `NeedsLogin`, `NeedsMachineAuth`, `Stopped`, `Starting`."""
    HaveNodeKey: bool | None = None
    AuthURL: str | None = None
    TailscaleIPs: list[str] | None = None
    Self: PeerStatus | None = None
    Health: list[str] | None = None
    MagicDNSSuffix: str | None = None
    CurrentTailnet: TailnetStatus | None = None
    Peer: dict[str, PeerStatus | None] | None = None
    """By public key; null where there is no netmap."""

    @property
    def peers(self) -> tuple[PeerStatus, ...]:
        """The peers, without Self, sorted by DNSName."""
        found = [peer for peer in (self.Peer or {}).values() if peer is not None]
        return tuple(sorted(found, key=lambda peer: (peer.DNSName or "", peer.ID or "")))


class Node(msgspec.Struct, gc=False):
    """A node as `whois` gives it (`tailcfg.Node`)."""

    ID: int | None = None
    StableID: str | None = None
    Name: str | None = None
    """FQDN with a trailing dot."""
    Addresses: list[str] | None = None
    """Prefixes of host length."""
    Tags: list[str] | None = None
    Online: bool | None = None
    """Null where this node may not know."""
    Hostinfo: dict[str, object] | None = None


class UserProfile(msgspec.Struct, gc=False):
    """Whose node it is (`tailcfg.UserProfile`)."""

    ID: int | None = None
    LoginName: str | None = None
    DisplayName: str | None = None


class WhoIs(msgspec.Struct, gc=False):
    """Who has an address (`apitype.WhoIsResponse`)."""

    Node: Node
    UserProfile: UserProfile | None = None


class Event(msgspec.Struct, gc=False):
    """One message of the watch stream (`ipn.Notify`), reduced to what it changes."""

    Version: str | None = None
    State: int | None = None
    ErrMessage: str | None = None
    NetMap: msgspec.Raw = _ABSENT
    PeersChanged: msgspec.Raw = _ABSENT
    PeersRemoved: msgspec.Raw = _ABSENT
    PeerChangedPatch: msgspec.Raw = _ABSENT
    PeerChanges: msgspec.Raw = _ABSENT
    SelfChange: msgspec.Raw = _ABSENT

    @property
    def dirty(self) -> bool:
        """Whether the status may be another one now: the map, a peer, this node or the state changed.

        The messages differ between daemons (the netmap left the stream in 1.100); that one of these is there does not.
        """
        parts = (
            self.NetMap,
            self.PeersChanged,
            self.PeersRemoved,
            self.PeerChangedPatch,
            self.PeerChanges,
            self.SelfChange,
        )
        return self.State is not None or any(bytes(part) != b"null" for part in parts)
