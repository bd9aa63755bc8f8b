"""Keep the target files up to date until stopped.

A refresh cycle is the same as `refresh`: the same lock, files and memory. It runs every --interval, and at once when
the tailnet changes (tailscaled's watch-ipn-bus), when the config, the inventory or a status file changes, and on
SIGHUP. If the config becomes wrong, the last good config stays in use. SIGTERM stops the program within a second.

A flake is evaluated at the start, when files of a local flake change, on SIGHUP, and every inventory.refresh_interval
(1h). Cycles go on with the last good evaluation meanwhile.

--metrics-listen serves /metrics and /healthz to at most 16 connections for 5 seconds each; Host must be a loopback
address or localhost. /metrics is 503 until a cycle has succeeded. /healthz is 200 while cycles succeed; else it is 503
and says why.

Under systemd use Type=notify-reload; READY, STATUS, RELOADING and WATCHDOG are sent.

for example:
  clan-discovery run --config /etc/clan-discovery/config.yaml --metrics-listen 127.0.0.1:9199
"""

from __future__ import annotations

import contextlib
import errno
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
from clan_discovery.errors import Exit, refuse
from clan_discovery.inventory.nix import local_directory
from clan_discovery.publish.failure import publish_error
from clan_discovery.publish.writing import write_file
from clan_discovery.resident.flake import Flake
from clan_discovery.resident.log import Log, on_journal
from clan_discovery.resident.loop import Daemon
from clan_discovery.resident.notify import Notify, watchdog_seconds
from clan_discovery.resident.plans import Loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.model import Report
    from clan_discovery.resident.listener import Listener
    from clan_discovery.round import OutputPaths


def _add(parser: Parser) -> None:
    add_config(parser)
    help_ = "time between refresh cycles, from 1s to 1d (default: 30s)"
    parser.add_argument("--interval", type=interval, default=30.0, metavar="TIME", help=help_)
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
    metrics = ServedMetrics(args.metrics_file)
    daemon = Daemon(
        load=partial(_load, args),
        log=log,
        notify=Notify(os.environ.get("NOTIFY_SOCKET")),
        interval=args.interval,
        watchdog=watchdog_seconds(os.environ.get("WATCHDOG_USEC")),
        on_cycle=metrics.update,
    )
    with metrics.served(args.metrics_listen, daemon.health):
        return Exit(daemon.run())


def _load(args: Args) -> Loaded:
    loaded = config_of(args)
    refuse_static(loaded)
    places = directories(loaded)
    return Loaded(
        places=places,
        plan=lambda evaluation: make_plan(loaded, evaluation=evaluation),
        files=((config_file_of(args), "config"), *watched_files(loaded)),
        sockets=sockets_of(loaded),
        flake=_flake(loaded, places),
        name=str(loaded.file),
    )


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


class ServedMetrics:
    """The metrics of the last refresh cycle, as a file and over HTTP on loopback."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._body = b""
        self._listener: Listener | None = None

    def update(self, report: Report) -> None:
        """Take the metrics of a new cycle.

        Raises:
            PublishError: the file cannot be written; the metrics are served.
            RuntimeError: the listener cannot be started; clients wait, and the file is written.
        """
        from clan_discovery.emit.metrics import render  # noqa: PLC0415

        self._body = render(report)
        try:
            if self._file is not None:
                write_file(self._file, self._body, 0o644)
        except OSError as error:
            raise publish_error(f"cannot write {self._file}", error) from error
        finally:
            self._start()

    @contextlib.contextmanager
    def served(self, address: str | None, health: Callable[[], str]) -> Generator[None]:
        """Serve the metrics and the health while the block runs, or raise InputError; None: do not."""
        if address is None:
            yield
            return
        from clan_discovery.resident.listener import listen  # noqa: PLC0415

        try:
            self._listener = listen(address, lambda: self._body, health)
        except ValueError as error:
            refuse("--metrics-listen", f"cannot serve on {address!r}: {error}")
        except OSError as error:
            why = error.strerror or type(error).__name__
            hint = None
            if error.errno == errno.EADDRINUSE:
                why, hint = "another program listens there", "stop it, or choose another port"
            refuse("--metrics-listen", f"cannot serve on {address!r}: {why}", hint)
        try:
            with contextlib.suppress(RuntimeError):  # `update` reports it
                self._start()
            yield
        finally:
            self._listener.stop()

    def _start(self) -> None:
        """Start the listener unless it runs; raise RuntimeError if there is no thread for it."""
        if self._listener is not None:
            self._listener.ensure_started()


COMMAND: Final = Command(__doc__, _add, _run)
