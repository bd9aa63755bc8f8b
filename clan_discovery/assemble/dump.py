"""Evaluate a clan with Nix, and check the answers, for use without Nix."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from clan_discovery.emit.json import pretty
from clan_discovery.errors import InputError, refuse
from clan_discovery.inventory.clan.decode import parse_json
from clan_discovery.inventory.clan.wire import parse_inventory
from clan_discovery.inventory.nix import evaluate, named
from clan_discovery.inventory.queries import EXPORTS, INVENTORY, SETTINGS, NixQuery

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


def ask_nix(reference: str | Path) -> list[NixAnswer]:
    """Evaluate a clan's inventory, merged settings and exports.

    The settings and the exports may fail; their answers then have problems.

    Raises:
        InputError: the inventory cannot be evaluated, or the reference names an attribute.
    """
    if isinstance(reference, str) and "#" in reference:
        what = "the flake reference must not contain `#attribute`: `dump` evaluates three attributes"
        refuse(named(reference), what, "remove the `#` and what follows it")
    answers = [NixAnswer(INVENTORY.name, _ask(reference, INVENTORY))]
    for query in (SETTINGS, EXPORTS):
        try:
            answers.append(NixAnswer(query.name, _ask(reference, query)))
        except InputError as error:
            answers.append(NixAnswer(query.name, problems=error.problems))
    return answers


def _ask(reference: str | Path, query: NixQuery) -> Json:
    body, where = evaluate(reference, query), named(reference)
    if query is INVENTORY:
        parse_inventory(body, where)
    document = parse_json(body, where, what=query.name, hint=query.command(reference))
    if not isinstance(document, Mapping) or not all(isinstance(part, Mapping) for part in document.values()):
        refuse(where, f"the {query.name} must be an object of objects", query.command(reference))
    return document
