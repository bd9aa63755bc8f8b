"""A terminal in a directory of its own, for the outputs that the docs show.

The commands are the real ones, run in this process, and tailscaled's LocalAPI listens on a real socket. Two things are
set: the clock, which moves only when it is told to, and the names of the temporary paths.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import textwrap
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

from typing_extensions import override

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from clan_discovery.cli import cycle  # noqa: E402 - found on the path that is set above
from clan_discovery.cli.main import main  # noqa: E402
from tests.support.localapi import Behaviour, localapi  # noqa: E402

SOCKET = "tailscaled.sock"
OUTAGE = timedelta(minutes=7)


class Clock(datetime):
    """A clock that is set by hand."""

    moment = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)

    @classmethod
    @override
    def now(cls, tz: tzinfo | None = None) -> Self:
        """Return the time that is set."""
        return cls.fromtimestamp(cls.moment.timestamp(), tz)


class Terminal(AbstractContextManager["Terminal"]):
    """A terminal of a width, beside a tailscaled that answers with `status`.

    Its directory is the working directory, and has the files.
    """

    def __init__(self, files: dict[str, bytes], status: bytes, columns: int) -> None:
        self._files = files
        self._behaviour = Behaviour(body=status)
        self._columns = columns
        self._stack = ExitStack()
        self._daemon = ExitStack()

    @override
    def __enter__(self) -> Self:
        """Enter the directory, and start tailscaled."""
        scratch = self._stack.enter_context(tempfile.TemporaryDirectory())
        self._stack.enter_context(contextlib.chdir(scratch))
        for name, content in self._files.items():
            Path(name).write_bytes(content)
        environment = dict(os.environ)
        self._stack.callback(os.environ.update, environment)
        self._stack.callback(os.environ.clear)
        os.environ.update(CLAN_DISCOVERY_CONFIG="clan-discovery.yaml", COLUMNS=str(self._columns), NO_COLOR="1")
        self._set(cycle, "datetime", Clock)
        self._set(Clock, "moment", Clock.moment)
        self._stack.enter_context(self._daemon)
        self.start_tailscaled()
        return self

    @override
    def __exit__(self, *_: object) -> None:
        """Leave everything as it was."""
        self._stack.close()

    def _set(self, owner: object, name: str, value: object) -> None:
        """Set an attribute until the terminal is left."""
        self._stack.callback(setattr, owner, name, getattr(owner, name))
        setattr(owner, name, value)

    def start_tailscaled(self) -> None:
        """Make tailscaled answer."""
        self._behaviour.ended.clear()
        self._daemon.enter_context(localapi(Path(SOCKET), self._behaviour))

    def stop_tailscaled(self) -> None:
        """Stop tailscaled, and let seven minutes pass."""
        self._daemon.close()
        Clock.moment += OUTAGE

    def type(self, *words: str) -> tuple[int, list[str]]:
        """Run clan-discovery; return its exit code and the lines on the screen."""
        screen = io.StringIO()
        code = main(words, screen, screen)
        here = str(Path.cwd())
        text = screen.getvalue().replace(f"{here}/{SOCKET}", "/run/tailscale/tailscaled.sock")
        lines: list[str] = []
        for line in text.replace(here, "/srv/monitoring").splitlines():
            lines += textwrap.wrap(line, self._columns, drop_whitespace=False, break_on_hyphens=False) or [""]
        return code, [line.rstrip() for line in lines]
