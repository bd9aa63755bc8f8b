"""A resolution as a Nix expression: the jobs' target groups, and the additional scrape configs.

The value is the same as the JSON's: strings are escaped so that `${` and quotes stay text, every attribute name is
quoted, sets stand under names of their own. NUL is the one character that Nix has no way to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from clan_discovery.errors import InputError
from clan_discovery.model import Json, Problem

if TYPE_CHECKING:
    from clan_discovery.model import Resolution

_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "$": "\\$", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def render_nix(resolution: Resolution) -> str:
    """Return `{ jobs.<job> = [ { targets; labels; } ]; additionalScrapeConfigs = [ ... ]; }`.

    Raises:
        InputError: an additional scrape config holds NUL.
    """
    jobs: dict[str, list[Json]] = {job: [] for job in resolution.jobs}
    for target in resolution.targets:
        # A stranger's HostName may hold what Nix cannot say: the label goes, the target stays.
        labels = {name: value for name, value in target.labels.items() if "\0" not in value}
        jobs.setdefault(target.job, []).append({"labels": labels, "targets": [target.address]})
    value: Json = {"additionalScrapeConfigs": list(resolution.additional_scrape_configs), "jobs": jobs}
    return to_nix(value) + "\n"


def to_nix(value: Json, indent: str = "") -> str:
    """Write a JSON value as a Nix expression.

    Raises:
        InputError: a string holds NUL, or an integer is too large.
    """
    deeper = indent + "  "
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return _integer(value)
        case float():
            return f"({_float(value)})" if value < 0 else _float(value)
        case str():
            return _string(value)
        case Mapping():
            if not value:
                return "{ }"
            lines = [f"{deeper}{_string(k)} = {to_nix(v, deeper)};\n" for k, v in sorted(value.items())]
            return "{\n" + "".join(lines) + indent + "}"
        case Sequence():
            if not value:
                return "[ ]"
            return "[\n" + "".join(f"{deeper}{to_nix(item, deeper)}\n" for item in value) + indent + "]"


def _integer(value: int) -> str:
    if not -(2**63) < value < 2**63:
        raise InputError([Problem(where="", what=f"Nix has no integer of more than 64 bit: {value}")])
    # Nix reads -1 as a negation, which a list would take for two elements.
    return str(value) if value >= 0 else f"({value})"


def _float(value: float) -> str:
    # Nix wants a point before the exponent.
    digits, e, exponent = repr(value).partition("e")
    return f"{digits}{'' if '.' in digits else '.0'}{e}{exponent}"


def _string(text: str) -> str:
    if "\0" in text:
        raise InputError([Problem(where="", what=f"Nix has no string with NUL: {text!r}")])
    return f'"{text.translate(_ESCAPES)}"'
