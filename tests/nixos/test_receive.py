"""Role front that receives, role logs and `services.clan-discovery.front.receive` on a real NixOS, with clan vars."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.builds import NotBuiltError, agent_program
from tests.support.nix import at, listed
from tests.support.programs import absent, program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done
    from tests.support.nixos import Real

    Run = Callable[..., Done]

SERVERS = ("mon1", "mon2")
AGENTS = ("dino", "nas", "web")
CREDENTIALS = "/run/credentials/clan-discovery-receive.service"

# Two servers, each with a store of metrics, one of logs and a proxy; a laptop and two machines that no server reaches.
CLAN = """
  acme = {
    security.acme = {
      acceptTerms = true;
      defaults.email = "admin@example.org";
      certs."home.example.org" = {
        domain = "*.home.example.org";
        group = "nginx";
        dnsProvider = "desec";
        environmentFile = "/run/secrets/desec";
      };
    };
  };
  keys = { sops.age.keyFile = "/var/lib/sops-nix/key.txt"; };
  inventory = {
    machines = { mon1 = { }; mon2 = { }; web = { }; nas = { }; dino.tags = [ "laptop" ]; };
    instances.monitoring = {
      module = { name = "prometheus"; input = "clan-discovery"; };
      roles.server.machines = { mon1 = { }; mon2 = { }; };
      roles.server.settings = {
        backend = "victoriametrics";
        listenAddress = "127.0.0.1";
        scrapeServers = false;
        firewallInterfaces = [ ];
      };
      roles.front.settings = {
        kind = "nginx";
        domain = "home.example.org";
        tls.useACMEHost = "home.example.org";
        openFirewall = true;
        firewallInterfaces = [ ];
      };
      roles.front.machines.mon1.settings.receive.domain = "push1";
      roles.front.machines.mon2.settings.receive.domain = "push2";
      roles.logs.machines = { mon1 = { }; mon2 = { }; };
      roles.agent.machines = { web = { }; dino = { }; nas.settings.token.generation = 2; };
      roles.exporter.tags = [ "all" ];
      roles.exporter.settings = { exporters.node = { }; firewallInterfaces = [ ]; };
    };
  };
  # clanOf : directory -> changes of the instance's roles -> more modules of mon1 -> clan
  clanOf = directory: changes: more: t.clan {
    inherit directory;
    inventory = t.lib.recursiveUpdate inventory { instances.monitoring.roles = changes; };
    machines = t.lib.genAttrs [ "web" "nas" "dino" ] (_: keys) // {
      mon1.imports = [ acme keys more ];
      mon2.imports = [ acme keys ];
    };
  };
