"""Exposed services on a real NixOS, nix-darwin and clan: a fleet, adopted scrape configs, the role exporter."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from clan_discovery.assemble import make_plan
from clan_discovery.config.load import load_config
from clan_discovery.inventory.exposed.document import declare_exposed
from tests.support.nix import at, listed

if TYPE_CHECKING:
    from pathlib import Path

    from clan_discovery.model import Declared, Json
    from tests.support.nixos import Real

EXPRESSION = """
  let
    inherit (t) lib;
    inherit (t.flakes) discovery nixpkgs';
    cd = discovery.lib;
    # A machine that only exposes: the light module alone.
    light = modules: import (nixpkgs'.outPath + "/nixos/lib/eval-config.nix") {
      system = null;
      modules = [ { nixpkgs.hostPlatform = "x86_64-linux"; } discovery.nixosModules.expose ] ++ modules;
    };
    # A homelab whose modules append to one list; `services.jellyfin` is that of NixOS.
    homelab = { config, lib, ... }: {
      options.homelab.prometheus.scrapeConfigs = lib.mkOption {
        type = lib.types.listOf lib.types.attrs;
        default = [ ];
      };
      config = {
        services.jellyfin.enable = true;
        services.clan-discovery.expose.jellyfin = lib.mkIf config.services.jellyfin.enable {
          port = 8096;
          front.domain = "films";
        };
        homelab.prometheus.scrapeConfigs = lib.mkMerge [
          [ { job_name = "caddy"; static_configs = [ { targets = [ "localhost:2020" ]; labels.instance = "nas"; } ]; } ]
          (lib.mkAfter [ {
            job_name = "homeassistant";
            scrape_interval = "60s";
            metrics_path = "/api/prometheus";
            bearer_token_file = "/run/secrets/token";
            static_configs = [ { targets = [ "127.0.0.1:8123" ]; } ];
          } ])
        ];
        services.clan-discovery.adoptScrapeConfigs = config.homelab.prometheus.scrapeConfigs;
      };
    };
    # Whoever reads another option of this machine fails.
    throwing = {
      boot.kernelParams = throw "boot.kernelParams";
      environment.etc = throw "environment.etc";
      environment.systemPackages = throw "environment.systemPackages";
      fileSystems = throw "fileSystems";
      networking.hostName = throw "networking.hostName";
      services.nginx.enable = throw "services.nginx.enable";
      services.prometheus.scrapeConfigs = throw "services.prometheus.scrapeConfigs";
      system.stateVersion = throw "system.stateVersion";
      systemd.services = throw "systemd.services";
      users.users = throw "users.users";
    };
    fleet = {
      nas = light [ homelab throwing ];
      # NixOS's own scrape configs, in which every key has a value.
      old = light [ ({ config, ... }: {
        services.prometheus.scrapeConfigs = [
          { job_name = "node"; static_configs = [ { targets = [ "localhost:9100" ]; } ]; }
        ];
        services.clan-discovery.adoptScrapeConfigs = config.services.prometheus.scrapeConfigs;
      }) ];
      # Without any module of ours.
      bare = import (nixpkgs'.outPath + "/nixos/lib/eval-config.nix") {
        system = null;
        modules = [ { nixpkgs.hostPlatform = "x86_64-linux"; } throwing ];
      };
      mac = clan.darwinConfigurations.mac;
      probe = throw "the machine itself";
    };
    scraper = t.nixos [ ({ config, ... }: {
      services.clan-discovery = {
        enable = true;
        inherit fleet;
        settings.backends.tailscale.tailnet = { };
        expose.grafana = { port = 3000; loopback = true; front = { domain = "grafana"; auth = "forward"; }; };
      };
      services.prometheus.enable = true;
      services.prometheus.scrapeConfigs = config.services.clan-discovery.scrapeConfigs;
    }) ];
    clan = t.clan {
      inventory = {
        machines.monitor = { };
        machines.nas = { };
        machines.mac.machineClass = "darwin";
        instances.monitoring = {
          module = { name = "prometheus"; input = "clan-discovery"; };
          roles.server.machines.monitor.settings.firewallInterfaces = [ ];
          roles.exporter = {
            tags.all = { };
            settings.firewallInterfaces = [ "wg0" ];
            machines.nas.settings.expose = {
              films = { port = 8096; type = "jellyfin"; front.domain = "films"; };
              redis = { port = 9121; loopback = true; };
            };
            machines.mac.settings.expose.ollama.port = 11434;
          };
        };
      };
      machines.mac = {
        imports = [ discovery.darwinModules.expose ];
        services.clan-discovery.expose.ollama.port = 11434;
      };
      # The server exposes a service of its own in NixOS, too.
      machines.monitor.services.clan-discovery.expose.grafana = { port = 3000; loopback = true; };
    };
    members = t.configs clan;
    file = name: config: (config.services.clan-discovery.settings.inventory.${name}).drvPath;
    refused = expose: builtins.tryEval (builtins.toJSON (light [ {
      services.clan-discovery = { inherit expose; };
    } ]).config.services.clan-discovery.expose);
  in {
    fleet = {
      failed = t.failed scraper;
      jobs = map (job: job.job_name) (t.jobs scraper);
      exposed = file "exposed" scraper;
      toplevel = t.toplevel scraper;
    };
    clan = {
      failed = lib.mapAttrs (_: t.failed) members;
      ports = t.ports members.nas;
      jobs = map (job: job.job_name) (t.jobs members.monitor);
      inventory = file "file" members.monitor;
      exposed = file "exposed" members.monitor;
    };
    light = {
      failed = lib.filter (lib.hasPrefix "services.clan-discovery") (t.failed (light [
        { services.clan-discovery.expose.a = { port = 1; path = "m"; }; }
      ]).config);
      packages = (light [ { services.clan-discovery.expose.a.port = 1; } ]).options.services.clan-discovery ? package;
    };
    refused = map (expose: (refused expose).success) [
      { a.port = 1; }
      { a.port = 99999; }
      { a = { port = 1; pth = "/"; }; }
    ];
  }
