"""Needs of machines that go in a circle are left out, and `check` names the circle."""

from __future__ import annotations

import json
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.assemble.circles import circles, walk
from clan_discovery.assemble.sources import read_declared
from clan_discovery.config.load import load_config

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from clan_discovery.assemble.circles import Pair
    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

NAMES = st.integers(0, 7).map("m{}".format)
PAIRS = st.sets(st.tuples(NAMES, NAMES).filter(lambda pair: pair[0] != pair[1]), max_size=24).map(sorted)


def reach(pairs: Collection[Pair]) -> set[Pair]:
    """Return which name needs which, also through others."""
    found = set(pairs)
    while more := {(a, d) for a, b in found for c, d in pairs if b == c} - found:
        found |= more
    return found


@given(PAIRS)
def test_what_is_left_has_no_circle_and_other_needs_stay(pairs: list[Pair]) -> None:
    """A need is within a circle if its machine is reached from the other one."""
    found = circles(pairs)
    inner = {pair for group in found for pair in group}
    assert sum(map(len, found)) == len(inner)
    needed = reach(pairs)
    assert inner == {(name, other) for name, other in pairs if (other, name) in needed}
    left: dict[str, set[str]] = {}
    for name, other in set(pairs) - inner:
        left.setdefault(name, set()).add(other)
    TopologicalSorter(left).prepare()


@given(PAIRS)
def test_each_circle_that_is_named_exists(pairs: list[Pair]) -> None:
    for group in circles(pairs):
        names = walk(group)
        assert names[0] == names[-1]
        assert len(set(names)) == len(names) - 1 >= 2
        assert set(pairwise(names)) <= set(group)


def test_a_long_circle_is_found() -> None:
    """Its length is not bounded by that of the stack."""
    pairs = [(f"m{number}", f"m{number + 1}") for number in range(20_000)]
    assert circles(pairs) == []
    pairs.append(("m20000", "m0"))
    assert circles(pairs) == [pairs]


def config(place: Path, needs: Mapping[str, list[str]]) -> Path:
    """Write an inventory of the machines that these needs name, and a config with them."""
    names = {*needs, *(other for others in needs.values() for other in others)}
    instance: Json = {"module": {"name": "prometheus"}, "roles": {"exporter": {"tags": ["all"]}}}
    machines: Json = {name: {} for name in names}
    (place / "inventory.json").write_text(json.dumps({"machines": machines, "instances": {"m": instance}}))
    document = {"inventory": {"file": "inventory.json"}, "output": {"directory": "targets"}, "needs": needs}
    (place / "c.json").write_text(json.dumps(document))
    return place / "c.json"


def test_check_names_a_circle(tmp_path: Path, run: Run) -> None:
    """The needs outside it stay."""
    file = config(tmp_path, {"web": ["app", "nas"], "app": ["db"], "db": ["auth"], "auth": ["app"]})
    done = run("check", "-c", file)
    assert done.code == 0
    words = "needs go in a circle: app needs db needs auth needs app; while they do, they inhibit no alert"
    assert f"config: needs.app: {words} (remove one of them)" in done.err
    found = read_declared(load_config(file)).needs
    assert [(need.machine, need.on) for need in found] == [("web", "app"), ("web", "nas")]


def test_a_long_circle_is_cut_in_the_message(tmp_path: Path, run: Run) -> None:
    names = [f"m{number:03}" for number in range(300)]
    done = run("check", "-c", config(tmp_path, {name: [names[number - 1]] for number, name in enumerate(names)}))
    assert "config: needs.m000: needs go in a circle: m000 needs m299 needs m298 " in done.err
    assert "m293 needs ... (300 machines); while" in done.err
