"""Decide which requests are answered: the `Host` against DNS rebinding, and who asks."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from clan_discovery.model import one_line
from clan_discovery.syntax.endpoint import is_loopback, split_endpoint

_MAX_HOST: Final = 100


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
        if host is None or _names_loopback(host):
            return None
        shown = one_line(host[:_MAX_HOST])
        return Refusal(421, f"Host '{shown}' is not loopback: let the proxy send \"Host: localhost\"")


def _names_loopback(host: str) -> bool:
    try:
        name, _ = split_endpoint(host)
    except ValueError:
        return False
    return is_loopback(name)
