"""Run a program that ends before this process, with limits of time and output.

On a signal that this process can handle, it ends the program first. For other ends (SIGKILL, out of memory), a guard
ends the program: a shell that waits until a pipe closes. PR_SET_PDEATHSIG is no alternative: it needs ctypes, reaches
only the program and not its children, and is sent when the starting thread ends.
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
_POLL_S: Final = 0.1
"""A signal that arrives just before a system call waits does not end the call, so each call must be short."""
_GUARD: Final = f'read -r _; kill -s TERM -- "-$0"; sleep {_GRACE_S:g}; kill -s KILL -- "-$0"'
_NOT_ENDING: Final = frozenset(
    getattr(signal, name)
    for name in ("SIGKILL", "SIGSTOP", "SIGCHLD", "SIGCONT", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGWINCH")
)
"""Signals that do not end a process, or that no process can handle."""
_CRASHES: Final = frozenset(
    getattr(signal, name) for name in ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS")
)
"""Signals after which no handler of Python can run; the guard ends the program."""


class TooMuchError(Exception):
    """The program printed more than it may."""


class CancelledError(Exception):
    """The caller no longer wants the result."""


class EndedError(BaseException):
    """A signal that ends this process, raised so that the program can be ended first."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(
    command: list[str], *, seconds: float, most: int, cancelled: Callable[[], bool] | None = None
) -> tuple[int, bytes, bytes]:
    """Run a program; return its exit status, stdout and stderr.

    The exit status is negative if a signal killed the program. `seconds` and `most` (bytes of each stream) are its
    limits. Before an exception is raised, the program is ended. `cancelled` is called several times a second.

    Raises:
        TimeoutError: it takes too long.
        TooMuchError: it prints too much.
        CancelledError: `cancelled` returned true.
        EndedError: a signal arrived whose handler in this process returned.
        OSError: it cannot be started.
    """
    with _endable() as arm:
        # A session of its own, so that the children of Nix (git, ssh) are ended with it.
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
    """Return for how many seconds to wait before the next check of the limits.

    Raises:
        TimeoutError: the deadline has passed.
        CancelledError: `cancelled` returned true.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    if cancelled is not None and cancelled():
        raise CancelledError
    return min(left, _POLL_S)


@contextlib.contextmanager
def _guarded(group: int) -> Generator[None]:
    """End a process group if this process ends inside the block."""
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
    """End a program and its children: SIGTERM, so that Nix can clean up, then SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)


@contextlib.contextmanager
def _endable() -> Generator[Callable[[], None]]:
    """Raise EndedError in the block on a signal that ends this process.

    This process's own handler runs first. The program has its own session, so the terminal does not interrupt it.
    Signals are deferred until the block calls the function it is given: one that arrives while the program starts would
    leave the program running.
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
    """Return the handlers of the signals that end this process.

    It is empty outside the main thread, which alone may replace handlers. Our own handlers end the process only on
    SIGTERM and SIGINT; other signals may mean a reload.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers: dict[int, Callable[[int, FrameType | None], object] | int] = {}
    for number in signal.valid_signals() - _NOT_ENDING - _CRASHES:
        handler = signal.getsignal(number)
        if handler == signal.SIG_DFL or (callable(handler) and number in (signal.SIGTERM, signal.SIGINT)):
            handlers[number] = handler
    return handlers