"""


class Received(NamedTuple):
    """A clan whose vars were generated."""

    home: Path
    """The directory of the clan."""
    tokens: dict[str, str]
    """The tokens, by generator."""
    answer: Json


def _generated(real: Real, home: Path) -> dict[str, str]:
    """Run the generators as `clan vars generate` does; a secret is a placeholder in the directory of the clan."""
    program("openssl")
    found = real(f"""
      let {CLAN} in t.lib.mapAttrs (_: config: t.lib.mapAttrs (_: one: {{
        inherit (one) share script;
        files = t.lib.mapAttrs (_: file: {{ inherit (file) secret deploy; }}) one.files;
      }}) (t.lib.filterAttrs (name: _: t.lib.hasPrefix "prometheus-agent" name) config.clan.core.vars.generators))
        (t.configs (clanOf "/var/empty" {{ }} {{ }}))
    """)
    assert isinstance(found, dict)
    generators: dict[str, Json] = {}
    for machine in found:
        for name, generator in _items(found, machine):
            # clan-cli refuses a shared generator that differs from machine to machine.
            assert generators.setdefault(name, generator) == generator, machine
    tokens: dict[str, str] = {}
    for name, generator in generators.items():
        out = home / "made" / name
        out.mkdir(parents=True)
        environment = {"PATH": os.environ["PATH"], "out": str(out)}
        script = f"set -euo pipefail\n{at(generator, 'script')}"
        subprocess.run(["bash", "-c", script], check=True, env=environment)
        assert (at(generator, "share"), at(generator, "files")) == (True, {"token": {"secret": True, "deploy": True}})
        tokens[name] = (out / "token").read_text()
        place = home / "vars" / "shared" / name / "token"
        place.mkdir(parents=True)
        (place / "secret").write_text("sops")
    return tokens


def _items(document: Json, *path: str) -> list[tuple[str, Json]]:
    found = at(document, *path)
    assert isinstance(found, dict)
    return list(found.items())


@pytest.fixture(scope="module")
def received(real: Real, tmp_path_factory: pytest.TempPathFactory) -> Received:
    """Return what the tests ask of the machines, after their tokens were made."""
    home = tmp_path_factory.mktemp("clan")
    tokens = _generated(real, home)
    answer = real(f"""
      let
        {CLAN}
        configs = t.configs (clanOf "{home}" {{ }} {{ }});
        own = config: t.lib.filter (t.lib.hasPrefix "prometheus-agent")
          (t.lib.attrNames config.clan.core.vars.generators);
        server = config: {{
          front = config.services.clan-discovery.settings.front;
          unit = config.systemd.units."clan-discovery-receive.service".text;
          nginx = config.services.nginx.appendHttpConfig;
          hashes = [ config.services.nginx.mapHashBucketSize config.services.nginx.mapHashMaxSize ];
          inventory = config.services.clan-discovery.settings.inventory.file.drvPath;
          restart = config.sops.secrets."vars/shared/prometheus-agent-token-dino-1/token".restartUnits;
          logs = t.lib.concatStringsSep " " [
            config.services.victorialogs.listenAddress
            (t.lib.concatStringsSep " " config.services.victorialogs.extraOptions)
          ];
          metrics = config.services.victoriametrics.listenAddress;
          flags = config.services.victoriametrics.extraOptions;
        }};
      in {{
        failed = t.lib.mapAttrs (_: t.failed) configs;
        warnings = t.lib.mapAttrs (_: config: config.warnings) configs;
        ports = t.lib.mapAttrs (_: t.ports) configs;
        toplevels = t.lib.mapAttrs (_: t.toplevel) configs;
        generators = t.lib.mapAttrs (_: own) configs;
        servers = t.lib.genAttrs [ "mon1" "mon2" ] (name: server configs.${{name}});
      }}
    """)
    return Received(home, tokens, answer)


def test_every_machine_is_a_whole_system(received: Received) -> None:
    """No assertion fails, and nothing warns."""
    for machine in (*SERVERS, *AGENTS):
        assert at(received.answer, "failed", machine) == []
        assert at(received.answer, "warnings", machine) == []
        assert str(at(received.answer, "toplevels", machine)).endswith(".drv")


def test_only_the_proxy_can_be_reached(received: Received) -> None:
    """Its stores listen on loopback, and agents open nothing for what they send."""
    for machine in SERVERS:
        assert at(received.answer, "ports", machine) == {"all": [80, 443]}
        assert at(received.answer, "servers", machine, "metrics") == "127.0.0.1:8428"
        flags = [str(flag) for flag in listed(received.answer, "servers", machine, "flags")]
        assert {"-dedup.minScrapeInterval=1ms", "-http.maxGracefulShutdownDuration=1m"} <= {*flags}
        assert len(flags) == len({*flags})
        logs = (
            "127.0.0.1:9428 -retentionPeriod=30d -enableTCP6 -insert.maxLineSizeBytes=2MiB "
            "-http.maxGracefulShutdownDuration=1m"
        )
        assert at(received.answer, "servers", machine, "logs") == logs
    for machine in AGENTS:
        assert at(received.answer, "ports", machine) == {}


def test_each_agent_has_its_token_and_the_receivers_have_all(received: Received) -> None:
    """Two generations of a machine that changes its token."""
    everything = [f"prometheus-agent-token-{name}" for name in ("dino-1", "nas-1", "nas-2", "web-1")]
    assert sorted(received.tokens) == everything
    assert at(received.answer, "generators", "mon1") == everything
    assert at(received.answer, "generators", "mon2") == everything
    assert len(set(received.tokens.values())) == len(everything)
    assert all(re.fullmatch("[A-Za-z0-9_-]{43}", token) for token in received.tokens.values())
    for machine in SERVERS:
        unit = str(at(received.answer, "servers", machine, "unit"))
        loaded = re.findall("^LoadCredential=(.*)$", unit, re.MULTILINE)
        path = "/run/secrets/vars/shared/prometheus-agent-token-{}/token"
        assert sorted(loaded) == [
            f"dino.token~1:{path.format('dino-1')}",
            f"nas.token~1:{path.format('nas-2')}",
            f"nas.token~2:{path.format('nas-1')}",
            f"web.token~1:{path.format('web-1')}",
        ]
        assert "Before=nginx.service" in unit
        assert listed(received.answer, "servers", machine, "restart") == ["clan-discovery-receive.service"]


def test_no_token_is_in_the_store(received: Received, real: Real) -> None:
    """In no derivation, unit or file that the systems are made of."""
    patterns = [word for token in received.tokens.values() for word in ("-e", token)]
    store = real.home / "root" / "nix" / "store"
    assert any(store.iterdir())
    done = subprocess.run(["grep", "-rlF", *patterns, str(store)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")


def test_python_takes_the_config_and_the_tokens(received: Received, real: Real, run: Run, tmp_path: Path) -> None:
    """`check` accepts the front of each server, and `token write` finds the agents and their files."""
    for machine in SERVERS:
        server = at(received.answer, "servers", machine)
        front = json.loads(json.dumps(at(server, "front")))
        domain = {"mon1": "push1", "mon2": "push2"}[machine]
        assert front["receive"] == {
            "kind": "nginx",
            "domain": domain,
            "tokens": CREDENTIALS,
            "metrics": "http://127.0.0.1:8428",
            "logs": {"url": "http://127.0.0.1:9428", "kind": "victorialogs"},
            "limits": {"requests": 20, "burst": 200, "body": "32MiB", "connections": 8},
            "file": "/run/clan-discovery-receive/nginx.conf",
            "group": "nginx",
        }
        inventory = real.document(str(at(server, "inventory")))
        roles = at(inventory, "instances", "monitoring", "roles")
        # The paths of tokens are not in the inventory.
        assert at(roles, "agent", "machines") == {name: {"settings": {}} for name in AGENTS}
        place = tmp_path / machine
        tokens = place / "tokens"
        tokens.mkdir(parents=True)
        (place / "run").mkdir(mode=0o700)
        for entry, name in (("dino.token~1", "dino-1"), ("nas.token~1", "nas-2"), ("nas.token~2", "nas-1")):
            (tokens / entry).write_text(received.tokens[f"prometheus-agent-token-{name}"])
        (tokens / "web.token~1").write_text("\n")
        (place / "inventory.json").write_text(json.dumps(inventory))
        config = {
            "inventory": {"file": "inventory.json"},
            "server": machine,
            "front": front,
            "output": {"directory": str(place / "targets")},
        }
        (place / "config.json").write_text(json.dumps(config))
        checked = run("check", "-c", place / "config.json")
        assert (checked.code, checked.err) == (0, ""), checked.err
        front["receive"] |= {"tokens": str(tokens), "file": str(place / "run" / "nginx.conf"), "group": None}
        (place / "config.json").write_text(json.dumps(config))
        written = run("token", "write", "-c", place / "config.json")
        assert written.code == 0, written.err
        assert written.out.startswith("3 tokens of 2 machines; ")
        assert "the token file of web is empty" in written.err
        made = (place / "run" / "nginx.conf").read_text()
        assert f"server_name {domain}.home.example.org;" in made


def test_nginx_includes_the_file(received: Received) -> None:
    """Which may not be there yet."""
    for machine in SERVERS:
        assert "include /run/clan-discovery-receive/*.conf;" in str(at(received.answer, "servers", machine, "nginx"))
        assert at(received.answer, "servers", machine, "hashes") == [128, 8192]


class Mistake(NamedTuple):
    """A mistake: what is said of mon1, and what is changed in the roles and in the machine, as Nix."""

    said: str
    roles: str = ""
    machine: str = ""


REFUSED = {
    "prometheus": Mistake(
        "roles.front.machines.mon1.settings: the server of this machine is prometheus, which takes any "
        "name that a client sends by remote write, so that the name of an agent cannot be forced: set "
        '`backend = "victoriametrics"` in the settings of the role server, or receive.metrics.url to a '
        "VictoriaMetrics",
        roles='server.settings.backend = "prometheus"; server.machines.mon1.settings = { };',
    ),
    "a password": Mistake(
        "roles.front.machines.mon1.settings: the VictoriaMetrics of this machine asks for a password or for TLS, which "
        "the front does not have, so that it would store nothing of the agents: let it listen on loopback without, or",
        machine='services.victoriametrics = { basicAuthUsername = "a"; basicAuthPasswordFile = "/run/secrets/p"; };',
    ),
    "remote write": Mistake(
        "services.prometheus.extraFlags has --web.enable-remote-write-receiver, so that each client that reaches "
        "Prometheus can write under the name of any agent: remove it",
        machine='services.prometheus = { enable = true; extraFlags = [ "--web.enable-remote-write-receiver" ]; };',
    ),
    "one URL": Mistake(
        "roles.front.machines.mon1.settings: mon2 receives at https://push2.home.example.org, too, and "
        "each agent sends to every machine that receives: set another receive.domain",
        roles='front.machines.mon1.settings.receive.domain = "push2";',
    ),
    "sorted labels": Mistake(
        "services.victoriametrics has -sortLabels, with which an agent can write under the name of another one: remove",
        machine='services.victoriametrics.extraOptions = [ "-sortLabels" ];',
    ),
    "another listener": Mistake(
        "services.victoriametrics has -graphiteListenAddr=:2003, which other machines reach (eth1): past the front, "
        "each of them can write under the name of any agent: listen on loopback, or close the port",
        machine="""
          services.victoriametrics.extraOptions = [ "-graphiteListenAddr=:2003" "-influxListenAddr=127.0.0.1:8189" ];
          networking.firewall.interfaces.eth1.allowedTCPPorts = [ 2003 8189 ];
        """,
    ),
    "an old store": Mistake(
        "services.victoriametrics is 1.79.5, which cuts series with many labels, so that an agent can write under the "
        "name of another one: update it to 1.108 or newer, or set services.victoriametrics.extraOptions = [ "
        '"-maxLabelsPerTimeseries=1000000" ]',
        machine="""
          services.victoriametrics.package = builtins.derivation {
            name = "old"; system = "x86_64-linux"; builder = "/bin/sh";
          } // { version = "1.79.5"; };
        """,
    ),
    "no TLS": Mistake(
        'front.tls is "off", and agents would send their tokens in clear text: set front.tls.useACMEHost,'
        " or `certificate` and `key`",
        roles='front.settings.tls = "off";',
    ),
    "another proxy": Mistake(
        'front.receive.kind is "nginx", but the proxy is caddy: set front.kind = "nginx", or receive.kind = "vmauth"',
        machine='services.clan-discovery.front = { kind = "caddy"; receive.kind = "nginx"; };',
    ),
    "certificates of Caddy": Mistake(
        'front.tls is "acme", but vmauth gets no certificates itself: set front.tls.useACMEHost',
        machine='services.clan-discovery.front = { kind = "caddy"; tls = "acme"; };',
    ),
    "a token file": Mistake(
        "roles.agent.machines.dino.settings.token.file is set, so that clan vars do not make the token of"
        " dino: set receive.tokens.dino to the files of its tokens on mon1",
        roles='agent.machines.dino.settings.token.file = "/run/secrets/token";',
    ),
    "a token in the store": Mistake(
        "-token is in the Nix store, which every user can read: write a path on the machine as a string, "
        'for example "/run/secrets/agent-dino"',
        roles='front.machines.mon1.settings.receive.tokens.dino = [ "${builtins.toFile "token" "x"}" ];',
    ),
    "an open store": Mistake(
        "services.victoriametrics listens on :8428, which other machines reach (tailscale0): past the "
        'front, each of them can write under the name of any agent: set `listenAddress = "127.0.0.1"` and'
        " `scrapeServers = false` in instances.monitoring.roles.server.machines.mon1.settings, or close "
        "the port",
        machine='services.victoriametrics.listenAddress = ":8428"; '
        "networking.firewall.interfaces.tailscale0.allowedTCPPorts = [ 8428 ];",
    ),
    "open logs": Mistake(
        "services.victorialogs listens on 0.0.0.0:9428, which other machines reach (wg0): past the front,"
        ' each of them can write under the name of any agent: set `listenAddress = "127.0.0.1"` in '
        "instances.monitoring.roles.logs.machines.mon1.settings, or close the port",
        roles='logs.machines.mon1.settings = { listenAddress = "0.0.0.0"; firewallInterfaces = [ "wg0" ]; };',
    ),
    "an open network": Mistake(
        "services.victorialogs listens on :9428, which other machines reach (tailscale0)",
        machine='services.victorialogs.listenAddress = ":9428"; networking.firewall.trustedInterfaces = [ '
        '"tailscale0" ];',
    ),
    "a front for the store": Mistake(
        "expose.victoriametrics is a front without a login for services.victoriametrics: each client that reaches "
        'the proxy can write under the name of any agent: set its front.auth, or front.path = "/vmui"',
        machine="services.clan-discovery.front.uis.victoriametrics.enable = true;",
    ),
    "a front of the inventory": Mistake(
        "expose.logs is a front without a login for services.victorialogs",
        roles='exporter.machines.mon1.settings.expose.logs = { port = 9428; loopback = true; front.domain = "logs"; };',
    ),
    "an old NixOS": Mistake(
        'this NixOS has no services.victorialogs: update nixpkgs, or set `backend = "loki"`',
        machine='disabledModules = [ "services/databases/victorialogs.nix" ];',
    ),
    "two kinds of logs": Mistake(
        "the clan's stores of logs are victorialogs and loki, and an agent sends to one kind: set one "
        "`backend` for the role",
        roles='logs.machines.mon2.settings.backend = "loki";',
    ),
    "one domain": Mistake(
        "front.receive.domain is push1.home.example.org, which is also a virtual host of services.nginx: set another",
        machine='services.nginx.virtualHosts."push1.home.example.org" = { };',
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_forge_a_name_or_lose_it_is_refused(case: str, real: Real) -> None:
    """With the place and the way out, as the only assertion."""
    mistake = REFUSED[case]
    found = real(f"""
      let {CLAN} in t.failed (t.configs (clanOf "/var/empty" {{ {mistake.roles} }} {{ {mistake.machine} }})).mon1
    """)
    assert isinstance(found, list)
    messages = [str(one) for one in found]
    assert len(messages) == 1, messages
    assert mistake.said in messages[0]


def test_a_store_on_another_machine(real: Real) -> None:
    """The only one of the clan; of several, one must be named."""
    found = real(f"""
      let
        {CLAN}
        of = changes: let clan = t.configs (t.clan {{
          inventory = t.lib.recursiveUpdate inventory {{
            instances.monitoring.roles = changes // {{ front.machines = {{ gate.settings.receive.enable = true; }}; }};
          }} // {{ machines = inventory.machines // {{ gate = {{ }}; }}; }};
          machines = t.lib.genAttrs [ "gate" "mon1" "mon2" ] (_: acme);
        }}); in {{
          inherit (clan.gate.services.clan-discovery.settings.front) receive;
          failed = t.failed clan.gate;
        }};
      in {{
        several = of {{ }};
      }}
    """)
    messages = [str(message) for message in listed(found, "several", "failed")]
    assert sum("mon1 and mon2 have a VictoriaMetrics each: set receive.metrics.url to one" in m for m in messages) == 1
    assert sum("mon1 and mon2 store logs: set receive.logs.url to one" in m for m in messages) == 1


def test_two_fronts_do_not_write_to_one_store(real: Real) -> None:
    """One without a store does not receive; if it is told to, what agents send would be stored twice."""
    found = real("""
      let
        of = receive: t.configs (t.clan {
          inventory = {
            machines = { web01 = { }; edge = { }; dino = { }; };
            instances.monitoring = {
              module = { name = "prometheus"; input = "clan-discovery"; };
              roles.server.machines.web01.settings = { backend = "victoriametrics"; listenAddress = "127.0.0.1"; };
              roles.front.machines = t.lib.genAttrs [ "web01" "edge" ] (name: {
                settings = {
                  kind = "nginx";
                  domain = "${name}.example.org";
                  tls = { certificate = "/run/secrets/crt"; key = "/run/secrets/key"; };
                  firewallInterfaces = [ ];
                } // t.lib.optionalAttrs (name == "edge") { inherit receive; };
              });
              roles.agent.machines.dino = { };
              roles.logs.machines.web01 = { };
            };
          };
        });
        seen = clan: {
          inherit (clan.dino.services.clan-discovery.agent) urls;
          failed = t.failed clan.edge;
        };
      in {
        default = seen (of { });
        told = seen (of { enable = true; });
        other = seen (of { metrics.url = "http://127.0.0.1:8428"; logs.url = "http://127.0.0.1:9428"; });
      }
    """)
    web01, edge = "https://push.web01.example.org", "https://push.edge.example.org"
    assert at(found, "default", "urls") == [web01]
    assert at(found, "told", "urls") == at(found, "other", "urls") == [edge, web01]
    what = (
        "web01 receives, too, and writes to the same store, so that what agents send would be stored twice: set "
        "receive.enable = false"
    )
    counts = {name: str(at(found, name, "failed")).count(what) for name in ("default", "told", "other")}
    assert counts == {"default": 0, "told": 1, "other": 0}


MACHINE = """
  machine = more: t.nixos [
    {
      services.clan-discovery = {
        settings.backends.static.lab.targets.node = [ "10.0.0.5:9100" ];
        front = {
          domain = "home.example.org";
          tls = { certificate = "/run/secrets/push.pem"; key = "/run/secrets/push.key"; };
          openFirewall = true;
          receive = {
            enable = true;
            metrics.url = "http://127.0.0.1:8428";
            tokens.dino = [ "/run/secrets/dino" "/run/secrets/50%" ];
          };
        };
      };
    }
    more
  ];
  units = config: t.lib.mapAttrs (_: unit: unit.text) (t.lib.filterAttrs
    (name: _: t.lib.hasInfix "receive" name || t.lib.hasInfix "vmauth" name) config.systemd.units);
