"""Log one line for each event on stderr: logfmt or JSON, with a priority for journald.

The logging library is not used: there is one stream with four levels, and a line is written whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from typing import TYPE_CHECKING, Final, Literal, TextIO, TypeAlias

import msgspec

from clan_discovery.model import one_line, span
from clan_discovery.syntax.terminal import escape_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
Form: TypeAlias = Literal["logfmt", "json"]
Field: TypeAlias = str | int | float | bool

# sd-daemon(3): a prefix on each line becomes its priority.
_PRIORITIES: Final[Mapping[Level, int]] = {"debug": 7, "info": 6, "warning": 4, "error": 3}
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:@%+,\[\]()-]+")


class Log(msgspec.Struct, frozen=True):
    """Writes events to a stream; those below the level `least` are dropped.

    For a `journal`, lines begin with their priority. For any other stream, they begin with the time of the `clock`
    (aware, UTC), if there is one; journald has its own.
    """

    stream: TextIO
    form: Form = "logfmt"
    least: Level = "info"
    journal: bool = False
    clock: Callable[[], datetime] | None = None

    def event(self, level: Level, message: str, **fields: Field) -> None:
        """Write one event; ignore a stream that cannot be written."""
        if _PRIORITIES[level] > _PRIORITIES[self.least]:
            return
        every: dict[str, Field] = {"level": level, "msg": message, **fields}
        if self.clock is not None and not self.journal:
            every = {"ts": f"{self.clock():%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z", **every}
        line = escape_json(json.dumps(every, ensure_ascii=False)) if self.form == "json" else logfmt(every)
        if self.journal:
            line = f"<{_PRIORITIES[level]}>{line}"
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(f"{line}\n")
            self.stream.flush()


def logfmt(fields: Mapping[str, Field]) -> str:
    """Format `key=value` pairs; values with other than plain characters are quoted."""
    return " ".join(f"{key}={_value(value)}" for key, value in fields.items())


def _value(value: Field) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case int():
            return str(value)
        case str() if _PLAIN.fullmatch(value):
            return value
        case str():
            return json.dumps(one_line(value), ensure_ascii=False)


def on_journal(descriptor: int, variable: str | None) -> bool:
    """Tell whether a file descriptor leads to journald, by systemd's JOURNAL_STREAM (`device:inode`)."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return variable == f"{status.st_dev}:{status.st_ino}"


def short_span(seconds: float) -> str:
    """Write a span of time as one word: `5m`, `36h`."""
    return span(seconds).replace(" ", "")
