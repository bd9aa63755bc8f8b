"""Tailscale's status JSON: bytes in, a snapshot out. Pure.

The shape is `ipnstate.Status` of tailscaled (tailscale, ipn/ipnstate/ipnstate.go), declared stable; unknown keys are
ignored, a value of a wrong type makes the whole answer no answer. An answer counts only in state `Running` with a
tailnet: in any other, tailscaled may list some peers, or none, and both would be lies.

A node is matched by the first label of its `DNSName`, which the control plane gives, and never by `HostName`, which
the node chooses. Who cannot be a machine of this tailnet is excluded here, each with its reason.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from clan_discovery.errors import BackendError
from clan_discovery.model import Exclusion, Family, Node, Reason, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MAX_BYTES: Final = 256 * 1024 * 1024
"""An answer larger than this is none; 100,000 nodes are about 120 MB."""

_OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_is_v4: Final = re.compile(rf"(?:{_OCTET}\.){{3}}{_OCTET}").fullmatch  # five times as fast as ipaddress
_MULLVAD_SUFFIX: Final = ".mullvad.ts.net"
_LOGIN_STATES: Final = {
    "NeedsLogin": "log in with: tailscale up",
    "NeedsMachineAuth": "approve this machine in the admin console",
    "Stopped": "start it with: tailscale up",
    "Starting": "it is starting; the next round will tell",
    "NoState": "it is starting; the next round will tell",
    "InUseOtherUser": "another user of this machine holds tailscaled",
}


class Peer(msgspec.Struct, gc=False):
    """What is read of `ipnstate.PeerStatus`; every field may be absent or null in some version."""

    ID: str | None = None
    HostName: str | None = None
    DNSName: str | None = None
    OS: str | None = None
    TailscaleIPs: list[str] | None = None
    AllowedIPs: list[str] | None = None
    PrimaryRoutes: list[str] | None = None
    Tags: list[str] | None = None
    Online: bool | None = None
    ShareeNode: bool | None = None
    Expired: bool | None = None


class Tailnet(msgspec.Struct, gc=False):
    """`ipnstate.TailnetStatus`."""

    Name: str | None = None
    MagicDNSSuffix: str | None = None
    MagicDNSEnabled: bool | None = None


Peers: TypeAlias = dict[str, Peer | None]


class Status(msgspec.Struct, gc=False):
    """What is read of `ipnstate.Status`."""

    BackendState: str | None = None
    Self: Peer | None = None
    MagicDNSSuffix: str | None = None
    CurrentTailnet: Tailnet | None = None
    Peer: Peers | None = None


_decode: Final = msgspec.json.Decoder(Status).decode


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer is read: settings of the backend."""

    backend: str
    family: Family = "ipv4"
    tags: frozenset[str] = frozenset()
    volatile: bool = False

    @property
    def fingerprint(self) -> str:
        """What of the reading decides which nodes there are."""
        return f"{self.family} {','.join(sorted(self.tags))}"


def parse_status(body: bytes, reading: Reading) -> Snapshot:
    """Interpret a status answer.

    Raises:
        BackendError: it is no status, or one of a daemon that does not know its tailnet now.
    """
    status, tailnet = _running(body)
    suffix = _suffix(status, tailnet)
    reader = _Reader(reading, suffix, tailnet.Name or "", flags_known=_flags_known(status))
    peers: Iterable[Peer | None] = (status.Peer or {}).values()
    for peer in (status.Self, *peers):
        if peer is not None:
            reader.peer(peer)
    reader.nodes.sort(key=lambda node: (node.name, node.id, node.addresses))
    reader.excluded.sort(key=lambda e: (e.name, e.reason, e.detail))
    return Snapshot(
        backend=reading.backend,
        nodes=tuple(reader.nodes),
        excluded=tuple(reader.excluded),
        suffix=suffix if suffix and tailnet.MagicDNSEnabled is not False else None,
    )


