"""`web` and `verify` on a real NixOS: each backend of the clan service, and the unit in a real systemd."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.fleet import fleet, inventory
from tests.support.nix import at, listed
from tests.support.programs import eventually
from tests.support.systemd import booted, with_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done
    from tests.support.nixos import Real

    Run = Callable[..., Done]

MACHINES = ("closed", "metrics", "plain", "store")
CLAN = """
  clan = t.clan {
    inventory = {
      machines = { closed = { }; metrics = { }; plain = { }; store = { }; };
      instances.monitoring = {
        module = { name = "prometheus"; input = "clan-discovery"; };
        roles.server.settings.firewallInterfaces = [ "wg0" ];
        roles.server.machines.plain.settings = {
          discoveryMethod = "tailscale";
          web = {
            enable = true;
            listen = "100.64.0.7:9942";
            allow = [ "tag:admin" ];
            openFirewall = true;
            links.Node = "https://example.org/d/abc?var-instance={machine}";
          };
          webExternalUrl = "https://home.arpa/prometheus/";
        };
        # Without a method, the unit runs for `web` alone.
        roles.server.machines.store.settings = {
          backend = "victoriametrics";
          web = { enable = true; listen = "127.0.0.1:9943"; };
        };
        roles.server.machines.closed.settings = { };
        roles.server.machines.metrics.settings = { web = { enable = true; }; };
        roles.exporter.machines.metrics.settings.firewallInterfaces = [ "wg0" ];
      };
    };
    machines.plain.services.tailscale.enable = true;
    machines.closed.services.prometheus.webConfigFile = "/run/secrets/web.yml";
    machines.store.services.victoriametrics.extraOptions = [ "-http.pathPrefix=/vm" ];
  };
"""


@pytest.fixture(scope="module")
def answer(real: Real) -> Json:
    """Return what the tests ask of the machines, from one evaluation."""
    return real(f"""
      let
        {CLAN}
        seen = config: {{
          failed = t.failed config;
          inherit (config) warnings;
          ports = t.ports config;
          inherit (config.services.clan-discovery) mode;
          scrape = config.services.clan-discovery.metrics.scrape;
          config = config.environment.etc."clan-discovery/config.json".source.drvPath;
          units = builtins.mapAttrs (_: unit: unit.text) (t.lib.filterAttrs
            (name: _: name == "clan-discovery.service") config.systemd.units);
          jobs = t.jobs config ++ config.services.victoriametrics.prometheusConfig.scrape_configs or [ ];
        }};
      in {{
        machines = builtins.mapAttrs (_: seen) (t.configs clan);
        toplevel = t.toplevel (t.configs clan).plain;
      }}
    """)


def test_every_machine_evaluates(answer: Json) -> None:
    """One up to the derivation of the system; only a scraper that asks for a password is a warning."""
    assert str(at(answer, "toplevel")).endswith(".drv")
    for machine in MACHINES:
        seen = at(answer, "machines", machine)
        assert at(seen, "failed") == []
        unasked = [warning for warning in listed(seen, "warnings") if "`verify` does not ask" in str(warning)]
        assert len(unasked) == (machine == "closed")


def config_of(real: Real, answer: Json, machine: str) -> dict[str, Json]:
    """Return the config that the build writes."""
    path = str(at(answer, "machines", machine, "config"))
    inputs = at(real.derivation(path), "inputDrvs")
    assert isinstance(inputs, dict)
    raw = [name for name in inputs if name.endswith("clan-discovery-config.json.drv")]
    config = real.document(raw[0] if raw else path)
    assert isinstance(config, dict)
    return config


CONFIGS: dict[str, dict[str, Json]] = {
    "plain": {
        "web": {
            "listen": "100.64.0.7:9942",
            "allow": ["tag:admin"],
            "links": {"Node": "https://example.org/d/abc?var-instance={machine}"},
        },
        "scrapers": {"prometheus": {"url": "http://127.0.0.1:9090/prometheus"}},
    },
    "store": {
        "web": {"listen": "127.0.0.1:9943"},
        "scrapers": {"victoriametrics": {"url": "http://127.0.0.1:8428/vm"}},
    },
    "closed": {},
}


@pytest.mark.parametrize("machine", CONFIGS)
def test_the_program_accepts_the_config(machine: str, answer: Json, real: Real, tmp_path: Path, run: Run) -> None:
    """`check` on the config of the build: where it listens, and the server's own scraper."""
    config = config_of(real, answer, machine)
    verify = config.get("verify", {})
    assert isinstance(verify, dict)
    found = {**config, **verify}
    assert {key: found[key] for key in ("web", "scrapers") if key in found} == CONFIGS[machine]
    config["inventory"] = {"file": "inventory.json"}
    config["server"] = "monitor"
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["db", "monitor", "web"])))
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = run("check", "-c", tmp_path / "config.json")
    assert (done.code, done.err) == (0, "")


def test_web_is_scraped_unless_node_exporter_reads_the_metrics(answer: Json) -> None:
    """On loopback, it needs no second listener for the metrics; on the tailnet it does."""
    scraped = {machine: at(answer, "machines", machine, "scrape") for machine in MACHINES}
    assert scraped == {"closed": None, "metrics": "node-exporter", "plain": "listen", "store": "listen"}
    for machine, address, flag in (("plain", "127.0.0.1:9199", True), ("store", "127.0.0.1:9943", False)):
        target: Json = {"targets": [address], "labels": {"instance": machine, "machine": machine}}
        job: Json = {"job_name": "clan-discovery", "static_configs": [target]}
        assert job in listed(answer, "machines", machine, "jobs")
        assert ("--metrics-listen" in str(at(answer, "machines", machine, "units"))) is flag


def test_the_port_is_open_on_tailscales_interface_only_if_asked(answer: Json) -> None:
    """The servers' own ports are open anyway."""
    assert at(answer, "machines", "plain", "ports") == {"tailscale0": [9942], "wg0": [9090]}
    assert at(answer, "machines", "metrics", "ports") == {"wg0": [9090, 9100]}


def test_the_unit_of_nixpkgs_serves_http(answer: Json, real: Real) -> None:
    """A real systemd runs it with the config of the build, for a server whose method asks no backend."""
    assert at(answer, "machines", "store", "mode") == "resident"
    units = at(answer, "machines", "store", "units")
    assert isinstance(units, dict)
    config = config_of(real, answer, "store")
    config["inventory"] = {"file": "/opt/share/inventory.json"}
    config["server"] = "monitor"
    texts = {
        name: with_program(str(unit), "/opt/share/clan-discovery", "/opt/share/config.json")
        for name, unit in units.items()
    }
    with booted(texts) as machine:
        (machine.share / "config.json").write_text(json.dumps(config))
        (machine.share / "inventory.json").write_text(json.dumps(inventory(["db", "monitor", "web"])))
        (machine.share / "status.json").write_text(json.dumps(fleet(["db", "monitor", "web"])))
        machine.ctl("start", "clan-discovery.service")

        def served(path: str) -> str:
            return machine.command("curl", "-sf", f"http://127.0.0.1:9943{path}").stdout

        eventually("it serves the target list", lambda: '"db"' in served("/sd/node"))
        assert "\nclan_discovery_rounds_total " in served("/metrics")
