"""`machines`: which machines would be scraped, by the inventory alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clan_discovery.cli.common import Streams, told, warn
from clan_discovery.cli.declared import add_inventory, declared_of
from clan_discovery.emit.json import pretty
from clan_discovery.errors import InputError
from clan_discovery.model import Problem
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    import argparse

    from clan_discovery.model import Declared

_EPILOG = """\
It asks no network: a machine is listed if the inventory declares a target on it, whether or not anybody sees it. What
is excluded (darwin, probes without a target) and what the inventory does not have is said on stderr.

example:
  clan-discovery machines --flake . --job node | xargs -I{} ping -c1 {}
  clan-discovery machines --file clan/inventory.json --settings clan/settings.json --format json
"""


class Machines:
    """Prints the machines of the expected targets."""

    def add(self, parser: argparse.ArgumentParser, /) -> None:
        """Add the arguments."""
        parser.description = "Print the machines that the inventory wants scraped."
        parser.epilog = _EPILOG
        add_inventory(parser)
        parser.add_argument("-f", "--format", choices=("names", "json"), default="names", help="how (default: names)")
        parser.add_argument("--job", metavar="TYPE", help="only what is scraped for this job")

    def run(self, args: argparse.Namespace, streams: Streams, /) -> int:
        """Read and print."""
        declared = declared_of(args)
        job: str | None = args.job
        warn(streams, declared.problems)
        if job is not None:
            _check_job(job, declared)
        for line in told([e for e in declared.excluded if job in (None, e.job)], "inventory"):
            streams.say(f"note: {line}")
        jobs: dict[str, set[str]] = {}
        for expected in declared.expected:
            if job in (None, expected.exporter.type):
                jobs.setdefault(expected.machine.name, set()).add(expected.exporter.type)
        if args.format == "json":
            streams.out.write(pretty([{"machine": name, "jobs": sorted(jobs[name])} for name in sorted(jobs)]))
        else:
            for name in sorted(jobs):
                streams.print(name)
        return 0


def _check_job(job: str, declared: Declared) -> None:
    """Refuse a job that the inventory knows nothing of: no machine is one answer, a slip of the keyboard another.

    Raises:
        InputError: nothing is or would be scraped for it.
    """
    known = {e.exporter.type for e in declared.expected} | {e.job for e in declared.excluded if e.job}
    if job not in known:
        hint = did_you_mean(job, known) or f"there are: {', '.join(sorted(known)) or 'none'}"
        raise InputError([Problem(where="--job", what=f"no machine is declared for the job {job!r}", hint=hint)])


COMMAND = Machines()
