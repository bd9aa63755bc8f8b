r"""Ask the backends once, resolve, and print. Nothing is written.

formats:
  table    for people: the targets, then what is not a target and why
  json     everything, for programs (clan-discovery schema resolution)
  file-sd  one list of target groups, with the job as a label
  nix      a Nix expression: { jobs.<job> = [ { targets; labels; } ]; additionalScrapeConfigs; }
  scrape-config  the jobs as YAML for prometheus.yml, with the settings in `jobs`

What a terminal would interpret is escaped, and the value stays the same: \uXXXX in JSON, builtins.fromJSON in Nix.

for example:
  clan-discovery show --config config.yaml --format json | jq .excluded_by_reason
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clan_discovery.assemble.plan import directories
from clan_discovery.assemble.source import closed_inputs
from clan_discovery.cli.command import Args, Command, Parser, Streams, add_config, config_of
from clan_discovery.cli.cycle import dry_run
from clan_discovery.emit.file_sd import render_all
from clan_discovery.syntax.terminal import escape_json

if TYPE_CHECKING:
    from clan_discovery.errors import Exit


def _add(parser: Parser) -> None:
    add_config(parser)
    formats = ("table", "json", "file-sd", "nix", "scrape-config")
    parser.add_argument("-f", "--format", choices=formats, default="table", help="output format (default: table)")


def _run(args: Args, streams: Streams) -> Exit:
    """Print the outcome of a dry run. The emitter of a format is imported only for that format."""
    loaded = config_of(args)
    _, round_ = dry_run(loaded, streams)
    resolution = round_.resolution
    if args.format in ("json", "nix", "scrape-config"):  # with the additional scrape configs
        streams.warn_of_closed(closed_inputs(loaded))
    if args.format == "json":
        from clan_discovery.emit.json import pretty, resolution_document  # noqa: PLC0415

        streams.out.write(pretty(resolution_document(resolution)))
    elif args.format == "file-sd":
        streams.out.write(escape_json(render_all(resolution).decode()))
    elif args.format == "nix":
        from clan_discovery.emit.snapshot import render_snapshot  # noqa: PLC0415

        streams.out.write(render_snapshot(resolution, ".nix"))
    elif args.format == "scrape-config":
        from clan_discovery.emit.scrape_config import render_scrape_config  # noqa: PLC0415

        settings = {job: config.rest for job, config in loaded.config.jobs.items()}
        directory = directories(loaded).directory
        additional = resolution.additional_scrape_configs
        streams.out.write(render_scrape_config(resolution.jobs, directory, settings, additional))
    else:
        from clan_discovery.emit.table import render_table  # noqa: PLC0415

        streams.print_styled(render_table(resolution))
    return round_.exit_code


COMMAND: Final = Command(__doc__, _add, _run)
