"""`check`: config and inventory, and nothing else. What a Nix build runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clan_discovery.assemble import make_plan
from clan_discovery.cli.common import Streams, add_config, config_of

if TYPE_CHECKING:
    import argparse

_EPILOG = """\
It asks no backend and looks at no socket, directory or state, so it runs in a build sandbox. Besides what stops
every command, it fails (exit 2) on a role's machine that the inventory does not have.

example:
  clan-discovery check --config config.yaml && clan-discovery refresh --config config.yaml
"""


class Check:
    """Reads the config and the inventory."""

    def add(self, parser: argparse.ArgumentParser, /) -> None:
        """Add the arguments."""
        parser.description = "Check the config and the inventory that it names."
        parser.epilog = _EPILOG
        add_config(parser)

    def run(self, args: argparse.Namespace, streams: Streams, /) -> int:
        """Print the complaints, or what was found."""
        plan = make_plan(config_of(args))
        failed = False
        for problem in plan.declared.problems:
            failed |= problem.severity != "warning"
            streams.say(f"warning: {problem}" if problem.severity == "warning" else str(problem))
        if failed:
            return 2
        machines, expected = len(plan.declared.machines), len(plan.declared.expected)
        jobs = plan.jobs
        asked = ", ".join(backend.name for backend in plan.backends) or "none"
        streams.print(
            f"ok: {machines} machine{_s(machines)} declared, {expected} target{_s(expected)} expected; "
            f"jobs: {', '.join(sorted(jobs)) or 'none'}; backends: {asked}"
        )
        return 0


def _s(count: int) -> str:
    return "" if count == 1 else "s"


COMMAND = Check()
