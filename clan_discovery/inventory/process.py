"""Runs a program that never outlives this one: time, output size and our own signals end it and its children."""

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
    """The program printed more than it may."""


class EndedError(BaseException):
    """A signal that ends this process, raised so that the program is ended first."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(command: list[str], *, seconds: float, most: int) -> tuple[int, bytes, bytes]:
    """Run a program; return its exit status (minus the signal that killed it), stdout and stderr.

    `seconds` and `most` (bytes of each stream) are its limits. Whatever is raised, the program has ended by then.

    Raises:
        TimeoutError: it takes too long.
        TooMuchError: it prints too much.
        EndedError: a signal arrived whose handler in this process returned.
    """
    with _endable() as arm:
        # A session of its own is a process group of its own: what Nix runs (git, ssh) is ended with it.
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
    """Read both streams of a program until they end."""
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
    """End a program and its children: first with SIGTERM, so that Nix can clean up, then with SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)


@contextlib.contextmanager
def _endable() -> Generator[Callable[[], None]]:
    """Raise EndedError in the block on SIGTERM or SIGINT, after this process's own handler.

    The terminal does not interrupt a program with a session of its own. Signals are deferred until the block calls the
    function it is given: one that arrives while the program starts would leave it running.
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

    before.update(_handled())
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


def _handled() -> dict[int, Callable[[int, FrameType | None], object] | int]:
    """Return the handlers of the signals that end this process; only the main thread may replace them."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    return {n: handler for n, handler in handlers.items() if handler is not None and handler != signal.SIG_IGN}
