"""Evaluate a clan or a fleet with Nix, and check the answers, for use without Nix."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from clan_discovery.emit.json import pretty
from clan_discovery.errors import InputError, refuse
from clan_discovery.inventory.clan.decode import parse_json
from clan_discovery.inventory.clan.wire import parse_inventory
from clan_discovery.inventory.nix import AbsentAttributeError, evaluate, named
from clan_discovery.inventory.queries import EXPORTS, EXPOSED, INVENTORY, SETTINGS, NixQuery

if TYPE_CHECKING:
    from pathlib import Path

    from clan_discovery.model import Json, Problem

_IN_STORE: Final = re.compile(r'("_file": ")/[^"\n]*?/[0-9a-z]{32}-')
"""The store path in the source of a clan module, whose hash changes with every commit."""


class NixAnswer(NamedTuple):
    """Nix's answer to one query: checked JSON, or the problems."""

    name: str
    document: Json = None
    problems: tuple[Problem, ...] = ()

    def text(self) -> str:
        """Return the JSON as text that changes only if the clan does."""
        return _IN_STORE.sub(r"\1", pretty(self.document))


def ask_nix(reference: str | Path, *, exposed: bool = False) -> list[NixAnswer]:
    """Evaluate a clan's inventory, merged settings and exports, and if wanted the services that machines expose.

    All but the inventory may fail; their answers then have problems. With `exposed`, the flake need not be a clan: then
    the exposed services are the only answer.

    Raises:
        InputError: the inventory cannot be evaluated, or the reference names an attribute.
    """
    if isinstance(reference, str) and "#" in reference:
        what = "the flake reference must not contain `#attribute`: `dump` evaluates three attributes"
        refuse(named(reference), what, "remove the `#` and what follows it")
    found = [_exposed(reference)] if exposed else []
    try:
        answers = [NixAnswer(INVENTORY.name, _ask(reference, INVENTORY))]
    except AbsentAttributeError:
        if not exposed:
            raise
        if found[0].problems:
            raise InputError(found[0].problems) from None
        return found
    for query in (SETTINGS, EXPORTS):
        try:
            answers.append(NixAnswer(query.name, _ask(reference, query)))
        except InputError as error:
            answers.append(NixAnswer(query.name, problems=error.problems))
    return [*answers, *found]


def _exposed(reference: str | Path) -> NixAnswer:
    """Evaluate what the machines of a flake expose, whether they are of NixOS or nix-darwin."""
    machines: dict[str, Json] = {}
    absent: list[tuple[Problem, ...]] = []
    for query in EXPOSED:
        try:
            machines.update(_ask(reference, query))
        except AbsentAttributeError as error:
            absent.append(error.problems)
        except InputError as error:
            return NixAnswer(query.name, problems=error.problems)
    if len(absent) == len(EXPOSED):
        return NixAnswer("exposed", problems=absent[0])
    return NixAnswer("exposed", {"machines": machines})


def _ask(reference: str | Path, query: NixQuery) -> Mapping[str, Json]:
    body, where = evaluate(reference, query), named(reference)
    if query is INVENTORY:
        parse_inventory(body, where)
    document = parse_json(body, where, what=query.name, hint=query.command(reference))
    is_null_allowed = query in EXPOSED
    if not isinstance(document, Mapping) or not all(
        isinstance(part, Mapping) or (part is None and is_null_allowed) for part in document.values()
    ):
        refuse(where, f"the {query.name} must be an object of objects", query.command(reference))
    return document
