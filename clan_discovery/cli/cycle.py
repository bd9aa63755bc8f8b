"""Run a refresh cycle without writing, and report the state of its backends."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from clan_discovery.assemble import directories, make_plan
from clan_discovery.cli.progress import flake_of, progress
from clan_discovery.errors import InputError
from clan_discovery.memory import read_history
from clan_discovery.model import BeliefState, Problem, span
from clan_discovery.publish.state import State
from clan_discovery.round import run_round
from clan_discovery.syntax.counting import first_names

if TYPE_CHECKING:
    from clan_discovery.cli.command import Streams
    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.emit.states import AddressTimes
    from clan_discovery.model import Belief, FrontKind, Resolution
    from clan_discovery.round import Plan, Round


def now() -> datetime:
    """Read the clock."""
    return datetime.now(UTC)


def refuse_static(loaded: LoadedConfig) -> None:
    """Raise InputError if a Nix build makes the target files: nothing else can write them."""
    if loaded.config.output.static:
        what = f"the target files in {loaded.config.output.directory} are built by Nix"
        hint = "change what is declared, and rebuild the system"
        raise InputError([loaded.problem(("output", "static"), what, hint)])


def refuse_no_files(loaded: LoadedConfig) -> None:
    """Raise InputError if the config says that no target files are written."""
    if not loaded.config.output.files:
        hint = "`run` serves the targets over HTTP; for target files, remove it"
        raise InputError([loaded.problem(("output", "files"), "is false: there are no target files", hint)])


def dry_run(
    loaded: LoadedConfig, streams: Streams, plan: Plan | None = None, *, front: FrontKind | None = None
) -> tuple[Plan, Round]:
    """Run one refresh cycle without writing, and report problems on stderr; without a plan, make one.

    `front` replaces the config's kind of reverse proxy.
    """
    with progress(streams.err) as waits:
        if plan is None:
            with waits.evaluating(flake_of(loaded)):
                plan = make_plan(loaded, front=front)
        state = State(plan.state_directory, read_only=True)
        waits.asking(plan.backends)
        round_ = run_round(plan, state, now(), answered=waits.end)
    streams.warn([*round_.resolution.problems, *state.problems])
    report_backends(round_.resolution, streams)
    return plan, round_


def address_times(loaded: LoadedConfig, streams: Streams) -> AddressTimes:
    """Return since when published targets are at their addresses, by the history; empty without a history."""
    places = directories(loaded)
    state = State(places.state_directory, read_only=True)
    history = read_history(state, places.directory)
    if not state.hidden:  # the dry run has told that
        streams.warn(state.problems)
    if history is None:
        return {}
    return history.since()


def report_backends(resolution: Resolution, streams: Streams) -> None:
    """Print a line for each backend that failed, or whose answer is held, and for each job with a frozen file."""
    for belief in resolution.beliefs:
        if belief.state is not BeliefState.FRESH:
            waits = any(frozen.backend == belief.backend for frozen in resolution.frozen)
            what = f"{belief.why}; {_served(belief, waits=waits)}"
            streams.log(str(Problem(where=f"backend {belief.backend}", what=what, hint=belief.hint)))
        elif belief.why:
            problem = Problem(where=f"backend {belief.backend}", what=belief.why, hint="policy.shrink_after")
            streams.warn([problem])
    for frozen in resolution.frozen:
        what = f"keeps its present file{frozen.limit}, the new targets are not written: {frozen.why}"
        streams.log(str(Problem(where=f"job {frozen.job}", what=what)))


def missing_machines(resolution: Resolution) -> str:
    """Return the names of the first missing machines; empty if there are none."""
    if not resolution.missing:
        return ""
    return f"missing: {first_names([missing.machine for missing in resolution.missing], 5)}"


def _served(belief: Belief, *, waits: bool) -> str:
    """Say which answer is used instead. `waits`: jobs keep their files until the backend answers."""
    match belief.state:
        case BeliefState.FRESH:
            return "its answer is used"
        case BeliefState.PARTIAL:
            return _last_good_answers(belief)
        case BeliefState.KEPT:
            return f"its last good answer, {span(belief.age)} old, is kept"
        case BeliefState.HELD if belief.snapshot is None or waits:
            return "held: the present files are kept"
        case BeliefState.HELD:
            return "held: the old answer is kept"
        case BeliefState.EXPIRED:
            return f"its last good answer is {span(belief.age)} old, older than policy.max_age, and is not used"
        case BeliefState.UNKNOWN if waits:
            return "there is no last good answer"
        case BeliefState.UNKNOWN:
            return "there is no last good answer; unseen machines get their declared addresses or names"


def _last_good_answers(belief: Belief) -> str:
    """Say how many of the failed lookups have a last good answer."""
    failed = belief.snapshot.failures if belief.snapshot is not None else ()
    kept = sum(name.age is not None for name in failed)
    if kept == len(failed):
        return "their last good answers are used"
    if kept == 0:
        return "they have no last good answer yet"
    return f"the last good answers of {kept} are used"
