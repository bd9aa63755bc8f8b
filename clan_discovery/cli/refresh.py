"""`refresh`: one round, published. What the systemd timer runs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from clan_discovery.assemble import directories, make_plan
from clan_discovery.cli.common import Streams, add_config, config_of, now, tell, told, warn
from clan_discovery.emit.json import count_reasons
from clan_discovery.errors import PublishError
from clan_discovery.publish.files import Published, runtime_directory_warning, write_file
from clan_discovery.publish.state import State
from clan_discovery.round import Refreshed, Round, refresh, report

_EPILOG = """\
Files that did not change are not written. Of a backend that fails, the last good answer is kept for policy.max_age
(exit 3); where there is none, declared machines stand at their names. An answer that loses most of a backend's
machines is held (exit 4) until --accept-shrink, or until policy.shrink_after.

example:
  clan-discovery refresh --config /etc/clan-discovery/config.yaml
"""


def directory_word(text: str) -> Path:
    """Read a directory of the command line; an empty word is a shell variable that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("needs a directory, not an empty word")
    return Path(text)


def metrics_word(text: str) -> Path:
    """Read a metrics file of the command line: what stands there is replaced, so it must be meant."""
    file = Path(text)
    if file.suffix != ".prom":
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .prom, as the textfile collector demands")
    if os.path.lexists(file) and (file.is_symlink() or not file.is_file()):
        raise argparse.ArgumentTypeError(f"{text!r} is no regular file, and would be replaced by one")
    return file


class Refresh:
    """One round that writes."""

    def add(self, parser: argparse.ArgumentParser, /) -> None:
        """Add the arguments."""
        parser.description = "Ask the backends once, resolve, and bring the target files up to date."
        parser.epilog = _EPILOG
        add_config(parser)
        parser.add_argument(
            "--output", metavar="DIR", type=directory_word, help="write here instead of output.directory"
        )
        parser.add_argument(
            "--accept-shrink", action="store_true", help="believe a backend that lost most of its machines"
        )
        parser.add_argument(
            "--metrics-file",
            metavar="FILE",
            type=metrics_word,
            help="also write metrics, for node exporter's textfile collector (FILE ends in .prom)",
        )
        parser.add_argument("-q", "--quiet", action="store_true", help="print nothing where nothing is wrong")

    def run(self, args: argparse.Namespace, streams: Streams, /) -> int:
        """Do the round under the lock of the output directory."""
        output: Path | None = args.output
        loaded = config_of(args)
        places = directories(loaded, output=output)
        if warning := runtime_directory_warning(places.directory, os.environ.get("RUNTIME_DIRECTORY", "")):
            streams.say(f"warning: {warning}")
        state = State(places.state_directory)
        accept_shrink: bool = args.accept_shrink
        done = refresh(places, lambda: make_plan(loaded, accept_shrink=accept_shrink, output=output), state, now)
        self.tell(done, state, streams)
        metrics_file: Path | None = args.metrics_file
        if metrics_file is not None:
            write_metrics(metrics_file, done)
        if not args.quiet:
            streams.print(summary(done.round, done.published))
        return done.round.exit_code

    @staticmethod
    def tell(done: Refreshed, state: State, streams: Streams) -> None:
        """Say what is not as it should be."""
        published, directory = done.published, done.plan.directory
        warn(streams, [*done.plan.declared.problems, *state.problems])
        for name in published.foreign:
            streams.say(f"warning: {directory / name}.json is not ours and is left alone")
        for name in published.replaced:
            streams.say(f"warning: {directory / name}.json was not ours and is replaced")
        # Targets that could not be written, and names that nobody gets.
        dropped = [e for e in done.round.resolution.excluded if e.reason in ("inexpressible", "ambiguous")]
        for line in told(dropped, "show"):
            streams.say(f"warning: {line}")
        tell(streams, done.round.resolution.beliefs)


def write_metrics(file: Path, done: Refreshed) -> None:
    """Write the metrics of a round, atomically and readable by all.

    Raises:
        PublishError: they could not be written; the target files are.
    """
    from clan_discovery.emit.metrics import render  # noqa: PLC0415 - 40 ms that only metrics are worth

    try:
        write_file(file.absolute(), render(report(done.round, done.plan)), 0o644)
    except OSError as error:
        what = f"cannot write the metrics file {file}: {error.strerror}"
        raise PublishError(what, hint="the target files are written") from error


def summary(round_: Round, published: Published) -> str:
    """Sum up a round in one line."""
    resolution = round_.resolution
    seen = sum(target.observed for target in resolution.targets)
    total = len(resolution.targets)
    files = len(published.written) + len(published.emptied)
    parts = [
        f"{total} target{_s(total)} in {len(resolution.jobs)} job{_s(len(resolution.jobs))}",
        f"{seen} seen, {total - seen} not seen",
        f"{files} file{_s(files)} written, {len(published.unchanged)} unchanged",
    ]
    if resolution.excluded:
        counts = ", ".join(f"{n} {reason}" for reason, n in count_reasons(resolution.excluded).items())
        parts.append(f"excluded: {counts}")
    if resolution.missing:
        parts.append(f"missing: {', '.join(m.machine for m in resolution.missing[:5])}" + _more(resolution.missing, 5))
    return "; ".join(parts)


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _more(items: tuple[object, ...], shown: int) -> str:
    return f" and {len(items) - shown} more" if len(items) > shown else ""


COMMAND = Refresh()
