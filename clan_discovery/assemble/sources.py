"""Read the sources of a config, and merge what they declare."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from clan_discovery.assemble.source import (
    configured_exporter,
    inventory_name,
    options_of,
    read_inventory,
    read_source,
    with_dump,
)
from clan_discovery.config.load import place_in
from clan_discovery.errors import InputError
from clan_discovery.inventory.clan.declare import declare
from clan_discovery.inventory.merge import CLAN, EXPOSED, Part, merge
from clan_discovery.inventory.nix import named
from clan_discovery.inventory.queries import WRITE_EXPOSED
from clan_discovery.syntax.counting import plural
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.config.models import Config
    from clan_discovery.inventory.nix import Evaluation
    from clan_discovery.model import Declared, Problem


def read_declared(loaded: LoadedConfig, evaluation: Evaluation | None = None, settings: Path | None = None) -> Declared:
    """Read every source of a config; empty if it has none.

    `evaluation` is that of its flake (see `evaluate_flake`). `settings` is a settings dump of the clan, instead of the
    one in the config.

    Raises:
        InputError: a source cannot be read or is not valid, or two sources declare different facts about one thing.
    """
    parts: list[Part] = []
    problems: list[Problem] = []
    for read in _readers(loaded, evaluation, settings):
        try:
            parts.append(read())
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    declared = merge(parts)
    if unknown := _unknown_server(loaded, declared):
        declared = msgspec.structs.replace(declared, problems=(*declared.problems, unknown))
    declared = _with_patience(declared, frozenset(loaded.config.policy.roaming_tags))
    if _has_alerting(loaded.config, declared):
        from clan_discovery.assemble.alerting import with_alerting  # noqa: PLC0415 - only where it is used

        declared = with_alerting(loaded, declared)
    sources = loaded.config.inventory
    if sources is None or sources.domain is None:
        return declared
    return msgspec.structs.replace(declared, domain=sources.domain)


def _has_alerting(config: Config, declared: Declared) -> bool:
    """Tell whether anything says what alert rules read of machines."""
    of_config = config.limits.model_fields_set or config.units.model_fields_set or config.needs
    return bool(of_config or declared.limits or declared.units or declared.needs or declared.services)


def _with_patience(declared: Declared, roaming_tags: AbstractSet[str]) -> Declared:
    """Mark what is on machines that come and go (`policy.roaming_tags`)."""
    roaming = {machine.name for machine in declared.machines if not roaming_tags.isdisjoint(machine.tags)}
    if not roaming:
        return declared
    expected = tuple(
        msgspec.structs.replace(e, patience="roaming") if e.machine.name in roaming else e for e in declared.expected
    )
    return msgspec.structs.replace(declared, expected=expected)


def _unknown_server(loaded: LoadedConfig, declared: Declared) -> Problem | None:
    """Warn if targets on loopback are excluded because the `server` that would scrape them is no machine."""
    server = loaded.config.server
    machines = {machine.name.casefold(): machine.name for machine in declared.machines}
    count = sum(excluded.reason == "loopback" for excluded in declared.excluded)
    if server is None or not count or server.casefold() in machines:
        return None
    what = f"there is no machine {server!r}: {plural(count, 'target')} on loopback cannot be scraped"
    hint = did_you_mean(server, machines.values()) or "name the machine that scrapes, or remove it"
    return loaded.problem(("server",), what, hint, severity="warning")


def _readers(
    loaded: LoadedConfig, evaluation: Evaluation | None, settings: Path | None
) -> Iterator[Callable[[], Part]]:
    """Yield a function for each source, which reads it."""
    sources = loaded.config.inventory
    if sources is None:
        return
    if sources.has_clan:
        yield lambda: _clan(loaded, evaluation, settings)
    if sources.manifest is not None:
        from clan_discovery.assemble.manifest import read_manifest  # noqa: PLC0415 - most configs have none

        yield partial(read_manifest, loaded, sources.manifest)
    if sources.exposed is not None:
        yield partial(_exposed, loaded, sources.exposed)
    if sources.compose:
        from clan_discovery.assemble.compose import read_compose  # noqa: PLC0415 - yaml, only where it is used

        yield partial(read_compose, loaded, sources.compose)


def _clan(loaded: LoadedConfig, evaluation: Evaluation | None, settings: Path | None) -> Part:
    options = options_of(loaded)
    if settings is not None:
        options = with_dump(options, settings)
    declared = declare(read_inventory(loaded, evaluation), options)
    return Part(source=CLAN, declared=declared, place=lambda machine: _place_in_clan(loaded, machine))


def _exposed(loaded: LoadedConfig, file: Path) -> Part:
    from clan_discovery.inventory.exposed.document import declare_exposed  # noqa: PLC0415 - only with this source

    body = read_source(file, "file of exposed services", WRITE_EXPOSED)
    lookup = partial(configured_exporter, loaded.config)
    declared = declare_exposed(body, named(file), lookup=lookup, scraper=loaded.config.server)
    return Part(source=EXPOSED, declared=declared, place=lambda machine: place_in(file, ("machines", machine)))


def _place_in_clan(loaded: LoadedConfig, machine: str) -> str:
    """Return where the clan inventory declares a machine. Only a conflict needs it, so the file is read again."""
    sources = loaded.config.inventory
    if sources is None or sources.file is None:
        return f"{inventory_name(loaded)}: machines.{machine}"
    return place_in(sources.file, ("machines", machine))
