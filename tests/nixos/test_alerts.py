"""The service watches itself on a real NixOS: alert rules, and how its metrics reach the scraper."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.nix import at, listed
from tests.support.programs import eventually, free_port, get, program, running

if TYPE_CHECKING:
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.support.nixos import Real

FLAG = "--collector.textfile.directory=/var/lib/clan-discovery/metrics"
OWN = "--collector.textfile.directory=/var/lib/own"
CLAN = """
  clan = t.clan {
    inventory = {
      machines = { monitor = { }; backup = { }; deaf = { }; store = { }; };
      instances.monitoring = {
        module = { name = "prometheus"; input = "clan-discovery"; };
        roles.server.settings.firewallInterfaces = [ "wg0" ];
        roles.server.machines.monitor.settings = {
          discoveryMethod = "tailscale";
          policy.silent_after = "14d";
          alerts.rules = {
            ClanTargetStray.enable = false;
            ClanMachineMissing = { for = "1h"; labels = { severity = "info"; team = "home"; }; };
            ClanNamesFailing.for = "1h";
          };
        };
        roles.server.machines.backup.settings = {
          discoveryMethod = "tailscale";
          alerts.rules.MachineSilent.enable = false;
        };
        roles.server.machines.deaf.settings.discoveryMethod = "tailscale";
        roles.server.machines.store.settings = {
          discoveryMethod = "tailscale";
          backend = "victoriametrics";
          mode = "timer";
          alerts.rules.ClanJobFroze.enable = false;
          alerts.rules.ClanTargetDown.enable = false;
          alerts.rules.ClanJobFrozen.for = "soon";
          alerts.rules.ClanShrinkHeld.labels."a-b" = "c";
        };
        roles.exporter.machines.monitor.settings.firewallInterfaces = [ "wg0" ];
      };
    };
    machines.monitor = {
      services.tailscale.enable = true;
      services.clan-discovery.alerts.rules.ClanNamesFailing.for = "2h";
      services.prometheus.exporters.node.extraFlags = [ "--collector.textfile.directory=/var/lib/own" ];
      services.prometheus.ruleFiles = [ (builtins.toFile "own.yml" "groups: []") ];
    };
    machines.backup.services = {
      tailscale.enable = true;
      # Not of the role, so no target.
      prometheus.exporters.node.enable = true;
    };
    machines.deaf.services = {
      tailscale.enable = true;
      clan-discovery.network = false;
      prometheus.exporters.node.enable = true;
    };
    machines.store.services = {
      tailscale.enable = true;
      vmalert.instances = {
        main = {
          enable = true;
          settings = {
            "datasource.url" = "http://127.0.0.1:8428";
            httpListenAddr = "0.0.0.0:8881";
            "http.pathPrefix" = "/vmalert";
          };
          rules.groups = [ ];
        };
        closed = {
          enable = true;
          settings = { "datasource.url" = "http://127.0.0.1:8428"; "httpAuth.username" = "x"; };
          rules.groups = [ ];
        };
      };
    };
  };
