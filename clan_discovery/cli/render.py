"""`render`: the declared targets as files. No network, no lock, no state: a build runs it."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from clan_discovery.assemble import make_plan
from clan_discovery.backends.base import Ask
from clan_discovery.cli.common import Streams, add_config, config_of, told, warn
from clan_discovery.cli.refresh import directory_word
from clan_discovery.emit.file_sd import EMPTY, render_jobs
from clan_discovery.errors import InputError, PublishError
from clan_discovery.model import Belief, Problem
from clan_discovery.publish.files import write_file
from clan_discovery.resolve.resolver import resolve
from clan_discovery.syntax.labels import is_job

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from clan_discovery.model import Resolution
    from clan_discovery.round import Plan

_MODE: Final = 0o644
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
"""The time of a render. Nothing in the output depends on the time, so that two builds give the same bytes."""
_EPILOG: Final = """\
The files are those that `refresh` writes when no backend is asked: each machine at its address in the clan's exports,
or at <machine>.<domain>. Files of other jobs in DIR are left alone.

With --job, the list of jobs is complete: a listed job without targets is written as [], and a job that is not listed
is an error (exit 2). The NixOS module passes the jobs for which it wrote scrape configs.

example:
  clan-discovery render --config config.yaml --output targets --job node --job systemd
"""


class Render:
    """Write the target files of what is declared."""

    def add(self, parser: argparse.ArgumentParser, /) -> None:
        """Add the arguments."""
        parser.description = "Write the declared targets to a directory, without asking any backend."
        parser.epilog = _EPILOG
        add_config(parser)
        parser.add_argument("--output", metavar="DIR", type=directory_word, required=True, help="where the files go")
        parser.add_argument(
            "--job", metavar="NAME", type=job_word, action="append", default=[], help="a known job (repeatable)"
        )

    def run(self, args: argparse.Namespace, streams: Streams, /) -> int:
        """Resolve what is declared, and write it."""
        directory: Path = args.output
        listed: list[str] = args.job
        plan = make_plan(config_of(args), output=directory)
        resolution = resolve_declared(plan)
        warn(streams, resolution.problems)
        for line in told([e for e in resolution.excluded if e.reason == "inexpressible"], "show"):
            streams.say(f"warning: {line}")
        files = render_jobs(resolution)
        if listed:
            check_listed(resolution, listed)
            files = {job: files.get(job, EMPTY) for job in sorted(set(listed))}
        written = write(directory, files)
        streams.print(f"{len(resolution.targets)} targets, {len(files)} jobs; {written} files written")
        return 0


def job_word(text: str) -> str:
    """Read the name of a job, which is the name of a file."""
    if not is_job(text):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be the name of a job: letters, digits, '_', '-', '.'")
    return text


def resolve_declared(plan: Plan) -> Resolution:
    """Resolve a plan whose backends are all static.

    Raises:
        InputError: a backend would have to be asked.
    """
    asked = [backend.name for backend in plan.backends if backend.fingerprint is not None]
    if asked:
        raise InputError([_must_be_asked(name) for name in asked])
    beliefs = [
        Belief(backend=backend.name, state="fresh", snapshot=backend.ask(Ask(now=_EPOCH))) for backend in plan.backends
    ]
    return resolve(plan.declared, beliefs, plan.rules, plan.policy, now=_EPOCH)


def _must_be_asked(backend: str) -> Problem:
    what = f"backend {backend!r} has to be asked, and render asks nobody"
    hint = "use `refresh` (NixOS: mode resident or timer), or remove it from `backends` and discoveryMethod"
    return Problem(where="render", what=what, hint=hint)


def check_listed(resolution: Resolution, listed: list[str]) -> None:
    """Check that every job is in the list: no scrape config would read the file of any other.

    Raises:
        InputError: jobs are missing in the list.
    """
    unlisted = sorted(set(resolution.jobs) - set(listed))
    if not unlisted:
        return
    known = ", ".join(sorted(set(listed)))
    raise InputError([_is_not_listed(job, known) for job in unlisted])


def _is_not_listed(job: str, known: str) -> Problem:
    what = f"job {job!r} is not in the list of jobs ({known}): no scrape config would read {job}.json"
    return Problem(where="render", what=what, hint=f"add `--job {job}`; on NixOS, services.clan-discovery.jobs")


def write(directory: Path, files: Mapping[str, bytes]) -> int:
    """Write the files of jobs, each atomically and only if it differs; return how many did.

    Raises:
        PublishError: the directory or a file could not be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return sum(write_file(directory / f"{job}.json", content, _MODE) for job, content in files.items())
    except OSError as error:
        raise PublishError(f"cannot write to {directory}: {error.strerror}") from error


COMMAND = Render()
