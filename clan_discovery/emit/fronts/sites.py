"""Group fronts into virtual hosts, and what the configs of all proxies share."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clan_discovery.model import Front, FrontSettings

MADE: Final = "Made by clan-discovery, which overwrites changes."
"""The first line of each config, after `# `."""
OIDC_HEADERS: Final = (
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "X-Auth-Request-Groups",
    "X-Auth-Request-Preferred-Username",
)
"""What oauth2-proxy says of a user, with `--set-xauthrequest`."""
CLAIMS: Final = (
    "Forwarded",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-Forwarded-Port",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-Forwarded-Ssl",
    "X-Forwarded-User",
)
"""Headers that many services believe, and any client can send."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9 ._:/@=+,-]+")
_COMMENT_MOST: Final = 200


class HostPath(NamedTuple):
    """A path of a virtual host: the front that serves it, or None if it is hidden."""

    path: str
    front: Front | None


class VirtualHost(NamedTuple):
    """A virtual host: its domain, and its paths, the longest first."""

    domain: str
    parts: tuple[HostPath, ...]

    @property
    def fronts(self) -> list[Front]:
        """Return the fronts of the domain."""
        return [part.front for part in self.parts if part.front is not None]

    @property
    def has_root(self) -> bool:
        """Tell whether a front serves every path that no other one serves."""
        return self.parts[-1].path == "/"

    @property
    def has_oidc(self) -> bool:
        """Tell whether oauth2-proxy logs users in here."""
        return any(front.auth == "oidc" for front in self.fronts)


def sites(fronts: Iterable[Front]) -> list[VirtualHost]:
    """Return the virtual hosts by domain, wildcards last: a request gets the first that matches."""
    by_domain: defaultdict[str, list[Front]] = defaultdict(list)
    for front in fronts:
        by_domain[front.domain].append(front)
        for hidden in front.hidden:
            if not hidden.startswith("/"):
                by_domain.setdefault(hidden, [])
    domains = sorted(by_domain, key=lambda domain: (domain.startswith("*."), domain))
    return [VirtualHost(domain, _parts(by_domain[domain])) for domain in domains]


def _parts(fronts: Iterable[Front]) -> tuple[HostPath, ...]:
    served = {front.path: HostPath(front.path, front) for front in fronts}
    hidden = {
        path: HostPath(path, None)
        for part in served.values()
        if part.front is not None
        for path in part.front.hidden
        if path.startswith("/")
    }
    parts = {**hidden, **served}.values() or [HostPath("/", None)]
    return tuple(sorted(parts, key=lambda part: (-len(part.path), part.path)))


def comment(front: Front) -> str:
    """Return what a front is, as text that no config format interprets."""
    text = f"{front.service} on {front.machine}: {front.because}"
    return _UNSAFE.sub("_", text)[:_COMMENT_MOST].strip()


def identity_headers(settings: FrontSettings) -> tuple[str, ...]:
    """Return the headers by which a service learns who the user is: those of a client are removed."""
    headers: tuple[str, ...] = ()
    if settings.forward is not None:
        headers += settings.forward.headers
    if settings.oidc:
        headers += OIDC_HEADERS
    return tuple(dict.fromkeys(headers))


def removed_headers(settings: FrontSettings) -> tuple[str, ...]:
    """Return the headers of a client that no service gets."""
    return tuple({header.lower(): header for header in (*CLAIMS, *identity_headers(settings))}.values())


def block(head: str, body: Iterable[str]) -> str:
    """Return a block in braces, without a newline at the end. The parts of the body may have several lines."""
    inner = "\n".join(body).replace("\n", "\n\t")
    return f"{head} {{\n\t{inner}\n}}"
