"""Evaluate a clan with Nix, and write what the config needs as JSON.

files:
  inventory.json  the inventory; without it, nothing is written (exit 2)
  settings.json   the merged settings of each service, for inventory.settings;
                  null for a machine whose settings cannot be evaluated
  exports.json    the exports, with the addresses of machines, for
                  inventory.exports; null for what cannot be evaluated
  exposed.json    with --exposed: what nixosConfigurations and
                  darwinConfigurations expose, for inventory.exposed; null for a
                  machine that cannot be evaluated. Without a clan, the only file

Unchanged files are not written. If settings, exports or exposed services cannot
be evaluated, the old file is kept and the exit code is 3. The settings are
internal to clan and may change with its version.

for example:
  clan-discovery dump --flake . --output clan && git add clan
  clan-discovery dump --file default.nix --output clan
  clan-discovery dump --exposed --flake . --output fleet
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clan_discovery.assemble.dump import ask_nix
from clan_discovery.cli.command import Args, Command, Parser, Streams, directory
from clan_discovery.cli.progress import progress
from clan_discovery.errors import Exit
from clan_discovery.inventory.nix import secret_warning
from clan_discovery.publish.files import write_files
from clan_discovery.reading import is_closed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clan_discovery.assemble.dump import NixAnswer


def _add(parser: Parser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--flake", metavar="REF", help="evaluate this flake")
    source.add_argument("--file", metavar="FILE.nix", type=Path, help="evaluate this Nix file, without flakes")
    help_ = "also the services that machines expose (services.clan-discovery.expose)"
    parser.add_argument("--exposed", action="store_true", help=help_)
    help_ = "write the files to this directory"
    parser.add_argument("--output", metavar="DIR", type=directory, required=True, help=help_)


def _run(args: Args, streams: Streams) -> Exit:
    """Evaluate, write the successful results, and report the result of each file."""
    reference: Path | str = args.file or args.flake
    output: Path = args.output
    questions = 5 if args.exposed else 3
    with progress(streams.err) as waits, waits.evaluating(reference, questions=questions):
        answers = ask_nix(reference, exposed=args.exposed)
    good = {f"{answer.name}.json": answer.text().encode() for answer in answers if not answer.problems}
    # Several evaluations may give the same warning. It is printed once.
    for line in dict.fromkeys(line for answer in answers for line in _warnings(answer, output)):
        streams.log(line)
    written = _write(output, good, _closed(reference), streams)
    if warning := secret_warning(reference):
        streams.warn([warning])
    for name in good:
        streams.print(f"{output / name}  {'written' if name in written else 'unchanged'}")
    if len(good) < len(answers):
        return Exit.DEGRADED
    return Exit.OK


def _write(output: Path, files: Mapping[str, bytes], closed: Sequence[Path], streams: Streams) -> frozenset[str]:
    """Write the files, closed to other users if an input is; return those that changed."""
    were_closed = all(is_closed(output / name) for name in files)
    written = write_files(output, files, closed=bool(closed))
    if written or not were_closed:
        streams.warn_of_closed(closed, output / "*.json")
    return written


def _closed(reference: Path | str) -> list[Path]:
    """Return the Nix file if other users may not read it."""
    if isinstance(reference, Path) and is_closed(reference):
        return [reference]
    return []


def _warnings(answer: NixAnswer, output: Path) -> Iterator[str]:
    """Yield a warning for each failed evaluation: the reason, and what happens to its file."""
    file = output / f"{answer.name}.json"
    fate = "is kept unchanged" if os.path.lexists(file) else "is not written"
    for problem in answer.problems:
        if problem.severity == "warning":
            yield f"warning: {problem}"
        else:
            yield f"warning: {file} {fate}: {problem}"


COMMAND: Final = Command(__doc__, _add, _run)
