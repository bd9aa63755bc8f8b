"""`show`: one round without writing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clan_discovery.cli.common import Streams, add_config
from clan_discovery.cli.look import look

if TYPE_CHECKING:
    import argparse

    from clan_discovery.model import Resolution

_FORMATS = ("table", "json", "file-sd", "nix")
_EPILOG = """\
formats:
  table    for people: the targets, and beneath them what is none and why
  json     everything, for programs (clan-discovery schema resolution)
  file-sd  one list of target groups, with the job as a label
  nix      a Nix expression: { jobs.<job> = [ { targets; labels; } ]; additionalScrapeConfigs; }

example:
  clan-discovery show --config config.yaml --format json | jq .excluded_by_reason
"""


class Show:
    """One round that only prints."""

    def add(self, parser: argparse.ArgumentParser, /) -> None:
        """Add the arguments."""
        parser.description = "Ask the backends once, resolve, and print; nothing is written."
        parser.epilog = _EPILOG
        add_config(parser)
        parser.add_argument("-f", "--format", choices=_FORMATS, default="table", help="how (default: table)")

    def run(self, args: argparse.Namespace, streams: Streams, /) -> int:
        """Do the round and print it."""
        _, round_ = look(args, streams)
        _write(args.format, round_.resolution, streams)
        return round_.exit_code


def _write(format_: str, resolution: Resolution, streams: Streams) -> None:
    # Each format is imported where it is asked for: rich alone is 50 ms.
    if format_ == "json":
        from clan_discovery.emit.json import pretty, resolution_document  # noqa: PLC0415

        streams.out.write(pretty(resolution_document(resolution)))
    elif format_ == "file-sd":
        from clan_discovery.emit.file_sd import render_all  # noqa: PLC0415

        streams.out.write(render_all(resolution).decode())
    elif format_ == "nix":
        from clan_discovery.emit.nix import render_nix  # noqa: PLC0415

        streams.out.write(render_nix(resolution))
    else:
        from clan_discovery.emit.table import write_table  # noqa: PLC0415

        write_table(resolution, streams.out)


COMMAND = Show()
