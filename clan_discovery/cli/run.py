"""`run`: the resident mode."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from clan_discovery.assemble import directories, make_plan, sockets_of, watched_files
from clan_discovery.cli.common import Streams, add_config, config_file_of, config_of
from clan_discovery.cli.refresh import metrics_word
from clan_discovery.config.models import duration
from clan_discovery.errors import InputError
from clan_discovery.model import Problem
from clan_discovery.resident.log import Log, on_journal
from clan_discovery.resident.loop import Daemon
from clan_discovery.resident.notify import Notify, watchdog_seconds
from clan_discovery.resident.plans import Loaded

if TYPE_CHECKING:
    from pathlib import Path

    from clan_discovery.counters import Report

_EPILOG = """\
A round is the same as `refresh`: the same lock, files and memory. It comes every --interval, and at once when the
tailnet changes (tailscaled's watch-ipn-bus), when the config, the inventory or a status file changes, and on SIGHUP.
A config that becomes wrong changes nothing; the last good one goes on. SIGTERM ends it within a second.

Under systemd use Type=notify-reload; READY, STATUS, RELOADING and WATCHDOG are sent.

example:
  clan-discovery run --config /etc/clan-discovery/config.yaml --metrics-listen 127.0.0.1:9199
"""


_INTERVAL_MOST_S = 86400.0


def seconds(text: str) -> float:
    """Read a duration of the command line."""
    try:
        found = duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not 1 <= found <= _INTERVAL_MOST_S:
        raise argparse.ArgumentTypeError(f"{text!r} is no interval: from 1s to 1d")
    return found


class Run:
    """Rounds for ever."""

    def add(self, parser: argparse.ArgumentParser, /) -> None:
        """Add the arguments."""
        parser.description = "Keep the target files up to date: rounds on a timer, and at once when something changes."
        parser.epilog = _EPILOG
        add_config(parser)
        parser.add_argument("--interval", type=seconds, default=30.0, metavar="TIME", help="default: 30s")
        parser.add_argument("--metrics-listen", metavar="HOST:PORT", help="serve /metrics here; loopback only")
        parser.add_argument(
            "--metrics-file", metavar="FILE", type=metrics_word, help="write metrics here at each round (.prom)"
        )
        parser.add_argument("--log-format", choices=("logfmt", "json"), default="logfmt", help="default: logfmt")
        parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")

    def run(self, args: argparse.Namespace, streams: Streams, /) -> int:
        """Run until told to stop."""
        gc.enable()  # this process is no single round
        journal = sys.stderr is not None and on_journal(2, os.environ.get("JOURNAL_STREAM"))
        log = Log(streams.err, args.log_format, args.log_level, journal)
        metrics = Metrics(args.metrics_file, log)
        with contextlib.ExitStack() as stack:
            if args.metrics_listen is not None:
                stack.enter_context(metrics.served(args.metrics_listen))
            daemon = Daemon(
                load=partial(load, args),
                log=log,
                notify=Notify(os.environ.get("NOTIFY_SOCKET")),
                interval=args.interval,
                watchdog=watchdog_seconds(os.environ.get("WATCHDOG_USEC")),
                on_cycle=metrics.update,
            )
            return daemon.run()


def load(args: argparse.Namespace) -> Loaded:
    """Read the config anew.

    Raises:
        InputError: it is wrong.
    """
    loaded = config_of(args)
    places = directories(loaded)
    return Loaded(
        places=places,
        plan=partial(make_plan, loaded),
        files=((config_file_of(args), "config"), *watched_files(loaded)),
        sockets=sockets_of(loaded),
    )


class Metrics:
    """The newest round's metrics: in a file, and behind a port of loopback."""

    def __init__(self, file: Path | None, log: Log) -> None:
        self.log = log
        self.failed = False
        self.file = file.absolute() if file is not None else None
        self.body = b""

    def update(self, report: Report) -> None:
        """Take a new round's; a file that cannot be written is no fault of the round."""
        from clan_discovery.emit.metrics import render  # noqa: PLC0415
        from clan_discovery.publish.files import write_file  # noqa: PLC0415

        self.body = render(report)
        if self.file is not None:
            try:
                write_file(self.file, self.body, 0o644)
            except OSError as error:
                if not self.failed:
                    reason = error.strerror or type(error).__name__
                    self.log.event("error", "cannot write the metrics file", file=str(self.file), reason=reason)
                self.failed = True
            else:
                self.failed = False

    def served(self, address: str) -> contextlib.AbstractContextManager[None]:
        """Serve on loopback for as long as the block lasts.

        Raises:
            InputError: the address is not of loopback, or cannot be had.
        """
        from clan_discovery.resident.listener import serve  # noqa: PLC0415

        try:
            return serve(address, lambda: self.body)
        except (ValueError, OSError) as error:
            problem = Problem(where="--metrics-listen", what=f"cannot serve on {address!r}: {error}")
            raise InputError([problem]) from None


COMMAND = Run()
