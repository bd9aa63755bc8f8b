"""Agents on a real NixOS, with clan-core and without: units, exporters, targets, and what an evaluation refuses."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.nix import ROOT, at, listed, machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done
    from tests.support.nixos import Real

    Run = Callable[..., Done]

# Two servers; a laptop, a machine behind NAT, and one without logs.
CLAN = """
  clan = extra: t.clan {
    machines = t.lib.genAttrs [ "db01" "dino" "nat" "quiet" "web01" ] (_: {
      sops.age.keyFile = "/var/lib/sops-nix/key.txt";
    });
    inventory = t.lib.recursiveUpdate {
      machines = { db01 = { }; dino.tags = [ "laptop" ]; nat = { }; quiet = { }; web01 = { }; };
      instances.monitoring = {
        module = { name = "prometheus"; input = "clan-discovery"; };
        roles.server.settings.firewallInterfaces = [ ];
        roles.server.machines.db01 = { };
        roles.server.machines.web01.settings = {
          backend = "victoriametrics";
          jobs.node = {
            metric_relabel_configs = [ { action = "drop"; source_labels = [ "__name__" ]; regex = "go_.*"; } ];
            basic_auth = { username = "prometheus"; password_file = "/run/secrets/scrape"; };
          };
        };
        roles.exporter.tags.all = { };
        roles.exporter.settings = {
          firewallInterfaces = [ "wg0" ];
          exporters = { node = { }; systemd.security = "tls"; };
        };
        roles.exporter.machines.nat.settings.expose.jellyfin.port = 8096;
        roles.front.machines.web01.settings = {
          kind = "nginx";
          domain = "home.example.org";
          tls = { certificate = "/run/secrets/crt"; key = "/run/secrets/key"; };
          receive.tokens.nat = [ "/run/secrets/agent-nat" ];
          firewallInterfaces = [ ];
        };
        roles.agent.machines = {
          dino.settings.token.generation = 2;
          nat.settings = { token.file = "/run/secrets/token"; scrapeInterval = "15s"; };
          quiet.settings.logs.enable = false;
        };
        roles.logs.machines.web01.settings.retention = "14d";
      };
    } extra;
  };
"""
PLAIN = """
  plain = agent: t.nixos [ {
    services.clan-discovery = {
      machine = "dino";
      expose.jellyfin.port = 8096;
      agent = { enable = true; urls = [ "https://push.example.org" ]; tokenFile = "/run/secrets/token"; } // agent;
    };
  } ];
"""


def flags(unit: Json) -> dict[str, str]:
    """Return the flags in a unit's ExecStart."""
    (line,) = re.findall(r"^ExecStart=(.*)$", str(unit), re.MULTILINE)
    words = [word.removeprefix("-").partition("=") for word in line.split()[1:]]
    return {name: value for name, _, value in words}


@pytest.fixture(scope="module")
def machines(real: Real) -> Json:
    """Return what the tests read of every machine of the clan."""
    return real(f"""
      let
        {CLAN}
        seen = name: config: let inherit (config.services.clan-discovery) agent; in {{
          failed = t.failed config;
          ports = t.ports config;
          generators = builtins.attrNames config.clan.core.vars.generators;
          listen = t.lib.mapAttrs (_: one: one.listenAddress or null) (
            t.lib.getAttrs [ "node" "systemd" ] config.services.prometheus.exporters
          );
          units = t.lib.mapAttrs (_: unit: unit.text) (
            t.lib.filterAttrs (
              unit: _: t.lib.hasPrefix "clan-discovery-" unit || unit == "systemd-journal-upload.service"
            ) config.systemd.units
          );
          journald = config.services.journald.extraConfig;
          inherit (agent) enable urls;
          inherit (config.services.clan-discovery) mode;
          targets = if agent.enable then config.environment.etc."clan-discovery/agent".source.buildCommand else null;
          toplevel = if builtins.elem name [ "dino" "quiet" ] then t.toplevel config else null;
          rules = config.services.clan-discovery.alerts.file.value.groups;
          verified = config.services.clan-discovery.settings.verify.pushed or true;
          upload = config.environment.etc."systemd/journal-upload.conf".source.text or null;
        }};
      in t.lib.mapAttrs seen (t.configs (clan {{ }}))
    """)


