"""`snapshot`: the targets as a file to commit."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clan_discovery.cli.common import Streams, add_config
from clan_discovery.cli.diff import style_of
from clan_discovery.cli.look import look
from clan_discovery.emit.snapshot import SUFFIXES, is_snapshot, observed_machines, render_snapshot
from clan_discovery.emit.unified import unified
from clan_discovery.errors import InputError, PublishError
from clan_discovery.model import Problem, one_line
from clan_discovery.publish.files import write_files

if TYPE_CHECKING:
    from clan_discovery.round import Plan, Round

_HELD: Final = 4
_GUARDED_FROM: Final = 4  # as for a backend's answer (policy.max_shrink)
_MISSING_MOST: Final = 5
_EPILOG = """\
.nix is what `show --format nix` prints, .json the same value; nix/lib takes both (docs/nix.md). Neither holds a time,
so an unchanged fleet changes nothing in the repository.

A file that stands is not replaced where a backend failed (exit 3) or a loss is held (exit 4), nor where it is no
snapshot (exit 2), nor where it would lose more machines that are seen than policy.max_shrink allows (exit 4), unless
--force. With --check the exit code is 2 where the file is not what it would be now.

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
        plan, round_ = look(args, streams)
        new = render_snapshot(round_.resolution, file.suffix)
        if old is not None and not force and (why := _why(round_) or _lost(old, new, plan)):
            streams.say(one_line(f"{file} stands as it was: {why} (mend it, or write all the same with --force)"))
            return round_.exit_code or _HELD
        if args.check:
            return max(round_.exit_code, _compare(args, old or "", new, streams))
        if why := _why(round_):
            streams.say(f"warning: {file} is made though {why}: look at it before it is committed")
        _tell_missing(round_, streams)
        written = write_files(file.parent, {file.name: new.encode()})
        streams.print(f"{file}  {'written' if written else 'unchanged'}")
        return round_.exit_code


def _standing(file: Path) -> str | None:
    """Return the text of the file; None where there is none, or nothing in it.

    Raises:
        PublishError: it cannot be read.
    """
    try:
        file.lstat()
        text = file.read_bytes().decode("utf-8", "replace") if file.is_file() else ""
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise PublishError(f"cannot read {file}: {error.strerror}", hint="nothing was written") from error
    return text if text.strip() else None


def _lost(old: str, new: str, plan: Plan) -> str:
    """Say how many machines would not be seen any more, where they are too many; no memory of a round is needed.

    By their number: the addresses of a list in DNS may be others each time.
    """
    before, after = len(observed_machines(old)), len(observed_machines(new))
    if before < _GUARDED_FROM or before - after <= plan.trust.max_shrink * before:
        return ""
    return (
        f"of {before} machines that are seen in it, {after} would be left (policy.max_shrink; `clan-discovery doctor`)"
    )


def _why(round_: Round) -> str:
    """Say why a round is no ground to replace a file; nothing where all is well."""
    if not round_.exit_code:
        return ""
    failed = ", ".join(belief.backend for belief in (*round_.held, *round_.degraded))
    return f"a loss of {failed} is held" if round_.held else f"{failed} could not find out"


def _tell_missing(round_: Round, streams: Streams) -> None:
    """Say which declared machines stand at their names, for nobody sees them."""
    missing = round_.resolution.missing
    if missing:
        more = f" and {len(missing) - _MISSING_MOST} more" if len(missing) > _MISSING_MOST else ""
        streams.say(one_line(f"missing: {', '.join(m.machine for m in missing[:_MISSING_MOST])}{more}"))


def _compare(args: argparse.Namespace, old: str, new: str, streams: Streams) -> int:
    """Say how a difference is mended, then print it: the reader may go away before its end."""
    file: Path = args.output
    config: Path | None = args.config
    if old == new:
        return 0
    named = "" if config is None else f"--config {shlex.quote(str(config))} "
    hint = f"run clan-discovery snapshot {named}--output {shlex.quote(str(file))}"
    streams.say(str(Problem(where=str(file), what="is not what it would be now", hint=hint)))
    streams.print_all((one_line(line), style_of(line)) for line in unified(old, new, str(file)))
    return 2


COMMAND = Snapshot()
