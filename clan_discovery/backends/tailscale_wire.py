"""Convert tailscaled's status into a snapshot.

A status counts only in state `Running` with a tailnet. In any other state tailscaled may list some peers or none, which
says nothing about the tailnet. A value of a wrong type makes the whole status unusable.

A node is matched by the first label of its `DNSName`, which the control plane assigns, never by `HostName`, which the
node chooses. Nodes that cannot be machines of this tailnet are excluded, each with its reason. A node at an address
that no target may have is seen without an address.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.errors import BackendError
from clan_discovery.localapi.types import PeerSummary, StatusSummary
from clan_discovery.model import Exclusion, Family, Node, Reason, Snapshot
from clan_discovery.syntax.endpoint import OCTET, is_address, is_domain
from clan_discovery.syntax.networks import refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from clan_discovery.localapi.types import TailnetStatus


_TAILNET_OCTET: Final = "(?:6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])"
# An address in 100.64.0.0/10, Tailscale's own range, other than that of tailscaled's resolver.
_is_plain: Final = re.compile(rf"100\.(?!100\.100\.100$){_TAILNET_OCTET}\.{OCTET}\.{OCTET}").fullmatch
_MULLVAD_SUFFIX: Final = ".mullvad.ts.net"
_LOGIN_STATES: Final = {
    "NeedsLogin": "log in with: tailscale up",
    "NeedsMachineAuth": "approve this machine in the admin console",
    "Stopped": "start it with: tailscale up",
    "Starting": "tailscaled is starting; the next refresh cycle asks again",
    "NoState": "tailscaled is starting; the next refresh cycle asks again",
    "InUseOtherUser": "another user of this machine uses tailscaled",
}
_DETAILS: Final[dict[Reason, str]] = {
    "funnel_ingress": "a relay of Tailscale Funnel",
    "mullvad_exit": "a Mullvad exit node",
    "sharee": "another user's device, to which a machine here is shared",
    "no_dns_name": "it has no DNSName, so the control plane does not confirm its name",
    "foreign_tailnet": "its DNSName is not directly under this tailnet's MagicDNS suffix",
    "missing_tag": "it has none of the ACL tags in the backend's `tags`",
}
_FAMILY_NAMES: Final[dict[Family, str]] = {"ipv4": "IPv4", "ipv6": "IPv6"}

_decode: Final = msgspec.json.Decoder(StatusSummary[PeerSummary]).decode


class TailscaleOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the backend that decide how a status is read.

    `tags`: only nodes with one of these ACL tags. `volatile`: add labels that change by themselves.
    """

    backend: str
    family: Family = "ipv4"
    tags: frozenset[str] = frozenset()
    volatile: bool = False

    @property
    def fingerprint(self) -> str:
        """Return the settings that decide which nodes there are."""
        return f"{self.family} {','.join(sorted(self.tags))}"


class Converted(msgspec.Struct, frozen=True, gc=False):
    """A peer, and the node that it was converted to."""

    peer: PeerSummary
    node: Node


class PeerCache(msgspec.Struct):
    """The nodes of the last status, each with the peer that it was made of, by public key.

    They are reused while `context`, all that decides a node beside its peer, is the same. Peers are compared as decoded
    and not as bytes: tailscaled counts the bytes of each connection in the status, so nearly all bytes change.
    """

    context: tuple[object, ...] = ()
    nodes: dict[str, Converted] = {}


def parse_status(body: bytes, options: TailscaleOptions, cache: PeerCache | None = None) -> Snapshot:
    """Convert the JSON of a status.

    Nodes of peers that have not changed are taken from the `cache`, which then has those of this status. The snapshot
    is the same without one.

    Raises:
        BackendError: it is not a status, or the daemon does not know its tailnet at the moment.
    """
    status, tailnet = _decode_running(body)
    suffix = _magic_dns_suffix(status, tailnet)
    # While Self.Online is false, this node is cut off from the control plane and the flags of all peers are old.
    flags_known = status.Self is None or status.Self.Online is not False
    name = tailnet.Name or ""
    converter = _PeerConverter(options, suffix, name, flags_known=flags_known)
    if status.Self is not None:
        converter.add(status.Self)
    if cache is None:
        for peer in (status.Peer or {}).values():
            if peer is not None:
                converter.add(peer)
    else:
        context = (options, suffix, name, flags_known)
        known = cache.nodes if cache.context == context else {}
        cache.nodes = converter.add_changed(status.Peer or {}, known)
        cache.context = context
    converter.nodes.sort(key=lambda node: (node.name, node.id, node.addresses))
    converter.excluded.sort(key=lambda e: (e.name, e.reason, e.detail))
    if not suffix or tailnet.MagicDNSEnabled is False:
        suffix = None
    return Snapshot(
        backend=options.backend,
        nodes=tuple(converter.nodes),
        excluded=tuple(converter.excluded),
        suffix=suffix,
    )


