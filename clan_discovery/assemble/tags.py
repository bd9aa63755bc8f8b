"""List the tags that a config names: tags of the inventory, and ACL tags. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.config.models import ROAMING_TAGS
from clan_discovery.model import BeliefState
from clan_discovery.syntax.suggest import Suggester

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.config.models import Config
    from clan_discovery.model import Belief, Problem, Snapshot
    from clan_discovery.syntax.tree import KeyPath

_PREFIX: Final = "tag:"
_DEFAULT_TAILNET: Final = frozenset({"tailscale"})


class AclTag(msgspec.Struct, frozen=True):
    """An ACL tag without `tag:`, and its path in the config.

    `backends` are the Tailscale backends whose nodes may have it.
    """

    path: KeyPath
    tag: str
    backends: frozenset[str]


def acl_tags(config: Config) -> Iterator[AclTag]:
    """Yield each ACL tag in the config."""
    given = config.backends.tailscale or {}
    tailnets = frozenset(given) or _DEFAULT_TAILNET
    for name, backend in given.items():
        for index, tag in enumerate(backend.tags):
            yield _acl_tag(("backends", "tailscale", name, "tags", index), tag, frozenset({name}))
    for type_, rule in config.exporters.items():
        if rule.select is None:
            continue
        backends = tailnets
        if rule.select.backends is not None:
            backends = tailnets.intersection(rule.select.backends)
        tags = rule.select.tags
        for kind, named in (("any", tags.any), ("all", tags.all), ("none", tags.none)):
            for index, tag in enumerate(named):
                yield _acl_tag(("exporters", type_, "select", "tags", kind, index), tag, backends)
    for tag in config.policy.offline_tags:
        if tag.startswith(_PREFIX):
            yield _acl_tag(("policy", "offline_tags", tag), tag, tailnets)


def _acl_tag(path: KeyPath, tag: str, backends: frozenset[str]) -> AclTag:
    return AclTag(path, tag.removeprefix(_PREFIX), backends)


def inventory_tags(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield each tag of the inventory that the config names, with its path.

    `policy.offline_tags` may name ACL tags, too: with `tag:`, or with the name of an ACL tag elsewhere in the config.
    """
    named = {found.tag for found in acl_tags(config)}
    for tag in config.policy.offline_tags:
        if not tag.startswith(_PREFIX) and tag not in named:
            yield ("policy", "offline_tags", tag), tag
    for index, tag in enumerate(config.policy.roaming_tags):
        if tag not in ROAMING_TAGS:  # the tags of the default need not exist
            yield ("policy", "roaming_tags", index), tag
    yield from alerting_tags(config)


def alerting_tags(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield each tag of the inventory in `limits` and `units`, with its path."""
    for tag in config.limits.tags:
        yield ("limits", "tags", tag), tag
    for tag in config.units.tags:
        yield ("units", "tags", tag), tag


def unused_acl_tags(loaded: LoadedConfig, beliefs: Iterable[Belief]) -> Iterator[Problem]:
    """Yield a warning for each ACL tag in the config that no node has.

    A tag is checked only if all its backends have answered.
    """
    answers = {belief.backend: belief.snapshot for belief in beliefs if belief.state is BeliefState.FRESH}
    suggester = Suggester()
    known: dict[frozenset[str], set[str]] = {}
    for named in acl_tags(loaded.config):
        if not named.backends or not named.backends <= answers.keys():
            continue
        if named.backends not in known:
            known[named.backends] = _tags_of(answers[backend] for backend in named.backends)
        present = known[named.backends]
        if named.tag not in present:
            what = f"no node has the ACL tag {named.tag!r}"
            hint = suggester.did_you_mean(named.tag, present) or "check its name in the tailnet's policy file"
            path = loaded.source.as_written(named.path)
            yield loaded.problem(path, what, hint, severity="warning")


def _tags_of(snapshots: Iterable[Snapshot | None]) -> set[str]:
    return {tag for snapshot in snapshots if snapshot is not None for node in snapshot.nodes for tag in node.tags}
