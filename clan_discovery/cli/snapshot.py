"""`snapshot`: the targets as a file to commit."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from clan_discovery.cli.common import Streams, add_config
from clan_discovery.cli.diff import style_of
from clan_discovery.cli.look import look
from clan_discovery.emit.snapshot import SUFFIXES, is_snapshot, render_snapshot
from clan_discovery.emit.unified import unified
from clan_discovery.errors import InputError, PublishError
from clan_discovery.model import Problem, one_line
from clan_discovery.publish import write_files

if TYPE_CHECKING:
    from clan_discovery.round import Round

_EPILOG = """\
.nix is what `show --format nix` prints, .json the same value; nix/lib takes both (docs/nix.md). Neither holds a time,
so an unchanged fleet changes nothing in the repository.

A file that stands is not replaced where a backend failed (exit 3) or a loss is held (exit 4), nor where it is no
snapshot (exit 2), unless --force. With --check the exit code is 2 where the file is not what it would be now.

example:
  clan-discovery snapshot --config config.yaml --output targets.nix && git add targets.nix
  clan-discovery snapshot --config config.yaml --output targets.nix --check
"""


def snapshot_word(text: str) -> Path:
    """Read the file of the command line: its suffix says what is written."""
    file = Path(text)
    if file.suffix not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text!r} ends in neither of {' and '.join(SUFFIXES)}")
    return file


class Snapshot:
    """One round without publishing, as a file."""

    def add(self, parser: argparse.ArgumentParser, /) -> None:
        """Add the arguments."""
        parser.description = "Ask the backends once, resolve, and write the targets as a file for an evaluation."
        parser.epilog = _EPILOG
        add_config(parser)
        parser.add_argument(
            "--output", metavar="FILE", type=snapshot_word, required=True, help="the file: FILE.nix or FILE.json"
        )
        parser.add_argument(
            "--check", action="store_true", help="write nothing; print what would change, and exit with 2 if anything"
        )
        parser.add_argument("--force", action="store_true", help="replace the file whatever it is, and whoever failed")

    def run(self, args: argparse.Namespace, streams: Streams, /) -> int:
        """Do the round, and write or compare."""
        file: Path = args.output
        force: bool = args.force
        old = _standing(file)
        if old is not None and not force and not is_snapshot(old):
            hint = "give the file another name, or replace it with --force"
            raise InputError([Problem(where=str(file), what="stands there and is no snapshot", hint=hint)])
        _, round_ = look(args, streams)
        new = render_snapshot(round_.resolution, file.suffix)
        if round_.exit_code and old is not None and not force:
            streams.say(f"{file} stands as it was: {_why(round_)} (mend it, or write all the same with --force)")
            return round_.exit_code
        if args.check:
            return max(round_.exit_code, _compare(file, old or "", new, streams))
        if round_.exit_code:
            streams.say(f"warning: {file} is made though {_why(round_)}: look at it before it is committed")
        written = write_files(file.parent, {file.name: new.encode()})
        streams.print(f"{file}  {'written' if written else 'unchanged'}")
        return round_.exit_code


def _standing(file: Path) -> str | None:
    """Return the text of the file; None where there is none, or nothing in it.

    Raises:
        PublishError: it cannot be read.
    """
    if not os.path.lexists(file):
        return None
    try:
        text = file.read_bytes().decode("utf-8", "replace") if file.is_file() else ""
    except OSError as error:
        raise PublishError(f"cannot read {file}: {error.strerror}", hint="nothing was written") from error
    return text if text.strip() else None


def _why(round_: Round) -> str:
    failed = ", ".join(belief.backend for belief in (*round_.held, *round_.degraded))
    return f"a loss of {failed} is held" if round_.held else f"{failed} could not find out"


def _compare(file: Path, old: str, new: str, streams: Streams) -> int:
    """Print what differs; say how it is mended."""
    if old == new:
        return 0
    for line in unified(old, new, str(file)):
        streams.print(one_line(line), style=style_of(line))
    hint = f"run clan-discovery snapshot --output {file}"
    streams.say(str(Problem(where=str(file), what="is not what it would be now", hint=hint)))
    return 2


COMMAND = Snapshot()
