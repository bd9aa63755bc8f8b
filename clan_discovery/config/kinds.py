"""Find the kinds of backends that other distributions add, by their entry points.

This is slow, because `importlib.metadata` reads every installed distribution. It is done only if a config names a kind
that is not built in.
"""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.config.models import BackendModel
from clan_discovery.errors import describe

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.metadata import EntryPoint

GROUP: Final = "clan_discovery.backends"
_is_kind: Final = re.compile("[a-z][a-z0-9_]*").fullmatch


class FoundKind(msgspec.Struct, frozen=True):
    """A loaded kind: the object of its entry point, its config model, and the distribution that has it."""

    loaded: object
    model: type[BackendModel]
    distribution: str


class KindError(Exception):
    """A kind cannot be used. The message says why, `hint` what to do."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


def added_kinds(builtin: Iterable[str]) -> dict[str, list[EntryPoint]]:
    """Return the entry points of each kind that is installed and not built in. Loads nothing."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        if _is_kind(point.name) and point.name not in set(builtin):
            found.setdefault(point.name, []).append(point)
    return {kind: found[kind] for kind in sorted(found)}


def load_kind(points: list[EntryPoint]) -> FoundKind:
    """Load the only entry point of a kind.

    Raises:
        KindError: several distributions have this kind, or the entry point does not load or is not a kind.
    """
    owners = sorted({_distribution(point) for point in points})
    if len(owners) > 1:
        raise KindError(
            f"{len(owners)} distributions have a backend of this kind: {', '.join(owners)}", "remove all but one"
        )
    point, owner = points[0], owners[0]
    try:
        loaded: object = point.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it runs the code of another distribution
        what = f"cannot load {point.value} of {owner}: {describe(error)}"
        raise KindError(what, f"repair or update {owner}, or remove this backend from the config") from None
    model: object = getattr(loaded, "model", None)
    if not isinstance(model, type) or not issubclass(model, BackendModel):
        what = f"{point.value} of {owner} is no BackendKind with a BackendModel"
        raise KindError(what, f"report it to the authors of {owner}")
    return FoundKind(loaded, model, owner)


def _distribution(point: EntryPoint) -> str:
    if point.dist is None:
        return "an unknown distribution"
    return f"{point.dist.name} {point.dist.version}"
