"""Keep the target files up to date until stopped.

A refresh cycle is the same as `refresh`: the same lock, files and memory. It runs every --interval, and at once when
the tailnet changes (tailscaled's watch-ipn-bus), when the config, a file of a source or a status file changes, and on
SIGHUP. If the config becomes wrong, the last good config stays in use. SIGTERM stops the program within a second.

A flake is evaluated at the start, when files of a local flake change, on SIGHUP, and every inventory.refresh_interval
(1h). Cycles go on with the last good evaluation meanwhile.

With `web` in the config, target lists for http_sd, metrics and health are served over HTTP. --metrics-listen serves
only /metrics and /healthz. Both serve at most 16 connections at once, for 30 seconds each; Host must be a loopback
address or localhost. /metrics and /sd are 503 until a cycle has succeeded. /healthz is 200 while cycles succeed; else
it is 503 and says why.

--verify-interval asks the scrapers of the config's `verify` what they do with the targets, as `verify` does. Findings
are logged when they begin and when they end, and they are metrics. A scraper that hangs delays no refresh cycle.

Under systemd use Type=notify-reload; READY, STATUS, RELOADING and WATCHDOG are sent.

for example:
  clan-discovery run --config /etc/clan-discovery/config.yaml --metrics-listen 127.0.0.1:9199
"""

from __future__ import annotations

import gc
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from clan_discovery.assemble import directories, evaluate_flake, make_plan, sockets_of, watched_files
from clan_discovery.cli.command import (
    Args,
    Command,
    Parser,
    Streams,
    add_config,
    config_file_of,
    config_of,
    interval,
    metrics_file,
)
from clan_discovery.cli.cycle import now, refuse_static
from clan_discovery.errors import Exit
from clan_discovery.inventory.nix import local_directory
from clan_discovery.localapi.client import DEFAULT_SOCKET
from clan_discovery.publish.failure import publish_error
from clan_discovery.publish.writing import write_file
from clan_discovery.resident.flake import Flake
from clan_discovery.resident.log import Log, on_journal
from clan_discovery.resident.loop import Daemon
from clan_discovery.resident.notify import Notify, watchdog_seconds
from clan_discovery.resident.plans import Loaded
from clan_discovery.resident.serving import Serving, WebSettings

if TYPE_CHECKING:
    from pathlib import Path

    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.model import Report, Resolution, Verification
    from clan_discovery.round import OutputPaths


def _add(parser: Parser) -> None:
    add_config(parser)
    help_ = "time between refresh cycles, from 1s to 1d (default: 30s)"
    parser.add_argument("--interval", type=interval, default=30.0, metavar="TIME", help=help_)
    help_ = "time between checks of what the scrapers do, from 10s to 1d (default: no checks)"
    parser.add_argument("--verify-interval", type=partial(interval, least="10s"), metavar="TIME", help=help_)
    help_ = "serve /metrics and /healthz on this address, loopback only"
    parser.add_argument("--metrics-listen", metavar="HOST:PORT", help=help_)
    help_ = "write metrics to this file in each cycle (FILE ends in .prom)"
    parser.add_argument("--metrics-file", metavar="FILE", type=metrics_file, help=help_)
    help_ = "log format (default: logfmt)"
    parser.add_argument("--log-format", choices=("logfmt", "json"), default="logfmt", help=help_)
    help_ = "lowest level to log (default: info)"
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info", help=help_)


def _run(args: Args, streams: Streams) -> Exit:
    gc.enable()  # `entry` disables it for commands that run a single cycle
    journal = sys.stderr is not None and on_journal(2, os.environ.get("JOURNAL_STREAM"))
    log = Log(streams.err, args.log_format, args.log_level, journal, now)
    serving = Serving()
    on_cycle = None
    if args.metrics_file is not None:
        on_cycle = partial(_write_metrics, args.metrics_file)
    daemon = Daemon(
        load=partial(_load, args),
        log=log,
        notify=Notify(os.environ.get("NOTIFY_SOCKET")),
        interval=args.interval,
        verify_interval=args.verify_interval,
        watchdog=watchdog_seconds(os.environ.get("WATCHDOG_USEC")),
        on_cycle=on_cycle,
        serving=serving,
    )
    try:
        if args.metrics_listen is not None:
            serving.open_metrics(args.metrics_listen)
        return Exit(daemon.run())
    finally:
        serving.stop()


def _load(args: Args) -> Loaded:
    loaded = config_of(args)
    refuse_static(loaded)
    places = directories(loaded)
    return Loaded(
        places=places,
        plan=lambda evaluation: make_plan(loaded, evaluation=evaluation),
        files=((config_file_of(args), "config"), *watched_files(loaded)),
        found=lambda: loaded.found,
        sockets=sockets_of(loaded),
        flake=_flake(loaded, places),
        web=_web(loaded),
        verify=partial(_verify, loaded),
        name=str(loaded.file),
    )


def _web(loaded: LoadedConfig) -> WebSettings | None:
    web = loaded.config.web
    if web is None:
        return None
    return WebSettings(
        listen=web.listen,
        links=web.links,
        scrapers={name: program.url for name, program in loaded.config.verify.scrapers.items()},
        config=str(loaded.file.absolute()),
        allow=tuple(web.allow),
        sockets=sockets_of(loaded) or (DEFAULT_SOCKET,),
        where=loaded.problem(("web", "listen"), "").where,
    )


def _verify(loaded: LoadedConfig, resolution: Resolution) -> Verification:
    """Ask the scrapers. The modules are imported only with --verify-interval."""
    from clan_discovery.assemble.verification import verify_settings  # noqa: PLC0415
    from clan_discovery.verify import verify  # noqa: PLC0415

    return verify(resolution, verify_settings(loaded), now())


def _flake(loaded: LoadedConfig, places: OutputPaths) -> Flake | None:
    source = loaded.config.inventory
    if source is None or source.flake is None:
        return None
    return Flake(
        reference=source.flake,
        evaluate=partial(evaluate_flake, source.flake, places),
        every=source.refresh_interval,
        directory=local_directory(source.flake),
        own=(places.directory, places.state_directory),
    )


def _write_metrics(file: Path, report: Report) -> None:
    """Write the metrics of a new cycle; raise PublishError if that fails."""
    from clan_discovery.emit.metrics import render  # noqa: PLC0415

    try:
        write_file(file, render(report), 0o644)
    except OSError as error:
        raise publish_error(f"cannot write {file}", error) from error


COMMAND: Final = Command(__doc__, _add, _run)
