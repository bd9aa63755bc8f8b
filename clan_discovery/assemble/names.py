"""Names of backends are unique: each is the value of a label and the name of a memory. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.model import Problem


_HINT: Final = "choose another name"


def _groups(loaded: LoadedConfig) -> dict[str, Iterable[str]]:
    backends = loaded.config.backends
    return {"tailscale": backends.tailscale or {}, "dns": backends.dns or {}, "static": backends.static}


def name_problems(loaded: LoadedConfig) -> Iterator[Problem]:
    """Yield a problem for each name that is used twice or reserved."""
    seen: dict[str, str] = {}
    for kind, names in _groups(loaded).items():
        for name in names:
            if name == "inventory":
                yield loaded.problem(("backends", kind, name), f"the name {name!r} is the inventory's own", _HINT)
            if name in seen:
                what = f"the name {name!r} is taken by backends.{seen[name]}"
                yield loaded.problem(("backends", kind, name), what, _HINT)
            seen[name] = kind


def implied_name_problems(loaded: LoadedConfig, implied: str) -> Iterator[Problem]:
    """Yield a problem where another kind of backend has the name of the one that `discoveryMethod` implies."""
    for kind, names in _groups(loaded).items():
        if kind != implied and implied in names:
            what = f"the name {implied!r} is that of the backend which discoveryMethod asks for"
            yield loaded.problem(("backends", kind, implied), what, _HINT)
