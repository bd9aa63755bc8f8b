"""Inventories of the service that ours replaces: on a real NixOS, through clan-core, without a change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.nix import at

if TYPE_CHECKING:
    from clan_discovery.model import Json
    from tests.support.nixos import Real


@pytest.fixture(scope="module")
def answer(real: Real) -> Json:
    """Return what the documented inventory of today's service makes: two instances, tags, a typo in collectors."""
    return real("""
      let
        clan = t.clan {
          inventory = {
            machines.monitor.tags = [ "monitoring-server" "server" ];
            machines.db.tags = [ "server" ];
            machines.laptop = { };
            instances.monitoring = {
              module = { name = "prometheus"; input = "clan-discovery"; };
              roles.server = {
                tags.monitoring-server = { };
                settings = {
                  enableAutoDiscovery = true;
                  discoveryMethod = "tailscale";
                  port = 9090;
                  webExternalUrl = "https://prometheus.example.org";
                  globalConfig.scrape_interval = "15s";
                  retentionTime = "30d";
                  rules = [ ];
                  additionalScrapeConfigs = [
                    { job_name = "external-service"; static_configs = [ { targets = [ "api.example.com:9090" ]; } ]; }
                  ];
                };
              };
              roles.exporter = {
                tags.all = { };
                settings = {
                  exporterType = "node";
                  port = 9100;
                  enabledCollectors = [ "systemd" "cpu" "memory" "disk" "network" ];
                };
              };
            };
            instances.systemd-monitoring = {
              module = { name = "prometheus"; input = "clan-discovery"; };
              roles.exporter.tags.server = { };
              roles.exporter.settings = { exporterType = "systemd"; port = 9558; };
            };
          };
          machines = t.lib.genAttrs [ "monitor" "db" "laptop" ] (_: { services.tailscale.enable = true; });
        };
        of = config: {
          failed = t.failed config;
          ports = t.ports config;
          node = config.services.prometheus.exporters.node.enabledCollectors;
          systemd = config.services.prometheus.exporters.systemd.enable;
          toplevel = t.toplevel config;
        };
        configs = t.configs clan;
        inherit (configs.monitor.services) prometheus;
      in {
        machines = t.lib.mapAttrs (_: of) configs;
        jobs = map (job: job.job_name) (t.jobs configs.monitor);
        server = {
          inherit (prometheus) port retentionTime webExternalUrl;
          interval = prometheus.globalConfig.scrape_interval;
        };
        warnings = configs.laptop.warnings;
      }
    """)


def test_every_machine_has_a_system(answer: Json) -> None:
    """No assertion fails, and each system has a derivation."""
    for machine in ("monitor", "db", "laptop"):
        assert at(answer, "machines", machine, "failed") == []
        assert str(at(answer, "machines", machine, "toplevel")).endswith(".drv")


def test_the_settings_reach_nixos(answer: Json) -> None:
    """The server's settings, the user's own job after ours, and the exporters of two instances."""
    assert at(answer, "server") == {
        "port": 9090,
        "retentionTime": "30d",
        "webExternalUrl": "https://prometheus.example.org",
        "interval": "15s",
    }
    assert at(answer, "jobs") == ["prometheus", "node", "systemd", "external-service"]
    assert at(answer, "machines", "db", "systemd") is True
    assert at(answer, "machines", "laptop", "systemd") is False


def test_ports_are_open_on_tailscale_only(answer: Json) -> None:
    """Today's service opens them on every interface."""
    assert at(answer, "machines", "monitor", "ports") == {"tailscale0": [9090, 9100, 9558]}
    assert at(answer, "machines", "laptop", "ports") == {"tailscale0": [9100]}


def test_wrong_names_of_collectors_are_corrected(answer: Json) -> None:
    """Node exporter would not start with the names in the documentation of today's service; each is a warning."""
    assert at(answer, "machines", "laptop", "node") == ["systemd", "cpu", "meminfo", "diskstats", "netdev"]
    assert str(at(answer, "warnings")).count("node exporter has no collector") == 3
