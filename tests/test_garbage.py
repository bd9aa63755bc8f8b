"""Garbage collection in `run`: paused while it works, frozen in between, and nothing is lost for ever."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from clan_discovery.garbage import FrozenHeap, without_collection

if TYPE_CHECKING:
    from collections.abc import Generator


class _Node:
    """An object that can be part of a reference cycle."""

    def __init__(self) -> None:
        self.other: _Node | None = None


def _cycle() -> tuple[_Node, _Node]:
    one, other = _Node(), _Node()
    one.other, other.other = other, one
    return one, other


@pytest.fixture(autouse=True)
def _thaw() -> Generator[None]:
    """Give other tests the collector as it was."""
    yield
    gc.unfreeze()


def test_garbage_is_collected_before_the_rest_is_frozen() -> None:
    frozen = FrozenHeap()
    frozen.settle()
    one, _ = _cycle()
    seen = weakref.ref(one)
    del one, _
    frozen.settle()
    assert seen() is None


def test_frozen_objects_are_not_looked_at() -> None:
    one, other = _cycle()
    FrozenHeap().settle()
    assert gc.get_freeze_count() > 0
    assert not any(found is one or found is other for found in gc.get_objects())


def test_frozen_cycle_that_becomes_garbage_is_freed_later() -> None:
    frozen = FrozenHeap()
    one, other = _cycle()
    seen = weakref.ref(one)
    frozen.settle()
    del one, other
    for _ in range(200):
        frozen.settle()
        if seen() is None:
            break
    assert seen() is None


def test_collection_is_paused_and_goes_on_also_after_an_error() -> None:
    assert gc.isenabled()
    with without_collection():
        with without_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), without_collection():
        _ = 1 / 0
    assert gc.isenabled()
