"""Say in words which servers publish a target, and why. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clan_discovery.syntax.counting import plural

if TYPE_CHECKING:
    from clan_discovery.model import Resolution, Shard, Target

EVERY_SERVER: Final = "every server"


def share_line(resolution: Resolution, added: int, removed: int) -> str:
    """Say how many targets this server publishes with other settings of its shard, and how many these moved."""
    shard, targets = resolution.shard, len(resolution.targets)
    if shard is None:
        return f"shard: removed; all {plural(targets, 'target')} are published"
    replicas = f"{plural(len(shard.members), 'server')}, replicas {shard.replicas}"
    share = f"{shard.member} publishes {len(resolution.published)} of {plural(targets, 'target')}"
    return f"shard: {replicas}; {share} (+{added} -{removed} by this change of the shard)"


def publishers_reason(target: Target, shard: Shard | None) -> str:
    """Say why these servers publish a target; empty without a shard, and for a target that an agent sends."""
    if shard is None or target.delivery == "push":
        return ""
    if not target.servers:
        if target.job in shard.unshared:
            return f"job {target.job} is not shared (shard.unshared)"
        return "only a scraper beside it reaches this address"
    active = sum(member.state == "active" for member in shard.members)
    scores = "the highest score"
    if shard.replicas > 1:
        scores = f"the {shard.replicas} highest scores"
    parts = [f"{scores} of {plural(active, 'active member')}"]
    parts += [
        f"{member.name} is {member.state}"
        for member in shard.members
        if member.state != "active" and member.name in target.servers
    ]
    if shard.member not in target.servers:
        parts.append(f"not this server, {shard.member}")
    return "; ".join(parts)
