"""`dump`: what Nix says of a clan, as files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clan_discovery.assemble.dump import ask_nix
from clan_discovery.cli.refresh import directory_word
from clan_discovery.publish.files import write_files

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from clan_discovery.assemble.dump import NixAnswer
    from clan_discovery.cli.common import Streams

_DEGRADED: Final = 3
_EPILOG: Final = """\
files:
  inventory.json  what clan serialises; without it nothing is written (exit 2)
  settings.json   the merged settings of every service, for inventory.settings: internal to clan, so it may fail;
                  null where a machine's cannot be evaluated
  exports.json    the exports, `peer` and `networking` of each scope; null where it cannot be evaluated

Where settings or exports cannot be had, the old file stands, the others are written, and the exit code is 3. An answer
counts only where nix exits with 0 and the JSON is what it should be. Files that did not change are not written.

example:
  clan-discovery dump --flake . --output clan && git add clan
"""


class Dump:
    """Asks Nix three times, and writes what is an answer."""

    def add(self, parser: argparse.ArgumentParser, /) -> None:
        """Add the arguments."""
        parser.description = "Evaluate a clan with nix, and write its inventory, settings and exports as JSON."
        parser.epilog = _EPILOG
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument("--flake", metavar="REF", help="evaluate this flake")
        source.add_argument("--file", metavar="FILE.nix", type=Path, help="evaluate this Nix file, without flakes")
        parser.add_argument("--output", metavar="DIR", type=directory_word, required=True, help="write the files here")

    def run(self, args: argparse.Namespace, streams: Streams, /) -> int:
        """Ask, write, and say of each file what became of it."""
        file: Path | None = args.file
        output: Path = args.output
        flake: str = args.flake or ""
        answers = ask_nix(flake if file is None else file)
        good = {f"{a.name}.json": a.text().encode() for a in answers if not a.problems}
        # In the order in which Nix was asked, and each warning of its once.
        for line in dict.fromkeys(line for answer in answers for line in _lines(answer, output)):
            streams.say(line)
        written = write_files(output, good)
        for name in good:
            streams.print(f"{output / name}  {'written' if name in written else 'unchanged'}")
        return 0 if len(good) == len(answers) else _DEGRADED


def _lines(answer: NixAnswer, output: Path) -> Iterator[str]:
    """Say why there is no answer, and what becomes of the file."""
    file = output / f"{answer.name}.json"
    stands = "stands as it was" if os.path.lexists(file) else "is not written"
    for problem in answer.problems:
        yield f"warning: {problem}" if problem.severity == "warning" else f"warning: {file} {stands}: {problem}"


COMMAND = Dump()
