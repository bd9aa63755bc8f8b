"""Check the config and the sources that it names: a clan inventory, a service manifest, Compose files.

It needs no network, socket, output directory or state, so it runs in a build sandbox. It fails (exit 2) where other
commands fail, and also if a role names a machine that the inventory does not have.

for example:
  clan-discovery check --config config.yaml && clan-discovery refresh --config config.yaml
"""

from __future__ import annotations

from typing import Final

from clan_discovery.assemble import make_plan
from clan_discovery.cli.command import Args, Command, Streams, add_config, config_of
from clan_discovery.cli.progress import flake_of, progress
from clan_discovery.errors import Exit
from clan_discovery.syntax.counting import plural


def _run(args: Args, streams: Streams) -> Exit:
    """Print the problems, or a summary of what is declared."""
    loaded = config_of(args)
    with progress(streams.err) as waits, waits.evaluating(flake_of(loaded)):
        plan = make_plan(loaded)
    streams.report(plan.declared.problems)
    if any(problem.severity != "warning" for problem in plan.declared.problems):
        return Exit.WRONG_INPUT
    machines = plural(len(plan.declared.machines), "machine")
    targets = f"{plural(len(plan.declared.expected), 'target')} expected"
    if pushed := sum(expected.delivery == "push" for expected in plan.declared.expected):
        targets = f"{targets} ({pushed} pushed)"
    jobs = ", ".join(sorted(plan.jobs)) or "none"
    backends = ", ".join(backend.name for backend in plan.backends) or "none"
    streams.print(f"ok: {machines} declared, {targets}; jobs: {jobs}; backends: {backends}")
    return Exit.OK


COMMAND: Final = Command(__doc__, add_config, _run)
