"""Overlay networks of clan-core on a real NixOS: the targets' addresses, and the interfaces with open ports.

`monitor` is in every network, the other machines in the one of their name, and `lone` in none.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.nix import at, text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done
    from tests.support.nixos import Real

    Run = Callable[..., Done]

ZEROTIER = "fd5d:bbe3:cbc5:fe6b:f699:935d:bbe3"
VARS = {
    "per-machine/monitor/wireguard-keys-wg/publickey": "a",
    "per-machine/monitor/wireguard-network-wg/prefix": "fd51:19c1:3b:f700",
    "per-machine/wireguard/wireguard-keys-wg/publickey": "b",
    "per-machine/wireguard/wireguard-network-wg/suffix": "8750:a09b:0:1",
    "shared/zerotier-network-zt/network-id": "a1b2c3d4e5f60718",
    "shared/zerotier-ip-monitor-zt/ip": f"{ZEROTIER}:1",
    "shared/zerotier-ip-zerotier-zt/ip": f"{ZEROTIER}:2",
    "per-machine/monitor/yggdrasil/address": "200:1::1",
    "per-machine/monitor/yggdrasil/publicKey": "d",
    "per-machine/yggdrasil/yggdrasil/address": "200:1::2",
    "per-machine/yggdrasil/yggdrasil/publicKey": "e",
    "per-machine/monitor/mycelium/ip": "400:1::1\n",
    "per-machine/mycelium/mycelium/ip": "400:1::2\n",
}
CLAN = """
  clan = t.clan {
    inherit directory;
    inventory = {
      machines = t.lib.genAttrs [ "monitor" "wireguard" "zerotier" "yggdrasil" "mycelium" "lone" ] (_: { });
      instances.monitoring = {
        module = { name = "prometheus"; input = "clan-discovery"; };
        roles.server.machines.monitor = { };
        roles.exporter.tags.nixos = { };
        roles.exporter.machines = {
          yggdrasil.settings.listen = "internal";
          lone.settings = { listen = "internal"; firewallInterfaces = [ "ygg" "zt*" ]; };
        };
      };
      instances.wg = {
        module.name = "wireguard";
        roles.controller.machines.monitor.settings.endpoint = "vpn.example.org";
        roles.peer.machines.wireguard = { };
      };
      instances.zt = {
        module.name = "zerotier";
        roles.controller.machines.monitor = { };
        roles.peer.machines.zerotier = { };
      };
      instances.ygg = {
        module.name = "yggdrasil";
        roles.default.machines = { monitor = { }; yggdrasil = { }; };
      };
      instances.myc = {
        module.name = "mycelium";
        roles.peer.machines = { monitor = { }; mycelium = { }; };
      };
    };
    machines.zerotier.networking.nftables.enable = true;
  };
"""


@pytest.fixture(scope="module")
def answer(real: Real, tmp_path_factory: pytest.TempPathFactory) -> Json:
    """Return what the tests ask of the clan, from one evaluation."""
    directory = tmp_path_factory.mktemp("clan")
    for name, value in VARS.items():
        file = directory / "vars" / name / "value"
        file.parent.mkdir(parents=True)
        file.write_text(value)
    return real(f"""
      let
        directory = {text(str(directory))};
        {CLAN}
        machines = t.configs clan;
        exporter = name: machines.${{name}}.services.prometheus.exporters.node;
        unit = machines.yggdrasil.systemd.services.prometheus-node-exporter;
        inherit (machines.monitor.services.clan-discovery) settings;
      in {{
        failed = t.lib.mapAttrs (_: t.failed) machines;
        warnings = t.lib.concatMap (config: config.warnings) (t.lib.attrValues machines);
        # Without the ports of the networks themselves.
        ports = t.lib.mapAttrs (_: config: removeAttrs (t.ports config) [ "all" ]) machines;
        ruleset = machines.zerotier.networking.nftables.tables.nixos-fw.content;
        listen = map (name: (exporter name).listenAddress) [ "yggdrasil" "monitor" ];
        unit = {{ inherit (unit) startLimitIntervalSec; inherit (unit.serviceConfig) ExecStart RestartSec; }};
        # In all four networks.
        toplevel = t.toplevel machines.monitor;
        files = {{ inventory = settings.inventory.file.value; exports = settings.inventory.exports.value; }};
      }}
    """)


def test_targets_have_the_exported_address_of_the_highest_priority(answer: Json, tmp_path: Path, run: Run) -> None:
    """From the files that the server's build reads. `monitor` is in all four networks."""
    for name in ("inventory", "exports"):
        (tmp_path / f"{name}.json").write_text(json.dumps(at(answer, "files", name)))
    inventory: Json = {"file": "inventory.json", "exports": "exports.json"}
    (tmp_path / "config.json").write_text(json.dumps({"inventory": inventory, "server": "monitor"}))
    done = run("render", "-c", tmp_path / "config.json", "--output", tmp_path / "targets")
    assert (done.code, done.err) == (0, "")
    groups = json.loads((tmp_path / "targets/node.json").read_text())
    assert {group["labels"]["machine"]: group["targets"] for group in groups} == {
        "lone": ["lone.home.arpa:9100"],
        "monitor": ["[200:1::1]:9100"],
        "mycelium": ["[400:1::2]:9100"],
        "wireguard": ["wireguard.wg:9100"],
        "yggdrasil": ["[200:1::2]:9100"],
        "zerotier": [f"[{ZEROTIER}:2]:9100"],
    }


def test_ports_are_open_on_the_interface_of_that_network(answer: Json) -> None:
    """Without `firewallInterfaces`. nftables takes `zt*`, and would refuse `zt+`."""
    assert at(answer, "ports") == {
        "lone": {"ygg": [9100], "zt+": [9100]},
        "monitor": {"ygg": [9090, 9100]},
        "mycelium": {"mycelium": [9100]},
        "wireguard": {"wg": [9100]},
        "yggdrasil": {"ygg": [9100]},
        "zerotier": {"zt*": [9100]},
    }
    assert "iifname zt* tcp dport { 9100 } accept" in str(at(answer, "ruleset"))


def test_the_server_evaluates_up_to_the_system(answer: Json) -> None:
    """With the real services of four networks. No machine has a warning."""
    assert str(at(answer, "toplevel")).endswith(".drv")
    assert at(answer, "warnings") == []


def test_exporters_listen_on_the_internal_address(answer: Json) -> None:
    """`listen = "internal"`: the address that the server scrapes. The unit waits for it without a limit."""
    assert at(answer, "listen") == ["[200:1::2]", "0.0.0.0"]  # noqa: S104 - the default of NixOS
    assert "--web.listen-address [200:1::2]:9100" in str(at(answer, "unit", "ExecStart"))
    assert at(answer, "unit", "RestartSec") == "5s"
    assert at(answer, "unit", "startLimitIntervalSec") == 0


def test_refuses_a_machine_without_the_interface_or_the_address(answer: Json) -> None:
    """`lone` is in no network, so it has no internal address either."""
    where = "clan-discovery: instances.monitoring.roles.exporter.machines.lone.settings"
    sound = ("monitor", "mycelium", "wireguard", "yggdrasil", "zerotier")
    empty = "clan.core.networking.internalListenAddresses is empty on lone: add the machine to a network that fills it"
    absent = "lone has no interface ygg, zt+: add it to the network, or name an interface that it has"
    assert at(answer, "failed") == {
        **{name: [] for name in sound},
        "lone": [
            f"{where}.listen: {empty}, for example yggdrasil, or remove `listen`",
            f"{where}.firewallInterfaces: {absent}",
        ],
    }
