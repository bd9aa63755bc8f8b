"""What the commands share: where they print, where the config is, and one round."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from clan_discovery.errors import InputError
from clan_discovery.model import Problem, one_line, span

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Sequence

    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.model import Belief, Exclusion

BOLD, RED, GREEN, YELLOW, CYAN = "1", "31", "32", "33", "36"
CONFIG_VARIABLE = "CLAN_DISCOVERY_CONFIG"
_TOLD_MOST = 20


@dataclass(frozen=True, slots=True)
class Streams:
    """Where results go, and where everything else goes."""

    out: TextIO
    err: TextIO

    def print(self, text: str, *, style: str = "") -> None:
        """Print a line of the result; `style` is an SGR parameter, for a terminal whose user wants colour."""
        self.out.write(f"\x1b[{style}m{text}\x1b[0m\n" if style and self._coloured() else f"{text}\n")

    def _coloured(self) -> bool:
        # As rich decides for the tables: NO_COLOR by its presence, unless empty (no-color.org).
        return self.out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"

    def say(self, text: str) -> None:
        """Say something that is no result."""
        with contextlib.suppress(OSError):  # a full or closed stderr changes no exit code
            self.err.write(f"clan-discovery: {text}\n")
            self.err.flush()

    def print_all(self, lines: Iterable[tuple[str, str]]) -> None:
        """Print lines, each with its style, until there are no more or the reader (head, less) goes away."""
        with contextlib.suppress(BrokenPipeError):
            for line, style in lines:
                self.print(line, style=style)
            self.out.flush()


class Command(Protocol):
    """A command: how it is called, and what it does."""

    def add(self, parser: argparse.ArgumentParser, /) -> None:
        """Add its arguments, description and example."""
        ...

    def run(self, args: argparse.Namespace, streams: Streams, /) -> int:
        """Do it; return the exit code."""
        ...


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add `--config`, which every command but `schema` has."""
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        default=None,
        help=f"the config, YAML or JSON (default: ${CONFIG_VARIABLE})",
    )


def config_of(args: argparse.Namespace) -> LoadedConfig:
    """Load the config that the command line or the environment names.

    Raises:
        InputError: none is named, or it is wrong.
    """
    from clan_discovery.config.load import load_config  # noqa: PLC0415 - pydantic is a third of a start

    return load_config(config_file_of(args))


def config_file_of(args: argparse.Namespace) -> Path:
    """Return the config that the command line or the environment names.

    Raises:
        InputError: none is named.
    """
    file: Path | None = args.config
    if file is None and (named := os.environ.get(CONFIG_VARIABLE)):
        file = Path(named)
    if file is None:
        hint = "`clan-discovery schema config` describes one; examples/homelab/config.yaml is one"
        what = f"no config: give --config FILE, or set {CONFIG_VARIABLE}"
        raise InputError([Problem(where="", what=what, hint=hint)])
    return file


def now() -> datetime:
    """Read the clock. No file outside the command line does."""
    return datetime.now(UTC)


def warn(streams: Streams, problems: Iterable[Problem]) -> None:
    """Print complaints that stop nothing."""
    for problem in problems:
        streams.say(f"warning: {problem}")


def told(excluded: Sequence[Exclusion], see: str) -> Iterator[str]:
    """Say what is no target, and why, and not for ever; `see` is the command that says it all."""
    for e in excluded[:_TOLD_MOST]:
        job = f" ({e.job})" if e.job else ""
        yield one_line(f"{e.name}{job}: {e.reason}: {e.detail}")
    if len(excluded) > _TOLD_MOST:
        yield f"and {len(excluded) - _TOLD_MOST} more: see clan-discovery {see}"


def tell(streams: Streams, beliefs: Iterable[Belief]) -> None:
    """Say what is wrong with the backends."""
    for belief in beliefs:
        if belief.state == "fresh" and belief.why:
            streams.say(one_line(f"warning: backend {belief.backend}: {belief.why} (policy.shrink_after)"))
        if belief.state != "fresh":
            hint = f" ({belief.hint})" if belief.hint else ""
            streams.say(one_line(f"backend {belief.backend}: {belief.why}{hint}; {_served(belief)}"))


def _stands(belief: Belief) -> str:
    """Say for how many names of which nobody could find out a last good answer stands."""
    names = belief.snapshot.failures if belief.snapshot is not None else ()
    standing = sum(name.age is not None for name in names)
    if standing == len(names):
        return "their last good answers stand"
    return f"the last good answers of {standing} stand" if standing else "nothing is known of them yet"


def _served(belief: Belief) -> str:
    """Say what is served instead of an answer."""
    return {
        "fresh": "its answer",
        "partial": _stands(belief),
        "kept": f"its last good answer, {span(belief.age)} old, is kept",
        "held": f"held: its answer of {span(belief.age)} ago is kept",
        "expired": f"its last good answer is {span(belief.age)} old, too old to stand in",
        "unknown": "it never answered yet; declared machines stand at their names",
    }[belief.state]
