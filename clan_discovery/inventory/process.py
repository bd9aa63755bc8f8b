"""Runs a program that never outlives this one: time, output size and our own end, however it comes, end it.

A signal that this process can handle ends the program first. For the others (SIGKILL, the kernel out of memory) a
guard, a shell that waits for the end of a pipe, ends it afterwards. PR_SET_PDEATHSIG would need ctypes, reaches only
the program and not what it started, and is sent when the starting thread ends.
"""

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
_CANCEL_POLL_S: Final = 0.1
_GUARD: Final = f'read -r _; kill -s TERM -- "-$0"; sleep {_GRACE_S:g}; kill -s KILL -- "-$0"'
_NOT_ENDING: Final = frozenset(
    getattr(signal, name)
    for name in ("SIGKILL", "SIGSTOP", "SIGCHLD", "SIGCONT", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGWINCH")
)
"""Signals that do not end a process, or that no process can handle."""
_CRASHES: Final = frozenset(
    getattr(signal, name) for name in ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS")
)
"""Signals of a process that is broken: no handler of Python can run. The guard remains."""


class TooMuchError(Exception):
    """The program printed more than it may."""


class CancelledError(Exception):
    """The caller no longer wants the result."""


class EndedError(BaseException):
    """A signal that ends this process, raised so that the program is ended first."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(
    command: list[str], *, seconds: float, most: int, cancelled: Callable[[], bool] | None = None
) -> tuple[int, bytes, bytes]:
    """Run a program; return its exit status (minus the signal that killed it), stdout and stderr.

    `seconds` and `most` (bytes of each stream) are its limits. Whatever is raised, the program has ended by then.
    `cancelled` is asked several times a second.

    Raises:
        TimeoutError: it takes too long.
        TooMuchError: it prints too much.
        CancelledError: `cancelled` returned true.
        EndedError: a signal arrived whose handler in this process returned.
        OSError: it cannot be started.
    """
    with _endable() as arm:
        # A session of its own is a process group of its own: what Nix runs (git, ssh) is ended with it.
        process = subprocess.Popen(  # noqa: S603 - the user's nix on the user's flake
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        with process, contextlib.ExitStack() as stack:
            try:
                stack.enter_context(_guarded(process.pid))
                arm()
                return _finish(process, time.monotonic() + seconds, most, cancelled)
            except BaseException:
                _end(process)
                raise


def _finish(
    process: subprocess.Popen[bytes], deadline: float, most: int, cancelled: Callable[[], bool] | None
) -> tuple[int, bytes, bytes]:
    """Read both streams of a program until they end, and wait for the program."""
    read = {stream: bytearray() for stream in (process.stdout, process.stderr) if stream is not None}
    with selectors.DefaultSelector() as selector:
        for stream in read:
            selector.register(stream, selectors.EVENT_READ, stream)
        while selector.get_map():
            for key, _ in selector.select(_patience(deadline, cancelled)):
                part = os.read(key.fd, _PART)
                read[key.data] += part
                if not part:
                    selector.unregister(key.fileobj)
                if len(read[key.data]) > most:
                    raise TooMuchError
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(_patience(deadline, cancelled))
            out, err = read.values()
            return code, bytes(out), bytes(err)


def _patience(deadline: float, cancelled: Callable[[], bool] | None) -> float:
    """Return for how long to wait until the limits are looked at again, or raise because one is reached."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    if cancelled is None:
        return left
    if cancelled():
        raise CancelledError
    return min(left, _CANCEL_POLL_S)


@contextlib.contextmanager
def _guarded(group: int) -> Generator[None]:
    """End a process group if this process ends in the block, however it ends."""
    guard = subprocess.Popen(  # noqa: S603 - a constant
        ["/bin/sh", "-c", _GUARD, str(group)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with guard:
        try:
            yield
        finally:
            guard.kill()  # before the pipe is closed
            guard.wait()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and its children: first with SIGTERM, so that Nix can clean up, then with SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)


@contextlib.contextmanager
def _endable() -> Generator[Callable[[], None]]:
    """Raise EndedError in the block on a signal that ends this process, after this process's own handler.

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
    """Return the handlers of the signals that end this process; only the main thread may replace them.

    A handler of ours ends it on SIGTERM and SIGINT only: others may reload.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers: dict[int, Callable[[int, FrameType | None], object] | int] = {}
    for number in signal.valid_signals() - _NOT_ENDING - _CRASHES:
        handler = signal.getsignal(number)
        if handler == signal.SIG_DFL or (callable(handler) and number in (signal.SIGTERM, signal.SIGINT)):
            handlers[number] = handler
    return handlers
