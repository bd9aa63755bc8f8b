"""Members that no server scrapes, servers in agent mode, and mistakes that fail one machine only, on a real NixOS."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import pytest

from tests.support.nix import at, listed
from tests.support.programs import eventually, free_port, get, program, running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done
    from tests.support.nixos import Real

    Run = Callable[..., Done]

ROLES = "clan-discovery: instances.m.roles"


@pytest.fixture(scope="module")
def answer(real: Real) -> Json:
    """Return what the tests ask of nine machines."""
    return real("""
      let
        module = { name = "prometheus"; input = "clan-discovery"; };
        clan = t.clan {
          inventory = {
            machines = t.lib.genAttrs
              [ "agent" "away" "db" "hidden" "misspelt" "mistyped" "proxied" "quiet" "web" ] (_: { });
            instances.m = {
              inherit module;
              roles.server.settings = { firewallInterfaces = [ "wg0" ]; retentionTime = "90d"; rules = [ "x" ]; };
              roles.server.machines = {
                agent.settings = {
                  enableAgentMode = true;
                  alertmanagers = [ { static_configs = [ { targets = [ "quiet:9093" ]; } ]; } ];
                  remoteWrite = [ { url = "http://quiet:9090/api/v1/write"; } ];
                };
                away.settings.enable = false;
                misspelt.settings.retentionTme = "30d";
                mistyped.settings = {
                  globalConfig.scrape_interval = 5;
                  enable = "no";
                  backend = "promethius";
                  discoveryMethod = "tailscael";
                  port = "9090";
                  sharding = true;
                };
                proxied = { };
                quiet.settings = {
                  backend = "victoriametrics";
                  listenAddress = "127.0.0.1";
                  rules = t.lib.mkForce [ ];
                };
              };
              roles.exporter.machines = {
                db.settings.exporters = { node = { }; postgres.listenAddress = "127.0.0.1"; };
                hidden = { };
                web = { };
              };
              roles.exporter.settings.firewallInterfaces = [ "wg0" ];
            };
          };
          machines.proxied.services.prometheus.listenAddress = "[::1]";
          machines.hidden.services.prometheus.exporters.node.listenAddress = "localhost";
        };
        inherit (t.configs clan) agent away db hidden misspelt mistyped proxied quiet web;
        typo = t.clan {
          inventory = {
            machines = { web = { }; monitor = { }; };
            instances.m = {
              inherit module;
              roles.server.machines.montor = { };
              roles.exporter.machines.web.settings.firewallInterfaces = [ ];
            };
          };
        };
        typos = t.clan {
          inventory = {
            machines = { web = { }; monitor = { }; };
            instances.m = {
              inherit module;
              roles.server.machines.monitor.settings.firewallInterfaces = [ ];
              roles.exporter.machines.wbe.settings = { };
              roles.exporter.machines.nowhere.settings = { };
            };
          };
        };
        stopped = t.clan {
          inventory = {
            machines.monitor = { };
            instances.m = {
              inherit module;
              roles.server.machines.monitor.settings = {
                backend = "alloy";
                forwardTo = [ "prometheus.remote_write.x.receiver" ];
              };
            };
          };
          machines.monitor.services.alloy.enable = false;
        };
        evaluates = value: (builtins.tryEval (builtins.deepSeq value true)).success;
        discovery = agent.services.clan-discovery;
      in {
        failed = t.lib.mapAttrs (_: t.failed) { inherit agent away db hidden proxied quiet web; };
        warnings = t.lib.mapAttrs (_: config: config.warnings) { inherit agent away db proxied quiet web; };
        ports = t.lib.mapAttrs (_: t.ports) { inherit away db quiet; };
        evaluates = {
          misspelt = evaluates misspelt.networking.hostName;
          mistyped = evaluates mistyped.services.prometheus.globalConfig.scrape_interval;
          agent = evaluates (t.toplevel agent);
          web = evaluates web.networking.hostName;
        };
        started = agent.systemd.services.prometheus.serviceConfig.ExecStart;
        listens = quiet.services.victoriametrics.listenAddress;
        runs = away.services.prometheus.enable;
        inherit (discovery) jobs;
        inventory = discovery.settings.inventory.file.value;
        typo = t.failed (t.configs typo).web;
        typos = t.failed (t.configs typos).monitor;
        stopped = t.failed (t.configs stopped).monitor;
      }
    """)


def test_settings_on_loopback_are_no_target_and_a_warning(answer: Json) -> None:
    """For a server and for an exporter; no port is open for them."""
    assert at(answer, "failed", "quiet") == []
    assert at(answer, "failed", "db") == []
    where = "where no other machine can scrape it, and is no target"
    assert at(answer, "warnings", "quiet") == [
        (
            f"{ROLES}.server.machines.quiet.settings.listenAddress: the server listens on 127.0.0.1, {where}: "
            "set `scrapeServers = false`, or another address"
        )
    ]
    assert at(answer, "warnings", "db") == [
        (
            f"{ROLES}.exporter.machines.db.settings.exporters.postgres.listenAddress: postgres listens on 127.0.0.1, "
            f"{where}: "
            "set another address, or enable it in services.prometheus.exporters.postgres of the machine instead"
        )
    ]
    assert at(answer, "listens") == "127.0.0.1:8428"
    assert at(answer, "ports") == {"away": {}, "db": {"wg0": [9100]}, "quiet": {}}


def test_a_server_with_enable_false_is_none(answer: Json) -> None:
    """It runs nothing, and says so."""
    assert at(answer, "failed", "away") == []
    assert at(answer, "runs") is False
    assert at(answer, "warnings", "away") == [
        (
            f"{ROLES}.server.machines.away.settings.enable is false, so away is no server and no target: "
            "remove it from the role"
        )
    ]


def test_other_servers_have_no_targets_there(answer: Json, tmp_path: Path, run: Run) -> None:
    """The jobs of the evaluation are those of the files, and the servers that are scraped are targets."""
    jobs = listed(answer, "jobs")
    assert jobs == ["node", "prometheus"]
    (tmp_path / "inventory.json").write_text(json.dumps(at(answer, "inventory")))
    config: Json = {"inventory": {"file": "inventory.json"}, "server": "agent"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    words = [word for job in jobs for word in ("--job", str(job))]
    done = run("render", "-c", tmp_path / "config.json", "--output", tmp_path / "targets", "--only-listed", *words)
    assert (done.code, done.err) == (0, "")
    machines = {
        job: [group["labels"]["machine"] for group in json.loads((tmp_path / f"targets/{job}.json").read_bytes())]
        for job in map(str, jobs)
    }
    assert machines == {"node": ["db", "hidden", "web"], "prometheus": ["agent", "misspelt", "mistyped", "proxied"]}


def test_loopback_in_the_machines_own_configuration_is_refused(answer: Json) -> None:
    """No server can see it there."""
    assert at(answer, "failed", "proxied") == [
        (
            "clan-discovery: services.prometheus.listenAddress is [::1] on proxied, where no other server can scrape "
            "it: set `listenAddress` or `scrapeServers = false` in instances.m.roles.server.machines.proxied.settings"
        )
    ]
    assert at(answer, "failed", "hidden") == [
        (
            "clan-discovery: services.prometheus.exporters.node.listenAddress is localhost on hidden, where no server "
            "can scrape it: set another address, or set `listenAddress` in "
            "instances.m.roles.exporter.machines.hidden.settings as well"
        )
    ]


def test_a_scraper_that_the_machine_switches_off_is_refused(answer: Json) -> None:
    """With any backend; other assertions do not need its unit."""
    assert at(answer, "stopped") == [
        (
            "clan-discovery: services.alloy.enable is false on monitor, which has the role server in instance m: "
            "set `enable = false` in instances.m.roles.server.machines.monitor.settings, or set another `backend`"
        )
    ]


def test_a_mistyped_setting_fails_its_server_alone(answer: Json) -> None:
    """A wrong type, and a name that services.prometheus does not have."""
    assert at(answer, "evaluates") == {"misspelt": False, "mistyped": False, "agent": True, "web": True}
    assert at(answer, "failed", "agent") == at(answer, "failed", "web") == []


def test_a_member_that_is_no_machine_is_refused_with_its_role(answer: Json) -> None:
    """Also where it is the only server."""
    assert at(answer, "typo") == [
        f"{ROLES}.server.machines.montor: the clan has no machine 'montor': did you mean 'monitor'?"
    ]
    assert at(answer, "typos") == [
        (
            f"{ROLES}.exporter.machines.nowhere: the clan has no machine 'nowhere': remove it, or add it to "
            "`inventory.machines`"
        ),
        f"{ROLES}.exporter.machines.wbe: the clan has no machine 'wbe': did you mean 'web'?",
    ]


def test_agent_mode_starts(answer: Json, tmp_path: Path) -> None:
    """Prometheus accepts the flags of the unit; what it does not have is omitted, with a warning."""
    assert at(answer, "warnings", "agent") == [
        (
            "clan-discovery: instances.m.roles.server.machines.agent.settings: Prometheus in agent mode has no "
            "alertmanagers, retentionTime, rules, which is omitted"
        )
    ]
    port = free_port()
    config = tmp_path / "prometheus.yml"
    config.write_text('{"remote_write": [{"url": "http://127.0.0.1:9/"}]}')
    ours = {
        "--config.file": f"--config.file={config}",
        "--web.listen-address": f"--web.listen-address=127.0.0.1:{port}",
    }
    # Before Prometheus 3, agent mode was a feature.
    ours["--agent"] = "--enable-feature=agent"
    flags = [word for word in shlex.split(str(at(answer, "started")))[1:] if word.strip()]
    assert "--agent" in flags
    words = [ours.get(flag.partition("=")[0], flag) for flag in flags]
    with running([program("prometheus"), *words, f"--storage.agent.path={tmp_path}/data"], tmp_path / "log"):
        eventually("prometheus is ready", lambda: b"Ready" in get(f"http://127.0.0.1:{port}/-/ready"))
