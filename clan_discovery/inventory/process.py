"""A program that never outlives this one: it is ended, with what it started, by time, by size, and by our own end."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import FrameType

_GRACE_S: Final = 2.0
_PART: Final = 1 << 16


class TooMuchError(Exception):
    """A program prints for ever."""


class EndedError(BaseException):
    """A signal that ends this process, on its way through what has to be ended first."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(command: list[str], *, seconds: float, most: int) -> tuple[int, bytes, bytes]:
    """Run a program, for so long and to so many bytes of each stream at the most.

    Return its exit status (minus the signal that killed it), stdout and stderr.

    Raises:
        TimeoutError: it takes too long; it was ended.
        TooMuchError: it prints too much; it was ended.
        EndedError: a signal ends this process, which goes on to end by itself; it was ended.
    """
    with _endable() as arm:
        # A session of its own is a group of its own: what Nix runs (git, ssh) ends with it.
        process = subprocess.Popen(  # noqa: S603 - the user's nix on the user's flake
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        with process:
            try:
                arm()
                deadline = time.monotonic() + seconds
                out, err = _read(process, deadline, most)
                return process.wait(max(deadline - time.monotonic(), 0)), out, err
            except subprocess.TimeoutExpired:
                _end(process)
                raise TimeoutError from None
            except BaseException:
                _end(process)
                raise


def _read(process: subprocess.Popen[bytes], deadline: float, most: int) -> tuple[bytes, bytes]:
    """Read what a program prints, both streams side by side, to their ends."""
    read = {stream: bytearray() for stream in (process.stdout, process.stderr) if stream is not None}
    with selectors.DefaultSelector() as selector:
        for stream in read:
            selector.register(stream, selectors.EVENT_READ, stream)
        while selector.get_map():
            ready = selector.select(max(deadline - time.monotonic(), 0))
            if time.monotonic() >= deadline:
                raise TimeoutError
            for key, _ in ready:
                part = os.read(key.fd, _PART)
                read[key.data] += part
                if not part:
                    selector.unregister(key.fileobj)
                if len(read[key.data]) > most:
                    raise TooMuchError
    out, err = read.values()
    return bytes(out), bytes(err)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and what it started: with a word first, so that Nix may tidy up, then at once."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)


@contextlib.contextmanager
def _endable() -> Generator[Callable[[], None]]:
    """Let SIGTERM and SIGINT end what runs in the block, before or after they do what else they do in this process.

    What has a session of its own is not interrupted by the terminal. Until the block calls what it is given, a signal
    waits: one that came while the program is being started would leave it running, and nobody would know of it.
    """
    before: dict[int, Callable[[int, FrameType | None], object] | int] = {}
    waiting: list[int] = []
    armed = False

    def end(number: int, frame: FrameType | None) -> None:
        if not armed:
            waiting.append(number)
            return
        if callable(handler := before[number]):
            handler(number, frame)
        raise EndedError(number)

    def arm() -> None:
        nonlocal armed
        armed = True
        for number in waiting:
            end(number, None)

    before.update(_heeded())
    for known in before:
        signal.signal(known, end)
    try:
        yield arm
    except EndedError as error:
        if before[error.number] == signal.SIG_DFL:
            signal.signal(error.number, signal.SIG_DFL)
            signal.raise_signal(error.number)
        raise
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)


def _heeded() -> dict[int, Callable[[int, FrameType | None], object] | int]:
    """Return the signals that end this process, and what they do now; they are the main thread's."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    return {n: handler for n, handler in handlers.items() if handler is not None and handler != signal.SIG_IGN}