def _running(body: bytes) -> tuple[Status, Tailnet]:
    try:
        status = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        what = "is empty" if not body.strip() else f"does not parse: {error}"
        raise BackendError(f"the status {what}") from error
    state = status.BackendState
    if state is None:
        raise BackendError("the answer is no tailscale status: it has no BackendState")
    if state != "Running":
        raise BackendError(f"tailscaled is in state {state!r}, not 'Running'", hint=_LOGIN_STATES.get(state))
    if status.CurrentTailnet is None:
        raise BackendError("tailscaled runs, but has no tailnet yet", hint="the next round will tell")
    return status, status.CurrentTailnet


def _suffix(status: Status, tailnet: Tailnet) -> str:
    """This tailnet's MagicDNS suffix, folded; as tailscaled itself does, what follows our own first label else."""
    given = tailnet.MagicDNSSuffix or status.MagicDNSSuffix
    if not given and status.Self is not None and status.Self.DNSName:
        given = status.Self.DNSName.strip(".").partition(".")[2]
    return (given or "").strip(".").casefold()


def _flags_known(status: Status) -> bool:
    # Self.Online false: this node is out of touch with the control plane, and every peer's flag is an old one.
    return status.Self is None or status.Self.Online is not False


class _Reader:
    """Sorts peers into nodes and exclusions."""

    def __init__(self, reading: Reading, suffix: str, tailnet: str, *, flags_known: bool) -> None:
        self.reading = reading
        self.dot_suffix = f".{suffix}" if suffix else ""
        self.flags_known = flags_known
        self.choose = _CHOICES[reading.family]
        self.nodes: list[Node] = []
        self.excluded: list[Exclusion] = []
        self.known_tags: dict[tuple[str, ...], tuple[tuple[str, ...], Mapping[str, str]]] = {}
        self.common = {"__meta_tailscale_api": "localhost", "__meta_tailscale_device_authorized": "true"}
        if tailnet:
            self.common["__meta_tailscale_tailnet"] = tailnet

    def peer(self, peer: Peer) -> None:
        dns_name = (peer.DNSName or "").rstrip(".").casefold()
        tags, tag_labels = self.tags(peer.Tags)
        name = dns_name.removesuffix(self.dot_suffix)
        ours = bool(name) and "." not in name and len(name) < len(dns_name) + (not self.dot_suffix)
        reason = self.stranger(peer, dns_name, tags, ours=ours)
        if reason is not None:
            shown = dns_name or peer.HostName or peer.ID or "?"
            detail = _DETAILS[reason]
            self.excluded.append(
                Exclusion(name=name if ours else shown, reason=reason, detail=detail, by=self.reading.backend)
            )
            return
        addresses, note = self.choose(peer)
        # headscale calls a node online whose key has expired, for it still hears from it; nobody else does.
        expired = peer.Expired is True
        online = None if not self.flags_known else False if expired else peer.Online
        labels = self.labels(peer, dns_name, tag_labels)
        if self.reading.volatile and online is not None:
            labels["__meta_tailscale_device_online"] = "true" if online else "false"
        alias = peer.HostName or ""
        alias = "" if alias == name or alias.casefold() == name else alias
        os = (peer.OS or "").casefold()
        self.nodes.append(Node(name, addresses, tags, os, online, peer.ID or "", labels, note, alias, expired))

    def stranger(self, peer: Peer, dns_name: str, tags: tuple[str, ...], *, ours: bool) -> Reason | None:
        if not dns_name and ("ingress" in tags or peer.HostName == "funnel-ingress-node"):
            return "funnel_ingress"
        if dns_name.endswith(_MULLVAD_SUFFIX) or "mullvad-exit-node" in tags:
            return "mullvad_exit"
        if peer.ShareeNode:
            return "sharee"
        if not dns_name:
            return "no_dns_name"
        if not ours:
            return "foreign_tailnet"
        if self.reading.tags and self.reading.tags.isdisjoint(tags):
            return "missing_tag"
        return None

    def tags(self, given: list[str] | None) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """Return the ACL tags without `tag:`, sorted, and the labels that all of a role share."""
        key = tuple(given or ())
        found = self.known_tags.get(key)
        if found is None:
            tags = tuple(sorted({tag.removeprefix("tag:") for tag in key}))
            labels = self.common | {f"__meta_tailscale_device_tag_{_tag_label(tag)}": "1" for tag in tags}
            if tags:
                labels["__meta_tailscale_device_tags"] = f",{','.join(tags)},"
            found = self.known_tags[key] = tags, labels
        return found

    def labels(self, peer: Peer, dns_name: str, shared: Mapping[str, str]) -> dict[str, str]:
        """Write tailscalesd's names (its README and handler, 0.5.0); empty values are absent, as there."""
        labels = {**shared, "__meta_tailscale_device_name": dns_name}
        if peer.HostName:
            labels["__meta_tailscale_device_hostname"] = peer.HostName
        if peer.ID:
            labels["__meta_tailscale_device_id"] = peer.ID
        if peer.OS:
            labels["__meta_tailscale_device_os"] = peer.OS
        return labels


