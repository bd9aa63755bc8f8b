"""A signal is answered even if it arrives just before the main thread begins to wait.

Such a signal does not end the system call that waits. Here another thread receives it, with the same effect.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from clan_discovery.inventory import process
from clan_discovery.resident.signals import Signals, Stopped
from clan_discovery.resident.triggers import Wake
from clan_discovery.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path
    from types import FrameType

    from _typeshed import TraceFunction

PATIENCE_S: Final = 60.0


@contextmanager
def received_elsewhere(number: signal.Signals, handler: Callable[[], None]) -> Generator[None]:
    """Handle a signal in the main thread, and let another thread receive it."""

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        handler()

    before = signal.signal(number, handle)
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, [number])
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        signal.signal(number, before)


def test_a_signal_is_handled_while_a_thread_is_joined() -> None:
    """`run` waits so for its backends."""
    ready, handled = threading.Event(), threading.Event()
    found: list[bool] = []

    def work() -> None:
        ready.wait(PATIENCE_S)
        os.kill(os.getpid(), signal.SIGUSR1)
        found.append(handled.wait(PATIENCE_S))

    worker = Worker(work)
    worker.start()
    with received_elsewhere(signal.SIGUSR1, handled.set):
        ready.set()
        worker.join()
    assert found == [True]


def test_a_join_ends_after_its_time() -> None:
    """A thread that goes on is left alone."""
    release = threading.Event()

    def work() -> None:
        release.wait(PATIENCE_S)

    worker = Worker(work)
    worker.start()
    try:
        worker.join(0.01)
        assert worker.is_alive()
    finally:
        release.set()
    worker.join()
    assert not worker.is_alive()


def test_a_signal_ends_a_program_that_prints_nothing(tmp_path: Path) -> None:
    """Such as Nix, which evaluates for minutes."""
    started = tmp_path / "started"
    handled = threading.Event()
    found: list[bool] = []

    def work() -> None:
        end = time.monotonic() + PATIENCE_S
        while not started.exists() and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.2)  # the main thread waits for the program by then; sooner is no failure
        os.kill(os.getpid(), signal.SIGTERM)
        found.append(handled.wait(PATIENCE_S / 2))

    sender = Worker(work)
    sender.start()
    command = ["/bin/sh", "-c", f"touch '{started}'; exec sleep {PATIENCE_S}"]
    with received_elsewhere(signal.SIGTERM, handled.set), pytest.raises(process.EndedError):
        process.run(command, seconds=PATIENCE_S, most=100)
    sender.join()
    assert found == [True]


def test_a_signal_before_the_backends_are_asked_ends_the_cycle() -> None:
    """It would be late by all their timeouts."""
    signals = Signals(Wake())
    with signals.handled():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped), signals.interruptible():
            pytest.fail("the backends would be asked")
    assert signals.reason == "SIGTERM"


def test_no_reason_is_lost_while_reasons_are_taken() -> None:
    """A SIGHUP that arrives at any instruction of a wait is a reason of this wait, or of the next one."""

    def interrupted(instruction: int) -> int:
        """Send SIGHUP before an instruction of `Wake.wait`; return the number of instructions."""
        wake = Wake()
        seen = 0

        def at(frame: FrameType, event: str, _: object) -> TraceFunction | None:
            nonlocal seen
            if frame.f_code is not Wake.wait.__code__:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                if seen == instruction:
                    signal.raise_signal(signal.SIGHUP)
                seen += 1
            return at

        before = sys.gettrace()
        with Signals(wake).handled():
            wake.call("bus")
            sys.settrace(at)
            try:
                reasons = wake.wait(0)
            finally:
                sys.settrace(before)
            assert reasons | wake.wait(0) == {"bus", "hangup"}, f"at instruction {instruction} of {seen}"
        return seen

    count = interrupted(0)
    assert count > 10
    for instruction in range(1, count):
        assert interrupted(instruction) == count
