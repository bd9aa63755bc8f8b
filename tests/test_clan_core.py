"""Compare inventories and settings that are read here with those of clan-core.

`data/clan-core.json` was recorded from clan-core (2026-08-22) by `nix/clan.nix`. If CLAN_CORE and NIXPKGS_LIB name
checkouts, it is recorded again and must not have changed.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from clan_discovery.inventory.clan.declare import Options, declare, parse_dump
from clan_discovery.inventory.clan.wire import parse_inventory
from clan_discovery.inventory.queries import EXPORTS, SETTINGS
from tests.support.programs import checkout, program

if TYPE_CHECKING:
    from clan_discovery.model import Declared, Json

HERE = Path(__file__).parent
RECORDED = json.loads((HERE / "data/clan-core.json").read_bytes())
DEFAULTS: dict[str, Json] = {"additionalScrapeConfigs": [], "enabledCollectors": [], "port": None, "rules": []}


def read(options: Options) -> Declared:
    """Read the recorded inventory."""
    return declare(parse_inventory(json.dumps(RECORDED["inventory"]).encode(), "recorded"), options)


def with_dump() -> Options:
    """Return options with the settings that clan-core merged."""
    return Options(dump=parse_dump(json.dumps(RECORDED["settings"]).encode(), "settings"))


def test_settings_are_merged_as_in_clan_core() -> None:
    """Each machine has the same settings in each role as `finalSettings`, except interface defaults."""
    merged = {(r.instance, r.role, m): dict(s) for r in read(Options()).roles for m, s in r.members.items()}
    final = {(r.instance, r.role, m): dict(s) for r in read(with_dump()).roles for m, s in r.members.items()}
    assert merged.keys() == final.keys()
    assert len(merged) == 8
    for key, settings in final.items():
        defaults = {name: value for name, value in DEFAULTS.items() if name in settings}
        assert {**defaults, **merged[key]} == settings, key


def test_documented_inventory_works_unchanged() -> None:
    """It has targets, server settings, a typo and a darwin machine."""
    found = read(Options())
    assert [(e.machine.name, e.exporter.type, e.exporter.port) for e in found.expected] == [
        ("db", "node", 9200),
        ("laptop", "node", 9100),
        ("monitor", "node", 9100),
        ("db", "systemd", 9558),
        ("laptop", "systemd", 9558),
        ("monitor", "systemd", 9558),
    ]
    assert found.expected == read(with_dump()).expected
    assert [(e.name, e.reason) for e in found.excluded] == [("mac", "darwin")]
    assert ["'wep' is not a machine" in p.what for p in found.problems] == [True]
    (server,) = found.servers
    assert (server.machine, server.discovery) == ("monitor", ("tailscale",))
    assert [c["job_name"] for c in server.additional_scrape_configs] == ["external-service"]
    assert found.domain == "home.arpa"


def test_final_tags_equal_those_of_clan_core() -> None:
    """Own tags, `inventory.tags` and computed tags."""
    theirs = {name: sorted(machine["tags"]) for name, machine in RECORDED["inventory"]["machines"].items()}
    assert {m.name: list(m.tags) for m in read(Options()).machines} == theirs


def test_the_recording_is_what_clan_core_says(tmp_path: Path) -> None:
    """Made anew through clan-core's real code."""
    clan_core, library = checkout("CLAN_CORE"), checkout("NIXPKGS_LIB")
    root = next(p for p in (Path(library) / "lib", Path(library)) if (p / "modules.nix").is_file())
    expression = (
        f'import {HERE}/nix/clan.nix {{ nixpkgsLib = "{root}"; clanCore = "{clan_core}"; directory = "{tmp_path}"; '
        f"merged = {SETTINGS.apply}; exported = {EXPORTS.apply}; }}"
    )
    done = subprocess.run(
        [program("nix-instantiate"), "--eval", "--strict", "--json", "--store", "dummy://", "-E", expression],
        capture_output=True, text=True, check=False, timeout=300, env={**os.environ, "NIX_PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.replace(f"{clan_core}/", "clan-core/"))
    assert found.pop("exports") == {}
    assert found == RECORDED
