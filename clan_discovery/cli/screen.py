"""Draw the output of a command again and again, until Ctrl-C."""

from __future__ import annotations

import gc
import io
import os
import time
from typing import TYPE_CHECKING, Final, TextIO, TypeAlias

from clan_discovery.cli.command import Streams
from clan_discovery.errors import ClanDiscoveryError
from clan_discovery.model import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.errors import Exit
    from clan_discovery.syntax.terminal import Style

Line: TypeAlias = "tuple[str, Style]"

_CLEAR: Final = "\x1b[H\x1b[2J"
_LAST_LINES: Final = 6
_WIDTH: Final = 80
_HEIGHT: Final = 24
_LONGEST_SLEEP_S: Final = 0.5


def watch(draw: Callable[[Streams], tuple[Exit, list[Line]]], pause: float, streams: Streams) -> Exit:
    """Print what `draw` returns every `pause` seconds, until Ctrl-C; return the exit code of the last time.

    On a terminal it is drawn in place, with what goes to stderr below it. In a pipe or a file it is printed again,
    after an empty line. An error of the first time is raised; a later one is printed.
    """
    gc.enable()  # `entry` disables it for commands that run a single cycle
    in_place = streams.out.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    first = draw(streams)
    code = first[0]
    try:
        _print(first[1], streams, in_place=in_place)
        while True:
            _sleep(pause)
            err = io.StringIO()
            try:
                code, lines = draw(Streams(streams.out, err if in_place else streams.err))
            except ClanDiscoveryError as error:
                code, lines = error.exit_code, _lines(str(error), "red")
            _print([*lines, *_lines(err.getvalue(), "yellow")], streams, in_place=in_place)
    except KeyboardInterrupt:
        return code


def _sleep(seconds: float) -> None:
    """Sleep, and answer Ctrl-C within half a second.

    Python looks for signals before and after the system call that sleeps. A signal that arrives between the first look
    and the call does not end the call, so one long sleep would ignore it.
    """
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, _LONGEST_SLEEP_S))


def _lines(text: str, style: Style) -> list[Line]:
    return [(line, style) for line in text.splitlines()]


def _print(lines: list[Line], streams: Streams, *, in_place: bool) -> None:
    if in_place:
        streams.out.write(_CLEAR)
        lines = fitting(lines, streams.width() or _WIDTH, _height(streams.out))
    streams.print_styled(lines)
    if not in_place:
        streams.print("")
        streams.out.flush()


def _height(out: TextIO) -> int:
    try:
        return os.get_terminal_size(out.fileno()).lines or _HEIGHT
    except OSError:
        return _HEIGHT


def fitting(lines: list[Line], width: int, height: int) -> list[Line]:
    """Return lines for a terminal of this size: the first and the last, each cut to the width.

    The last line of the terminal stays free for the cursor.
    """
    room = height - 1
    if len(lines) > room:
        top = max(room - _LAST_LINES - 1, 1)
        left_out = f"… {len(lines) - top - _LAST_LINES} more lines"
        lines = [*lines[:top], (left_out, "dim"), *lines[-_LAST_LINES:]]
    return [(_cut(one_line(text), width), style) for text, style in lines]


def _cut(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    return f"{text[: width - 1]}…"
