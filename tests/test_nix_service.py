"""The clan service under evalModules, one machine at a time.

The tests are in tests/nix/{service,sharding}-tests.nix.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from tests.support.nix import ROOT, at, failing, machine, stored, value

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


SHARING = """
  let
    machines = t.lib.genAttrs [ "mon1" "mon2" "mon3" "db" "web" ] (_: { tags = [ "all" ]; machineClass = "nixos"; });
    settings = machine: (t.member {
      inherit machine machines;
      instances.m.server = t.lib.genAttrs [ "mon1" "mon2" "mon3" ] (name: {
        sharding = "rendezvous";
        replicas = 2;
        shardWeight = if name == "mon3" then 3 else 0.5;
        firewallInterfaces = [ ];
      });
      instances.m.exporter = t.lib.genAttrs [ "db" "web" ] (_: { exporters = { node = { }; redis = { }; }; });
    }).services.clan-discovery.settings;
    seen = machine: { inherit (settings machine) inventory server shard; };
  in t.lib.genAttrs [ "mon1" "mon2" "mon3" ] seen
"""


def test_each_target_is_in_the_files_of_two_of_three_servers(tmp_path: Path, run: Run) -> None:
    """Rendered from the config that Nix writes; the servers themselves are in the files of all three."""
    servers = machine(SHARING)
    assert isinstance(servers, dict)
    found: Counter[tuple[str, str]] = Counter()
    for name, given in servers.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "inventory.json").write_text(json.dumps(stored(str(at(given, "inventory", "file")))))
        config: Json = {"inventory": {"file": "inventory.json"}, "server": name, "shard": at(given, "shard")}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        done = run("render", "-c", tmp_path / name / "config.json", "--output", tmp_path / name / "targets")
        assert (done.code, done.err) == (0, "")
        for file in (tmp_path / name / "targets").glob("*.json"):
            found.update((file.stem, group["labels"]["instance"]) for group in json.loads(file.read_bytes()))
    copies = {job: {number for (of, _), number in found.items() if of == job} for job, _ in found}
    assert copies == {"node": {2}, "redis": {2}, "prometheus": {3}}
    assert len(found) == 7
