"""List what changed: which targets came, went and moved, and which machines were missing, offline or back.

The newest change is last. `refresh` and `run` keep the last 1,000 changes in the state directory. A machine-wide change
has `-` as its job. Nothing is asked and nothing is written.

for example:
  clan-discovery history db --config /etc/clan-discovery/config.yaml
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clan_discovery.assemble import directories
from clan_discovery.cli.command import Args, Command, Parser, Streams, add_config, config_of, directory
from clan_discovery.emit.changes import changes_json, history_lines
from clan_discovery.emit.json import pretty
from clan_discovery.errors import Exit, InputError
from clan_discovery.memory import read_history
from clan_discovery.model import Problem
from clan_discovery.publish.state import State
from clan_discovery.syntax.instant import rfc3339
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.model import ChangeRecord
    from clan_discovery.resolve.history import History


def _add(parser: Parser) -> None:
    add_config(parser)
    parser.add_argument("machines", metavar="MACHINE", nargs="*", help="only the changes of these machines")
    help_ = "the history of this directory instead of output.directory (`refresh --output`)"
    parser.add_argument("--output", metavar="DIR", type=directory, help=help_)
    help_ = "output format (default: table)"
    parser.add_argument("-f", "--format", choices=("table", "json"), default="table", help=help_)


def _run(args: Args, streams: Streams) -> Exit:
    places = directories(config_of(args), output=args.output)
    state = State(places.state_directory, read_only=True)
    history = read_history(state, places.directory)
    streams.warn(state.problems)
    changes: Sequence[ChangeRecord] = ()
    if history is not None:
        changes = _selected(history, args.machines)
    if args.format == "json":
        streams.out.write(pretty(changes_json(changes)))
    else:
        streams.print_styled((line, "plain") for line in history_lines(changes))
    if history is None and not state.problems:
        streams.log("there is no history yet: it begins with the first refresh")
    elif history is not None and not changes:
        streams.log(f"no change since {rfc3339(history.began)}, when the history began")
    return Exit.OK


def _selected(history: History, machines: Sequence[str]) -> Sequence[ChangeRecord]:
    """Return the changes of these machines (case-insensitive); raise InputError for an unknown one."""
    if not machines:
        return history.changes
    known = {name.casefold() for name in history.machines()}
    for name in machines:
        if name.casefold() not in known:
            what = f"{name!r} has no target, and no change since {rfc3339(history.began)}"
            raise InputError([Problem(where="", what=what, hint=did_you_mean(name, history.machines()))])
    wanted = {name.casefold() for name in machines}
    return [change for change in history.changes if not wanted.isdisjoint(map(str.casefold, change.names))]


COMMAND: Final = Command(__doc__, _add, _run)
