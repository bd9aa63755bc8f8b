"""Print a completion script for a shell.

It completes commands, options, their values, files, and the machines, jobs,
services and domains of the config. They come from the files that the config
names, without a network, within three seconds. A config that is wrong, or that
names a flake, gives no names.

bash, now or in ~/.bashrc:
  eval "$(clan-discovery completion bash)"

zsh, in ~/.zshrc after compinit:
  eval "$(clan-discovery completion zsh)"

fish:
  clan-discovery completion fish > ~/.config/fish/completions/clan-discovery.fish

The Nix package installs all three.

for example:
  clan-discovery completion bash > /etc/bash_completion.d/clan-discovery
  clan-discovery completion machines
"""

from __future__ import annotations

import contextlib
import re
from typing import Final

from clan_discovery.cli.command import Args, Command, Parser, Streams, add_config, config_of
from clan_discovery.errors import Exit
from clan_discovery.threads import Worker

_PATIENCE_S: Final = 3.0
"""Names take 0.3 s; a slow disk or a busy machine takes longer."""
_NAMES: Final = ("machines", "jobs", "names")
_SAFE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""Names that a shell takes as they are. What is completed is run when the user presses Enter."""


def _add(parser: Parser) -> None:
    help_ = "bash, zsh or fish; machines, jobs or names print what a script completes"
    parser.add_argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish", *_NAMES), help=help_)
    add_config(parser)


def _run(args: Args, streams: Streams) -> Exit:
    if args.shell in _NAMES:
        for name in _names(args):
            streams.print(name)
    else:
        from clan_discovery.cli.shells import completion_script  # noqa: PLC0415 - names are asked at each key press
        from clan_discovery.cli.words import all_commands, program_words  # noqa: PLC0415 - it loads this module

        streams.out.write(completion_script(args.shell, program_words(), all_commands()))
    return Exit.OK


def _names(args: Args) -> list[str]:
    """Return the names, sorted; none if something is wrong or takes too long."""
    found: list[str] = []

    def work() -> None:
        with contextlib.suppress(Exception):  # a user who presses Tab is in the middle of something else
            found.extend(_read_names(args))

    worker = Worker(work)
    worker.start()
    worker.join(_PATIENCE_S)
    return [name for name in sorted(found) if _SAFE.fullmatch(name)]


def _read_names(args: Args) -> list[str]:
    from clan_discovery.assemble import make_plan  # noqa: PLC0415 - only for names

    loaded = config_of(args)
    source = loaded.config.inventory
    if source is not None and source.flake is not None:  # Nix takes seconds
        return []
    plan = make_plan(loaded)
    if args.shell == "jobs":
        return list(plan.jobs)
    declared = plan.declared
    found = {machine.name for machine in declared.machines}
    if args.shell == "names":
        found |= {service.name for service in declared.services}
        found |= {name for front in declared.fronts for name in (front.service, front.domain)}
    return list(found)


COMMAND: Final = Command(__doc__, _add, _run)
