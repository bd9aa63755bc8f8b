"""The units, the scrape config and the rules of a real NixOS, run by a real systemd with real programs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.fleet import fleet, inventory
from tests.support.nix import at
from tests.support.programs import eventually, program
from tests.support.systemd import booted, unit_text

if TYPE_CHECKING:
    from clan_discovery.model import Json
    from tests.support.nixos import Real
    from tests.support.systemd import Machine

SOCKET = "/run/tailscale/tailscaled.sock"
STATE = "/var/lib/clan-discovery"
TAILSCALED = """[Service]
UMask=0000
RuntimeDirectory=tailscale
Environment=PYTHONPATH=/opt/project:/opt/site LD_LIBRARY_PATH=/opt/python/lib
ExecStart=/opt/python/bin/python3 -m tests.support.localapi /run/tailscale/tailscaled.sock /opt/share/status.json
"""
PROMETHEUS = """[Service]
User=scraper
StateDirectory=prometheus2
ExecStart=/usr/bin/prometheus --config.file=/opt/share/prometheus.yml --storage.tsdb.path=/var/lib/prometheus2 \
  --web.listen-address=127.0.0.1:9090
"""


@pytest.fixture(scope="module")
def answer(real: Real) -> Json:
    """Return the units, the jobs and the rules of a machine with a node exporter, and of one without."""
    return real("""
      let
        machine = node: t.nixos [ ({ config, ... }: {
          services.clan-discovery = {
            enable = true;
            mode = "resident";
            interval = "1s";
            jobs = [ "node" ];
            settings = {
              server = "monitor";
              inventory.file = "/opt/share/inventory.json";
              backends.tailscale.tailnet = { };
            };
            alerts.rules = t.lib.genAttrs [ "ClanBackendWithoutAnswer" "ClanJobFrozen" "ClanMachineMissing" ] (_: {
              for = "1s";
            });
          };
          services.prometheus = {
            enable = true;
            exporters.node.enable = node;
            inherit (config.services.clan-discovery) scrapeConfigs;
          };
        }) ];
        seen = config: {
          discovery = config.systemd.services.clan-discovery.serviceConfig;
          exporter = config.systemd.services.prometheus-node-exporter.serviceConfig or { };
          jobs = config.services.clan-discovery.scrapeConfigs;
          inherit (config.services.clan-discovery.alerts.file.value) groups;
        };
      in { node = seen (machine true); listener = seen (machine false); }
    """)


def unit(service: Json) -> str:
    """Write a unit of NixOS with the programs and the config of this machine."""
    assert isinstance(service, dict)
    programs = {
        "clan-discovery": "/opt/share/clan-discovery",
        "kill": "/usr/bin/kill",
        "node_exporter": program("prometheus-node-exporter"),
    }
    text = unit_text({"serviceConfig": service}, "Service").replace("\\\n", " ")
    text = re.sub(r"/nix/store/[^/ ]+/bin/(\S+)", lambda found: programs[found[1]], text)
    return re.sub(r"/nix/store/\S+\.json", "/opt/share/config.json", text)


def units(system: Json) -> dict[str, str]:
    """Return the unit files of a machine."""
    return {
        "clan-discovery.service": unit(at(system, "discovery")),
        "exporter.service": unit(at(system, "exporter")),
        "prometheus.service": PROMETHEUS,
        "tailscaled.service": TAILSCALED,
    }


def furnish(machine: Machine, system: Json) -> None:
    """Write the configs, and start everything but tailscaled."""
    config: Json = {
        "inventory": {"file": "inventory.json"},
        "server": "monitor",
        "backends": {"tailscale": {"tailnet": {}}},
        "output": {"directory": f"{STATE}/targets"},
        "state": f"{STATE}/state",
    }
    (machine.share / "config.json").write_text(json.dumps(config))
    (machine.share / "inventory.json").write_text(json.dumps(inventory(["attic", "db", "monitor"])))
    (machine.share / "status.json").write_text(json.dumps(fleet(["db", "monitor"])))
    (machine.share / "rules.json").write_text(json.dumps({"groups": at(system, "groups")}))
    prometheus: Json = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["/opt/share/rules.json"],
        "scrape_configs": at(system, "jobs"),
    }
    (machine.share / "prometheus.yml").write_text(json.dumps(prometheus))
    # As the user that NixOS makes for node exporter.
    user = "echo node-exporter:x:4713:4713::/:/bin/false >> /etc/passwd; echo node-exporter:x:4713: >> /etc/group"
    assert machine.command("sh", "-c", user).returncode == 0


def firing(machine: Machine) -> dict[str, dict[str, str]]:
    """Return the labels of the firing alerts, by name."""
    done = machine.command("curl", "-sf", "http://127.0.0.1:9090/api/v1/alerts")
    if done.returncode:
        raise OSError(done.stderr)
    alerts = json.loads(done.stdout)["data"]["alerts"]
    found = {alert["labels"]["alertname"]: alert["labels"] for alert in alerts if alert["state"] == "firing"}
    found.pop("Watchdog", None)  # it always fires
    return found


def fires(machine: Machine, name: str) -> dict[str, str]:
    """Wait until an alert fires; return its labels, without its name."""
    eventually(f"{name} fires", lambda: name in firing(machine), 60)
    return {label: value for label, value in firing(machine)[name].items() if label != "alertname"}


def address_of(machine: Machine, name: str) -> str:
    """Return the published address of a machine, without its port."""
    targets = json.loads(machine.command("cat", f"{STATE}/targets/node.json").stdout)
    (found,) = (group["targets"][0] for group in targets if group["labels"]["machine"] == name)
    return str(found).rpartition(":")[0]


def test_alerts_fire_from_the_file_that_node_exporter_reads(answer: Json) -> None:
    """The unit writes as its user, node exporter reads in its sandbox, and Prometheus has the rendered rules.

    A machine is missing; then the state is lost while tailscaled is down.
    """
    system = at(answer, "node")
    with booted(units(system)) as machine:
        furnish(machine, system)
        machine.ctl("start", "tailscaled.service")
        eventually("tailscaled listens", lambda: not machine.command("test", "-S", SOCKET).returncode)
        machine.ctl("start", "clan-discovery.service", "exporter.service")
        # Only the server itself is reachable.
        machine.command("ip", "address", "add", f"{address_of(machine, 'monitor')}/32", "dev", "lo")
        machine.ctl("start", "prometheus.service")
        of_monitor = {"instance": "monitor", "job": "node", "machine": "monitor", "severity": "warning"}
        attic = {**of_monitor, "machine": "attic", "exported_machine": "attic"}
        assert fires(machine, "ClanMachineMissing") == attic
        assert set(firing(machine)) == {"ClanMachineMissing"}
        machine.ctl("stop", "clan-discovery.service", "tailscaled.service")
        machine.command("sh", "-c", f"rm {STATE}/state/*")
        machine.ctl("start", "clan-discovery.service")
        assert fires(machine, "ClanJobFrozen") == {**of_monitor, "exported_job": "node", "severity": "critical"}
        assert fires(machine, "ClanBackendWithoutAnswer") == {**of_monitor, "backend": "tailnet"}


def test_an_alert_fires_from_the_listener(answer: Json) -> None:
    """Without a node exporter; tailscaled never answers."""
    system = at(answer, "listener")
    with booted(units(system)) as machine:
        furnish(machine, system)
        machine.ctl("start", "clan-discovery.service", "prometheus.service")
        of_monitor = {"instance": "monitor", "job": "clan-discovery", "machine": "monitor", "severity": "warning"}
        assert fires(machine, "ClanBackendWithoutAnswer") == {**of_monitor, "backend": "tailnet"}
        assert set(firing(machine)) == {"ClanBackendWithoutAnswer"}
