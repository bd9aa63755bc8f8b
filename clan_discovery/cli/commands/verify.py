"""Compare the targets that should be scraped with what the running scrapers do.

It asks the scrapers in the config's `verify` (without any, the one on this machine) and gives each expected target one
verdict. Each finding comes with the reason and a fix. It changes nothing. `doctor` checks what clan-discovery itself
depends on: backends, DNS, the output directory.

verdicts:
  up             scraped with success
  pending        not scraped yet; or pushed, and its machine, which comes and goes, is silent (policy.silent_after)
  down           the scrape fails, for the reason shown; or pushed, and silent
  not_read       its job is not in the config, or the target file was not read
  dropped        a relabel rule drops it
  elsewhere      the scraper has another address for it
  duplicate      scraped more than once
  wrong_machine  another machine answers at its address
  empty          scraped with success, but without samples
  unknown        the scraper could not be asked

Targets that agents push are looked for in the scrapers that answer queries: Prometheus and VictoriaMetrics.

With `verify.rules` in the config, each alert and record of the rule files must be loaded.

A ghost is scraped in one of our jobs, and declared nowhere. Targets that a hashmod rule leaves to another scraper have
no verdict, unless all of them were asked.

for example:
  clan-discovery verify
  clan-discovery verify db web --job node
  clan-discovery verify --wait 60s && echo deployed
  clan-discovery verify --format json | jq '.targets[] | select(.verdict != "up")'
"""

from __future__ import annotations

import argparse
import time
from itertools import compress
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.assemble.verification import verify_settings
from clan_discovery.cli.command import Args, Command, Parser, Streams, add_config, config_of
from clan_discovery.cli.cycle import dry_run, now
from clan_discovery.cli.progress import progress
from clan_discovery.emit.filter import did_you_mean_one_of, job_names, machine_names
from clan_discovery.errors import Exit, InputError
from clan_discovery.model import Problem, UnloadedRules, Verdict
from clan_discovery.publish.state import State
from clan_discovery.round import run_round
from clan_discovery.syntax.counting import plural
from clan_discovery.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from clan_discovery.model import Ghost, Resolution, Verification
    from clan_discovery.round import Plan, Round

_EVERY_S: Final = 2.0


class _Chosen(msgspec.Struct, frozen=True):
    """The machines, case-folded, and the jobs that the arguments choose; empty: all."""

    machines: frozenset[str]
    jobs: frozenset[str]


def _add(parser: Parser) -> None:
    add_config(parser)
    help_ = "only targets of this machine"
    parser.add_argument("machines", metavar="MACHINE", nargs="*", help=help_)
    parser.add_argument("--machine", metavar="MACHINE", action="append", default=[], help=help_)
    parser.add_argument("--job", metavar="JOB", action="append", default=[], help="only targets of this job")
    help_ = "ask again every 2 s until all targets are up, for at most this long (from 1s to 1d)"
    parser.add_argument("--wait", metavar="TIME", type=_wait, default=0.0, help=help_)
    parser.add_argument("-v", "--verbose", action="store_true", help="list every target, also those that are up")
    help_ = "output format (default: table)"
    parser.add_argument("-f", "--format", choices=("table", "json"), default="table", help=help_)


def _wait(text: str) -> float:
    from clan_discovery.syntax.duration import duration  # noqa: PLC0415 - only for this option

    try:
        return duration(text, least="1s", most="1d")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _run(args: Args, streams: Streams) -> Exit:
    """Run a refresh cycle without writing, ask the programs, and print the verdicts."""
    loaded = config_of(args)
    settings = verify_settings(loaded)
    plan, round_ = dry_run(loaded, streams)
    chosen = _chosen(args, plan, round_)

    def ask(resolution: Resolution) -> Verification:
        return _part(verify(resolution, settings, now()), chosen)

    with progress(streams.err) as waits:
        programs = len(settings.scrapers) + len(settings.programs)
        with waits.during(f"asking {plural(programs, 'program')}", settings.timeout):
            verification = ask(round_.resolution)
        roaming = _roaming(round_.resolution)
        end = time.monotonic() + args.wait
        with waits.during("waiting until all targets are up", args.wait):
            while not _is_all_up(verification, roaming) and (left := end - time.monotonic()) > 0:
                time.sleep(min(_EVERY_S, left))
                state = State(plan.state_directory, read_only=True)
                verification = ask(run_round(plan, state, now()).resolution)
    _print(verification, args, streams)
    return _exit_code(verification, is_late=bool(args.wait) and not _is_all_up(verification, roaming))


