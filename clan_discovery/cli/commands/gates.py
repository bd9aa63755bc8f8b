"""Compare the boxes of a checklist with evidence; it never ticks one.

FILE is a Markdown file with items such as `- [ ] The mail arrives`. A person ticks a box: `- [x]`. An item may name
evidence in a code span; it is gathered now and printed below the item. The file is opened for reading only.

evidence:
  `gate: verify`              every expected target is scraped (as `verify` finds)
  `gate: verify MACHINE`      the targets of a machine are scraped
  `gate: http URL`            the URL answers with a status from 200 to 299
  `gate: http URL STATUS`     it answers with this status
  `gate: unit NAME`           the systemd unit is active on this machine
  `gate: unpublished`         no port with metrics is open to others
  `gate: rule NAME`           Prometheus or vmalert has loaded the alert or record

states of a box:
  unticked                    a person has not ticked it; evidence does not change that
  ticked                      a person has ticked it; no evidence is against it
  ticked against the evidence

With --require the exit code is 0 only if a person ticked every box and all evidence holds; 1 if a box is unticked or
evidence contradicts, 3 if evidence could not be gathered. Without it the exit code is 0, or 2 for a broken checklist.

--init writes a checklist for each component in use, in the order metrics, dashboards, alerting, logs, agents. They
follow from the sources and the config. An existing file is kept.

for example:
  clan-discovery gates --init checklists
  clan-discovery gates checklists/1-metrics.md
  clan-discovery gates --require checklists/1-metrics.md && echo 'go on'
  clan-discovery gates checklists/1-metrics.md --format json | jq '.boxes[] | select(.state != "ticked")'
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clan_discovery.cli.command import Args, Command, Parser, Streams, add_config, config_of
from clan_discovery.errors import Exit, refuse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clan_discovery.gates.evidence import Evidence
    from clan_discovery.gates.gather import GateInputs
    from clan_discovery.gates.judge import Gathered

_MOST_BYTES: Final = 16 * 1024 * 1024
_DIRECTORY: Final = Path("checklists")
_MODE: Final = 0o644


def _add(parser: Parser) -> None:
    add_config(parser)
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, help="the checklist, in Markdown")
    help_ = "exit with 0 only if a person ticked every box and all evidence holds"
    parser.add_argument("--require", action="store_true", help=help_)
    help_ = f"write checklists for the components in use to this directory (default: {_DIRECTORY})"
    parser.add_argument("--init", metavar="DIR", nargs="?", type=Path, const=_DIRECTORY, help=help_)
    help_ = "output format (default: table)"
    parser.add_argument("-f", "--format", choices=("table", "json"), default="table", help=help_)


def _run(args: Args, streams: Streams) -> Exit:
    if args.init is not None:
        if args.file is not None or args.require:
            refuse("", "--init takes no checklist", "write `gates --init DIR`, then `gates FILE`")
        return _propose(args, args.init, streams)
    if args.file is None:
        refuse("", "a checklist is missing", "name a Markdown file, or write some: clan-discovery gates --init")
    return _judge(args, args.file, streams)


def _judge(args: Args, file: Path, streams: Streams) -> Exit:
    """Read a checklist, gather what it names, and print each box with its state."""
    from clan_discovery.config.load import read_file  # noqa: PLC0415 - only for this part
    from clan_discovery.gates.checklist import read_checklist  # noqa: PLC0415
    from clan_discovery.gates.judge import exit_of, judge_boxes  # noqa: PLC0415
    from clan_discovery.gates.report import gates_document, render_gates  # noqa: PLC0415

    hint = "to write checklists: clan-discovery gates --init"
    body = read_file(file, "checklist", most=_MOST_BYTES, hint=hint)
    boxes = read_checklist(body, str(file))
    wanted = list(dict.fromkeys(evidence for box in boxes for evidence in box.evidence))
    judged = judge_boxes(boxes, _gathered(args, file, wanted, streams))
    if args.format == "json":
        from clan_discovery.emit.json import pretty  # noqa: PLC0415 - one format only is used

        streams.out.write(pretty(gates_document(str(file), judged)))
    else:
        streams.print_styled(render_gates(str(file), judged))
    return exit_of(judged) if args.require else Exit.OK


def _gathered(args: Args, file: Path, wanted: Sequence[Evidence], streams: Streams) -> Mapping[Evidence, Gathered]:
    """Gather evidence; the config is read only if some evidence needs it."""
    from clan_discovery.cli.progress import progress  # noqa: PLC0415 - see _judge
    from clan_discovery.gates.gather import MOST_EVIDENCE, WHOLE_S, gather, needs_config  # noqa: PLC0415

    if len(wanted) > MOST_EVIDENCE:
        refuse(str(file), f"names {len(wanted)} things to look at, more than {MOST_EVIDENCE}", "split the checklist")
    inputs = None
    if any(map(needs_config, wanted)):
        inputs = _inputs(args, streams)
    with progress(streams.err) as waits, waits.during("gathering evidence", WHOLE_S):
        return gather(wanted, inputs)


def _inputs(args: Args, streams: Streams) -> GateInputs:
    """Run a refresh cycle without writing."""
    from clan_discovery.assemble.verification import verify_settings  # noqa: PLC0415 - see _judge
    from clan_discovery.cli.cycle import dry_run, now  # noqa: PLC0415
    from clan_discovery.gates.gather import GateInputs  # noqa: PLC0415

    loaded = config_of(args)
    plan, round_ = dry_run(loaded, streams)
    return GateInputs(
        declared=plan.declared,
        resolution=round_.resolution,
        settings=verify_settings(loaded),
        machine=_machine(loaded.config.server),
        now=now(),
    )


def _machine(server: str | None) -> str:
    """Return the name of this machine: the `server` of the config, or the host name."""
    return server or socket.gethostname().partition(".")[0]


def _propose(args: Args, place: Path, streams: Streams) -> Exit:
    """Write a checklist for each component in use."""
    from clan_discovery.gates.components import MODULE, in_use  # noqa: PLC0415 - only for this part
    from clan_discovery.gates.proposal import proposals  # noqa: PLC0415

    inputs = _inputs(args, streams)
    programs = in_use(inputs.declared, inputs.resolution, inputs.settings, inputs.machine)
    has_clan = any(role.module == MODULE for role in inputs.declared.roles)
    texts = proposals(programs, has_clan=has_clan)
    if not texts:
        refuse("", "no component is in use: the config has no target", "clan-discovery check")
    if place.suffix == ".md":
        texts = {place.name: "\n".join(texts.values())}
        place = place.parent
    _write(place, texts, streams)
    return Exit.OK


def _write(place: Path, texts: Mapping[str, str], streams: Streams) -> None:
    """Write files that do not exist yet, and say which they are."""
    from clan_discovery.publish.failure import publish_error  # noqa: PLC0415 - see _propose

    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise publish_error(f"cannot make {place}", error) from error
    for name, text in texts.items():
        file = place / name
        try:
            _create(file, text.encode())
        except FileExistsError:
            streams.log(f"kept {file}: it exists")
        except OSError as error:
            raise publish_error(f"cannot write {file}", error) from error
        else:
            streams.print(str(file))


def _create(file: Path, content: bytes) -> None:
    """Write a new file; an existing one, also a symlink, is never opened."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)


COMMAND: Final = Command(__doc__, _add, _run)