def _decode_running(body: bytes) -> tuple[StatusSummary[PeerSummary], TailnetStatus]:
    try:
        status = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        what = f"does not parse: {error}" if body.strip() else "is empty"
        raise BackendError(f"the status {what}") from error
    state = status.BackendState
    if state is None:
        raise BackendError("not a Tailscale status: it has no BackendState")
    if state != "Running":
        raise BackendError(f"tailscaled is in state {state!r}, not 'Running'", hint=_LOGIN_STATES.get(state))
    if status.CurrentTailnet is None:
        hint = "the next refresh cycle asks again"
        raise BackendError("tailscaled is running, but has no tailnet yet", hint=hint)
    return status, status.CurrentTailnet


def _magic_dns_suffix(status: StatusSummary[PeerSummary], tailnet: TailnetStatus) -> str | None:
    """Return the tailnet's MagicDNS suffix in lower case.

    Without one, it is the domain of this machine's own name, as in tailscaled. It may be a single label: each headscale
    chooses its own suffix.

    Raises:
        BackendError: no machine can have a name below the suffix, so the status cannot be used.
    """
    own = ""
    if status.Self is not None:
        own = (status.Self.DNSName or "").strip(".")
    suffix = tailnet.MagicDNSSuffix or status.MagicDNSSuffix or own.partition(".")[2]
    if not suffix:
        return None
    found = suffix.strip(".")
    hint = "see the tailnet's DNS settings, on headscale `dns.base_domain`"
    if not is_domain(found):
        raise BackendError(f"the MagicDNS suffix {suffix[:80]!r} is not a valid domain", hint=hint)
    found = found.lower()
    if own and not own.lower().endswith(f".{found}"):  # tailscaled takes the suffix from this name
        raise BackendError(f"this machine's name {own[:80]!r} is not below the MagicDNS suffix {found!r}", hint=hint)
    return found


