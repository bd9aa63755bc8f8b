"""A dry run of one refresh cycle, and what to say about its backends."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from clan_discovery.assemble import make_plan
from clan_discovery.cli.arguments import config_of
from clan_discovery.model import Problem, span
from clan_discovery.round import run_round
from clan_discovery.state import State

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from clan_discovery.cli.streams import Streams
    from clan_discovery.model import Belief
    from clan_discovery.round import Plan, Round


def now() -> datetime:
    """Read the clock."""
    return datetime.now(UTC)


def dry_run(args: argparse.Namespace, streams: Streams) -> tuple[Plan, Round]:
    """Run one refresh cycle of the config without writing anything, and report problems on stderr.

    Raises:
        InputError: the config or the inventory is wrong.
    """
    plan = make_plan(config_of(args))
    state = State(plan.state_directory, read_only=True)
    round_ = run_round(plan, state, now())
    streams.warn([*plan.declared.problems, *state.problems])
    report_backends(round_.resolution.beliefs, streams)
    return plan, round_


def report_backends(beliefs: Iterable[Belief], streams: Streams) -> None:
    """Print a line for each backend that failed, or whose answer is held or suspicious."""
    for belief in beliefs:
        if belief.state != "fresh":
            what = f"{belief.why}; {_served(belief)}"
            streams.log(str(Problem(where=f"backend {belief.backend}", what=what, hint=belief.hint)))
        elif belief.why:
            problem = Problem(where=f"backend {belief.backend}", what=belief.why, hint="policy.shrink_after")
            streams.warn([problem])


def _served(belief: Belief) -> str:
    """Say which answer is used instead."""
    match belief.state:
        case "fresh":
            return "its answer is used"
        case "partial":
            return _last_good_answers(belief)
        case "kept":
            return f"its last good answer, {span(belief.age)} old, is kept"
        case "held":
            return f"held: its answer of {span(belief.age)} ago is kept"
        case "expired":
            return f"its last good answer is {span(belief.age)} old, older than policy.max_age, and is not used"
        case "unknown":
            return "it never answered yet; declared machines get their names as addresses"


def _last_good_answers(belief: Belief) -> str:
    """Say how many of the failed lookups have a last good answer."""
    failed = belief.snapshot.unanswered if belief.snapshot is not None else ()
    kept = sum(name.age is not None for name in failed)
    if kept == len(failed):
        return "their last good answers are used"
    if kept == 0:
        return "they have no last good answer yet"
    return f"the last good answers of {kept} are used"
