"""Write the declared targets to a directory, without asking a backend.

Each machine is written at its declared address, or at <machine>.<domain>. Files
of other jobs in the directory are left alone. A config with a flake or with a
backend that has to be asked is an error (exit 2).

With --agent, the targets are those that the agent of this machine scrapes on
loopback and sends (docs/labels.md#agents), for the file_sd_configs of its
vmagent. No backend is asked, whatever the config says.

With --job or --only-listed, the list of jobs is complete. A listed job without
targets is written as []. A job that is not listed is an error (exit 2). The
NixOS module passes the jobs for which it wrote scrape configs.

for example:
  clan-discovery render --output targets
  clan-discovery render --output targets --front targets/clan.caddy
  clan-discovery render --output targets --job node --job systemd
  clan-discovery render --output targets --agent dino
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clan_discovery.assemble import make_plan
from clan_discovery.cli.command import Args, Command, Parser, Streams, add_config, config_of, directory
from clan_discovery.emit.file_sd import render_jobs
from clan_discovery.errors import Exit, InputError, refuse
from clan_discovery.model import Problem
from clan_discovery.publish.files import stale_files, write_alone
from clan_discovery.round import run_agent, run_stateless
from clan_discovery.syntax.counting import first_names, plural
from clan_discovery.syntax.labels import is_job
from clan_discovery.syntax.suggest import did_you_mean
from clan_discovery.syntax.target_file import EMPTY, Split

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.model import Declared, Resolution
    from clan_discovery.round import Plan

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
"""The time of a render. Nothing in the output depends on it: two builds give the same bytes."""


def _add(parser: Parser) -> None:
    add_config(parser)
    parser.add_argument("--output", metavar="DIR", type=directory, required=True, help="write the files here")
    help_ = "write what the agent of this machine scrapes, not what the server scrapes"
    parser.add_argument("--agent", metavar="MACHINE", help=help_)
    help_ = "a job that has a scrape config (repeatable)"
    parser.add_argument("--job", metavar="JOB", type=_job, action="append", default=[], help=help_)
    help_ = "also write the fronts to this file, for the reverse proxy of `front` in the config"
    parser.add_argument("--front", metavar="FILE", type=Path, help=help_)
    help_ = "refuse jobs that are not listed, also if no --job is given"
    parser.add_argument("--only-listed", action="store_true", help=help_)


def _job(text: str) -> str:
    """Parse the name of a job, which is the name of a file."""
    if not is_job(text):
        raise argparse.ArgumentTypeError(f"invalid job {text!r}: letters, digits, '_', '-' and '.' only")
    return text


def _run(args: Args, streams: Streams) -> Exit:
    """Resolve what is declared, and write it."""
    listed: list[str] = args.job
    loaded = config_of(args)
    _check_options(args, loaded)
    plan = make_plan(loaded, output=args.output)
    is_complete = bool(listed) or args.only_listed
    if args.agent is not None:
        resolution = run_agent(plan, _agent(args.agent, plan.declared), _EPOCH)
        _refuse_any(_unlisted(resolution.jobs, listed, is_complete=is_complete))
    else:
        _refuse_any([*_asked_backends(plan), *_unlisted(plan.jobs, listed, is_complete=is_complete)])
        resolution = run_stateless(plan, _EPOCH)
    streams.warn(resolution.problems)
    dropped = [e for e in resolution.excluded if e.reason == "inexpressible"]
    streams.report_exclusions(dropped, level="warning", command="show")
    lists = dict.fromkeys(listed, EMPTY) | render_jobs(resolution)
    written = _write_lists(args.output, lists, plan.split if args.agent is None else Split())
    if args.front is not None:
        written += _write_front(args.front, resolution, plan)
    counts = plural(len(resolution.published), "target"), plural(len(lists), "job"), plural(written, "file")
    streams.print("{}, {}; {} written".format(*counts))
    return Exit.OK


def _check_options(args: Args, loaded: LoadedConfig) -> None:
    """Refuse a flake, and options that contradict each other or the config."""
    if loaded.config.inventory is not None and loaded.config.inventory.flake is not None:
        what = "a flake would have to be evaluated, and render starts no Nix"
        hint = "write its inventory with `clan-discovery dump`, and set inventory.file"
        raise InputError([loaded.problem(("inventory", "flake"), what, hint)])
    if args.front is not None and loaded.config.front is None:
        refuse("--front", "needs `front` in the config", "say for which reverse proxy: `front: {kind: caddy}`")
    if args.front is not None and args.agent is not None:
        refuse("--agent", "an agent serves no fronts", "remove `--front`")


def _agent(name: str, declared: Declared) -> str:
    """Return the name of an agent as it is declared.

    Raises:
        InputError: it is not an agent.
    """
    agents = {agent.casefold(): agent for agent in declared.agents}
    if name.casefold() not in agents:
        there = first_names(declared.agents, 20) or "none"
        refuse("--agent", f"{name!r} is no agent", did_you_mean(name, declared.agents) or f"agents are: {there}")
    return agents[name.casefold()]


def _write_lists(directory: Path, lists: Mapping[str, bytes], split: Split) -> int:
    """Write the target files; return how many changed. Files of these jobs by another `output.split` become `[]`."""
    files = split.files(lists)
    files |= dict.fromkeys(stale_files(directory, files.keys(), lists.keys()), EMPTY)
    return len(write_alone(directory, {f"{name}.json": body for name, body in files.items()}))


def _write_front(file: Path, resolution: Resolution, plan: Plan) -> int:
    """Write the fronts; return how many files changed."""
    settings = plan.policy.front
    if settings is None:
        return 0
    from clan_discovery.emit.fronts import render_fronts  # noqa: PLC0415 - only for fronts

    return len(write_alone(file.parent, {file.name: render_fronts(resolution.fronts, settings).encode()}))


def _asked_backends(plan: Plan) -> Iterator[Problem]:
    """Yield a problem for each backend that would have to be asked."""
    for backend in plan.backends:
        if backend.fingerprint is not None:
            what = f"backend {backend.name!r} has to be asked, and render asks no backend"
            hint = "use `refresh`, or remove the backend from `backends` and from the server's discoveryMethod"
            yield Problem(where="render", what=what, hint=hint)


def _refuse_any(problems: Iterable[Problem]) -> None:
    found = list(problems)
    if found:
        raise InputError(found)


def _unlisted(jobs: Iterable[str], listed: Sequence[str], *, is_complete: bool) -> Iterator[Problem]:
    """Yield a problem for each job that is not listed, if the list is complete."""
    if not is_complete:
        return
    known = first_names(sorted(set(listed)), 20) or "none"
    for job in sorted(set(jobs) - set(listed)):
        what = f"job {job!r} is not in the list of jobs ({known}): no scrape config would read {job}.json"
        yield Problem(where="render", what=what, hint=f"add `--job {job}`; on NixOS, services.clan-discovery.jobs")


COMMAND: Final = Command(__doc__, _add, _run)
