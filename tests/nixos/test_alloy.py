"""The backend Alloy: the jobs in /etc/alloy, read by Alloy's own parser, beside clan-core's monitoring."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.nix import at, listed, text
from tests.support.programs import absent, program

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.model import Json
    from tests.support.nixos import Real

    Read = Callable[[str], list[Json]]

READER = Path(__file__).parent / "alloy"
FRAGMENT = "alloy/clan-discovery.alloy"
MIMIR = "prometheus.remote_write.mimir.receiver"

CLANS = """
  clanOf = server: instances: machines: t.configs (t.clan {
    inherit directory machines;
    inventory = {
      machines.hub = { };
      machines.other = { };
      machines.db = { };
      instances = t.lib.recursiveUpdate {
        own = {
          module = { name = "prometheus"; input = "clan-discovery"; };
          roles.server.machines.hub = { };
          roles.server.settings = { backend = "alloy"; firewallInterfaces = [ ]; } // server;
          roles.exporter.tags.all = { };
          roles.exporter.settings.firewallInterfaces = [ "wg0" ];
        };
      } instances;
    };
  });
  fragment = config: config.environment.etc."alloy/clan-discovery.alloy".text;
  monitored = clanOf { sharding = "hashmod"; } {
    own.roles.server.machines.other = { };
    monitoring.roles = { client.tags.all = { }; server.machines.db = { }; };
  } { };
  named = clanOf {
    discoveryMethod = "tailscale";
    forwardTo = [ "prometheus.remote_write.default.receiver" ];
    globalConfig = { scrape_interval = "30s"; external_labels.site = "home"; };
    jobs.node = {
      scrape_interval = "5s";
      basic_auth = { username = "p"; password_file = "/run/keys/scrape"; };
      metric_relabel_configs = [ { source_labels = [ "__name__" ]; regex = "go_\\\\d.*"; action = "drop"; } ];
    };
    additionalScrapeConfigs = [
      {
        job_name = "my-app";
        scrape_interval = "1d";
        params."match[]" = [ "{job=\\"x\\"}" ];
        static_configs = [ { targets = [ "a:1" "b:2" ]; labels.site = "h\\"o\\\\me"; } ];
      }
      {
        job_name = "two";
        file_sd_configs = [ { files = [ "/x.json" ]; } { files = [ "/y.json" ]; } ];
        static_configs = [ { targets = [ "a:1" ]; } ];
      }
    ];
  } { } { hub.services.tailscale.enable = true; };
  wrong = clanOf {
    port = 9090;
    remoteWrite = [ { url = "http://x"; } ];
    forwardTo = [ "mimir" "prometheus.remote_write.default" ];
    additionalScrapeConfigs = [ { job_name = "c"; consul_sd_configs = [ { } ]; } { job_name = "node"; } ];
  } { } { hub.services.alloy.configPath = "/etc/other"; };
  alone = clanOf { } { } { };
"""


@pytest.fixture(scope="module")
def answer(real: Real, tmp_path_factory: pytest.TempPathFactory) -> Json:
    """Return what the tests ask of the clans, from one evaluation."""
    directory = tmp_path_factory.mktemp("clan")
    for generator in ("mimir-auth", "loki-auth"):
        place = directory / "vars/shared" / generator / "username"
        place.mkdir(parents=True)
        (place / "value").write_text("monitoring")
    return real(f"""
      let
        directory = {text(str(directory))};
        {CLANS}
        servers = [ monitored.hub monitored.other named.hub ];
        unit = monitored.hub.systemd.services.alloy;
      in {{
        failed = map t.failed servers;
        toplevels = map t.toplevel [ monitored.hub named.hub ];
        fragments = map fragment servers;
        ports = t.ports named.hub;
        jobs = named.hub.services.clan-discovery.jobs;
        warnings = named.hub.warnings;
        before = named.hub.systemd.services.clan-discovery.before;
        started = unit.serviceConfig.ExecStart;
        reloads = builtins.elem monitored.hub.environment.etc.{text(FRAGMENT)}.source unit.reloadTriggers;
        wrong = t.failed wrong.hub;
        alone = t.failed alone.hub;
      }}
    """)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """Return a function that reads a config with Alloy's own parser and evaluator."""
    target = tmp_path_factory.mktemp("alloy") / "read"
    words = [program("go"), "build", "-mod=readonly", "-o", str(target), "."]
    done = subprocess.run(words, cwd=READER, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        absent("alloy/syntax", done.stderr.strip().splitlines()[-1], required=False)

    def read_(config: str) -> list[Json]:
        found = subprocess.run([target], input=config, capture_output=True, text=True, timeout=60, check=False)
        assert found.returncode == 0, found.stderr
        blocks: list[Json] = json.loads(found.stdout)
        return blocks

    return read_


def component(blocks: list[Json], name: str, label: str) -> Json:
    """Return the arguments of a component, with its blocks by name."""
    (found,) = [block for block in blocks if (at(block, "name"), at(block, "label")) == (name, label)]
    return found


def test_users_of_clan_cores_monitoring_gain_the_exporters(answer: Json, read: Read) -> None:
    """Alloy loads the fragment beside monitoring's own config, and sends to its Mimir. Servers share the targets."""
    assert listed(answer, "failed") == [[], [], []]
    assert all(str(path).endswith(".drv") for path in listed(answer, "toplevels"))
    assert "/bin/alloy run /etc/alloy " in str(at(answer, "started"))
    assert at(answer, "reloads") is True
    shares: list[Json] = []
    for fragment in listed(answer, "fragments")[:2]:
        blocks = read(str(fragment))
        assert [at(block, "name") for block in blocks] == ["discovery.file", "discovery.relabel", "prometheus.scrape"]
        file, relabel, scrape = (at(block, "arguments") for block in blocks)
        assert file == {"files": ["/etc/clan-discovery/targets/node.json"], "refresh_interval": "30s"}
        assert relabel == {"targets": "discovery.file.clan_node.targets"}
        assert at(scrape, "targets") == "discovery.relabel.clan_node.output"
        assert at(scrape, "forward_to") == f"[{MIMIR}]"
        job, hash_, keep = (at(rule, "arguments") for rule in listed(blocks[1], "blocks"))
        # Prometheus hashes with the job, which Alloy adds only when it scrapes.
        assert job == {"source_labels": ["job"], "regex": "", "target_label": "job", "replacement": "node"}
        assert at(hash_, "modulus") == 2
        shares.append(at(keep, "regex"))
    assert shares == ["0", "1"]


def test_scrape_configs_are_translated(answer: Json, read: Read) -> None:
    """Those of `jobs`, and the user's own with files and static targets."""
    blocks = read(str(listed(answer, "fragments")[2]))
    file = component(blocks, "discovery.file", "clan_node")
    assert at(file, "arguments") == {"files": ["/var/lib/clan-discovery/targets/node.json"]}
    node = component(blocks, "prometheus.scrape", "clan_node")
    assert at(node, "arguments") == {
        "targets": "discovery.file.clan_node.targets",
        "forward_to": "[prometheus.relabel.clan_node.receiver, prometheus.relabel.added_clan_node.receiver]",
        "job_name": "node",
        "scrape_interval": "5s",
        # Alloy refuses the default, which is longer than the interval.
        "scrape_timeout": "5s",
    }
    (auth,) = listed(node, "blocks")
    assert at(auth, "name") == "basic_auth"
    assert at(auth, "arguments") == {"username": "p", "password_file": "/run/keys/scrape"}
    rules = listed(component(blocks, "prometheus.relabel", "clan_node"), "blocks")
    assert [at(rule, "arguments", "regex") for rule in rules][1:] == ["go_\\d.*"]

    (app,) = (one for one in (at(block, "arguments") for block in blocks) if "my-app" in json.dumps(one))
    assert at(app, "targets") == [
        {"__address__": "a:1", "site": 'h"o\\me'},
        {"__address__": "b:2", "site": 'h"o\\me'},
    ]
    assert (at(app, "scrape_interval"), at(app, "params")) == ("86400000ms", {"match[]": ['{job="x"}']})
    two = at(component(blocks, "prometheus.scrape", "clan_two"), "arguments")
    files = "discovery.file.clan_two.targets, discovery.file.file1_clan_two.targets"
    assert at(two, "targets") == f'array.concat({files}, [{{"__address__" = "a:1"}}])'
    assert at(two, "scrape_interval") == "30s"


def test_alloy_has_no_port_and_no_target(answer: Json) -> None:
    """It listens on loopback, and starts after the first refresh. External labels belong to the receiver."""
    assert "alloy.service" in listed(answer, "before")
    assert at(answer, "ports") == {"wg0": [9100]}
    assert at(answer, "jobs") == ["node"]
    (warning,) = listed(answer, "warnings")
    assert "globalConfig: alloy has no external_labels, which is omitted" in str(warning)


def test_what_alloy_cannot_do_is_refused(answer: Json) -> None:
    """Without a receiver, without the directory that it reads, and for settings that it does not have."""
    said = [str(message) for message in listed(answer, "wrong")]
    reasons = (
        "more than one scrape config is named 'node'",
        "the backend alloy has no setting remoteWrite, port",
        "services.alloy.configPath is /etc/other on hub, but the jobs are in /etc/alloy",
        "forwardTo: 'mimir' is no receiver",
        "forwardTo: 'prometheus.remote_write.default' is no receiver",
        "scrape config 'c': Alloy's discovery.file and prometheus.scrape have no consul_sd_configs",
    )
    assert [any(reason in one for one in said) for reason in reasons] == [True] * len(reasons), said
    (alone,) = listed(answer, "alone")
    assert "machines.hub.settings: Alloy stores nothing: set forwardTo" in str(alone)