"""


def test_without_a_clan(real: Real) -> None:
    """Beside nginx, and beside Caddy as vmauth, with TLS of its own."""
    found = real(f"""
      let
        {MACHINE}
        see = config: {{
          failed = t.failed config;
          inherit (config) warnings;
          front = config.services.clan-discovery.settings.front;
          units = units config;
          ports = t.ports config;
          toplevel = t.toplevel config;
          flags = config.services.victoriametrics.extraOptions;
        }};
      in {{
        nginx = see (machine {{ services.clan-discovery.front.kind = "nginx"; }});
        vmauth = see (machine {{ }});
        acme = (units (machine {{
          security.acme = {{
            acceptTerms = true;
            defaults.email = "admin@example.org";
            certs.push = {{ domain = "push.home.example.org"; group = "acme-push"; webroot = "/var/lib/acme"; }};
          }};
          services.clan-discovery.front.tls = t.lib.mkForce {{ useACMEHost = "push"; }};
        }}))."clan-discovery-vmauth.service";
      }}
    """)
    for kind, proxy in (("nginx", "nginx"), ("vmauth", "caddy")):
        assert at(found, kind, "failed") == []
        assert at(found, kind, "front", "kind") == proxy
        assert at(found, kind, "front", "receive", "kind") == kind
        unit = str(at(found, kind, "units", "clan-discovery-receive.service"))
        assert "LoadCredential=dino.token~1:/run/secrets/dino\n" in unit
        assert "LoadCredential=dino.token~2:/run/secrets/50%%\n" in unit
        assert "SetCredential=dino.token~1:\\n\n" in unit
    assert at(found, "nginx", "ports") == {"all": [80, 443]}
    assert "clan-discovery-vmauth.service" not in dict(_items(found, "nginx", "units"))
    assert at(found, "vmauth", "ports") == {"all": [80, 443, 8427]}
    # Slow requests of one agent leave room for those of others.
    assert listed(found, "vmauth", "flags")[0] == "-maxConcurrentInserts=24"
    assert "-maxConcurrentInserts" not in str(listed(found, "nginx", "flags"))
    unit = str(at(found, "vmauth", "units", "clan-discovery-vmauth.service"))
    place = "/run/credentials/clan-discovery-vmauth.service"
    assert f"-tls -tlsCertFile={place}/certificate -tlsKeyFile={place}/key -tlsMinVersion=TLS12" in unit
    assert "LoadCredential=key:/run/secrets/push.key" in unit
    assert "-httpListenAddr=:8427 -httpInternalListenAddr=127.0.0.1:8426" in unit
    # It reads a renewed certificate itself.
    unit = str(at(found, "acme"))
    assert "-tlsCertFile=/var/lib/acme/push/fullchain.pem -tlsKeyFile=/var/lib/acme/push/key.pem" in unit
    assert "SupplementaryGroups=acme-push" in unit
    assert "Wants=acme-push.service" in unit
    assert "LoadCredential" not in unit


def test_the_fleet_says_who_is_an_agent(real: Real, run: Run, tmp_path: Path) -> None:
    """A laptop and its receiver without a clan: `token write` takes the laptop's token, and `show` its targets."""
    found = real(f"""
      let
        {MACHINE}
        laptop = t.nixos [ {{
          services.prometheus.exporters.node = {{ enable = true; listenAddress = "127.0.0.1"; }};
          services.clan-discovery = {{
            machine = "laptop";
            tags = [ "laptop" ];
            expose.node.port = 9100;
            agent = {{
              enable = true;
              urls = [ "https://push.home.example.org" ];
              tokenFile = "/run/secrets/agent-token";
            }};
          }};
        }} ];
        server = machine {{
          services.clan-discovery = {{
            front = {{ kind = "nginx"; metrics.enable = false; }};
            fleet = {{ laptop.config = laptop; probe.config = {{ }}; }};
          }};
        }};
      in {{
        failed = t.failed laptop ++ t.failed server;
        exposed = server.services.clan-discovery.settings.inventory.exposed.drvPath;
        front = server.services.clan-discovery.settings.front;
      }}
    """)
    assert at(found, "failed") == []
    (tmp_path / "exposed.json").write_text(json.dumps(real.document(str(at(found, "exposed")))))
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "laptop.token~1").write_text("t" * 43)
    (tmp_path / "run").mkdir(mode=0o700)
    front = json.loads(json.dumps(at(found, "front")))
    front["receive"] |= {"tokens": "tokens", "file": str(tmp_path / "run" / "nginx.conf"), "group": None}
    (tmp_path / "config.json").write_text(json.dumps({"inventory": {"exposed": "exposed.json"}, "front": front}))
    written = run("token", "write", "-c", tmp_path / "config.json")
    assert (written.code, written.err) == (0, "")
    assert written.out.startswith("1 token of 1 machine; ")
    shown = run("show", "-c", tmp_path / "config.json")
    assert "patience: roaming" in run("explain", "laptop", "-c", tmp_path / "config.json").out
    assert re.search(r"^node +laptop +127\.0\.0\.1:9100 +pushed", shown.out, re.MULTILINE), shown.out


