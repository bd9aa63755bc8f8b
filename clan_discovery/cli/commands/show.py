"""Ask the backends once, resolve, and print. Nothing is written.

formats:
  table    for people: the targets, then what is not a target and why
  json     everything, for programs (clan-discovery schema resolution)
  file-sd  one list of target groups, with the job as a label
  nix      a Nix expression: { jobs.<job> = [ { targets; labels; } ]; additionalScrapeConfigs; }

for example:
  clan-discovery show --config config.yaml --format json | jq .excluded_by_reason
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clan_discovery.cli.command import Args, Command, Parser, Streams, add_config
from clan_discovery.cli.cycle import dry_run

if TYPE_CHECKING:
    from clan_discovery.errors import Exit
    from clan_discovery.model import Resolution

_FORMATS: Final = ("table", "json", "file-sd", "nix")


def _add(parser: Parser) -> None:
    add_config(parser)
    parser.add_argument("-f", "--format", choices=_FORMATS, default="table", help="output format (default: table)")


def _run(args: Args, streams: Streams) -> Exit:
    _, round_ = dry_run(args, streams)
    _print(args.format, round_.resolution, streams)
    return round_.exit_code


def _print(format_: str, resolution: Resolution, streams: Streams) -> None:
    """Print a resolution. The emitter of a format is imported only for that format."""
    if format_ == "json":
        from clan_discovery.emit.json import pretty, resolution_document  # noqa: PLC0415

        streams.out.write(pretty(resolution_document(resolution)))
    elif format_ == "file-sd":
        from clan_discovery.emit.file_sd import render_all  # noqa: PLC0415

        streams.out.write(render_all(resolution).decode())
    elif format_ == "nix":
        from clan_discovery.emit.snapshot import render_snapshot  # noqa: PLC0415

        streams.out.write(render_snapshot(resolution, ".nix"))
    else:
        from clan_discovery.emit.table import render_table  # noqa: PLC0415

        streams.print_styled(render_table(resolution))


COMMAND: Final = Command(__doc__, _add, _run)
