"""The NixOS module under evalModules (tests/nix/module-tests.nix), and that Python accepts its config."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from clan_discovery.inventory.clan.service import LISTS
from tests.support.fleet import inventory
from tests.support.nix import ROOT, failing, machine, nixpkgs_lib, stored, text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]


def test_module() -> None:
    """The config, the unit, static mode, and each assertion."""
    assert failing("module-tests.nix") == []


def test_python_accepts_the_config(tmp_path: Path, run: Run) -> None:
    """With typed and freeform keys; unset options are not written."""
    (tmp_path / "inventory.json").write_text(json.dumps(inventory({"db": {"tags": ["roaming"]}, "monitor": {}})))
    source = machine(
        f"""(t.nixos [ {ROOT}/nix/nixos {{ services.clan-discovery = {{
          enable = true;
          checkConfig = false;
          settings = {{
            inventory.file = {text(str(tmp_path / "inventory.json"))};
            server = "monitor";
            backends.tailscale.tailnet.tags = [ "server" ];
            backends.dns.lan.domain = "lan.example.org";
            exporters.node.labels.site = "home";
            policy = {{ max_age = "2d"; shrink_after.rounds = null; offline_tags.roaming.grace = "30m"; }};
          }};
        }}; }} ]).environment.etc."clan-discovery/config.json".source"""
    )
    assert isinstance(source, str)
    config = stored(source)
    assert isinstance(config, dict)
    assert config["backends"] == {
        "dns": {"lan": {"domain": "lan.example.org"}},
        "tailscale": {"tailnet": {"tags": ["server"]}},
    }
    assert config["inventory"] == {"file": str(tmp_path / "inventory.json")}
    assert config["exporters"] == {"node": {"labels": {"site": "home"}}}
    assert config["policy"] == {
        "max_age": "2d",
        "offline_tags": {"roaming": {"grace": "30m"}},
        "shrink_after": {"rounds": None},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = run("check", "-c", tmp_path / "config.json")
    assert (done.code, done.err) == (0, done.err), done.err
    assert "backends: tailnet, lan" in done.out


def test_python_knows_every_list_of_the_service() -> None:
    """Lists of the interface are concatenated in Python's merge, too; other types conflict."""
    found = machine(f"import {ROOT}/docs/options.nix {{ nixpkgsLib = {text(nixpkgs_lib())}; }}")
    assert isinstance(found, dict)
    for role, declared in LISTS.items():
        options = found[role]
        assert isinstance(options, list)
        lists = {str(o["name"]) for o in options if isinstance(o, dict) and "list of" in str(o["type"])}
        top = {name.partition(".")[0] for name in lists}
        assert top == set(declared), role


def test_the_server_of_the_vm_test_evaluates(tmp_path: Path, run: Run) -> None:
    """The VM test is not run here. Python accepts the server's config."""
    found = machine(
        f"""let
          node.networking.primaryIPAddress = "192.168.1.1";
          vm = import {ROOT}/nix/vm-test.nix {{ module = {ROOT}/nix/nixos; }};
          c = t.nixos [
            vm.nodes.monitor
            {{
              config._module.args.nodes = {{ monitor = node; db = node; }};
              options.services.dnsmasq = t.lib.mkOption {{ type = t.lib.types.anything; }};
            }}
          ];
        in {{
          failed = t.failed c;
          config = c.services.clan-discovery.settings;
          node = c.services.prometheus.exporters.node.enable;
        }}"""
    )
    match found:
        case {"failed": [], "node": True, "config": {"inventory": {"file": str(file)}, "backends": {"dns": dns}}}:
            (tmp_path / "inventory.json").write_text(json.dumps(stored(file)))
            config: Json = {"inventory": {"file": "inventory.json"}, "server": "monitor", "backends": {"dns": dns}}
            (tmp_path / "config.json").write_text(json.dumps(config))
        case other:
            raise AssertionError(other)
    done = run("check", "-c", tmp_path / "config.json")
    assert done.out == "ok: 2 machines declared, 2 targets expected; jobs: node; backends: fleet\n", done.err