def test_what_a_machine_without_a_clan_must_set(real: Real) -> None:
    """A store, tokens, and not too many; an own directory has no limit."""
    many = 't.lib.genAttrs (map toString (t.lib.range 1 251)) (name: [ "/run/secrets/${name}" ])'
    found = real(f"""
      let
        {MACHINE}
        front = receive: machine {{ services.clan-discovery.front = {{ kind = "nginx"; inherit receive; }}; }};
        failed = receive: t.failed (front receive);
        own = machine {{ services.clan-discovery = {{
          front = {{ kind = "nginx"; receive.tokens = t.lib.mkForce {{ }}; }};
          settings.front.receive.tokens = "/var/lib/tokens";
        }}; }};
      in {{
        store = failed {{ metrics.url = t.lib.mkForce null; }};
        tokens = failed {{ tokens = t.lib.mkForce {{ }}; }};
        many = failed {{ tokens = t.lib.mkForce ({many}); }};
        own = t.failed own;
        unit = own.systemd.units."clan-discovery-receive.service".text;
        open = t.failed (machine {{
          services.clan-discovery.front.kind = "nginx";
          services.victoriametrics.enable = true;
          networking.firewall.enable = false;
        }});
        other = t.failed (machine {{
          services.clan-discovery.front.kind = "nginx";
          services.victorialogs.enable = true;
          networking.firewall.enable = false;
        }});
      }}
    """)
    assert str(at(found, "store")).count("front.receive has no store: set receive.metrics.url") == 1
    assert str(at(found, "tokens")).count("front.receive.tokens is empty, and no agent could send anything") == 1
    assert str(at(found, "many")).count("front.receive.tokens has 251 files, and systemd passes 250 to a unit") == 1
    assert at(found, "own") == []
    assert "LoadCredential" not in str(at(found, "unit"))
    (message,) = listed(found, "open")
    assert "services.victoriametrics listens on :8428, which other machines reach (everywhere, because" in str(message)
    # Agents do not write to it.
    assert at(found, "other") == []


