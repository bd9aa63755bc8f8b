"""Print what `refresh` would change in the published files. Nothing is written.

  + db   node, postgres  100.64.0.2                            (seen by tailnet)
  - old  node            100.64.0.9:9100                       (no longer declared)
  ~ web  node            web.ts.net:9100 -> 100.64.0.3:9100    (now seen by tailnet)

`+` marks targets that come, `-` targets that go, `~` targets that get another address or other labels. Targets of a
machine that change in the same way share a line. The last line counts the targets: +2 -1 ~1.

With --exit-code, the exit code is 1 if something would change and nothing failed.

for example:
  clan-discovery diff --labels
  clan-discovery diff --exit-code || echo "refresh would change something"
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from clan_discovery.cli.command import Args, Command, Parser, Streams, add_config, config_of
from clan_discovery.cli.cycle import dry_run, refuse_no_files
from clan_discovery.emit.diff import changes, render_changes
from clan_discovery.emit.file_sd import render_jobs
from clan_discovery.errors import Exit, PublishError
from clan_discovery.memory import read_history
from clan_discovery.model import Problem
from clan_discovery.publish.files import read_jobs
from clan_discovery.publish.mark import owner_complaint
from clan_discovery.publish.state import State
from clan_discovery.publish.user import refresher
from clan_discovery.syntax.target_file import parse_target_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from clan_discovery.emit.diff import Targets
    from clan_discovery.model import Resolution
    from clan_discovery.round import Plan


def _add(parser: Parser) -> None:
    add_config(parser)
    parser.add_argument("--exit-code", action="store_true", help="exit with 1 if something would change")
    parser.add_argument("--labels", action="store_true", help="also list the labels that would change")


def _run(args: Args, streams: Streams) -> Exit:
    """Compare the targets of a dry run with the published files."""
    loaded = config_of(args)
    refuse_no_files(loaded)
    plan, round_ = dry_run(loaded, streams)
    directory, resolution = plan.directory, round_.resolution
    if directory.is_dir() and not os.access(directory, os.R_OK | os.X_OK):  # it would look empty
        raise PublishError(f"cannot read the output directory {directory}", hint="run as the unit's user")
    _warn_of_owner(plan, streams)
    present = read_jobs(directory, plan.jobs)
    frozen = {job.job for job in resolution.frozen}
    wanted = render_jobs(resolution) | {job: present[job] for job in frozen & present.keys()}
    found = changes(_targets(present), _targets(wanted))
    lines = render_changes(
        found,
        resolution.excluded,
        resolution.targets,
        taken_over=_taken_over(plan, resolution),
        labels=args.labels,
    )
    streams.print_styled(lines)
    if found and args.exit_code:
        return max(Exit.FINDINGS, round_.exit_code)
    return round_.exit_code


def _taken_over(plan: Plan, resolution: Resolution) -> AbstractSet[tuple[str, str]]:
    """Return the targets that only other servers published by the history; none without a shard or a history."""
    if resolution.shard is None:
        return frozenset()
    history = read_history(State(plan.state_directory, read_only=True), plan.directory)
    return history.taken_over(resolution) if history is not None else frozenset()


def _warn_of_owner(plan: Plan, streams: Streams) -> None:
    """Warn that `refresh` would be refused if the directory belongs to another config."""
    try:
        complaint = owner_complaint(plan.directory, plan.owner, refresher(plan.state_directory))
    except PublishError as error:
        complaint = error
    if complaint is not None:
        what = f"`refresh` would be refused: {complaint}"
        streams.warn([Problem(where="", what=what, hint=complaint.hint, severity="warning")])


def _targets(files: Mapping[str, bytes]) -> Targets:
    return {job: parse_target_file(body) or [] for job, body in files.items()}


COMMAND: Final = Command(__doc__, _add, _run)
