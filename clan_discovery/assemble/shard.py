"""Read the servers that share the targets from a config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clan_discovery.model import Shard, ShardMember
from clan_discovery.syntax.counting import first_names, plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.config.models import ShardConfig
    from clan_discovery.model import Problem

_NAMES_MOST: Final = 5


def shard_of(loaded: LoadedConfig, config: ShardConfig) -> tuple[Shard | None, list[Problem]]:
    """Return the shard and no problem, or None and the problems of the config."""
    names = {name.casefold(): name for name in config.members}
    member = names.get((config.member or loaded.config.server or "").casefold())
    problems = [*_member_problems(loaded, config, member), *_replica_problems(loaded, config)]
    if problems or member is None:
        return None, problems
    members = tuple(ShardMember(name, given.weight, given.state) for name, given in config.members.items())
    return Shard(member=member, members=members, replicas=config.replicas, unshared=tuple(config.unshared)), []


def _member_problems(loaded: LoadedConfig, config: ShardConfig, member: str | None) -> Iterator[Problem]:
    """Report that no member is this server."""
    if member is not None:
        return
    asked = config.member or loaded.config.server
    if asked is None:
        hint = "write `shard.member`, the name of this server in `members`, or `server`"
        yield loaded.problem(("shard",), "does not say which member this server is", hint)
        return
    path = ("shard", "member") if config.member is not None else ("server",)
    hint = f"add it there, or write one of: {first_names(sorted(config.members), _NAMES_MOST)}"
    yield loaded.problem(path, f"{asked!r} is not in `shard.members`", hint)


def _replica_problems(loaded: LoadedConfig, config: ShardConfig) -> Iterator[Problem]:
    """Report more replicas than active members."""
    active = sum(given.state == "active" for given in config.members.values())
    if not active:
        what = "has no active member, so no server would publish a target"
        yield loaded.problem(("shard", "members"), what, "make at least one member active")
    elif config.replicas > active:
        what = f"{config.replicas} is more than the {plural(active, 'active member')}"
        yield loaded.problem(("shard", "replicas"), what, f"write {active} or less, or add members")
