"""What `verify` asks, and how: the config's `verify`, without its models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from clan_discovery.syntax.target_file import Split

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json

ProgramKind: TypeAlias = Literal[
    "scraper", "rules", "alertmanager", "loki", "victorialogs", "grafana", "clan-discovery"
]


class AskedProgram(msgspec.Struct, frozen=True, kw_only=True):
    """Where a program is, and how to log in. Secrets are read from their files at each use.

    `is_guess`: the config does not name it; it is no finding that it is not there. `files` are the rule files, or
    patterns of them, that a program of `verify.rules` should have loaded.
    """

    name: str
    kind: ProgramKind
    url: str
    bearer_token_file: Path | None = None
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    is_guess: bool = False
    files: tuple[Path, ...] = ()


class VerifySettings(msgspec.Struct, frozen=True, kw_only=True):
    """The programs to ask, the time limit for each of them, and the directory of the target files.

    `split` is the number of files of each job. Without files, `directory` is None, `served` is the URL of our listener,
    and `history` a file that changes whenever targets do. `parse_yaml` parses a scraper's config; it
    raises ValueError. `silent_after` is how long a roaming machine may send nothing, in seconds. Without `pushed`,
    another server has the samples of pushed targets.
    """

    scrapers: tuple[AskedProgram, ...]
    programs: tuple[AskedProgram, ...] = ()
    timeout: float
    silent_after: float
    pushed: bool = True
    directory: Path | None
    served: str = ""
    history: Path | None = None
    split: Split = Split()
    parse_yaml: Callable[[str], Json]


LOCAL_SCRAPERS: Final = (
    AskedProgram(name="prometheus", kind="scraper", url="http://127.0.0.1:9090", is_guess=True),
    AskedProgram(name="victoriametrics", kind="scraper", url="http://127.0.0.1:8428", is_guess=True),
    AskedProgram(name="vmagent", kind="scraper", url="http://127.0.0.1:8429", is_guess=True),
)
"""The scrapers of this machine, at their default ports."""
LOCAL_RULES: Final = (
    AskedProgram(name="prometheus", kind="rules", url="http://127.0.0.1:9090", is_guess=True),
    AskedProgram(name="vmalert", kind="rules", url="http://127.0.0.1:8880", is_guess=True),
)
"""The programs of this machine that may evaluate rules, at their default ports."""