"""


@pytest.fixture(scope="module")
def answer(real: Real) -> Json:
    """Return what the tests ask, from one evaluation."""
    return real(EXPRESSION)


def exposed(real: Real, drv: Json) -> Declared:
    """Read the file of exposed services that a derivation writes."""
    return declare_exposed(json.dumps(document(real, drv)).encode(), "exposed.json")


def document(real: Real, drv: Json) -> Json:
    """Return the JSON that a derivation of `formats.json` writes."""
    written: Json = json.loads(str(at(real.derivation(str(drv)), "env", "__json")))
    return at(written, "value")


def test_fleet_is_read_without_the_other_options_of_its_machines(real: Real, answer: Json) -> None:
    """They throw. The scraper is a whole system, with the jobs of all machines."""
    assert at(answer, "fleet", "failed") == []
    assert str(at(answer, "fleet", "toplevel")).endswith(".drv")
    jobs = sorted(map(str, listed(answer, "fleet", "jobs")))
    assert [job for job in jobs if job != "clan-discovery"] == [
        "caddy",
        "grafana",
        "homeassistant",
        "jellyfin",
        "node",
        "ollama",
    ]
    found = exposed(real, at(answer, "fleet", "exposed"))
    assert [machine.name for machine in found.machines] == ["bare", "mac", "nas", "old", "probe"]
    targets = {(one.machine.name, one.exporter.type): (one.host, one.exporter.port) for one in found.expected}
    assert targets == {
        ("mac", "ollama"): ("", 11434),
        ("nas", "caddy"): ("", 2020),
        ("nas", "homeassistant"): ("", 8123),
        ("nas", "jellyfin"): ("", 8096),
        ("old", "node"): ("", 9100),
        ("probe", "grafana"): ("127.0.0.1", 3000),
    }
    assert [(front.domain, front.machine, front.auth) for front in found.fronts] == [
        ("films", "nas", "none"),
        ("grafana", "probe", "forward"),
    ]


def test_key_that_is_not_adopted_is_a_warning_without_its_value(real: Real, answer: Json) -> None:
    """No other key of NixOS's scrape configs is one, although each has a value."""
    drv = at(answer, "fleet", "exposed")
    [problem] = exposed(real, drv).problems
    assert problem.what == "scrape config homeassistant of nas: not read: bearer_token_file, scrape_interval"
    assert "/run/secrets/token" not in json.dumps(document(real, drv))


def test_role_exporter_opens_the_ports_with_metrics(answer: Json) -> None:
    """Not those on loopback. No machine has a failing assertion."""
    assert at(answer, "clan", "failed") == {"mac": [], "monitor": [], "nas": []}
    assert at(answer, "clan", "ports", "wg0") == [8096, 9100]


def test_server_of_a_clan_scrapes_what_its_machines_expose(real: Real, answer: Json, tmp_path: Path) -> None:
    """Settings of the role exporter, and the server's own NixOS option."""
    jobs = sorted(map(str, listed(answer, "clan", "jobs")))
    assert [job for job in jobs if job != "clan-discovery"] == ["grafana", "jellyfin", "node", "ollama", "prometheus"]
    for name in ("inventory", "exposed"):
        written = document(real, at(answer, "clan", name))
        (tmp_path / f"{name}.json").write_text(json.dumps(written))
    config = tmp_path / "c.yaml"
    sources = "inventory: {file: inventory.json, exposed: exposed.json}"
    config.write_text(f"{sources}\nserver: monitor\npolicy: {{darwin: node}}\n")
    declared = make_plan(load_config(config)).declared
    found = {(one.machine.name, one.exporter.type): one.host for one in declared.expected}
    assert found == {
        ("mac", "node"): "",
        ("mac", "ollama"): "",
        ("monitor", "grafana"): "127.0.0.1",
        ("monitor", "node"): "",
        ("monitor", "prometheus"): "",
        ("nas", "jellyfin"): "",
        ("nas", "node"): "",
    }
    assert [(one.name, one.reason) for one in declared.excluded] == [("nas", "loopback")]
    assert [(front.domain, front.machine) for front in declared.fronts] == [("films", "nas")]


def test_light_module_has_no_package(answer: Json) -> None:
    """A machine that exposes builds nothing of ours; a wrong port or option fails its evaluation."""
    assert at(answer, "light", "packages") is False
    [failed] = listed(answer, "light", "failed")
    assert "expose.a: `path` is" in str(failed)
    assert at(answer, "refused") == [True, False, False]
