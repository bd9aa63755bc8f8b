"""Show that the time of some work is linear, by measuring it for a part of the input and for the whole."""

from __future__ import annotations

import gc
import math
import time
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS: Final = 8
"""How many times smaller the part is. Linear work takes an eighth of the time there, quadratic work a 64th."""

_MOST: Final = 20
_ATTEMPTS: Final = 3


def cpu_time(work: Callable[[], object]) -> float:
    """Return the CPU seconds of some work in this process. As in the program, no garbage is collected meanwhile."""
    gc.disable()
    try:
        begin = time.process_time()
        work()
        return time.process_time() - begin
    finally:
        gc.enable()


def assert_linear(measure: Callable[[], tuple[float, float]]) -> None:
    """Fail unless the whole takes less than 20 times the CPU time of an eighth.

    `measure` returns the time of the part and of the whole. Other load makes a measurement longer and never shorter, so
    the smallest one of each counts, and one attempt is enough where the limit is kept.
    """
    part = whole = math.inf
    for _ in range(_ATTEMPTS):
        times = measure()
        part, whole = min(part, times[0]), min(whole, times[1])
        if whole < _MOST * part:
            return
    pytest.fail(f"not linear: {PARTS} times the input takes {whole / part:.0f} times the time ({whole:.3f} s)")