"""


@pytest.fixture(scope="module")
def answer(real: Real) -> Json:
    """Return what the tests ask of the machines, from one evaluation."""
    return real(f"""
      let
        {CLAN}
        machines = t.configs clan;
        alone = (t.configs (t.clan {{
          inventory = {{
            machines.monitor = {{ }};
            instances.monitoring = {{
              module = {{ name = "prometheus"; input = "clan-discovery"; }};
              roles.server.machines.monitor.settings.discoveryMethod = "tailscale";
              roles.exporter.machines.monitor.settings.firewallInterfaces = [ "wg0" ];
            }};
          }};
          machines.monitor.services.tailscale.enable = true;
        }})).monitor;
        # The module alone: an agent, and a unit that must have no network.
        agent = t.nixos [ ({{ config, ... }}: {{
          services.clan-discovery = {{
            enable = true;
            mode = "resident";
            network = false;
            jobs = [ "node" ];
            settings.backends.tailscale.tailnet = {{ }};
            settings.exporters.node.select.tags = [ "server" ];
          }};
          services.prometheus = {{
            enable = true;
            enableAgentMode = true;
            inherit (config.services.clan-discovery) scrapeConfigs;
          }};
          services.vmalert.instances.main = {{
            enable = true;
            settings."datasource.url" = "http://127.0.0.1:9009";
            rules.groups = [ ];
          }};
        }}) ];
        vmalert =
          config: map (file: file.value or (toString file)) config.services.vmalert.instances.main.settings.rule;
        seen = config: {{
          failed = t.failed config;
          inherit (config) warnings;
          inherit (config.services.clan-discovery.metrics) scrape listen;
          rules = map toString config.services.prometheus.ruleFiles;
          file = toString config.services.clan-discovery.alerts.file;
          # What the build writes.
          inherit (config.services.clan-discovery.alerts.file.value) groups;
          jobs = t.jobs config;
          verify = let found = config.services.clan-discovery.settings.verify; in t.lib.mapAttrs (_: program: {{
            inherit (program) url;
            files = map toString program.files;
          }}) (if found == null then {{ }} else found.rules or {{ }});
        }};
      in {{
        machines = builtins.mapAttrs (_: seen) (machines // {{ inherit agent alone; }});
        vmalert = builtins.mapAttrs (_: vmalert) {{ inherit (machines) store; inherit agent; }};
        files = map toString (t.lib.tail machines.store.services.vmalert.instances.main.settings.rule);
        agent = toString (t.lib.last agent.services.vmalert.instances.main.settings.rule);
        command = machines.monitor.systemd.services.prometheus-node-exporter.serviceConfig.ExecStart;
        toplevel = t.toplevel machines.monitor;
      }}
    """)


def rules(answer: Json, machine: str) -> dict[str, Json]:
    """Return the rules of a machine by their names."""
    found = [rule for group in listed(answer, "machines", machine, "groups") for rule in listed(group, "rules")]
    return {str(at(rule, "alert")): rule for rule in found if not is_record(rule)}


def groups(answer: Json, machine: str) -> dict[str, Json]:
    """Return the groups of a machine by their names."""
    return {str(at(group, "name")): group for group in listed(answer, "machines", machine, "groups")}


def is_record(rule: Json) -> bool:
    """Tell whether a rule is a recording rule."""
    return isinstance(rule, dict) and "record" in rule


def test_prometheus_has_the_rules_beside_the_users_own(answer: Json) -> None:
    """One with a node exporter, one without; VictoriaMetrics has them in vmalert, an agent has none."""
    monitor, backup, store, agent = (at(answer, "machines", name) for name in ("monitor", "backup", "store", "agent"))
    assert at(monitor, "file") in listed(monitor, "rules")
    assert len(listed(monitor, "rules")) == 2
    assert listed(backup, "rules") == [at(backup, "file")]
    assert (at(store, "rules"), at(agent, "rules")) == ([], [])
    own, ours = listed(answer, "vmalert", "store")
    assert own == "/etc/vmalert-main/rules.yml"
    assert {str(at(group, "name")) for group in listed(ours, "groups")} >= {"clan-discovery", "clan-targets-30m"}


def test_verify_asks_the_program_that_has_the_rules(answer: Json) -> None:
    """Prometheus, or each vmalert: about the file that it has. Not a vmalert that asks for a password."""
    monitor, store = at(answer, "machines", "monitor"), at(answer, "machines", "store")
    assert at(monitor, "verify") == {
        "alerts-prometheus": {"url": "http://127.0.0.1:9090", "files": [at(monitor, "file")]}
    }
    (main,) = listed(answer, "files")
    assert at(store, "verify") == {"alerts-main": {"url": "http://127.0.0.1:8881/vmalert", "files": [main]}}
    assert at(answer, "machines", "agent", "verify") == {
        "alerts-main": {"url": "http://127.0.0.1:8880", "files": [at(answer, "agent")]}
    }


def test_rules_are_disabled_and_changed_by_name(answer: Json) -> None:
    """The machine's own configuration wins over the settings; all others are as shipped."""
    shipped, changed = rules(answer, "backup"), rules(answer, "monitor")
    assert set(shipped) ^ set(changed) == {"ClanTargetStray", "MachineSilent"}
    missing = changed["ClanMachineMissing"]
    assert (at(missing, "for"), at(missing, "labels")) == ("1h", {"severity": "info", "team": "home"})
    assert at(changed["ClanNamesFailing"], "for") == "2h"
    same = {name for name in changed if changed[name] == shipped.get(name)}
    assert set(changed) - same == {"ClanMachineMissing", "ClanNamesFailing", "MachineSilent"}


@pytest.mark.parametrize("machine", ["monitor", "backup"])
def test_prometheus_loads_the_rules(machine: str, answer: Json, tmp_path: Path) -> None:
    file = tmp_path / "clan-discovery.rules.json"
    file.write_text(json.dumps({"groups": at(answer, "machines", machine, "groups")}))
    done = subprocess.run([program("promtool"), "check", "rules", str(file)], capture_output=True, check=False)
    assert done.returncode == 0, done


def test_vmalert_starts_with_the_rules(answer: Json, tmp_path: Path) -> None:
    """It refuses recording rules without `remoteWrite.url`, so their expressions are in the alerts."""
    _, ours = listed(answer, "vmalert", "agent")
    file = tmp_path / "rules.json"
    file.write_text(json.dumps(ours))
    port = free_port()
    words = [
        program("vmalert"),
        f"-rule={file}",
        "-datasource.url=http://127.0.0.1:9",
        "-notifier.url=http://127.0.0.1:9",
    ]
    with running([*words, f"-httpListenAddr=127.0.0.1:{port}"], tmp_path / "log"):
        eventually("vmalert answers", lambda: b"TargetDown" in get(f"http://127.0.0.1:{port}/api/v1/rules"), 60)
    assert "last_over_time(clan_discovery_expected" in file.read_text()


def test_node_exporter_reads_the_metrics_and_keeps_the_users_directory(answer: Json) -> None:
    """No listener, and no job of its own."""
    assert at(answer, "machines", "monitor", "scrape") == "node-exporter"
    command = str(at(answer, "command")).split()
    assert [word for word in command if "textfile" in word] == [FLAG, OWN]
    assert at(answer, "machines", "monitor", "listen") is None
    assert [at(job, "job_name") for job in listed(answer, "machines", "monitor", "jobs")] == ["prometheus", "node"]


def test_without_a_scraped_node_exporter_the_listener_is_a_job(answer: Json) -> None:
    """It has the labels of the server's other targets. The machine's node exporter is not in the role."""
    target: Json = {"targets": ["127.0.0.1:9199"], "labels": {"instance": "backup", "machine": "backup"}}
    job: Json = {"job_name": "clan-discovery", "static_configs": [target]}
    assert job in listed(answer, "machines", "backup", "jobs")


def test_metrics_that_nobody_reads_are_a_warning(answer: Json) -> None:
    """A timer without a node exporter, and units that must have no network."""
    told = {
        name: [str(warning).partition(", so")[0] for warning in listed(answer, "machines", name, "warnings")]
        for name in ("monitor", "backup", "deaf", "store", "agent")
    }
    unread = "clan-discovery: no scraper reads the metrics of the unit on"
    assert told.pop("monitor") == told.pop("backup") == []
    assert told == {"deaf": [f"{unread} deaf"], "store": [f"{unread} store"], "agent": [f"{unread} probe"]}


def expected_of(answer: Json, machine: str) -> str:
    """Return the expression of `clan:expected` on a machine."""
    found = [rule for group in listed(answer, "machines", machine, "groups") for rule in listed(group, "rules")]
    records = {at(rule, "record"): at(rule, "expr") for rule in found if is_record(rule)}
    return str(records["clan:expected"])


def test_a_server_reads_only_its_own_expected_targets(answer: Json) -> None:
    """Its scraper also reads the metrics of other servers, which may have different targets."""
    own = 'last_over_time(clan_discovery_expected{machine="monitor",clan_pushed=""}[3m]), "machine"'
    assert own in expected_of(answer, "monitor")
    assert own in expected_of(answer, "alone")  # any machine that it scrapes could serve such metrics
    assert 'last_over_time(clan_discovery_expected{clan_pushed=""}[3m]), "machine"' in expected_of(answer, "agent")


def test_silent_machines_have_the_patience_of_the_settings(answer: Json) -> None:
    """In a group of its own with a longer interval, which is left out with its only rule."""
    silent, default = (rules(answer, machine)["MachineSilent"] for machine in ("monitor", "agent"))
    other = 'clan_discovery_expected{machine="monitor",clan_pushed="",patience="roaming"}[1d] offset 14d'
    assert other in str(at(silent, "expr"))
    assert "max_over_time(up[14d])" in str(at(silent, "expr"))
    assert at(silent, "annotations", "summary") == "No target of {{ $labels.machine }} was up for 14d"
    assert 'clan_discovery_expected{clan_pushed="",patience="roaming"}[1d] offset 7d' in str(at(default, "expr"))
    assert at(groups(answer, "monitor"), "clan-targets-30m", "interval") == "30m"
    assert set(groups(answer, "monitor")) - set(groups(answer, "backup")) == {"clan-targets-30m"}


def test_mistakes_in_rules_are_assertions(answer: Json) -> None:
    """Each once, with where it is; no other machine fails."""
    where = "clan-discovery: instances.monitoring.roles.server.machines.store.settings: alerts.rules"
    assert at(answer, "machines", "store", "failed") == [
        f"{where}.ClanJobFroze: unknown alert: did you mean 'ClanJobFrozen'?",
        f"{where}.ClanJobFrozen.for: 'soon' is not a duration: write for example 5m or 1h30m",
        f"{where}.ClanShrinkHeld.labels: 'a-b' is not a label name: use letters, digits and underscores",
        f"{where}.ClanTargetDown: the alert is now called TargetDown",
    ]
    assert [at(answer, "machines", name, "failed") for name in ("monitor", "backup", "agent")] == [[], [], []]


def test_the_whole_system_evaluates(answer: Json) -> None:
    """Up to the derivation, so that every unit and file of it can be written."""
    assert str(at(answer, "toplevel")).endswith(".drv")