def test_every_machine_of_the_clan_evaluates(machines: Json) -> None:
    """No assertion fails, and the whole systems of agents can be built."""
    assert isinstance(machines, dict)
    for name in machines:
        assert at(machines, name, "failed") == [], name
    assert str(at(machines, "dino", "toplevel")).endswith(".drv")


def test_an_agent_opens_no_port(machines: Json) -> None:
    """Its exporters listen on loopback, in plain HTTP; those of other machines do not."""
    for name in ("dino", "nat", "quiet"):
        assert at(machines, name, "ports") == {}, name
        assert at(machines, name, "listen") == {"node": "127.0.0.1", "systemd": "127.0.0.1"}
        assert "prometheus-certificate" not in listed(machines, name, "generators")
    assert at(machines, "db01", "listen") == {"node": "0.0.0.0", "systemd": "0.0.0.0"}  # noqa: S104 - NixOS's default
    assert "prometheus-certificate" in listed(machines, "db01", "generators")


def test_a_server_without_the_samples_of_agents_does_not_watch_them(machines: Json) -> None:
    """The store of web01 gets them; the Prometheus of db01 would take all agents for silent."""
    exprs = {
        name: "".join(str(at(rule, "expr")) for group in groups for rule in listed(group, "rules"))
        for name in ("db01", "web01")
        if (groups := listed(machines, name, "rules"))
    }
    metric = "clan_discovery_expected{machine="
    assert (
        exprs["db01"].count(f'{metric}"db01",delivery!="push"') == exprs["db01"].count("clan_discovery_expected") == 5
    )
    assert exprs["web01"].count(f'{metric}"web01"') == exprs["web01"].count("clan_discovery_expected") == 5
    assert "delivery" not in exprs["web01"]
    assert (at(machines, "db01", "verified"), at(machines, "web01", "verified")) == (False, True)


def test_an_agent_cannot_say_what_is_expected(real: Real) -> None:
    """The only server believes its own metrics alone. With a scrape config of the user, they may have no `machine`."""
    exprs = real("""
      let
        clan = t.clan {
          inventory = {
            machines = { web01 = { }; dino = { }; };
            instances.monitoring = {
              module = { name = "prometheus"; input = "clan-discovery"; };
              roles.server.machines.web01.settings = { backend = "victoriametrics"; discoveryMethod = "tailscale"; };
              roles.exporter.machines.web01 = { };
              roles.agent.machines.dino.settings.urls = [ "https://push.example.org" ];
            };
          };
          machines.web01.services.tailscale.enable = true;
        };
        own = { services.clan-discovery.metrics.scrape = "none"; };
        exprs =
          web01:
          t.lib.concatMapStrings (rule: rule.expr) (
            t.lib.concatMap (group: group.rules) web01.config.services.clan-discovery.alerts.file.value.groups
          );
        inherit (clan.nixosConfigurations) web01;
      in { ours = exprs web01; theirs = exprs (web01.extendModules { modules = [ own ]; }); }
    """)
    ours, theirs = str(at(exprs, "ours")), str(at(exprs, "theirs"))
    assert ours.count('clan_discovery_expected{machine="web01"') == ours.count("clan_discovery_expected") == 5
    assert "machine=" not in theirs


