"""Decide which requests are answered: the `Host` against DNS rebinding, and who asks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from clan_discovery.localapi.client import LocalAPI, decode_status
from clan_discovery.localapi.transport import LocalAPIError
from clan_discovery.model import one_line
from clan_discovery.syntax.endpoint import is_loopback, split_endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from clan_discovery.localapi.types import Status, WhoIs

_MAX_HOST: Final = 100
_WHOIS_S: Final = 2.0
_STATUS_S: Final = 2.0
_NAMES_S: Final = 10.0
"""How often the names of this node are read again at most."""


class Refusal(NamedTuple):
    """The status and the text of a refused request."""

    status: int
    reason: str


class Access(Protocol):
    """Who may ask. `host` is the `Host` of a request, `peer` the client's ip:port."""

    def refusal(self, host: str | None, peer: str) -> Refusal | None:
        """Return why a request is refused; None if it is answered."""


class LoopbackAccess:
    """Every local user may ask, by a name or an address of loopback."""

    def refusal(self, host: str | None, peer: str) -> Refusal | None:
        """Refuse a foreign `Host`.

        A browser sends the name of the page that it shows, so a foreign name may be DNS rebinding. HTTP/1.0 needs none.
        """
        del peer
        if host is None or is_loopback(_name_of(host)):
            return None
        return Refusal(421, f"Host '{_shown(host)}' is not loopback: let the proxy send \"Host: localhost\"")


class TailnetNode(NamedTuple):
    """This machine in a tailnet: its addresses, its name there, and the socket of its tailscaled."""

    socket: Path
    addresses: tuple[str, ...]
    name: str

    @property
    def domain(self) -> str:
        """Return the domain of the tailnet; empty without MagicDNS."""
        return self.name.partition(".")[2]


def own_node(socket: Path) -> TailnetNode:
    """Ask tailscaled for the addresses and the name of this machine.

    Raises:
        LocalAPIError: it does not answer, or is not connected.
    """
    status = decode_status(LocalAPI(socket, budget=_STATUS_S).get("status", {"peers": "false"}))
    if status.BackendState != "Running":
        raise LocalAPIError(f"tailscaled is not connected: its state is {status.BackendState}")
    return TailnetNode(socket, tuple(status.TailscaleIPs or ()), _own_name(status))


def _own_name(status: Status) -> str:
    if status.Self is None:
        return ""
    return _folded(status.Self.DNSName)


class TailnetAccess:
    """The users and the tags in `allow` may ask, by the address or a name of this node.

    tailscaled says who has the address of a connection. A local user who connects by the address of the tailnet counts
    as this node.
    """

    def __init__(self, node: TailnetNode, address: str, allow: Sequence[str]) -> None:
        self._node = node
        self._address = address
        self._tags = frozenset(entry for entry in allow if entry.startswith("tag:"))
        self._users = frozenset(_user(entry) for entry in allow) - self._tags
        self._api = LocalAPI(node.socket, budget=_WHOIS_S)
        self._asked_at = time.monotonic()

    def refusal(self, host: str | None, peer: str) -> Refusal | None:
        """Refuse a foreign `Host`, and whoever is not in `allow`.

        Every request is refused while tailscaled does not say who asks.
        """
        if host is not None and not self._is_own(_name_of(host)):
            names = " or ".join(filter(None, (self._address, self._node.name)))
            return Refusal(421, f"Host '{_shown(host)}' is not this machine: use {names}")
        try:
            found = self._api.whois(peer)
        except LocalAPIError as error:
            if error.status == 404:
                return Refusal(403, f"{peer} is not a node of this tailnet")
            return Refusal(503, f"cannot ask tailscaled who has {peer}: {error}")
        return self._judge(found)

    def _judge(self, found: WhoIs) -> Refusal | None:
        """Refuse a node that has no tag and no user in `allow`. A tagged node has no user."""
        node, user = found.Node, found.UserProfile
        name = _folded(node.Name)
        if node.Sharer or (node.Hostinfo or {}).get("ShareeNode") or name.partition(".")[2] != self._node.domain:
            return Refusal(403, f"{_shown(name)} belongs to another tailnet: `web.allow` does not apply to it")
        if node.Tags:
            if self._tags.isdisjoint(node.Tags):
                return Refusal(403, f"{_shown(name)} has none of the tags in `web.allow`")
            return None
        login = user.LoginName if user is not None else None
        if login and _user(login) in self._users:
            return None
        return Refusal(403, f"the user {_shown(login or '(unknown)')} is not in `web.allow`")

    def _is_own(self, name: str) -> bool:
        """Tell whether a name is one of this node; it may have changed since it was read."""
        if name in self._names():
            return True
        now = time.monotonic()
        if now - self._asked_at < _NAMES_S:
            return False
        self._asked_at = now
        try:
            self._node = own_node(self._node.socket)
        except LocalAPIError:
            return False
        return name in self._names()

    def _names(self) -> frozenset[str]:
        short = self._node.name.partition(".")[0]
        return frozenset(filter(None, (self._address, self._node.name, short)))


def _name_of(host: str) -> str:
    """Return the name or the address of a `Host`, in lower case; empty if it is none."""
    try:
        return _folded(split_endpoint(host)[0])
    except ValueError:
        return ""


def _user(login: str) -> str:
    """Return a login name in lower case. Other alphabets have letters that become ASCII ones."""
    if login.isascii():
        return login.lower()
    return login


def _folded(name: str | None) -> str:
    return (name or "").removesuffix(".").lower()


def _shown(text: str) -> str:
    return one_line(text[:_MAX_HOST])
