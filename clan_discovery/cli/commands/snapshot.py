"""Write the targets to a file to commit, for an evaluation without a network.

The suffix selects the format: .nix is the output of `show --format nix`, and
.json is the same value. nix/lib reads both (docs/nix.md). The file holds no
time, so an unchanged fleet changes nothing in the repository.

An existing file is overwritten only if
  - it is a snapshot (else exit 2),
  - no backend failed (else exit 3),
  - no loss is held, and the file does not lose more observed machines than
    policy.max_shrink allows (else exit 4).
--force overwrites it anyway.

If other users may not read an input, they may not read the file (mode 0600).

With --check, nothing is written. If the file is out of date, a unified diff is
printed and the exit code is 2. For a file of more than 3,000 lines, the diff
lists the removed lines (-), then the added lines (+).

for example:
  clan-discovery snapshot --output targets.nix && git add targets.nix
  clan-discovery snapshot --output targets.nix --check
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clan_discovery.assemble.source import closed_inputs
from clan_discovery.cli.command import Args, Command, Parser, Streams, add_config, config_of
from clan_discovery.cli.cycle import dry_run, missing_machines
from clan_discovery.emit.diff import diff_lines, with_styles
from clan_discovery.emit.snapshot import SUFFIXES, is_snapshot, observed_machines, render_snapshot
from clan_discovery.errors import Exit, InputError, PublishError
from clan_discovery.model import Problem
from clan_discovery.publish.files import write_files
from clan_discovery.reading import MAX_BYTES, UnreadableError, UnusableFileError, is_closed, read_input

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.resolve.trust import Trust
    from clan_discovery.round import Round


def _add(parser: Parser) -> None:
    add_config(parser)
    help_ = "the file, FILE.nix or FILE.json"
    parser.add_argument("--output", metavar="FILE", type=_snapshot_file, required=True, help=help_)
    help_ = "write nothing; print the lines that would change, and exit with 2 if anything"
    parser.add_argument("--check", action="store_true", help=help_)
    help_ = "overwrite the file even if a backend failed or the file is not a snapshot"
    parser.add_argument("--force", action="store_true", help=help_)


def _snapshot_file(text: str) -> Path:
    """Parse the name of the file. Its suffix decides the format."""
    file = Path(text)
    if file.suffix not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text!r} does not end in {' or '.join(SUFFIXES)}")
    return file


def _run(args: Args, streams: Streams) -> Exit:
    """Write the outcome of a dry run to the file, or compare it with the file."""
    file: Path = args.output
    old = _existing(file)
    protects = bool(old.strip()) and not args.force
    if protects and not is_snapshot(old):
        hint = "choose another name, or overwrite it with --force"
        raise InputError([Problem(where=str(file), what="exists and is not a snapshot", hint=hint)])
    loaded = config_of(args)
    plan, round_ = dry_run(loaded, streams)
    code = round_.exit_code
    new = render_snapshot(round_.resolution, file.suffix)
    if protects and (reason := _failure(round_) or _loss(old, new, plan.trust)):
        hint = "`clan-discovery doctor` shows what is wrong; --force overwrites the file anyway"
        streams.log(f"{file} is kept unchanged: {reason} ({hint})")
        return code or Exit.HELD
    if args.check:
        return max(code, _compare(file, args.config, old, new, streams))
    _write(file, new, round_, streams, closed_inputs(loaded))
    return code


def _write(file: Path, text: str, round_: Round, streams: Streams, closed: Sequence[Path]) -> None:
    """Write the file if it differs, and report machines that were not seen and backends that failed."""
    if missing := missing_machines(round_.resolution):
        streams.log(missing)
    was_closed = is_closed(file)
    written = write_files(file.parent, {file.name: text.encode()}, closed=bool(closed))
    if written or not was_closed:
        streams.warn_of_closed(closed, file)
    failure = _failure(round_)
    if written and failure:
        streams.log(f"warning: wrote {file} although {failure}; review it before committing")
    streams.print(f"{file}  {'written' if written else 'unchanged'}")


def _existing(file: Path) -> str:
    """Return the text of the file; blank without a regular file, which the writing refuses to replace.

    Raises:
        PublishError: it cannot be read.
        InputError: it is larger than any snapshot.
    """
    try:
        return read_input(file, MAX_BYTES).decode("utf-8", "replace")
    except UnreadableError as error:
        cause = error.cause
        if isinstance(cause, UnusableFileError):
            if cause.is_too_large:
                raise InputError([Problem(where=str(file), what=error.why, hint="choose another name")]) from None
            return ""
        if cause is None or isinstance(cause, FileNotFoundError | NotADirectoryError):
            return ""
        raise PublishError(f"cannot read {file}: {error.why}", hint="nothing was written") from None


def _failure(round_: Round) -> str:
    """Say why the cycle must not be written as a snapshot; empty if it may."""
    if round_.held:
        return f"a loss of {', '.join(belief.backend for belief in round_.held)} is held"
    if round_.degraded:
        return f"backend {', '.join(belief.backend for belief in round_.degraded)} failed"
    return ""


def _loss(old: str, new: str, trust: Trust) -> str:
    """Say how many observed machines the new text would lose; empty if not too many.

    Machines are counted, not compared: the addresses that DNS lists may differ each time.
    """
    before, after = len(observed_machines(old)), len(observed_machines(new))
    if not trust.is_large_loss(before, before - after):
        return ""
    return f"of its {before} observed machines, {after} would be left (policy.max_shrink)"


def _compare(file: Path, config: Path | None, old: str, new: str, streams: Streams) -> Exit:
    """Print the difference, if any. The command that updates the file comes first: the reader may stop early."""
    if old == new:
        return Exit.OK
    words = ["clan-discovery", "snapshot", "--output", str(file)]
    if config is not None:
        words[2:2] = ["--config", str(config)]
    streams.log(str(Problem(where=str(file), what="is out of date", hint=f"run {shlex.join(words)}")))
    streams.print_styled(with_styles(diff_lines(old, new, str(file))))
    return Exit.WRONG_INPUT


COMMAND: Final = Command(__doc__, _add, _run)