def test_the_agent_of_a_server_does_not_send_its_own_metrics(real: Real) -> None:
    """Alerts leave out what agents send: the server scrapes the metrics of its unit itself."""
    found = real("""
      let
        of = mode: (t.configs (t.clan {
          inventory = {
            machines = { web01 = { }; };
            instances.monitoring = {
              module = { name = "prometheus"; input = "clan-discovery"; };
              roles.server.machines.web01.settings = {
                inherit mode;
                backend = "victoriametrics";
                listenAddress = "127.0.0.1";
                discoveryMethod = "tailscale";
                scrapeServers = false;
              };
              roles.exporter.tags.all = { };
              roles.exporter.settings = { exporterType = "node"; firewallInterfaces = [ ]; };
              roles.agent.tags.all = { };
              roles.agent.settings.urls = [ "https://push.example.org" ];
            };
          };
          machines.web01.services.tailscale.enable = true;
        })).web01;
        seen = config: {
          inherit (config) warnings;
          inherit (config.services.clan-discovery.metrics) scrape;
          jobs = t.lib.catAttrs "job_name" config.services.clan-discovery.scrapeConfigs;
          flags = config.services.prometheus.exporters.node.extraFlags;
        };
      in t.lib.genAttrs [ "resident" "timer" ] (mode: seen (of mode))
    """)
    assert (at(found, "resident", "scrape"), at(found, "resident", "jobs")) == ("listen", ["clan-discovery"])
    assert (at(found, "timer", "scrape"), at(found, "timer", "jobs")) == (None, [])
    assert not any("textfile" in str(flag) for mode in ("resident", "timer") for flag in listed(found, mode, "flags"))
    assert at(found, "resident", "warnings") == []
    assert "would send the metrics of the unit" in str(at(found, "timer", "warnings"))


def test_the_server_that_stores_what_agents_send_has_a_unit(machines: Json) -> None:
    """Without its metrics, no alert fires when an agent is silent; a server without the samples needs none."""
    assert (at(machines, "web01", "mode"), at(machines, "db01", "mode")) == ("resident", "static")
    assert "clan-discovery-receive.service" in str(at(machines, "web01", "units"))


def test_an_agent_sends_to_the_machine_that_receives(machines: Json) -> None:
    """Its URL comes from the role front, its token from clan vars or from the file that the settings name."""
    assert at(machines, "dino", "urls") == ["https://push.home.example.org"]
    assert not at(machines, "web01", "enable")
    metrics = flags(at(machines, "dino", "units", "clan-discovery-agent.service"))
    assert metrics["remoteWrite.url"] == "https://push.home.example.org/api/v1/write"
    assert metrics["remoteWrite.bearerTokenFile"] == "%d/token"
    assert metrics["remoteWrite.tmpDataPath"] == "%S/clan-discovery-agent/queue"
    assert metrics["httpListenAddr"] == "127.0.0.1:8429"
    logs = flags(at(machines, "dino", "units", "clan-discovery-logs.service"))
    assert logs["remoteWrite.url"] == "https://push.home.example.org/insert/jsonline"
    assert logs["remoteWrite.format"] == "jsonline"
    assert logs["httpListenAddr"] == "127.0.0.1:9429"
    # One queue keeps the order. An attempt ends, and the next one follows soon enough to catch up.
    sending = {"queues": "1", "sendTimeout": "20s", "retryMaxTime": "5s", "maxDiskUsagePerURL": "1GiB"}
    for one in (metrics, logs):
        assert {name: one.get(f"remoteWrite.{name}") for name in sending} == sending
    assert logs["remoteWrite.tmpDataPath"] == "%S/clan-discovery-logs/queue"
    for unit in ("clan-discovery-agent.service", "clan-discovery-logs.service"):
        assert f"StateDirectory={unit.removesuffix('.service')}\n" in str(at(machines, "dino", "units", unit))
        assert "LoadCredential=token:/run/secrets/token\n" in str(at(machines, "nat", "units", unit))
    assert "prometheus-agent-token-dino-2" in listed(machines, "dino", "generators")
    assert not [name for name in listed(machines, "nat", "generators") if "token" in str(name)]


def test_the_journal_is_kept_as_long_as_the_store_keeps_logs(machines: Json) -> None:
    """The role logs says how long; a machine that sends no logs has none of the units."""
    assert "MaxRetentionSec=14d" in str(at(machines, "dino", "journald"))
    upload = str(at(machines, "dino", "units", "systemd-journal-upload.service"))
    assert "Requires=clan-discovery-logs.service\n" in upload
    assert "clan-discovery-cursor.timer" in str(at(machines, "dino", "units"))
    units = at(machines, "quiet", "units")
    assert isinstance(units, dict)
    assert {"clan-discovery-logs.service", "clan-discovery-cursor.timer"}.isdisjoint(units)
    assert "MaxRetentionSec" not in str(at(machines, "quiet", "journald"))