def _roaming(resolution: Resolution) -> frozenset[tuple[str, str]]:
    """Return the job and the instance of pushed targets whose machine comes and goes: waiting does not start it."""
    roaming = (target for target in resolution.pushed if target.patience == "roaming")
    return frozenset((target.job, target.labels["instance"]) for target in roaming)


def _is_all_up(verification: Verification, roaming: AbstractSet[tuple[str, str]]) -> bool:
    late = (target for target in verification.targets if target.verdict is not Verdict.UP)
    is_up = all(target.verdict is Verdict.PENDING and (target.job, target.instance) in roaming for target in late)
    return is_up and not verification.ghosts and all(program.ok for program in verification.asked)


def _exit_code(verification: Verification, *, is_late: bool) -> Exit:
    """Return the exit code. `is_late`: the time of `--wait` is over, and something is not up."""
    verdicts = {target.verdict for target in verification.targets}
    failed = [program for program in verification.asked if not program.ok]
    if Verdict.UNKNOWN in verdicts or not all(isinstance(program, UnloadedRules) for program in failed):
        return Exit.DEGRADED
    if is_late or failed or verification.ghosts or any(verdict.is_finding for verdict in verdicts):
        return Exit.FINDINGS
    return Exit.OK


def _chosen(args: Args, plan: Plan, round_: Round) -> _Chosen:
    """Return what the arguments choose; raise InputError for an unknown name."""
    resolution = round_.resolution
    machines = [str(name).casefold() for name in (*args.machines, *args.machine)]
    machines = [resolution.aliases.get(name, name).casefold() for name in machines]
    folded: set[str] = set()
    if machines:
        folded = {name.casefold() for name in machine_names(plan.declared, resolution)}
    problems = list(_unknown("MACHINE", machines, folded, "is neither declared nor seen"))
    if args.job:
        problems += _unknown("--job", args.job, job_names(resolution), "is no job of this config")
    if problems:
        raise InputError(problems)
    return _Chosen(frozenset(machines), frozenset(args.job))


def _unknown(where: str, names: Iterable[str], known: AbstractSet[str], what: str) -> Iterator[Problem]:
    for name in names:
        if name not in known:
            yield Problem(where=where, what=f"{name!r} {what}", hint=did_you_mean_one_of(name, known))


def _part(verification: Verification, chosen: _Chosen) -> Verification:
    """Return the part that is chosen. A ghost has no machine: its instance counts."""
    if not chosen.machines and not chosen.jobs:
        return verification
    has = [
        (not chosen.machines or target.machine.casefold() in chosen.machines)
        and (not chosen.jobs or target.job in chosen.jobs)
        for target in verification.targets
    ]
    ghosts = tuple(ghost for ghost in verification.ghosts if _has(chosen, ghost))
    targets = tuple(compress(verification.targets, has))
    copies = tuple(compress(verification.copies, has))
    return msgspec.structs.replace(verification, targets=targets, ghosts=ghosts, copies=copies)


def _has(chosen: _Chosen, ghost: Ghost) -> bool:
    if chosen.jobs and ghost.job not in chosen.jobs:
        return False
    name = ghost.instance.casefold()
    return not chosen.machines or name in chosen.machines or name.partition(":")[0] in chosen.machines


def _print(verification: Verification, args: Args, streams: Streams) -> None:
    from clan_discovery.emit.json import pretty  # noqa: PLC0415 - one format only is used
    from clan_discovery.emit.verification import render_verification, verification_document  # noqa: PLC0415

    if args.format == "json":
        streams.out.write(pretty(verification_document(verification)))
    else:
        streams.print_styled(render_verification(verification, verbose=args.verbose, width=streams.width()))


COMMAND: Final = Command(__doc__, _add, _run)
