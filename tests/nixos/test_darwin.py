"""A mac in the role exporter: nix-darwin's node exporter runs and is a target; other NixOS exporters are a warning."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.nix import at, listed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done
    from tests.support.nixos import Real

    Run = Callable[..., Done]

SERVER = {"prometheus": ["monitor"]}
EXPRESSION = """
  let
    clanOf = server: exporter: mac: own: t.configs (t.clan {
      inventory = {
        machines.monitor = { };
        machines.mac.machineClass = "darwin";
        instances.monitoring = {
          module = { name = "prometheus"; input = "clan-discovery"; };
          roles.server = { settings = { firewallInterfaces = [ "wg0" ]; }; machines.monitor = { }; } // server;
          roles.exporter.tags.all = { };
          roles.exporter.settings = { firewallInterfaces = [ "wg0" ]; } // exporter;
          roles.exporter.machines.mac.settings = mac;
        };
      };
      machines.mac = own;
    });
    several.exporters = {
      node = {
        enabledCollectors = [ "systemd" "memory" "textfile" ];
        disabledCollectors = [ "wifi" "boottime" ];
        extraFlags = [ "--collector.systemd.unit-include=x" "--collector.textfile.directory=/x" "--log.level=warn" ];
        openFirewall = false;
      };
      systemd = { };
      traefik = { };
    };
    all = clanOf { } several { exporters.node = { port = 9200; listenAddress = "[fd00::1]"; }; } {
      services.prometheus.exporters.node.disabledCollectors = [ "time" ];
    };
    discovery = all.monitor.services.clan-discovery;
    quiet = clanOf { } several { exporters.systemd.enable = false; } { };
    policy = darwin: (clanOf {
      settings = { policy = { inherit darwin; }; firewallInterfaces = [ ]; };
    } { exporterType = "systemd"; } { exporters = { node = { }; nginx = { }; traefik = { }; }; } { }).monitor;
    wrong = clanOf { tags.all = { }; } { } { port = 9101; listen = "internal"; } {
      services.prometheus.exporters.node.port = 9300;
    };
  in {
    failed = map t.failed [ all.mac all.monitor ];
    warnings = { mac = all.mac.warnings; monitor = all.monitor.warnings; quiet = quiet.monitor.warnings; };
    script = all.mac.launchd.daemons.prometheus-node-exporter.script;
    toplevel = all.mac.system.build.toplevel.drvPath;
    discovery = { inherit (discovery) jobs; inherit (discovery.settings) policy; };
    inventory = discovery.settings.inventory.file.value;
    policies = map (darwin: {
      inherit (policy darwin) warnings;
      inherit ((policy darwin).services.clan-discovery) jobs;
    }) [ "exclude" "include" ];
    wrong = t.failed wrong.mac;
    components = t.failed (t.configs (t.clan {
      inventory = {
        machines.mac.machineClass = "darwin";
        instances.monitoring = {
          module = { name = "prometheus"; input = "clan-discovery"; };
          roles.alerting.tags.all = { };
          roles.dashboards.machines.mac = { };
          roles.logs.machines.mac = { };
          roles.storage.machines.mac = { };
        };
      };
    })).mac;
    open = wrong.mac.warnings;
  }
"""


@pytest.fixture(scope="module")
def answer(real: Real) -> Json:
    """Return what the tests ask of the clans, from one evaluation."""
    return real(EXPRESSION)


def test_a_mac_runs_node_exporter_with_what_macos_has(answer: Json) -> None:
    """Settings of role, machine and the mac's own configuration; without collectors and flags of Linux."""
    assert at(answer, "failed") == [[], []]
    assert str(at(answer, "toplevel")).endswith(".drv")
    assert str(at(answer, "script")).split("/bin/node_exporter ")[1].split() == [
        "--web.listen-address",
        "[fd00::1]:9200",
        "--collector.meminfo",
        "--collector.textfile",
        "--no-collector.boottime",
        "--no-collector.time",
        "'--collector.textfile.directory=/x'",
        "'--log.level=warn'",
    ]


def test_a_mac_warns_of_what_it_lacks(answer: Json) -> None:
    """Other exporters, and settings of node exporter. The server warns of exporters, until they are disabled."""
    exporters, settings = listed(answer, "warnings", "mac")
    assert "machines.mac.settings: nix-darwin has no exporter systemd" in str(exporters)
    assert "has no openFirewall, wifi, systemd, --collector.systemd.unit-include=x, which" in str(settings)
    found = [listed(answer, "warnings", name) for name in ("monitor", "quiet")]
    said = [[str(warning) for warning in warnings if "darwin" in str(warning)] for warnings in found]
    assert [len(warnings) for warnings in said] == [1, 0]
    assert "clan-discovery: systemd of mac: nix-darwin has no such exporter" in said[0][0]


def test_targets_of_a_mac_are_node_exporter_and_services(answer: Json, tmp_path: Path, run: Run) -> None:
    """As the build renders them. The other exporters of the inventory are excluded, with the reason."""
    (tmp_path / "inventory.json").write_text(json.dumps(at(answer, "inventory")))
    config: Json = {"inventory": {"file": "inventory.json"}, "policy": at(answer, "discovery", "policy")}
    (tmp_path / "config.json").write_text(json.dumps(config))
    words = [word for job in listed(answer, "discovery", "jobs") for word in ("--job", job)]
    done = run("render", "-c", tmp_path / "config.json", "--output", tmp_path / "targets", *words)
    assert (done.code, done.err) == (0, "")
    found = {file.stem: json.loads(file.read_text()) for file in (tmp_path / "targets").glob("*.json")}
    machines = {job: [group["labels"]["machine"] for group in groups] for job, groups in found.items()}
    assert machines == {"node": ["mac", "monitor"], "systemd": ["monitor"], "traefik": ["mac", "monitor"], **SERVER}
    assert found["node"][0]["targets"] == ["mac.home.arpa:9200"]


def test_policy_darwin_of_the_settings_wins(answer: Json) -> None:
    """`exclude` is silent of node exporter; with `include` every exporter of the mac is a job, without a warning."""
    excluded, included = listed(answer, "policies")
    assert at(excluded, "jobs") == ["prometheus", "systemd", "traefik"]
    assert at(included, "jobs") == ["nginx", "node", "prometheus", "systemd", "traefik"]
    assert "systemd of mac, nginx of mac: nix-darwin" in str(at(excluded, "warnings"))
    assert at(included, "warnings") == []


def test_a_mac_warns_of_a_port_on_every_address(answer: Json) -> None:
    """`listen` of the role needs NixOS."""
    (warning,) = listed(answer, "open")
    assert "so node exporter listens on every address of mac: set its `listenAddress`" in str(warning)


def test_a_mac_refuses_to_be_a_server(answer: Json) -> None:
    """And a port of its own configuration that the server does not scrape."""
    server, port = listed(answer, "wrong")
    assert "instances.monitoring.roles.server has the darwin machine mac" in str(server)
    assert "exporters.node.port is 9300 on mac, but the server scrapes port 9101" in str(port)


def test_a_mac_refuses_to_be_a_component(answer: Json) -> None:
    """Servers would send their alerts there, and no mail would come."""
    said = [str(one) for one in listed(answer, "components")]
    assert [one.partition(" has the darwin machine mac")[0] for one in said] == [
        f"clan-discovery: instances.monitoring.roles.{role}" for role in ("alerting", "dashboards", "logs", "storage")
    ]
