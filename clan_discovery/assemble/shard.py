"""Read the servers that share the targets from a config."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final

from clan_discovery.assemble.source import inventory_name
from clan_discovery.config.models import ShardConfig
from clan_discovery.inventory.clan.components import SERVER, servers_of
from clan_discovery.model import Shard, ShardMember
from clan_discovery.resolve.shard import targets_fingerprint
from clan_discovery.resolve.targets import is_beside
from clan_discovery.syntax.counting import first_names, plural
from clan_discovery.syntax.endpoint import is_loopback, is_loopback_url
from clan_discovery.syntax.suggest import Suggester

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from clan_discovery.backends.static import Static
    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.model import Declared, Problem

_NAMES_MOST: Final = 5
_UNSHARED: Final = frozenset(ShardConfig.model_fields["unshared"].default)
"""Jobs that are unshared by default, which need not exist."""


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


def shared_targets(shard: Shard, declared: Declared, lists: Iterable[Static]) -> str:
    """Return a hash of the jobs and machines that servers share, of the sources and the lists of the config.

    It does not depend on what backends find, which may differ between servers for a while.
    """
    found = _declared_targets(declared, lists)
    return targets_fingerprint((job, machine) for job, machine in found if job not in shard.unshared)


def _declared_targets(declared: Declared, lists: Iterable[Static]) -> Iterator[tuple[str, str]]:
    """Yield job and machine of each declared target that not only one server reaches."""
    for expected in declared.expected:
        if expected.delivery == "pull" and not (expected.host and is_beside(expected.host)):
            yield expected.exporter.type, expected.machine.name
    for endpoint in chain(
        declared.endpoints,
        *(server.static_targets for server in declared.servers),
        *(backend.endpoints for backend in lists),
    ):
        if not is_loopback(endpoint.host):
            yield endpoint.exporter.type, endpoint.machine


def shard_warnings(
    loaded: LoadedConfig, config: ShardConfig, declared: Declared, jobs: AbstractSet[str]
) -> Iterator[Problem]:
    """Yield a warning for each name in the shard that may be misspelt: of members, jobs and scrapers.

    `jobs` are all jobs that exist or may exist later.
    """
    suggester = Suggester()
    yield from _servers_outside(loaded, config, declared, suggester)
    yield from _unknown_jobs(loaded, config, jobs, suggester)
    yield from _nameless_scrapers(loaded, config, suggester)
    yield from _own_scraper_missing(loaded, config)


def _servers_outside(
    loaded: LoadedConfig, config: ShardConfig, declared: Declared, suggester: Suggester
) -> Iterator[Problem]:
    """Compare the members with the servers of the inventory, if it has any."""
    # The service runs no server on a darwin machine.
    darwin = {machine.name for machine in declared.machines if machine.machine_class == "darwin"}
    servers = {name.casefold(): name for name in servers_of(declared.roles) if name not in darwin}
    if not servers:
        return
    members = {name.casefold(): name for name in config.members}
    place, known = _place_of_servers(loaded, declared), sorted(servers.values())
    free = _without(servers, members)
    for name in _without(members, servers):
        what = f"{name!r} is not in {place}; the share of a server that does not run is left to its replicas"
        hint = suggester.did_you_mean(name, free) or f"servers are: {first_names(known, _NAMES_MOST)}"
        yield loaded.problem(("shard", "members", name), what, hint, severity="warning")
    for name in free:
        what = f"{name!r} is in {place}, and no member: it has no share"
        yield loaded.problem(("shard", "members"), what, "add it, or remove it from the role", severity="warning")


def _without(names: Mapping[str, str], others: Mapping[str, str]) -> list[str]:
    """Return the names that the others do not have, by case-folded name."""
    return [names[folded] for folded in sorted(names.keys() - others.keys())]


def _place_of_servers(loaded: LoadedConfig, declared: Declared) -> str:
    """Return where the inventory names the servers."""
    instances = sorted({role.instance for role in declared.roles if role.role == SERVER})
    roles = first_names([f"instances.{name}.roles.server" for name in instances], _NAMES_MOST)
    return f"{inventory_name(loaded)}: {roles}"


def _unknown_jobs(
    loaded: LoadedConfig, config: ShardConfig, jobs: AbstractSet[str], suggester: Suggester
) -> Iterator[Problem]:
    """Report unshared jobs that do not exist, except for those of the default."""
    for index, job in enumerate(config.unshared):
        if job not in jobs and job not in _UNSHARED:
            hint = suggester.did_you_mean(job, jobs) or f"jobs are: {first_names(sorted(jobs), _NAMES_MOST) or 'none'}"
            yield loaded.problem(("shard", "unshared", index), f"there is no job {job!r}", hint, severity="warning")


def _nameless_scrapers(loaded: LoadedConfig, config: ShardConfig, suggester: Suggester) -> Iterator[Problem]:
    """Report scrapers of other machines that are no member: `verify` cannot know their share."""
    scrapers = loaded.config.verify.scrapers
    members, given = ({name.casefold(): name for name in names} for names in (config.members, scrapers))
    named, free = first_names(sorted(config.members), _NAMES_MOST), _without(members, given)
    for name, scraper in scrapers.items():
        if name.casefold() not in members and not is_loopback_url(scraper.url):
            what = f"{name!r} is not in `shard.members`: `verify` does not check which share it scrapes"
            hint = suggester.did_you_mean(name, free)
            hint = hint or f"give it the name of its member ({named}), or remove it if its server has left"
            yield loaded.problem(("verify", "scrapers", name), what, hint, severity="warning")


def _own_scraper_missing(loaded: LoadedConfig, config: ShardConfig) -> Iterator[Problem]:
    """Report that this server has no scraper where others have: `verify` cannot judge its share."""
    scrapers = loaded.config.verify.scrapers
    given = {name.casefold() for name in scrapers}
    own = config.member or loaded.config.server or ""
    if scrapers and own.casefold() not in given and not any(is_loopback_url(one.url) for one in scrapers.values()):
        what = f"none is of {own!r}, this server: `verify` does not check whether its share is scraped"
        yield loaded.problem(("verify", "scrapers"), what, f"add {own!r} with its URL", severity="warning")
