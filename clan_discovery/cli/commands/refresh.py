"""Ask the backends once, resolve, and update the target files.

Unchanged files are not written. If a backend fails, its last good answer is kept for policy.max_age (exit 3). Without
one, declared machines get their names as addresses. An answer that loses most of a backend's machines is held (exit 4)
until --accept-shrink, or until policy.shrink_after.

for example:
  clan-discovery refresh --config /etc/clan-discovery/config.yaml
"""

from __future__ import annotations

import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING, Final

from clan_discovery.assemble import directories, evaluate_flake, make_plan
from clan_discovery.cli.command import Args, Command, Parser, Streams, add_config, config_of, directory, metrics_file
from clan_discovery.cli.cycle import missing_machines, now, refuse_no_files, refuse_static, report_backends
from clan_discovery.cli.progress import flake_of, progress
from clan_discovery.emit.json import count_reasons
from clan_discovery.emit.publishers import share_line
from clan_discovery.errors import Exit, PublishError, SupersededError
from clan_discovery.publish.files import runtime_directory_warning
from clan_discovery.publish.state import State
from clan_discovery.publish.writing import write_file
from clan_discovery.round import refresh, report
from clan_discovery.syntax.counting import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from clan_discovery.cli.progress import Waits
    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.model import Resolution
    from clan_discovery.round import OutputPaths, Plan, Refreshed

_EVALUATIONS: Final = 3
"""The most evaluations of a flake in one refresh, if other processes publish newer ones meanwhile."""


def _add(parser: Parser) -> None:
    add_config(parser)
    parser.add_argument("--output", metavar="DIR", type=directory, help="write here instead of output.directory")
    help_ = "accept the answer of a backend that lost most of its machines"
    parser.add_argument("--accept-shrink", action="store_true", help=help_)
    help_ = "write also into a directory that is marked as another config's, and mark it as this one's (output.owner)"
    parser.add_argument("--take-over", action="store_true", help=help_)
    help_ = "also write metrics for the textfile collector of the node exporter (FILE ends in .prom)"
    parser.add_argument("--metrics-file", metavar="FILE", type=metrics_file, help=help_)
    printed = parser.add_mutually_exclusive_group()
    printed.add_argument("-q", "--quiet", action="store_true", help="print nothing unless something is wrong")
    printed.add_argument("-v", "--verbose", action="store_true", help="print each change since the last refresh")


def _run(args: Args, streams: Streams) -> Exit:
    """Run the cycle under the lock of the output directory, and report it."""
    loaded = config_of(args)
    if args.output is None:
        refuse_static(loaded)
        refuse_no_files(loaded)
    places = directories(loaded, output=args.output)._replace(take_over=args.take_over)
    if warning := runtime_directory_warning(places.directory, os.environ.get("RUNTIME_DIRECTORY", "")):
        streams.log(f"warning: {warning}")
    state = State(places.state_directory)
    plan = partial(make_plan, loaded, accept_shrink=args.accept_shrink, output=args.output)
    with progress(streams.err) as waits:
        done = _refresh(loaded, places, plan, state, waits)
    _report(done, state, streams)
    if args.metrics_file is not None:
        _write_metrics(args.metrics_file, done)
    if not args.quiet:
        streams.print(_summary(done))
        _print_changes(done, streams, verbose=args.verbose)
    return done.round.exit_code


def _refresh(
    loaded: LoadedConfig, places: OutputPaths, plan: Callable[..., Plan], state: State, waits: Waits
) -> Refreshed:
    """Run the cycle; evaluate a flake again if a newer evaluation was published meanwhile."""
    flake = flake_of(loaded)

    def once() -> Refreshed:
        evaluation = None
        if flake is not None:
            with waits.evaluating(flake):
                evaluation = evaluate_flake(flake, places)
        waits.begin("lock", f"waiting for another refresh of {places.directory}", places.lock_wait)

        def locked_plan() -> Plan:
            waits.end("lock")
            made = plan(evaluation=evaluation)
            waits.asking(made.backends)
            return made

        return refresh(places, locked_plan, state, now, answered=waits.end)

    for _ in range(_EVALUATIONS - 1):
        with contextlib.suppress(SupersededError):
            return once()
    return once()