def written(real: Real, path: str) -> Json:
    """Return the JSON document that is built to a path of the store."""
    root = real.home / "root"
    for derivation in (root / "nix" / "store").glob(f"*-{path.partition('-')[2]}.drv"):
        place = f"/{derivation.relative_to(root)}"
        if str(at(real.derivation(place), "outputs", "out", "path")).endswith(path.removeprefix("/nix/store/")):
            return real.document(place)
    pytest.fail(f"no derivation builds {path}")


def test_the_agent_reads_the_jobs_of_its_machine(real: Real, machines: Json) -> None:
    """The scrape config has a job for each exporter type, with what the server's `jobs` say of samples."""
    found = str(at(machines, "nat", "targets"))
    assert "--agent nat " in found
    assert re.findall(r"--job (\S+)", found) == ["jellyfin", "node", "systemd", "vlagent", "vmagent"]
    assert re.findall(r"--job (\S+)", str(at(machines, "quiet", "targets"))) == ["node", "systemd", "vmagent"]
    path = flags(at(machines, "nat", "units", "clan-discovery-agent.service"))["promscrape.config"]
    document = written(real, path)
    assert at(document, "global") == {"scrape_interval": "15s"}
    (node,) = [job for job in listed(document, "scrape_configs") if at(job, "job_name") == "node"]
    assert node == {
        "job_name": "node",
        "file_sd_configs": [{"files": ["/etc/clan-discovery/agent/node.json"]}],
        "metric_relabel_configs": [{"action": "drop", "source_labels": ["__name__"], "regex": "go_.*"}],
    }


def test_the_build_renders_the_targets(real: Real, machines: Json, run: Run, tmp_path: Path) -> None:
    """The command of the build writes every job, on loopback and in plain HTTP."""
    command = str(at(machines, "nat", "targets"))
    (path,) = re.findall(r"--config (\S+)", command)
    config = written(real, path)
    inventory = at(config, "inventory")
    assert isinstance(inventory, dict)
    for name, source in list(inventory.items()):
        (tmp_path / name).write_text(json.dumps(written(real, str(source))))
        inventory[name] = str(tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps(config))
    jobs = re.findall(r"--job \S+", command)
    words = ["--agent", "nat", "--only-listed", *" ".join(jobs).split()]
    done = run("render", "--config", str(tmp_path / "config.json"), "--output", str(tmp_path / "out"), *words)
    assert (done.code, done.err) == (0, "")
    found = {file.stem: json.loads(file.read_text()) for file in (tmp_path / "out").iterdir()}
    ports = {"jellyfin": 8096, "node": 9100, "systemd": 9558, "vlagent": 9429, "vmagent": 8429}
    assert {job: at(group[0], "targets") for job, group in found.items()} == {
        job: [f"127.0.0.1:{port}"] for job, port in ports.items()
    }
    for (group,) in found.values():
        labels = at(group, "labels")
        assert isinstance(labels, dict)
        assert (labels["machine"], labels["instance"]) == ("nat", "nat")
        assert "__scheme__" not in labels


