"""Worker threads whose start cannot hang, also without memory."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from clan_discovery.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

STARVED = """
import resource
import time
from clan_discovery.threads import Worker
def nothing(): pass
for _ in range(4):  # their stacks are kept for the next threads
    worker = Worker(nothing)
    worker.start()
    worker.join()
resource.setrlimit(resource.RLIMIT_AS, (1 << 20, resource.RLIM_INFINITY))
kept = []
try:
    while True:
        kept.append(bytearray(64))
except MemoryError:
    pass
for _ in range(400):
    del kept[-1:]
    try:
        worker = Worker(nothing)
        worker.start()
        worker.join()
    except MemoryError:
        pass
    except RuntimeError as error:
        reason = str(error)
        if "did not begin" in reason:
            break
        time.sleep(0.01)  # the stacks of the first threads are not free yet
del kept
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(reason)
"""


def test_a_worker_runs_once_and_ends() -> None:
    """In another thread."""
    done: list[int] = []
    worker = Worker(lambda: done.append(threading.get_ident()))
    assert not worker.is_started
    assert not worker.is_alive()
    worker.start()
    worker.join()
    assert worker.is_started
    assert not worker.is_alive()
    assert len(done) == 1
    assert done != [threading.get_ident()]


def test_join_has_a_timeout() -> None:
    """The worker may still run after it."""
    go_on = threading.Event()

    def wait() -> None:
        go_on.wait(10)

    worker = Worker(wait)
    worker.start()
    worker.join(0.01)
    assert worker.is_alive()
    go_on.set()
    worker.join(10)
    assert not worker.is_alive()


def test_a_thread_that_dies_before_it_runs_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without memory. Its work does not run later either."""
    begun: list[Callable[[], None]] = []

    def start(function: Callable[..., None], args: tuple[Callable[..., None], ...]) -> int:
        begun.append(lambda: function(*args))
        return 0

    monkeypatch.setattr("clan_discovery.threads._thread.start_new_thread", start)
    done: list[int] = []
    worker = Worker(lambda: done.append(1))
    with pytest.raises(RuntimeError, match="did not begin"):
        worker.start()
    begun[0]()
    assert done == []
    assert not worker.is_started


def test_a_memory_error_ends_the_worker() -> None:
    """`join` returns."""

    def starve() -> None:
        raise MemoryError

    worker = Worker(starve)
    worker.start()
    worker.join(10)
    assert not worker.is_alive()


def test_a_start_without_memory_does_not_hang() -> None:
    """`threading.Thread.start` would wait without end there."""
    done = subprocess.run([sys.executable, "-c", STARVED], capture_output=True, text=True, timeout=60, check=False)
    assert "did not begin" in done.stdout