def _report(done: Refreshed, state: State, streams: Streams) -> None:
    """Print what is wrong with the inventory, the state, the files, the targets and the backends."""
    resolution = done.round.resolution
    streams.warn([*resolution.problems, *state.problems])
    if done.taken_from is not None:
        streams.log(f"took over {done.plan.directory} from {done.taken_from}")
    for name in done.published.foreign:
        file = done.plan.directory / name
        what = f"{file}.json was not written by clan-discovery and is left alone"
        if reader := done.foreign_read.get(name):
            what = f"{what}, and {reader}: its targets are scraped (move it)"
        streams.log(f"warning: {what}")
    for name in done.published.replaced:
        streams.log(f"warning: {done.plan.directory / name}.json was not written by clan-discovery and is overwritten")
    if done.published.front == "kept":
        streams.log(f"front: keeps its present file: {resolution.front_kept}")
    # The other exclusions are intended. These are targets that cannot be written, and names claimed twice.
    dropped = [e for e in resolution.excluded if e.reason in ("inexpressible", "ambiguous")]
    streams.report_exclusions(dropped, level="warning", command="show")
    report_backends(resolution, streams)


def _print_changes(done: Refreshed, streams: Streams, *, verbose: bool) -> None:
    """Print the numbers of changed targets, of targets that moved, and of machines in another state, or each change."""
    changes = done.changes
    parts = [changes.summary]
    machines = sum(change.is_of_machine for change in changes.found)
    if machines:
        parts.append(f"{plural(machines, 'machine')} changed state")
    text = "; ".join(filter(None, parts))
    if changes.share is not None:
        streams.log(share_line(done.round.resolution, changes.share.added, changes.share.removed))
    if text:
        streams.log(f"changes: {text}")
    elif verbose and changes.is_first:
        streams.log("the history begins: the next refresh lists changes")
    elif verbose and changes.share is None:
        streams.log("no changes")
    if verbose and changes.found:
        from clan_discovery.emit.changes import change_lines  # noqa: PLC0415 - only where something is printed

        for line in change_lines(changes.found):
            streams.log(line)


def _write_metrics(file: Path, done: Refreshed) -> None:
    """Write the metrics of a cycle, readable by all, or raise PublishError."""
    from clan_discovery.emit.metrics import render  # noqa: PLC0415 - takes 40 ms, only for metrics

    try:
        write_file(file, render(report(done.round, done.plan)), 0o644)
    except OSError as error:
        what = f"cannot write the metrics file {file}: {error.strerror}"
        raise PublishError(what, hint="the target files are written") from error


def _summary(done: Refreshed) -> str:
    """Sum up a refresh in one line."""
    resolution, published = done.round.resolution, done.published
    files = len(published.written) + len(published.emptied)
    parts = [
        f"{plural(len(resolution.targets), 'target')} in {plural(len(resolution.jobs), 'job')}",
        *_share(resolution),
        _seen(resolution),
        *_pushed(resolution),
        f"{plural(files, 'file')} written, {len(published.unchanged)} unchanged",
    ]
    if published.front != "none":
        parts.append(f"{plural(len(resolution.fronts), 'front')}: file {published.front}")
    if resolution.frozen:
        parts.append(f"{plural(len(resolution.frozen), 'present file')} kept")
    if resolution.excluded:
        counts = count_reasons(resolution.excluded).items()
        parts.append("excluded: " + ", ".join(f"{count} {reason}" for reason, count in counts))
    if missing := missing_machines(resolution):
        parts.append(missing)
    return "; ".join(parts)


def _share(resolution: Resolution) -> Iterator[str]:
    if resolution.shard is not None:
        yield f"{len(resolution.published)} published by {resolution.shard.member}"


def _pushed(resolution: Resolution) -> Iterator[str]:
    if resolution.pushed:
        machines = len({target.machine for target in resolution.pushed})
        yield f"{len(resolution.pushed)} pushed by {plural(machines, 'machine')}"


def _seen(resolution: Resolution) -> str:
    """Count the targets that a backend sees, those that none sees, and those that none is asked about."""
    asked = [target.observed for target in resolution.targets if target.asked]
    declared = len(resolution.targets) - len(asked)
    if declared == 0:
        return f"{sum(asked)} seen, {len(asked) - sum(asked)} not seen"
    if not asked:
        return f"{declared} declared"
    return f"{sum(asked)} seen, {len(asked) - sum(asked)} not seen, {declared} declared"


COMMAND: Final = Command(__doc__, _add, _run)
