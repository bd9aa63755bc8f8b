"""What Nix writes of exposed services: by the NixOS module, by nix/lib and by the expression of `dump --exposed`."""

from __future__ import annotations

import json

from clan_discovery.inventory.exposed.document import declare_exposed
from clan_discovery.inventory.queries import EXPOSED
from tests.support.nix import ROOT, at, listed, machine, stored, value

FLEET = """{
  nas.config.services.clan-discovery = {
    expose.jellyfin = { port = 8096; path = null; front = { domain = "films"; headers = { }; port = null; }; };
    adoptScrapeConfigs = [
      { job_name = "caddy"; static_configs = [ { targets = [ "localhost:2020" ]; labels = { }; } ];
        metrics_path = null; scheme = null; params = { }; relabel_configs = [ ]; authorization.credentials = "secret"; }
    ];
  };
  bare.config = { };
}"""


def test_dump_writes_what_nix_lib_writes() -> None:
    """The expression is a copy that needs no file of ours."""
    for query in EXPOSED:
        copied = value(f"({query.apply}) {FLEET}")
        own = value(f"builtins.mapAttrs (_: (import {ROOT}/nix/lib).exposed.of) {FLEET}")
        assert copied == own
        found = declare_exposed(json.dumps({"machines": own}).encode(), "exposed.json")
        assert [expected.exporter.type for expected in found.expected] == ["jellyfin", "caddy"]
        assert [problem.what for problem in found.problems] == ["scrape config caddy of nas: not read: authorization"]


def test_python_reads_what_the_module_writes() -> None:
    """With every option, and with none but the port; the jobs are those of the module."""
    written = machine(
        f"""let config = t.nixos [ {ROOT}/nix/nixos {{
          networking.hostName = "monitor";
          services.clan-discovery = {{
            enable = true;
            fleet.nas = {FLEET}.nas;
            fleet.monitor = throw "monitor";
            expose.grafana.port = 3000;
            expose.all = {{
              port = 1; type = "x"; path = "/m"; scheme = "https"; params.a = "b"; labels.c = "d"; loopback = true;
              front = {{ domain = "e"; path = "/f"; auth = "forward"; port = 2; scheme = "http"; headers.g = "h";
                unbuffered = true; }};
            }};
            expose.web = {{ port = 3; metrics = false; front.domain = "i"; }};
            adoptScrapeConfigs = [ {{ job_name = "no job"; }} {{ job_name = "own"; static_configs =
              [ {{ targets = [ "127.0.0.1:4" ]; }} ]; }} ];
          }};
        }} ]; in with config.services.clan-discovery; {{ inherit (settings.inventory) exposed; inherit jobs; }}"""
    )
    file = at(written, "exposed")
    assert isinstance(file, str)
    found = declare_exposed(json.dumps(stored(file)).encode(), "exposed.json")
    addresses = {expected.exporter.type: (expected.machine.name, expected.host) for expected in found.expected}
    assert addresses == {
        "x": ("monitor", "127.0.0.1"),
        "grafana": ("monitor", ""),
        "own": ("monitor", "127.0.0.1"),
        "jellyfin": ("nas", ""),
        "caddy": ("nas", ""),
    }
    assert sorted(map(str, listed(written, "jobs"))) == sorted(addresses)
    assert sorted(front.domain for front in found.fronts) == ["e", "films", "i"]