def test_a_clan_refuses(real: Real) -> None:
    """A mistake is a failing assertion that names the setting and a fix."""
    found = real(f"""
      let
        {CLAN}
        failed = name: instance: t.failed (t.configs (clan {{ instances.monitoring = instance; }})).${{name}};
      in {{
        receiver = failed "dino" {{ roles.front.machines.web01.settings.receive.enable = false; }};
        alike = failed "nat" {{
          roles.exporter.machines.nat.settings.expose.films = {{ port = 8097; type = "jellyfin"; }};
        }};
        port = failed "nat" {{ roles.exporter.machines.nat.settings.expose.films.port = 8429; }};
        store = failed "db01" {{
          roles.front.machines.web01.settings.receive.enable = false;
          roles.front.machines.db01.settings = {{
            receive.enable = true;
            kind = "nginx";
            domain = "db.example.org";
            tls = {{ certificate = "/run/secrets/crt"; key = "/run/secrets/key"; }};
            receive.tokens.nat = [ "/run/secrets/agent-nat" ];
            firewallInterfaces = [ ];
          }};
        }};
        address = failed "nat" {{ roles.exporter.machines.nat.settings.exporters.node.listenAddress = "10.0.0.5"; }};
      }}
    """)
    settings = "instances.monitoring.roles.exporter.machines.nat.settings"
    (alike,) = listed(found, "alike")
    assert alike == (
        f"clan-discovery: nat: {settings}.expose.films (port 8097) and {settings}.expose.jellyfin (port 8096) have the "
        "type jellyfin, and the receiver gives all metrics of nat one `instance`: set another `type`, or remove one"
    )
    (port,) = listed(found, "port")
    assert port == (
        "clan-discovery: nat: port 8429 is used by films (monitoring) and the agent (monitoring): "
        "set another `port` for one of them"
    )
    (store,) = listed(found, "store")
    assert store == (
        "clan-discovery: instances.monitoring.roles.front.machines.db01.settings: the store of web01 listens on "
        "127.0.0.1, where db01 does not reach it: give the role front to web01, or set another listenAddress in "
        "instances.monitoring.roles.logs.machines.web01.settings, or set receive.enable = false if db01 shall not "
        "receive"
    )
    (address,) = listed(found, "address")
    assert address == (
        "clan-discovery: services.prometheus.exporters.node.listenAddress is 10.0.0.5 on nat, where its agent does not "
        "read it: set 127.0.0.1"
    )
    assert (
        "clan-discovery: instances.monitoring.roles.agent.machines.dino.settings: no machine receives what dino sends: "
        "give the role front to a machine beside a VictoriaMetrics, or set `urls`"
    ) in listed(found, "receiver")


def refused(real: Real, agent: str) -> Json:
    """Return the failing assertions of a machine without a clan."""
    return real(f"let {PLAIN} in t.failed (plain {{ {agent} }})")


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        (
            "urls = [ ];",
            '.urls is empty: set it to the machines that receive, for example [ "https://push.home.example.org" ]',
        ),
        (
            "tokenFile = null;",
            ".tokenFile is not set: make a token with `clan-discovery token new dino`, and set the path of its file",
        ),
        (
            'tokenFile = "/nix/store/00000000000000000000000000000000-token";',
            (
                ".tokenFile is /nix/store/00000000000000000000000000000000-token, in the Nix store, which every user "
                'can read: write the path of a file on the machine, for example "/run/secrets/agent-token"'
            ),
        ),
        (
            'urls = [ "http://10.0.0.1" "http://127.0.0.1:8427" ];',
            ".urls: http://10.0.0.1 would send the token unencrypted: write https://",
        ),
        (
            'urls = [ "https://a" "https://b/api/v1/write" ];',
            ".urls: https://b/api/v1/write: leave out the path, which the agent adds itself",
        ),
        ('urls = [ "https://a" "https://a/" ];', ".urls names a machine twice: it would get everything twice"),
    ],
)
def test_a_machine_without_a_clan_refuses(real: Real, agent: str, message: str) -> None:
    """A mistake is one failing assertion, with a fix."""
    assert refused(real, agent) == [f"services.clan-discovery.agent{message}"]


