"""Ports and paths of our data beside the options of the real nixpkgs, for every exporter type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from clan_discovery.inventory.exporters import known_exporters
from tests.support.nix import ROOT, at

if TYPE_CHECKING:
    from clan_discovery.model import Json
    from tests.support.nixos import Real

DEVIATIONS: dict[str, str] = {}
"""Types whose port or path differs from NixOS's default on purpose, with the reason: none today."""
REMOVED = {"scaphandre": "NixOS has it up to 25.11, and clans of both releases exist"}


@pytest.fixture(scope="module")
def defaults(real: Real) -> dict[str, Json]:
    """Return `port` and the defaults of the options for a path, by type."""
    found = real(f"""
      let
        inherit (t) lib;
        words = (import {ROOT}/nix/lib/service.nix {{ exporters = {{ }}; }}).pathWords;
        inner = type: type.getSubOptions [ ];
        isExporter = option: lib.isOption option && option.visible or true && inner option.type ? enable;
        defaults = options: {{
          port = options.port.default;
          paths = lib.filter lib.isString (map (word: options.${{word}}.default or null) words);
        }};
      in
      # Names that were removed have no option `enable`, and renamed ones are not visible.
      lib.mapAttrs (_: option: defaults (inner option.type)) (
        lib.filterAttrs (_: isExporter) (inner t.options.services.prometheus.exporters.type)
      )
    """)
    assert isinstance(found, dict)
    return found


def test_ports_and_paths_are_those_of_nixos(defaults: dict[str, Json]) -> None:
    """Every type that NixOS has is known, with its port and, where an option states one, its path."""
    known = {name: one for name, one in known_exporters().items() if one.nixos}
    assert sorted(defaults.keys() - known.keys()) == []
    assert sorted(known.keys() - defaults.keys()) == sorted(REMOVED)
    differing = {
        name
        for name, default in defaults.items()
        if at(default, "port") != known[name].port or at(default, "paths") not in ([], [known[name].path])
    }
    assert differing == DEVIATIONS.keys()


def test_most_types_state_a_path(defaults: dict[str, Json]) -> None:
    """So that the comparison compares something."""
    assert len(defaults) == 98
    assert sum(at(default, "paths") != [] for default in defaults.values()) > 10