def test_loki_has_a_tenant_for_each_machine(real: Real, tmp_path: Path) -> None:
    """Its limits fit together, and Loki accepts them."""
    found = real(f"""
      let
        {CLAN}
        changes.logs.settings = {{ backend = "loki"; retention = "60d"; }};
        inherit (t.configs (clanOf "/var/empty" changes {{ }})) mon1;
      in {{
        failed = t.failed mon1;
        receive = mon1.services.clan-discovery.settings.front.receive;
        config = mon1.services.loki.configuration;
        ports = t.ports mon1;
        toplevel = t.toplevel mon1;
      }}
    """)
    assert at(found, "failed") == []
    assert at(found, "ports") == {"all": [80, 443]}
    assert at(found, "receive", "logs") == {"url": "http://127.0.0.1:3100", "kind": "loki"}
    config = at(found, "config")
    assert at(config, "auth_enabled") is True
    assert at(config, "querier", "multi_tenant_queries_enabled") is True
    limits = at(config, "limits_config")
    assert at(limits, "retention_period") == at(limits, "reject_old_samples_max_age") == "60d"
    try:
        loki = str(agent_program("loki"))
    except NotBuiltError as error:
        absent("loki", str(error), required=False)
    file = tmp_path / "loki.json"
    file.write_text(json.dumps(config).replace("/var/lib/loki", str(tmp_path / "data")))
    done = subprocess.run([loki, "-verify-config", f"-config.file={file}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
