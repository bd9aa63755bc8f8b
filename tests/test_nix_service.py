"""The clan service under evalModules, one machine at a time.

The tests are in tests/nix/{service,sharding}-tests.nix.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.nix import ROOT, failing, value

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]


def test_service() -> None:
    """Jobs, exporters, open ports, and each assertion."""
    assert failing("service-tests.nix") == []


def test_servers_that_share_targets() -> None:
    """The config, the rules and the scrapers of each, and each assertion."""
    assert failing("sharding-tests.nix") == []


def test_python_refuses_what_an_assertion_refuses(tmp_path: Path, run: Run) -> None:
    """For each of the settings in tests/nix/refused.nix."""
    refused = value(f"import {ROOT}/tests/nix/refused.nix")
    assert isinstance(refused, dict)
    for role, cases in refused.items():
        assert isinstance(cases, list)
        for case in cases:
            assert isinstance(case, dict)
            assert check(tmp_path, role, case["settings"], run) == 2, case


def check(place: Path, role: str, settings: Json, run: Run) -> int:
    """Check an inventory with these settings of one machine; return the exit code."""
    members: Json = {"machines": {"db": {"settings": settings}}}
    roles: dict[str, Json] = {"exporter": {"machines": {"db": {}}}, role: members}
    inventory: Json = {"machines": {"db": {}}, "instances": {"m": {"module": {"name": "prometheus"}, "roles": roles}}}
    (place / "inventory.json").write_text(json.dumps(inventory))
    (place / "config.json").write_text('{"inventory": {"file": "inventory.json"}}')
    return run("check", "-c", place / "config.json").code
