"""Every exporter type of the real tree: declared in an inventory, it is what `enable = true` makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.nix import ROOT, at, listed

if TYPE_CHECKING:
    from clan_discovery.model import Json
    from tests.support.nixos import Real


@pytest.fixture(scope="module")
def answer(real: Real) -> Json:
    """Return the units and the failing assertions of one machine with every exporter type."""
    return real(f"import {ROOT}/tests/nixos/exporters.nix t")


def test_each_type_has_the_unit_of_the_plain_option(answer: Json) -> None:
    """The text of every unit is the same, and all types of the tree are there."""
    types = [str(type_) for type_ in listed(answer, "types")]
    assert len(types) == 96
    differing = [type_ for type_ in types if at(answer, "ours", "units", type_) != at(answer, "plain", "units", type_)]
    assert differing == []


def test_only_our_own_assertions_are_added(answer: Json) -> None:
    """NixOS's assertions are the same; ours name ports that two types share."""
    ours = [str(message) for message in listed(answer, "ours", "failed")]
    plain = [str(message) for message in listed(answer, "plain", "failed")]
    assert [message for message in ours if not message.startswith("clan-discovery: ")] == plain
    added = [message for message in ours if message.startswith("clan-discovery: ")]
    assert [message for message in added if "is used by" not in message] == []
    assert any("exportarr-bazarr" in message for message in added)