class _PeerConverter:
    """Sorts peers into nodes and exclusions."""

    def __init__(self, options: TailscaleOptions, suffix: str | None, tailnet: str, *, flags_known: bool) -> None:
        self.nodes: list[Node] = []
        self.excluded: list[Exclusion] = []
        self._options = options
        self._dot_suffix = f".{suffix}" if suffix else ""
        self._flags_known = flags_known
        self._tags: dict[tuple[str, ...], tuple[tuple[str, ...], Mapping[str, str]]] = {}
        self._common = {"__meta_tailscale_api": "localhost", "__meta_tailscale_device_authorized": "true"}
        if tailnet:
            self._common["__meta_tailscale_tailnet"] = tailnet

    def add_changed(
        self, peers: Mapping[str, PeerSummary | None], known: Mapping[str, Converted]
    ) -> dict[str, Converted]:
        """Add all peers as `add` does; convert only those that are not known. Return the nodes by key."""
        found: dict[str, Converted] = {}
        for key, peer in peers.items():
            if peer is None:
                continue
            same = known.get(key)
            if same is not None and same.peer == peer:
                self.nodes.append(same.node)
                found[key] = same
                continue
            excluded = len(self.excluded)
            self.add(peer)
            if len(self.excluded) == excluded:
                found[key] = Converted(peer, self.nodes[-1])
        return found

    def add(self, peer: PeerSummary) -> None:
        """Add a peer as a node, or as an exclusion."""
        given = peer.DNSName or ""
        dns_name = given.rstrip(".").casefold()
        name = ""
        if given.isascii():  # case-folding turns some other letters into ASCII, and so into another machine's name
            name = self._name(dns_name)
        tags, labels = self._tags_and_labels(peer.Tags)
        reason = self._exclusion_reason(peer, dns_name, name, tags)
        if reason is not None:
            # HostName is in brackets, because the node chooses it: it must not look like a DNSName.
            shown = name or dns_name or f"({peer.HostName or peer.ID or '?'})"
            self._exclude(shown, reason, _DETAILS[reason])
            return
        alias = peer.HostName or ""
        if alias.casefold() == name:
            alias = ""
        addresses, note = self._addresses(peer, name)
        online = self._online(peer)
        os = (peer.OS or "").casefold()
        own_labels = self._labels(peer, dns_name, labels, online=online)
        expired = peer.Expired is True
        self.nodes.append(Node(name, addresses, tags, os, online, peer.ID or "", own_labels, note, alias, expired))

    def _name(self, dns_name: str) -> str:
        """Return the label of a name directly below the tailnet's suffix, else ""."""
        label = dns_name.removesuffix(self._dot_suffix)
        if "." in label or not dns_name.endswith(self._dot_suffix):
            return ""
        return label

    def _exclusion_reason(self, peer: PeerSummary, dns_name: str, name: str, tags: tuple[str, ...]) -> Reason | None:
        if not dns_name and ("ingress" in tags or peer.HostName == "funnel-ingress-node"):
            return "funnel_ingress"
        if dns_name.endswith(_MULLVAD_SUFFIX) or "mullvad-exit-node" in tags:
            return "mullvad_exit"
        if peer.ShareeNode:
            return "sharee"
        if not dns_name:
            return "no_dns_name"
        if not name:
            return "foreign_tailnet"
        if self._options.tags and self._options.tags.isdisjoint(tags):
            return "missing_tag"
        return None

    def _online(self, peer: PeerSummary) -> bool | None:
        if not self._flags_known:
            return None
        if peer.Expired:  # headscale calls such a node online, but no other node accepts its key
            return False
        return peer.Online

    def _tags_and_labels(self, given: list[str] | None) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """Return the ACL tags, and the labels that all peers with these tags share.

        The tags are sorted and have no `tag:`.
        """
        key = tuple(given or ())
        found = self._tags.get(key)
        if found is None:
            tags = tuple(sorted({tag.removeprefix("tag:") for tag in key}))
            labels = self._common | {f"__meta_tailscale_device_tag_{_tag_label(tag)}": "1" for tag in tags}
            if tags:
                labels["__meta_tailscale_device_tags"] = f",{','.join(tags)},"
            found = self._tags[key] = tags, labels
        return found

    def _labels(
        self, peer: PeerSummary, dns_name: str, shared: Mapping[str, str], *, online: bool | None
    ) -> dict[str, str]:
        """Return labels with tailscalesd's names, without empty ones.

        Source: tailscalesd 0.5.0, README and handler.
        """
        labels = {**shared, "__meta_tailscale_device_name": dns_name}
        if peer.HostName:
            labels["__meta_tailscale_device_hostname"] = peer.HostName
        if peer.ID:
            labels["__meta_tailscale_device_id"] = peer.ID
        if peer.OS:
            labels["__meta_tailscale_device_os"] = peer.OS
        if self._options.volatile and online is not None:
            labels["__meta_tailscale_device_online"] = str(online).lower()
        return labels

    def _addresses(self, peer: PeerSummary, name: str) -> tuple[tuple[str, ...], str]:
        """Return the addresses of the family; if there is none, a note with the reason."""
        family, listed = self._options.family, peer.TailscaleIPs
        if family == "ipv4" and listed and _is_plain(listed[0]) is not None:
            return (listed[0],), ""  # nearly every node, without parsing
        by_family, refused = _judged(listed or _host_routes(peer))
        every = by_family["ipv4"] + by_family["ipv6"]
        found = by_family.get(family, every)
        if found:
            return tuple(found), ""
        if refused:
            # Its MagicDNS name leads to the same address, so the resolver must not use that either.
            self._exclude(name, "refused_address", f"it has the address {refused}")
            return (), f"no target may have its address {refused}"
        if every:
            return (), f"it has no {_FAMILY_NAMES[family]} address (it has {every[0]}: see the backend's `family`)"
        return (), "it has no address"

    def _exclude(self, name: str, reason: Reason, detail: str) -> None:
        self.excluded.append(Exclusion(name=name, reason=reason, detail=detail, by=self._options.backend))


def _judged(texts: Iterable[str]) -> tuple[dict[Family, list[str]], str]:
    """Return the addresses by family, and the first refused one with the reason."""
    found: dict[Family, list[str]] = {"ipv4": [], "ipv6": []}
    refused = ""
    for text in texts:
        if not is_address(text):
            continue
        why = refusal(text)
        if why is not None:
            refused = refused or f"{text}: {why}"
        elif ":" in text:
            found["ipv6"].append(text)
        else:
            found["ipv4"].append(text)
    return found, refused


def _tag_label(tag: str) -> str:
    """Convert an ACL tag for a label name, as tailscalesd does.

    `_` replaces characters that a label cannot have.
    """
    return re.sub("[^a-z0-9_]", "_", tag.lower()) or "EMPTY"


def _host_routes(peer: PeerSummary) -> list[str]:
    """Return the addresses of a node's host-length `AllowedIPs`.

    Routes that the node advertises are left out. tailscaled lists only addresses of its own ranges in `TailscaleIPs`:
    on a headscale with other prefixes the list is empty, and `AllowedIPs` has them as /32 and /128.
    """
    routes = set(peer.PrimaryRoutes or ())
    hosts = [prefix for prefix in peer.AllowedIPs or () if prefix.endswith(("/32", "/128"))]
    return [prefix.rpartition("/")[0] for prefix in hosts if prefix not in routes]
