"""examples/stack on the real nixpkgs and clan-core: every machine evaluates, and each component finds the others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.nix import ROOT, at, value

if TYPE_CHECKING:
    from clan_discovery.model import Json
    from tests.support.nixos import Real

EXAMPLE: Final = ROOT / "examples/stack"
# Seven systems in one evaluation.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def machines(real: Real) -> Json:
    """Return what the tests ask of the machines, from one evaluation."""
    return real(f"""
      let
        inventory = import {EXAMPLE}/clan.nix;
        clan = t.clan {{
          inherit inventory;
          domain = "home.example.org";
          machines = builtins.mapAttrs (_: _: {{ services.tailscale.enable = true; }}) inventory.machines // {{
            monitor = {{
              services.tailscale.enable = true;
              security.acme = {{
                acceptTerms = true;
                defaults.email = "admin@example.org";
                certs."home.example.org" = {{ dnsProvider = "rfc2136"; group = "nginx"; }};
              }};
            }};
          }};
        }};
      in builtins.mapAttrs (_: config: {{
        failed = t.failed config;
        inherit (config) warnings;
        vmalert = map (one: one.settings."notifier.url") (builtins.attrValues config.services.vmalert.instances);
        prometheus = config.services.prometheus.alertmanagers;
        enabled = builtins.mapAttrs (_: service: service.enable) {{
          inherit (config.services) victoriametrics prometheus grafana victorialogs nginx;
          inherit (config.services.prometheus) alertmanager;
        }};
      }}) (t.configs clan)
    """)


def test_every_machine_evaluates_without_complaint(machines: Json) -> None:
    """No assertion fails, and nothing warns."""
    assert isinstance(machines, dict)
    assert {name: [at(of, "failed"), at(of, "warnings")] for name, of in machines.items()} == {
        name: [[], []] for name in machines
    }


def test_a_named_machine_gets_its_components(machines: Json) -> None:
    """And no other."""
    assert isinstance(machines, dict)
    enabled = {
        name: sorted(service for service, on in on_or_off.items() if on is True)
        for name, of in machines.items()
        if isinstance(on_or_off := at(of, "enabled"), dict)
    }
    assert enabled == {
        "monitor": ["alertmanager", "grafana", "nginx", "victorialogs", "victoriametrics"],
        "backup": ["prometheus"],
        **{name: [] for name in ("db", "nas", "web01", "web02", "dino")},
    }


def test_the_inventory_is_that_of_the_nix_file() -> None:
    """Of clan.nix, as JSON."""
    assert json.loads((EXAMPLE / "inventory.json").read_text()) == value(f"import {EXAMPLE}/clan.nix")


def test_both_servers_send_their_alerts_to_alertmanager(machines: Json) -> None:
    """`monitor` by vmalert on loopback, `backup` by its name."""
    assert at(machines, "monitor", "vmalert") == [["http://127.0.0.1:9093"]]
    assert at(machines, "backup", "vmalert") == []
    assert at(machines, "backup", "prometheus") == [
        {"static_configs": [{"targets": ["monitor.home.example.org:9093"]}]}
    ]
