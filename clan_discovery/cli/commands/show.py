r"""Ask the backends once, resolve, and print the targets. Nothing is written.

Without MACHINE, --job, --state and --server, everything is printed. Several of one kind add up; of different kinds,
all must match. The table fits the terminal; in a pipe or a file, nothing is cut.

formats:
  table    for people: the targets, their total, services and fronts, then what is not a target and why
  json     everything, for programs (clan-discovery schema resolution)
  file-sd  one list of target groups, with the job as a label
  nix      a Nix expression: { jobs.<job> = [ { targets; labels; } ]; additionalScrapeConfigs; }
  scrape-config  the jobs as YAML for prometheus.yml, with the settings in `jobs`
  caddy, nginx, traefik  the fronts, for the reverse proxy to include (docs/fronts.md)
  storage  where samples are stored: nodes, flags of the programs, and files, as JSON (docs/storage.md)
  remote-write, vmauth, thanos-hashring  one of these files

What a terminal would interpret is escaped, and the value stays the same: \uXXXX in JSON, builtins.fromJSON in Nix.

for example:
  clan-discovery show db web --job node
  clan-discovery show --by machine --state missing --state kept
  clan-discovery show --by front nas
  clan-discovery show --state excluded
  clan-discovery show --server mon2 --job node
  clan-discovery show --watch --interval 10s
  clan-discovery show --format json | jq .excluded_by_reason
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

from clan_discovery.assemble.plan import directories
from clan_discovery.assemble.source import closed_inputs
from clan_discovery.cli.command import Args, Command, Parser, Streams, add_config, config_of, interval
from clan_discovery.cli.cycle import address_times, dry_run, refuse_no_files
from clan_discovery.emit.file_sd import render_all
from clan_discovery.emit.states import NO_TARGET, STATES
from clan_discovery.errors import InputError, refuse
from clan_discovery.model import FrontKind, Problem
from clan_discovery.syntax.terminal import escape_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.emit.table import Line
    from clan_discovery.errors import Exit
    from clan_discovery.model import Declared, Resolution, Shard

_INTERVAL_S: Final = 5.0
_PROXIES: Final = get_args(FrontKind)
_STORAGE: Final = ("storage", "remote-write", "vmauth", "thanos-hashring")


def _add(parser: Parser) -> None:
    add_config(parser)
    help_ = "only this machine of the sources or of the network"
    parser.add_argument("machines", metavar="MACHINE", nargs="*", help=help_)
    parser.add_argument("--job", metavar="JOB", action="append", default=[], help="only targets of this job")
    help_ = "only the targets that this member of the shard publishes (repeatable)"
    parser.add_argument("--server", metavar="NAME", action="append", default=[], help=help_)
    help_ = "only targets in this state, or what is `excluded` or `stray`"
    parser.add_argument("--state", choices=(*STATES, *NO_TARGET), action="append", default=[], help=help_)
    help_ = "one row for each target, for each machine with its jobs, or for each front (default: target)"
    parser.add_argument("--by", choices=("target", "machine", "front"), default="target", help=help_)
    help_ = "print since when each target is at its address (see clan-discovery history)"
    parser.add_argument("--since", action="store_true", help=help_)
    formats = ("table", "json", "file-sd", "nix", "scrape-config", *_PROXIES, *_STORAGE)
    parser.add_argument("-f", "--format", choices=formats, default="table", help="output format (default: table)")
    help_ = "ask and print again every --interval, until Ctrl-C; the config and its sources are read once"
    parser.add_argument("-w", "--watch", action="store_true", help=help_)
    help_ = "how often --watch asks, from 1s to 1d (default: 5s)"
    parser.add_argument("--interval", type=interval, default=_INTERVAL_S, metavar="TIME", help=help_)


def _run(args: Args, streams: Streams) -> Exit:
    """Print the outcome of a dry run. The emitter of a format is imported only for that format."""
    _check_options(args)
    loaded = config_of(args)
    if args.watch:
        return _watch(args, loaded, streams)
    front = args.format if args.format in _PROXIES else None
    plan, round_ = dry_run(loaded, streams, front=front)
    resolution = _chosen(args, plan.declared, round_.resolution)
    if args.format in ("json", "nix", "scrape-config"):  # with the additional scrape configs
        streams.warn_of_closed(closed_inputs(loaded))
    if args.format == "json":
        from clan_discovery.emit.json import pretty, resolution_document  # noqa: PLC0415

        streams.out.write(pretty(resolution_document(resolution)))
    elif args.format == "file-sd":
        streams.out.write(escape_json(render_all(resolution).decode()))
    elif args.format == "nix":
        from clan_discovery.emit.snapshot import render_snapshot  # noqa: PLC0415

        streams.out.write(render_snapshot(resolution, ".nix"))
    elif args.format == "scrape-config":
        from clan_discovery.emit.scrape_config import render_scrape_config  # noqa: PLC0415

        refuse_no_files(loaded)

        settings = {job: config.rest for job, config in loaded.config.jobs.items()}
        directory = directories(loaded).directory
        additional = resolution.additional_scrape_configs
        streams.out.write(render_scrape_config(resolution.jobs, directory, settings, additional, plan.split))
    elif plan.policy.front is not None and args.format in _PROXIES:
        from clan_discovery.emit.fronts import render_fronts  # noqa: PLC0415

        streams.out.write(render_fronts(resolution.fronts, plan.policy.front))
    elif args.format in _STORAGE:
        streams.out.write(_storage(args.format, resolution))
    else:
        streams.print_styled(_table(args, loaded, resolution, streams))
    return round_.exit_code


def _storage(format_: str, resolution: Resolution) -> str:
    """Return the flags and files of the storage, or one of the files; raise InputError where there is none."""
    storage = resolution.storage
    if storage is None:
        hint = "add `storage` to the config, or the role `storage` to the inventory"
        refuse(f"--format {format_}", "nothing says where samples are stored", hint)
    from clan_discovery.emit.storage import render_storage_file, storage_document  # noqa: PLC0415 - only for storage

    if format_ != "storage":
        return render_storage_file(storage, format_)
    from clan_discovery.emit.json import pretty  # noqa: PLC0415 - as above

    return pretty(storage_document(storage))


def _check_options(args: Args) -> None:
    """Raise InputError for options that work only with the table."""
    if args.since and args.by != "target":
        refuse("--since", f"has a time for each target, and not with --by {args.by}", "take one of them away")
    if args.by == "front" and (args.job or args.state or args.server):
        refuse(
            "--by front",
            "has neither jobs nor states nor servers",
            "choose fronts by their machines, or take the option away",
        )
    if args.format == "table":
        return
    fix = "use --format table, or take the option away"
    if args.watch:
        refuse("--watch", f"works with the table only, not with --format {args.format}", fix)
    if args.by != "target":
        refuse("--by", f"works with the table only, not with --format {args.format}", fix)
    if args.since:
        refuse("--since", f"works with the table only, not with --format {args.format}", fix)


def _chosen(args: Args, declared: Declared, resolution: Resolution) -> Resolution:
    """Return the part of a resolution that the arguments choose; raise InputError for an unknown name."""
    if not args.machines and not args.job and not args.state and not args.server:
        return resolution
    from clan_discovery.emit.filter import Filter, filtered, job_names, machine_names  # noqa: PLC0415 - as above

    folded = {name.casefold() for name in machine_names(declared, resolution)}
    machines = [str(name).casefold() for name in args.machines]
    machines = [resolution.aliases.get(name, name).casefold() for name in machines]
    problems = [*_unknown("MACHINE", machines, folded, "is neither declared nor seen")]
    problems += _unknown("--job", args.job, job_names(resolution), "is no job of this config")
    if problems:
        raise InputError(problems)
    servers = frozenset(_member(name, resolution.shard) for name in args.server)
    return filtered(resolution, Filter(frozenset(machines), frozenset(args.job), frozenset(args.state), servers))


def _member(name: str, shard: Shard | None) -> str:
    """Return the name of a member as the config spells it; raise InputError for an unknown one."""
    if shard is None:
        refuse("--server", "needs `shard` in the config", "see docs/sharding.md")
    known = {member.name.casefold(): member.name for member in shard.members}
    if name.casefold() not in known:
        refuse("--server", f"{name!r} is no member of the shard", f"there are: {', '.join(sorted(known.values()))}")
    return known[name.casefold()]


def _unknown(where: str, names: Iterable[str], known: AbstractSet[str], what: str) -> Iterator[Problem]:
    """Yield a problem with a suggestion for each unknown name."""
    from clan_discovery.emit.filter import did_you_mean_one_of  # noqa: PLC0415 - as above

    for name in names:
        if name not in known:
            yield Problem(where=where, what=f"{name!r} {what}", hint=did_you_mean_one_of(name, known))


def _table(args: Args, loaded: LoadedConfig, resolution: Resolution, streams: Streams) -> Iterator[Line]:
    """Yield the table of the targets, of the fronts, or of what is not a target where only that is asked for."""
    from clan_discovery.emit.table import render_fronts_table, render_no_targets, render_table  # noqa: PLC0415

    width = streams.width()
    if args.by == "front":
        yield from render_fronts_table(resolution, width)
        return
    states = [state for state in STATES if state in args.state]
    if states or not args.state:
        empty = "no targets"
        if states:
            empty = f"no targets in state {' or '.join(states)}"
        since = None
        if args.since:
            since = address_times(loaded, streams)
        yield from render_table(resolution, by=args.by, width=width, since=since, empty=empty)
    if len(states) < len(set(args.state)):
        yield from render_no_targets(resolution, width)


def _watch(args: Args, loaded: LoadedConfig, streams: Streams) -> Exit:
    """Print the table again and again."""
    from clan_discovery.assemble import make_plan  # noqa: PLC0415
    from clan_discovery.cli.screen import watch  # noqa: PLC0415

    plan = make_plan(loaded)

    def draw(screen: Streams) -> tuple[Exit, list[Line]]:
        _, round_ = dry_run(loaded, screen, plan)
        title = f"{round_.resolution.taken_at:%Y-%m-%d %H:%M:%S} UTC, again every {args.interval:g} s"
        resolution = _chosen(args, plan.declared, round_.resolution)
        return round_.exit_code, [(title, "bold"), *_table(args, loaded, resolution, screen)]

    return watch(draw, args.interval, streams)


COMMAND: Final = Command(__doc__, _add, _run)
