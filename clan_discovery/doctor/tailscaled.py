"""Checks of tailscaled: its socket, its state, MagicDNS and keys that expire."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from clan_discovery.doctor.finding import Finding
from clan_discovery.errors import BackendError, Exit
from clan_discovery.localapi.client import LocalAPI
from clan_discovery.syntax.counting import plural

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from clan_discovery.localapi.types import PeerStatus, Status

RENEW: Final = "renew it there with `tailscale up --force-reauth`, or turn key expiry off for it"
_EXPIRES_SOON: Final = timedelta(days=14)


def check_tailscaled(path: Path, machines: AbstractSet[str], now: datetime, expired: set[str]) -> Iterator[Finding]:
    """Check tailscaled behind a socket.

    `machines` are the declared machines, case-folded. Names of nodes whose expired key is reported are added to
    `expired`, case-folded.
    """
    about = f"socket {path}"
    try:
        mode = path.stat().st_mode
    except OSError as error:
        fix = "start tailscaled; when its unit stops, the socket is removed"
        yield Finding("error", about, error.strerror or str(error), fix, Exit.DEGRADED)
        return
    if stat.S_ISSOCK(mode) and mode & 0o006 != 0o006:
        fix = "tailscaled sets 0666 on Linux: check UMask and the sandbox of its unit"
        yield Finding("warning", about, f"its mode is {stat.S_IMODE(mode):04o}: not every user may ask", fix)
    try:
        status = LocalAPI(path).status()
    except BackendError as error:
        yield Finding("error", about, str(error), error.hint or "see the journal of tailscaled", Exit.DEGRADED)
        return
    if status.BackendState != "Running":
        what = f"tailscaled is in state {status.BackendState}"
        yield Finding("error", about, what, "tailscale up", Exit.DEGRADED)
        return
    yield Finding("ok", about, f"tailscaled {status.Version or '?'} runs; {plural(len(status.peers), 'peer')}")
    yield from _check_status(about, status)
    yield from _check_keys(status, machines, now, expired)


def _check_status(about: str, status: Status) -> Iterator[Finding]:
    if status.CurrentTailnet is not None and status.CurrentTailnet.MagicDNSEnabled is False:
        fix = "turn MagicDNS on in the admin console, or give the clan's domain a resolver"
        yield Finding("warning", about, "MagicDNS is off: names under the tailnet's suffix do not resolve", fix)
    if status.Self is not None and status.Self.Online is False:
        what = "this node is not connected to the control plane: who is online is unknown"
        yield Finding("warning", about, what, "tailscale netcheck")
    for text in status.Health or ():
        yield Finding("warning", about, f"tailscaled reports: {text}", "tailscale status")


def _check_keys(status: Status, machines: AbstractSet[str], now: datetime, expired: set[str]) -> Iterator[Finding]:
    """Report the nodes of this tailnet whose keys expire soon, or have expired."""
    suffix = status.CurrentTailnet.MagicDNSSuffix if status.CurrentTailnet is not None else None
    for node in (status.Self, *status.peers):
        if node is None or node.ShareeNode or not _is_of_tailnet(node, suffix):
            continue
        expiry = _expiry(node)
        if expiry is None or expiry - now >= _EXPIRES_SOON:
            continue
        name = (node.DNSName or node.HostName or "?").partition(".")[0]
        about = f"machine {name}" if name in machines else f"node {name}"
        if expiry > now:
            what = f"its key expires on {expiry:%Y-%m-%d}"
        else:
            what = f"its key expired on {expiry:%Y-%m-%d}: it is unreachable"
            expired.add(name.casefold())
        yield Finding("warning", about, what, RENEW)


def _is_of_tailnet(node: PeerStatus, suffix: str | None) -> bool:
    """Return whether a node is of the tailnet with this suffix; the keys of a shared node are not ours to renew."""
    if not suffix:
        return True
    own = (node.DNSName or "").rstrip(".").partition(".")[2]
    return own.casefold() == suffix.strip(".").casefold()


def _expiry(node: PeerStatus) -> datetime | None:
    """Return when the key of a node expires; None if never, or if it is not a time."""
    try:
        expiry = datetime.fromisoformat(node.KeyExpiry or "")
    except ValueError:
        return None
    if expiry.year == 1:  # Go's zero time
        return None
    if expiry.tzinfo is None:
        return expiry.replace(tzinfo=UTC)
    return expiry
