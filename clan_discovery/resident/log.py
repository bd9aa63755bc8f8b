"""One line for each event, on stderr: logfmt or JSON; with journald's priorities where journald reads.

Not the logging library: there is one stream, four levels, and a line is written whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TextIO, TypeAlias

from clan_discovery.model import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
Form: TypeAlias = Literal["logfmt", "json"]
Field: TypeAlias = str | int | float | bool

# sd-daemon(3): a prefix on each line becomes its priority.
_PRIORITIES: Final[Mapping[Level, int]] = {"debug": 7, "info": 6, "warning": 4, "error": 3}
_PLAIN: Final = frozenset("-_./:@%+,[]()")


@dataclass(frozen=True, slots=True)
class Log:
    """Where events go; those below `least` go nowhere."""

    stream: TextIO
    form: Form = "logfmt"
    least: Level = "info"
    journal: bool = False

    def event(self, level: Level, message: str, **fields: Field) -> None:
        """Write one event. A stream that cannot take it changes nothing."""
        if _PRIORITIES[level] > _PRIORITIES[self.least]:
            return
        every: dict[str, Field] = {"level": level, "msg": message, **fields}
        line = json.dumps(every, ensure_ascii=False) if self.form == "json" else logfmt(every)
        prefix = f"<{_PRIORITIES[level]}>" if self.journal else ""
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(f"{prefix}{line}\n")
            self.stream.flush()


def logfmt(fields: Mapping[str, Field]) -> str:
    """Write `key=value` pairs; a value that holds more than plain characters is quoted."""
    return " ".join(f"{key}={_value(value)}" for key, value in fields.items())


def _value(value: Field) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:g}"
        case int():
            return str(value)
        case str():
            if value and all(c.isascii() and (c.isalnum() or c in _PLAIN) for c in value):
                return value
            return json.dumps(one_line(value), ensure_ascii=False)


def on_journal(descriptor: int, variable: str | None) -> bool:
    """Tell whether a file descriptor is journald's, by systemd's JOURNAL_STREAM (`device:inode`)."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return variable == f"{status.st_dev}:{status.st_ino}"
