"""Types that several config models use: paths, one-or-more lists, and the scrape config of a job."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

import msgspec
from pydantic import AfterValidator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import ValidationInfo

    from clan_discovery.model import Json

_VARIABLE: Final = re.compile(r"(?:^|/)\$[A-Za-z_]|\$\{|\$\(")


class ScrapeConfig(msgspec.Struct, frozen=True):
    """The scrape config of a job: what goes into its targets, and the rest, which goes into Prometheus's config."""

    scheme: Literal["http", "https"] | None = None
    metrics_path: str | None = None
    params: Mapping[str, str] = {}
    rest: Mapping[str, Json] = {}


def check_word(text: str) -> None:
    """Refuse text that cannot be passed to a system call.

    Raises:
        ValueError: it contains a NUL or half of a surrogate pair.
    """
    if "\0" in text:
        raise ValueError("no path holds a NUL")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ValueError("no path holds half of a surrogate pair") from None


def _unexpanded(path: str) -> str | None:
    """Return a message if a shell would expand this path. We do not: a service has another environment."""
    if path == "~" or path.startswith("~/"):
        return f"{path!r}: `~` is not expanded: write the whole path, such as /home/USER{path[1:]}"
    if _VARIABLE.search(path):
        return f"{path!r}: variables are not expanded: write the whole path"
    return None


def _path(path: Path, info: ValidationInfo[Path | None]) -> Path:
    """Make a path absolute. Relative paths start at the config's directory, which is the validation context.

    Paths are part of a backend's fingerprint, so they must not depend on the working directory.
    """
    check_word(str(path))
    if complaint := _unexpanded(str(path)):
        raise ValueError(complaint)
    if info.context is None:
        return path
    return info.context / path


def one_or_more(value: object) -> object:
    """Wrap a string in a list."""
    if isinstance(value, str):
        return [value]
    return value


File: TypeAlias = Annotated[Path, AfterValidator(_path)]
