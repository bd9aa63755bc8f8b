"""Say which member of the shard a scraper is, and which targets it has to have. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from clan_discovery.syntax.endpoint import is_loopback_url

if TYPE_CHECKING:
    from clan_discovery.model import Shard, Target

Duty: TypeAlias = Literal["any", "must", "may", "must not", "other"]
"""What a scraper has to do with a target.

`any`: what the other scrapers do decides, as without a shard. `must`: it is one of its servers, also one that joins:
once each joining server scrapes its share, they can be made active. `may`: it is leaving. `must not`: the target has
other servers. `other`: its server may have another target of this name, on its own loopback.
"""


class Membership(NamedTuple):
    """The member that a scraper belongs to; without a name it belongs to none. `is_here`: it is this server."""

    name: str = ""
    is_here: bool = True
    is_leaving: bool = False
    unshared: tuple[str, ...] = ()

    def duty(self, target: Target) -> Duty:
        """Return what the scraper has to do with a target."""
        if not self.name:
            return "any"
        if not target.servers:
            if self.is_here or target.job in self.unshared:
                return "any"
            return "other"
        if self.name not in target.servers:
            return "must not"
        if self.is_leaving:
            return "may"
        return "must"


def membership(shard: Shard | None, scraper: str, url: str) -> Membership:
    """Return the member that a scraper belongs to.

    It is the one of its name, in any case. A scraper of another name that listens on loopback belongs to this server.
    """
    if shard is None:
        return Membership()
    named = {member.name.casefold(): member for member in shard.members}
    name = scraper.casefold()
    if name not in named and is_loopback_url(url):
        name = shard.member.casefold()
    found = named.get(name)
    if found is None:
        return Membership()
    return Membership(found.name, found.name == shard.member, found.state == "leaving", shard.unshared)
