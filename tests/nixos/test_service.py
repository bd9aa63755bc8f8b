"""The clan service through clan-core on a real NixOS: two servers, tags, two instances, a darwin machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.nix import at, listed

if TYPE_CHECKING:
    from clan_discovery.model import Json
    from tests.support.nixos import Real

CLAN = """
  clan = t.clan {
    inventory = {
      machines.monitor.tags = [ "scrapes" ];
      machines.backup.tags = [ "scrapes" ];
      machines.db.tags = [ "edge" ];
      machines.mac.machineClass = "darwin";
      instances.monitoring = {
        module = { name = "prometheus"; input = "clan-discovery"; };
        roles.server.tags.scrapes = { };
        roles.server.settings = { discoveryMethod = "tailscale"; firewallInterfaces = [ "wg0" ]; };
        roles.exporter.tags.nixos = { };
        roles.exporter.settings.firewallInterfaces = [ "wg0" ];
        roles.exporter.machines.db.settings.exporters = { node = { }; postgres.port = 9188; };
      };
      instances.systemd = {
        module = { name = "prometheus"; input = "clan-discovery"; };
        roles.exporter.tags.edge = { };
        roles.exporter.settings = { exporterType = "systemd"; firewallInterfaces = [ "wg0" ]; };
      };
    };
    machines.monitor.services.tailscale.enable = true;
    machines.backup.services.tailscale.enable = true;
  };
"""


@pytest.fixture(scope="module")
def answer(real: Real) -> Json:
    """Return what the tests ask of the clan, from one evaluation."""
    return real(f"""
      let
        {CLAN}
        inherit (t.configs clan) monitor backup db mac;
        names = config: map (job: job.job_name) (t.jobs config);
      in {{
        failed = map t.failed [ monitor backup db mac ];
        warnings = monitor.warnings;
        jobs = {{ monitor = names monitor; backup = names backup; db = names db; }};
        ports = {{ monitor = t.ports monitor; db = t.ports db; }};
        toplevels = map t.toplevel [ monitor db ];
      }}
    """)


def test_every_machine_evaluates_without_complaint(answer: Json) -> None:
    """Servers and exporters up to the derivation of the system; the mac is in no role."""
    assert at(answer, "failed") == [[], [], [], []]
    assert at(answer, "warnings") == []
    assert all(str(path).endswith(".drv") for path in listed(answer, "toplevels"))


def test_both_servers_have_the_jobs_of_both_instances(answer: Json) -> None:
    """Two servers have the same jobs, an exporter has none."""
    jobs = ["prometheus", "node", "postgres", "systemd"]
    assert at(answer, "jobs") == {"monitor": jobs, "backup": jobs, "db": []}


def test_ports_are_open_on_the_named_interface_only(answer: Json) -> None:
    """The server's own port and those of the exporters."""
    assert at(answer, "ports") == {"monitor": {"wg0": [9090, 9100]}, "db": {"wg0": [9100, 9188, 9558]}}
