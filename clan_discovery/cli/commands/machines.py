"""Print the machines that the sources declare targets on.

It uses no network. A declared machine is listed whether a backend sees it or
not. Excluded exporters and unknown machines are reported on stderr. With --file
or --flake, only this clan inventory is read, not the sources of the config.

for example:
  clan-discovery machines
  clan-discovery machines --job node | xargs -I{} ping -c1 {}
  clan-discovery machines --file clan/inventory.json --format json
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clan_discovery.cli.command import Args, Command, Parser, Streams, add_inventory, declared_of, inventory_config_of
from clan_discovery.cli.progress import flake_of, progress
from clan_discovery.emit.json import pretty
from clan_discovery.errors import Exit, InputError
from clan_discovery.model import Problem
from clan_discovery.syntax.counting import first_names
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from clan_discovery.model import Declared


def _add(parser: Parser) -> None:
    add_inventory(parser)
    help_ = "output format (default: names)"
    parser.add_argument("-f", "--format", choices=("names", "json"), default="names", help=help_)
    parser.add_argument("--job", metavar="JOB", help="print only machines with a target of this job")


def _run(args: Args, streams: Streams) -> Exit:
    """Read the sources and print its machines with targets, sorted."""
    loaded = inventory_config_of(args)
    with progress(streams.err) as waits, waits.evaluating(args.flake or flake_of(loaded)):
        declared = declared_of(args, loaded)
    streams.warn(declared.problems)
    expected, excluded = declared.expected, declared.excluded
    job: str | None = args.job
    if job is not None:
        _check_job(job, declared)
        expected = tuple(e for e in expected if e.exporter.type == job)
        excluded = tuple(e for e in excluded if e.job == job)
    streams.report_exclusions(excluded, level="note", command="inventory")
    jobs: dict[str, set[str]] = {}
    for target in expected:
        jobs.setdefault(target.machine.name, set()).add(target.exporter.type)
    if args.format == "json":
        streams.out.write(pretty([{"machine": name, "jobs": sorted(jobs[name])} for name in sorted(jobs)]))
    else:
        for name in sorted(jobs):
            streams.print(name)
    return Exit.OK


def _check_job(job: str, declared: Declared) -> None:
    """Raise InputError for a job that no source mentions, a typo."""
    known = {e.exporter.type for e in declared.expected} | {e.job for e in declared.excluded if e.job}
    if job not in known:
        hint = did_you_mean(job, known) or f"there are: {first_names(sorted(known), 20) or 'none'}"
        raise InputError([Problem(where="--job", what=f"no machine is declared for the job {job!r}", hint=hint)])


COMMAND: Final = Command(__doc__, _add, _run)
