"""Define the types of tailscaled's responses.

Unknown fields are ignored; each known field may be absent or null. Sources: tailscale, ipn/ipnstate/ipnstate.go
(`Status`, `PeerStatus`), client/tailscale/apitype (`WhoIsResponse`), ipn/backend.go (`Notify`). Times stay text: Go
writes nine digits of a second, and the year 1 for "never".

`StatusSummary[PeerSummary]` has the fields that service discovery needs. It is decoded 20 % faster than `Status`.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

import msgspec

_ABSENT: Final = msgspec.Raw(b"null")
_PeerT = TypeVar("_PeerT")


class PeerSummary(msgspec.Struct, gc=False):
    """The identity and addresses of a peer: a part of `ipnstate.PeerStatus`."""

    ID: str | None = None
    """The stable node id: the only identity that does not change."""
    HostName: str | None = None
    """What the node calls itself: not unique, and not an identity."""
    DNSName: str | None = None
    """The FQDN with a trailing dot, given by the control plane."""
    OS: str | None = None
    TailscaleIPs: list[str] | None = None
    AllowedIPs: list[str] | None = None
    PrimaryRoutes: list[str] | None = None
    Tags: list[str] | None = None
    """The ACL tags, with `tag:`."""
    Online: bool | None = None
    """Out of date if `Self.Online` is false."""
    ShareeNode: bool | None = None
    Expired: bool | None = None


class PeerStatus(PeerSummary, gc=False):
    """A node of the tailnet as this one sees it (`ipnstate.PeerStatus`)."""

    NodeID: int | None = None
    PublicKey: str | None = None
    """`nodekey:<hex>`; changes with each re-key."""
    UserID: int | None = None
    LastSeen: str | None = None
    KeyExpiry: str | None = None
    """RFC 3339; absent if the key does not expire."""
    ExitNode: bool | None = None
    ExitNodeOption: bool | None = None
    Relay: str | None = None


class TailnetStatus(msgspec.Struct, gc=False):
    """The tailnet (`ipnstate.TailnetStatus`)."""

    Name: str | None = None
    MagicDNSSuffix: str | None = None
    MagicDNSEnabled: bool | None = None


class StatusSummary(msgspec.Struct, Generic[_PeerT], gc=False):
    """The tailnet and its nodes: the part of `ipnstate.Status` that discovery needs."""

    BackendState: str | None = None
    """`Running`, or why the rest has no meaning: `NoState`, `NeedsLogin`, `NeedsMachineAuth`, `Stopped`, `Starting`."""
    Self: _PeerT | None = None
    MagicDNSSuffix: str | None = None
    CurrentTailnet: TailnetStatus | None = None
    Peer: dict[str, _PeerT | None] | None = None
    """By public key; null if there is no netmap."""


class Status(StatusSummary[PeerStatus], gc=False):
    """The daemon and its tailnet (`ipnstate.Status`)."""

    Version: str | None = None
    HaveNodeKey: bool | None = None
    AuthURL: str | None = None
    TailscaleIPs: list[str] | None = None
    Health: list[str] | None = None

    @property
    def peers(self) -> tuple[PeerStatus, ...]:
        """The peers, without Self, sorted by DNSName."""
        found = [peer for peer in (self.Peer or {}).values() if peer is not None]
        return tuple(sorted(found, key=lambda peer: (peer.DNSName or "", peer.ID or "")))


class WhoIsNode(msgspec.Struct, gc=False):
    """A node as `whois` gives it (`tailcfg.Node`)."""

    ID: int | None = None
    StableID: str | None = None
    Name: str | None = None
    """FQDN with a trailing dot."""
    Addresses: list[str] | None = None
    """Host-length prefixes."""
    Tags: list[str] | None = None
    Online: bool | None = None
    """Null if this node may not know it."""
    Sharer: int | None = None
    """The user of another tailnet who shared the node."""
    Hostinfo: dict[str, object] | None = None


class UserProfile(msgspec.Struct, gc=False):
    """The user that owns a node (`tailcfg.UserProfile`)."""

    ID: int | None = None
    LoginName: str | None = None
    DisplayName: str | None = None


class WhoIs(msgspec.Struct, gc=False):
    """The owner of an address (`apitype.WhoIsResponse`)."""

    Node: WhoIsNode
    UserProfile: UserProfile | None = None


class Event(msgspec.Struct, gc=False):
    """One message of the watch stream (`ipn.Notify`), reduced to what changes."""

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
        """Whether the status may have changed: the netmap, a peer, this node or the state.

        Versions send different fields (the netmap left the stream in 1.100), but each sends one of these.
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