_DETAILS: Final[dict[Reason, str]] = {
    "funnel_ingress": "a relay of Tailscale Funnel",
    "mullvad_exit": "a Mullvad exit node",
    "sharee": "somebody else's device, to which a machine here is shared",
    "no_dns_name": "it has no DNSName, so nobody vouches for its name",
    "foreign_tailnet": "its DNSName is not directly under this tailnet's MagicDNS suffix",
    "missing_tag": "it bears none of the ACL tags that the backend's `tags` demand",
}


def _tag_label(tag: str) -> str:
    """Write an ACL tag into a label name as tailscalesd does; what is no label character becomes `_` too."""
    name = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in tag.lower())
    return name or "EMPTY"


def _by_version(peer: Peer) -> tuple[list[str], list[str]]:
    """Sort a node's addresses into IPv4 and IPv6; without `TailscaleIPs`, its host-length `AllowedIPs`.

    tailscaled lists only addresses of its own ranges; on a headscale with other prefixes the list is empty while
    `AllowedIPs` holds them as /32 and /128. A subnet router's single-host routes stand there too: not its own.
    """
    given = peer.TailscaleIPs
    if not given:
        routes = frozenset(peer.PrimaryRoutes or ())
        given = [
            allowed.rpartition("/")[0]
            for allowed in peer.AllowedIPs or ()
            if allowed.endswith(("/32", "/128")) and allowed not in routes
        ]
    v4: list[str] = []
    v6: list[str] = []
    for text in given:
        if _is_v4(text) is not None:
            v4.append(text)
        elif ":" in text and _is_v6(text):
            v6.append(text)
    return v4, v6


def _is_v6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text


def _ipv4(peer: Peer) -> tuple[tuple[str, ...], str]:
    # The common case first: one look at the first address, which is the IPv4 one.
    ips = peer.TailscaleIPs
    if ips and _is_v4(ips[0]) is not None:
        return (ips[0],), ""
    v4, v6 = _by_version(peer)
    return tuple(v4), "" if v4 else _lacking("IPv4", v6)


def _ipv6(peer: Peer) -> tuple[tuple[str, ...], str]:
    v4, v6 = _by_version(peer)
    return tuple(v6), "" if v6 else _lacking("IPv6", v4)


def _any(peer: Peer) -> tuple[tuple[str, ...], str]:
    v4, v6 = _by_version(peer)
    return (*v4, *v6), "" if v4 or v6 else "it has no address"


def _lacking(wanted: str, other: list[str]) -> str:
    return (
        f"it has no {wanted} address (it has {other[0]}: see the backend's `family`)" if other else "it has no address"
    )


_CHOICES: Final[dict[Family, Callable[[Peer], tuple[tuple[str, ...], str]]]] = {
    "ipv4": _ipv4,
    "ipv6": _ipv6,
    "any": _any,
}