def test_a_machine_needs_no_clan(real: Real) -> None:
    """What a machine exposes is what its agent reads, and other machines learn that it sends."""
    found = real(f"""
      let
        {PLAIN}
        config = plain {{
          logs.enable = true;
          caFile = "/etc/ca.pem";
          tokenFile = "/run/secrets/50%";
          urls = [ "https://push.example.org/" ];
        }};
        limit = one: (plain one).services.clan-discovery.agent.queue.maxDiskUsage;
      in {{
        failed = t.failed config;
        targets = config.environment.etc."clan-discovery/agent".source.buildCommand;
        unit = config.systemd.units."clan-discovery-logs.service".text;
        seen = (import {ROOT}/nix/lib).exposed.of {{ inherit config; }};
        unlimited = map (one: (builtins.tryEval (limit one)).success) [
          {{ queue.maxDiskUsage = "0"; }}
          {{ queue.maxDiskUsage = "0GiB"; }}
          {{ queue.maxDiskUsage = "10GiB"; }}
        ];
        toplevel = t.toplevel config;
      }}
    """)
    assert at(found, "failed") == []
    assert re.findall(r"--job (\S+)", str(at(found, "targets"))) == ["jellyfin", "vlagent", "vmagent"]
    assert flags(at(found, "unit"))["remoteWrite.tlsCAFile"] == "/etc/ca.pem"
    assert flags(at(found, "unit"))["remoteWrite.url"] == "https://push.example.org/insert/jsonline"
    assert "LoadCredential=token:/run/secrets/50%%\n" in str(at(found, "unit"))
    seen = at(found, "seen")
    assert isinstance(seen, dict)
    assert {name: seen[name] for name in ("agent", "agent_logs")} == {"agent": True, "agent_logs": True}
    assert at(found, "unlimited") == [False, False, True]


def test_alloy_sends_to_loki(real: Real) -> None:
    """It never gives up, reads as far back as the journal goes, and has the token as a credential."""
    found = real(f"""
      let {PLAIN} config = plain {{ logs = {{ enable = true; backend = "loki"; retention = "2w"; }}; }}; in {{
        failed = t.failed config;
        text = config.environment.etc."alloy/clan-discovery-agent.alloy".text;
        credentials = config.systemd.services.alloy.serviceConfig.LoadCredential;
        units = builtins.attrNames config.systemd.services;
        other = t.failed (t.nixos [ {{
          services.alloy.configPath = "/srv/config.alloy";
          services.clan-discovery.agent = {{
            enable = true;
            urls = [ "https://push.example.org" ];
            tokenFile = "/run/secrets/token";
            logs = {{ enable = true; backend = "loki"; }};
          }};
        }} ]);
      }}
    """)
    (other,) = listed(found, "other")
    assert other == (
        "services.clan-discovery.agent.logs: services.alloy.configPath is /srv/config.alloy, but the agent's config is "
        'in /etc/alloy: remove it, and set environment.etc."alloy/config.alloy"'
    )
    assert at(found, "failed") == []
    text = str(at(found, "text"))
    assert 'url = "https://push.example.org/loki/api/v1/push"' in text
    assert 'bearer_token_file = "/run/credentials/alloy.service/clan-discovery-token"' in text
    assert 'max_age = "336h"' in text
    assert "max_backoff_retries = 0" in text
    assert at(found, "credentials") == ["clan-discovery-token:/run/secrets/token"]
    assert "clan-discovery-logs" not in listed(found, "units")


def test_promtail_is_refused() -> None:
    """Where NixOS still has promtail, an assertion names what replaces it; newer ones refuse it themselves."""
    found = machine(f"""
      t.failed (t.nixos [
        {ROOT}/nix/nixos
        {{
          options.services.promtail.enable = t.lib.mkEnableOption "promtail";
          config.networking.hostName = "web01";
          config.services.promtail.enable = true;
          config.services.clan-discovery = {{ enable = true; settings.backends.static.lab.targets.node = [ "a:1" ]; }};
        }}
      ])
    """)
    (message,) = listed({"failed": found}, "failed")
    assert message == (
        "services.promtail is end of life, and would send the journal a second time: remove it, and set "
        "services.clan-discovery.agent.logs.enable (in a clan: the role agent)"
    )


def test_a_mac_is_no_agent(real: Real) -> None:
    """A darwin machine has no systemd to run the agent."""
    found = real(f"""
      let
        {CLAN}
        mac = t.configs (clan {{
          machines.mac = {{ machineClass = "darwin"; }};
          instances.monitoring.roles.agent.machines.mac = {{ }};
        }});
      in t.failed mac.mac
    """)
    assert (
        "clan-discovery: instances.monitoring.roles.agent has the darwin machine mac, which has no systemd to run the "
        "agent: give the role the tag `nixos` instead of `all`"
    ) in listed({"failed": found}, "failed")
