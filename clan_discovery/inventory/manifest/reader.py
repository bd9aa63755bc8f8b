"""Read values of a manifest, and collect problems with their positions. Pure.

A manifest holds keys and passwords. Only known fields are read, and no message quotes a text that may be another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypeGuard

import msgspec

from clan_discovery.inventory.clan.decode import kind
from clan_discovery.model import Front, Json, Problem
from clan_discovery.syntax.document import Document, Origin
from clan_discovery.syntax.endpoint import MAX_PORT
from clan_discovery.syntax.suggest import Suggester

if TYPE_CHECKING:
    from clan_discovery.model import Severity
    from clan_discovery.syntax.tree import KeyPath

_MAX_VALUES: Final = 500_000
_NOTHING: Final[Mapping[str, Json]] = {}


class ManifestReader(msgspec.Struct):
    """A manifest, its name in messages, and the problems found so far. `refused` are the fronts that are left out."""

    document: Document
    problems: list[Problem] = []
    refused: list[Front] = []
    suggester: Suggester = msgspec.field(default_factory=Suggester)

    def complain(
        self, path: KeyPath, what: str, hint: str | None = None, *, severity: Severity = "error", key: bool = False
    ) -> None:
        """Add a problem with the value, or the key, at this path."""
        words = f"{'.'.join(map(str, path))}: {what}"
        where = self.document.place(path, key=key)
        self.problems.append(Problem(where=where, what=words, hint=hint, severity=severity))

    def place(self, path: KeyPath) -> str:
        """Return the position of a key."""
        return self.document.place(path, key=True)

    def mapping(self, value: Json, path: KeyPath) -> Mapping[str, Json]:
        """Return an attrset; empty, with a problem, if it is something else."""
        if isinstance(value, Mapping):
            return value
        if value is not None:
            self.complain(path, f"must be an attrset, not {kind_of(value)}")
        return _NOTHING

    def text(self, value: Json, path: KeyPath) -> str:
        """Return a text; empty if there is none, or, with a problem, if it is something else."""
        if isinstance(value, str):
            return value.strip()
        if value is not None:
            self.complain(path, f"must be a string, not {kind_of(value)}")
        return ""

    def flag(self, value: Json, path: KeyPath, *, default: bool) -> bool:
        """Return a boolean, or the default, with a problem if it is something else."""
        if isinstance(value, bool):
            return value
        if value is not None:
            self.complain(path, f"must be true or false, not {kind_of(value)}")
        return default

    def port(self, value: int, path: KeyPath) -> int | None:
        """Return a port; None, with a problem, if it is not one."""
        if 1 <= value <= MAX_PORT:
            return value
        self.complain(path, f"invalid port: must be 1 to {MAX_PORT}")
        return None


def document_of(text: str, where: str, *, is_json: bool) -> Document:
    """Parse the text of a manifest.

    Raises:
        InputError: it does not parse, or holds too many values.
    """
    origin = Origin(name=where, kind="service manifest", is_json=is_json, most=_MAX_VALUES, confidential=True)
    return Document(text, origin)


def is_number(value: Json) -> TypeGuard[int]:
    """Tell whether a value is a whole number; a boolean is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def kind_of(value: Json) -> str:
    """Name a value's type as Nix does."""
    return kind(value).replace("an object", "an attrset")
