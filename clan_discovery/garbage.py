"""Keep the garbage collector from searching a fleet again and again: it stays alive, and has no reference cycles."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator

_WHOLE_EVERY: Final = 100
"""After so many calls of `FrozenHeap.settle`, everything is collected: a frozen object may have become garbage."""


@contextlib.contextmanager
def without_collection() -> Generator[None]:
    """Collect no garbage in the block, which makes many objects and no reference cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class FrozenHeap:
    """Everything that was alive at the end of a refresh cycle: the collector does not look at it."""

    def __init__(self) -> None:
        self._settled = 0

    def settle(self) -> None:
        """Collect the garbage that was made since the last call, then freeze what is left.

        A frozen object is freed when nothing refers to it. Only a cycle of frozen objects waits for the next whole
        collection.
        """
        if self._settled % _WHOLE_EVERY == 0:
            gc.unfreeze()
        self._settled += 1
        gc.collect()
        gc.freeze()
