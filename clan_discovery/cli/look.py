"""One round without writing, as `show`, `explain` and `diff` do it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clan_discovery.assemble import make_plan
from clan_discovery.cli.common import Streams, config_of, now, tell, warn
from clan_discovery.publish.state import State
from clan_discovery.round import run_round

if TYPE_CHECKING:
    import argparse

    from clan_discovery.round import Plan, Round


def look(args: argparse.Namespace, streams: Streams) -> tuple[Plan, Round]:
    """Do a round of the config that is named; say what is wrong, and write nothing.

    Raises:
        InputError: the config or the inventory is wrong.
    """
    plan = make_plan(config_of(args))
    state = State(plan.state_directory, read_only=True)
    round_ = run_round(plan, state, now())
    warn(streams, [*plan.declared.problems, *state.problems])
    tell(streams, round_.resolution.beliefs)
    return plan, round_
