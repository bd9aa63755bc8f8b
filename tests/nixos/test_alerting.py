"""Alertmanager on a real NixOS: who sends to it, its cluster, its secrets, and its config in a real Alertmanager."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.alerting import LONG_S, alerting_tool, mailbox, send
from tests.support.builds import NotBuiltError, alerting_program
from tests.support.nix import at, listed
from tests.support.programs import absent, eventually, free_port, get, running

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.support.alerting import Mailbox
    from tests.support.nixos import Real

MAIL: Final = """
  mail = { to = [ "a@example.org" "b@example.org" ]; from = "alerts@example.org"; smarthost = "mail.example.org:587"; };
"""
CLAN: Final = f"""
  clan = t.clan {{
    inventory = {{
      machines = {{ monitor = {{ }}; store = {{ }}; ring = {{ }}; front = {{ }}; }};
      instances.monitoring = {{
        module = {{ name = "prometheus"; input = "clan-discovery"; }};
        roles.server = {{
          settings.firewallInterfaces = [ "wg0" ];
          machines.monitor = {{ }};
          machines.store.settings.backend = "victoriametrics";
        }};
        roles.alerting = {{
          settings = {{
            {MAIL}
            mail.username = "alerts@example.org";
            deadMansSwitch.urlFile = "/run/secrets/100%/ping";
            firewallInterfaces = [ "wg0" ];
          }};
          machines.monitor = {{ }};
          machines.ring.settings = {{ gossipPort = 9194; gossipAddress = "fd00::7"; }};
        }};
        roles.exporter.machines.front.settings.firewallInterfaces = [ ];
      }};
    }};
    machines.monitor.services.prometheus.alertmanager.logLevel = "debug";
  }};
  alone = t.clan {{
    inventory = {{
      machines.monitor = {{ }};
      instances.monitoring = {{
        module = {{ name = "prometheus"; input = "clan-discovery"; }};
        roles.server.machines.monitor.settings.firewallInterfaces = [ ];
        roles.alerting.machines.monitor.settings = {{ {MAIL} mail.passwordFile = "/run/secrets/mail"; }};
      }};
    }};
  }};
"""
SEEN: Final = """
  seen = config: {
    failed = t.failed config;
    inherit (config.services.clan-discovery) mode;
    inherit (config.services.prometheus) alertmanagers;
    inherit (config.services.prometheus.alertmanager) enable listenAddress;
    exec = config.systemd.services.alertmanager.serviceConfig.ExecStart or "";
    version = t.lib.getVersion config.services.prometheus.alertmanager.package;
    prometheus = config.services.prometheus.extraFlags;
    credentials = config.systemd.services.alertmanager.serviceConfig.LoadCredential or [ ];
    config = config.services.prometheus.alertmanager.configuration;
    vmalert = t.lib.mapAttrs (_: one: one.settings) (
      t.lib.filterAttrs (_: one: one.enable) config.services.vmalert.instances
    );
    file = toString config.services.clan-discovery.alerts.file;
    ports = t.ports config;
    udp = t.lib.mapAttrs (_: one: one.allowedUDPPorts) config.networking.firewall.interfaces;
    amtool = config.environment.etc."amtool/config.yml".text or "";
  };
"""


@pytest.fixture(scope="module")
def clan(real: Real) -> Json:
    """Return what the tests ask of a clan with two Alertmanagers, and of one with one."""
    return real(f"""
      let
        {CLAN}
        {SEEN}
        machines = t.configs clan;
      in {{
        machines = t.lib.mapAttrs (_: seen) machines;
        alone = seen (t.configs alone).monitor;
        vars = let g = machines.monitor.clan.core.vars.generators.alertmanager-mail; in {{
          inherit (g) share script;
          inherit (g.prompts.password) type description;
          inherit (g.files.password) secret restartUnits;
        }};
        toplevel = t.toplevel machines.monitor;
      }}
    """)


def flags(document: Json, *path: str) -> list[str]:
    """Return the flags of Alertmanager's unit."""
    return shlex.split(str(at(document, *path, "exec")).replace("\\\n", " "))[1:]


def test_naming_a_machine_enables_alertmanager_there_alone(clan: Json) -> None:
    """The system evaluates up to its derivation, in which the build checks the config."""
    enabled = {name: at(clan, "machines", name, "enable") for name in ("monitor", "store", "ring", "front")}
    assert enabled == {"monitor": True, "store": False, "ring": True, "front": False}
    assert [at(clan, "machines", name, "failed") for name in enabled] == [[], [], [], []]
    assert str(at(clan, "toplevel")).endswith(".drv")


def test_each_server_sends_to_every_alertmanager(clan: Json) -> None:
    """Prometheus by itself; VictoriaMetrics by a vmalert, which keeps the state of alerts there."""
    target: Json = {"targets": ["127.0.0.1:9093", "ring.home.arpa:9093"]}
    assert at(clan, "machines", "monitor", "alertmanagers") == [{"static_configs": [target]}]
    assert at(clan, "machines", "monitor", "vmalert") == {}
    vmalert = at(clan, "machines", "store", "vmalert", "clan-discovery")
    assert at(vmalert, "notifier.url") == ["http://monitor.home.arpa:9093", "http://ring.home.arpa:9093"]
    urls = [at(vmalert, name) for name in ("datasource.url", "remoteRead.url", "remoteWrite.url")]
    assert urls == ["http://127.0.0.1:8428"] * 3
    assert at(vmalert, "httpListenAddr") == "127.0.0.1:8880"
    # An alert of both servers is one alert.
    assert at(vmalert, "disableAlertgroupLabel") is True
    # With recording rules, because it can record.
    assert at(clan, "machines", "store", "file") in listed(vmalert, "rule")
    # Alerts need the metrics of a process.
    assert [at(clan, "machines", name, "mode") for name in ("monitor", "store")] == ["resident", "resident"]


def test_alertmanagers_are_a_cluster_in_the_network_of_the_clan(clan: Json) -> None:
    """Gossip uses TCP and UDP. An IPv6 address is in brackets."""
    found = {
        name: [flag for flag in flags(clan, "machines", name) if "cluster" in flag] for name in ("monitor", "ring")
    }
    assert found == {
        "monitor": ["--cluster.listen-address=0.0.0.0:9094", "--cluster.peer=ring.home.arpa:9194"],
        "ring": [
            "--cluster.listen-address=[::]:9194",
            "--cluster.advertise-address=[fd00::7]:9194",
            "--cluster.peer=monitor.home.arpa:9094",
        ],
    }
    assert at(clan, "machines", "ring", "ports") == {"wg0": [9093, 9194]}
    assert at(clan, "machines", "ring", "udp") == {"wg0": [9194]}
    assert at(clan, "machines", "front", "ports") == {}


def test_restart_sends_no_mail(clan: Json) -> None:
    """Alertmanager waits for what inhibits others; Prometheus knows what fired. The newer Alertmanager has the flag."""
    version = tuple(map(int, str(at(clan, "alone", "version")).split(".")))
    assert ("--dispatch.start-delay=90s" in flags(clan, "alone")) == (version >= (0, 30))
    assert at(clan, "alone", "prometheus") == ["--rules.alert.for-grace-period=1m"]
    assert at(clan, "machines", "front", "prometheus") == []


def test_one_alertmanager_beside_its_server_listens_on_loopback_alone(clan: Json) -> None:
    alone = at(clan, "alone")
    assert at(alone, "listenAddress") == "127.0.0.1"
    assert [flag for flag in flags(alone) if "cluster" in flag] == ["--cluster.listen-address="]
    assert at(alone, "ports") == {}
    assert at(alone, "alertmanagers") == [{"static_configs": [{"targets": ["127.0.0.1:9093"]}]}]
    assert json.loads(str(at(alone, "amtool"))) == {"alertmanager.url": "http://127.0.0.1:9093"}


def test_secrets_are_credentials_of_the_unit(clan: Json) -> None:
    """Its user is dynamic. The password of the mail account is a shared var with a prompt."""
    own = "/run/credentials/alertmanager.service"
    alone = at(clan, "alone")
    assert at(alone, "credentials") == ["global-smtp_auth_password_file:/run/secrets/mail"]
    assert at(alone, "config", "global", "smtp_auth_password_file") == f"{own}/global-smtp_auth_password_file"
    _, ping = listed(clan, "machines", "monitor", "credentials")
    assert ping == "receivers-4-webhook_configs-0-url_file:/run/secrets/100%%/ping"
    assert at(clan, "vars") == {
        "share": True,
        "type": "hidden",
        "description": "Password of alerts@example.org at mail.example.org:587, for mail about alerts",
        "secret": True,
        "restartUnits": ["alertmanager.service"],
        "script": 'tr -d \'\\n\' < "$prompts/password" > "$out/password"\n',
    }


MACHINE: Final = """
  machine = settings: t.nixos [ {
    services.prometheus.enable = true;
    services.clan-discovery.stack.alerting = { enable = true; } // settings;
  } ];
  loose = { mail.to = [ "a@example.org" ]; mail.from = "x@example.org"; mail.smarthost = "m.example.org:25"; };
"""


# Several evaluations, because each takes many seconds on a busy machine.
@pytest.fixture(scope="module")
def single(real: Real) -> Json:
    """Return a machine without a clan, with hostile settings."""
    return real(f"""
      let
        {SEEN}
        {MACHINE}
        # The port is known when a test starts.
        good = machine {{
          mail = {{
            to = [ "admin@example.org" ];
            from = "Alerts $5 <alerts@example.org>";
            smarthost = "SMARTHOST";
            requireTls = false;
          }};
          grafanaUrl = "https://grafana.example.org/";
          externalUrl = "https://alerts.example.org/path";
          receivers.info.email_configs = [ {{
            to = "info@example.org";
            headers.Subject = "$$ \\${{HOME}} {{{{ .Status }}}}";
          }} ];
          settings = {{
            route.group_wait = "1s";
            route.routes = [ {{ receiver = "own"; matchers = [ "team=\\"own\\"" ]; }} ];
            receivers = [ {{ name = "own"; email_configs = [ {{ to = "own@example.org"; }} ]; }} ];
          }};
        }};
      in {{
        good = seen good;
        template = t.lib.head good.services.prometheus.alertmanager.configuration.templates;
        secure = (machine (t.lib.recursiveUpdate loose {{ mail.smarthost = "m.example.org:465"; }}))
          .services.prometheus.alertmanager.configuration.global.smtp_require_tls;
      }}
    """)


@pytest.fixture(scope="module")
def mistaken(real: Real) -> Json:
    """Return the failing assertions of machines without a clan."""
    return real(f"""
      let
        {MACHINE}
      in {{
        failed = t.lib.mapAttrs (_: settings: t.failed (machine settings)) {{
          empty = {{ }};
          half = {{ receivers.critical.webhook_configs = [ {{ url = "http://127.0.0.1:1"; }} ]; }};
          unset = {{ mail.to = [ "a@example.org" ]; }};
          mail = {{
            mail = {{ to = [ "a@example.org" ]; from = "x@example.org"; smarthost = "mail"; username = "x"; }};
            deadMansSwitch = {{ url = "http://a"; urlFile = "/run/b"; }};
          }};
          secrets = loose // {{
            mail = loose.mail // {{ username = "x"; passwordFile = "${{builtins.storeDir}}/secret"; }};
            receivers.critical.slack_configs = [ {{ api_url = "https://chat"; }} ];
            receivers.warning.webhook_configs = [ {{
              url_file = "${{builtins.storeDir}}/url";
              http_config.basic_auth.password = "x";
              http_config.tls_config.ca_file = "${{builtins.storeDir}}/ca.pem";
            }} ];
            receivers.info = {{
              sns_configs = [ {{ sigv4.secret_key = "x"; }} ];
              webhook_configs = [ {{ url = "http://a"; http_config.http_headers.X.secrets = [ "x" ]; }} ];
            }};
            settings.global = {{ opsgenie_api_key = "x"; smtp_auth_password = "x"; }};
          }};
          cluster = loose // {{ peers = [ "b.example.org:9094" ]; }};
        }};
      }}
    """)


@pytest.fixture(scope="module")
def unheard(real: Real) -> Json:
    """Return the failing assertions of machines that get no alerts, or send none."""
    return real(f"""
      let
        {MACHINE}
      in {{
        alone = t.failed (t.nixos [ {{
          services.clan-discovery.stack.alerting = {{ enable = true; }} // loose;
        }} ]);
        static = t.failed (t.nixos [ {{
          services.prometheus.enable = true;
          services.clan-discovery = {{
            enable = true;
            mode = "static";
            settings.inventory.file = ./inventory.json;
            stack.alerting = {{ enable = true; }} // loose;
          }};
        }} ]);
        closed = t.failed (t.nixos [ {{
          services.victoriametrics = {{ enable = true; extraOptions = [ "-httpAuth.username=x" ]; }};
          services.clan-discovery.alerts.alertmanagers = [ "a.example.org:9093" ];
        }} ]);
        roles = let
          clan = t.clan {{
            inventory = {{
              machines = {{ a = {{ }}; b = {{ }}; }};
              instances.x = {{
                module = {{ name = "prometheus"; input = "clan-discovery"; }};
                roles.server.machines.a.settings = {{
                  backend = "vmagent";
                  remoteWrite = [ {{ url = "http://h"; }} ];
                }};
                roles.alerting.machines.b.settings = {{ {MAIL} firewallInterfaces = [ ]; }};
              }};
              instances.y = {{
                module = {{ name = "prometheus"; input = "clan-discovery"; }};
                roles.alerting.machines.b.settings = {{ {MAIL} port = 9193; }};
              }};
            }};
          }};
          far = t.clan {{
            inventory = {{
              machines = {{ a = {{ }}; b = {{ }}; }};
              instances.x = {{
                module = {{ name = "prometheus"; input = "clan-discovery"; }};
                roles.server.machines.a.settings.firewallInterfaces = [ ];
                roles.alerting.machines.b.settings = {{ {MAIL} listenAddress = "127.0.0.1"; }};
              }};
            }};
          }};
        in {{
          several = t.failed (t.configs clan).b;
          far = t.failed (t.configs far).b;
        }};
      }}
    """)


@pytest.fixture(scope="module")
def together(real: Real) -> Json:
    """Return a machine without a clan with the components that alerts pass."""
    return real("""
      let
        system = t.evaluated [ {
          services.clan-discovery = {
            front.domain = "home.example.org";
            stack = {
              server = { enable = true; backend = "victoriametrics"; };
              front.enable = true;
              alerting = {
                enable = true;
                mail = { to = [ "a@example.org" ]; from = "x@example.org"; smarthost = "m.example.org:25"; };
              };
              dashboards = {
                enable = true;
                adminPasswordFile = "/run/secrets/admin";
                secretKeyFile = "/run/secrets/key";
              };
            };
          };
        } ];
        own = system.config.services.clan-discovery;
      in {
        failed = t.refused system;
        warnings = t.warned system;
        inherit (own) jobs;
        inherit (own.stack.alerting) grafanaUrl;
        ports = t.lib.mapAttrs (_: one: if one.loopback then one.port else null) own.expose;
        verify = own.settings.verify.rules.alerts-clan-discovery.url;
      }
    """)


def test_a_server_scrapes_the_alerting_of_its_own_machine(together: Json) -> None:
    """Without a clan: Alertmanager and vmalert are targets, and mails link to Grafana's front."""
    assert at(together, "failed") == []
    assert at(together, "warnings") == []
    assert at(together, "ports", "alertmanager") == 9093
    assert at(together, "ports", "vmalert") == 8880
    assert {"alertmanager", "grafana", "vmalert"} <= {str(job) for job in listed(together, "jobs")}
    assert at(together, "grafanaUrl") == "http://grafana.home.example.org/"
    assert at(together, "verify") == "http://127.0.0.1:8880"


@pytest.fixture(scope="module")
def beside(real: Real) -> Json:
    """Return machines whose user has an Alertmanager, a Prometheus or instances of vmalert of their own."""
    return real(f"""
      let
        {MACHINE}
        seen = system: {{
          failed = t.failed system;
          inherit (system) warnings;
          vmalert = t.lib.mapAttrs (_: one: one.settings."notifier.url") (
            t.lib.filterAttrs (_: one: one.enable) system.services.vmalert.instances
          );
        }};
        own.services.prometheus.alertmanager.configuration = {{
          route.receiver = "me";
          receivers = [ {{ name = "me"; }} ];
        }};
        store = module: seen (t.nixos [
          {{
            services.clan-discovery.stack = {{
              server = {{ enable = true; backend = "victoriametrics"; }};
              exporter.enable = true;
              alerting = {{ enable = true; }} // loose;
            }};
          }}
          module
        ]);
        instance = settings: {{
          enable = true;
          settings = {{ "datasource.url" = "http://127.0.0.1:8428"; }} // settings;
          rules = {{ }};
        }};
        alone = settings: seen (t.nixos [
          own
          {{
            services.prometheus.enable = true;
            services.clan-discovery.stack.alerting = {{ enable = true; }} // settings;
          }}
        ]);
      in {{
        whole = alone {{ }};
        ignored = alone loose;
        main = store {{
          services.vmalert.instances.main = instance {{ "notifier.url" = [ "http://own.example.org:9093" ]; }};
        }};
        silent = store {{ services.vmalert.instances.silent = instance {{ "notifier.blackhole" = true; }}; }};
        prometheus = store {{
          services.prometheus = {{ enable = true; scrapeConfigs = [ {{ job_name = "own"; }} ]; }};
        }};
        clan = seen (t.configs (t.clan {{
          inventory = {{
            machines.store = {{ }};
            instances.monitoring = {{
              module = {{ name = "prometheus"; input = "clan-discovery"; }};
              roles.server.machines.store.settings = {{ backend = "victoriametrics"; firewallInterfaces = [ ]; }};
              roles.alerting.machines.store.settings = {{ {MAIL} firewallInterfaces = [ ]; }};
            }};
          }};
          machines.store.services.prometheus = {{ enable = true; scrapeConfigs = [ {{ job_name = "own"; }} ]; }};
        }})).store;
      }}
    """)


def test_alerts_of_a_store_reach_alertmanager_beside_programs_of_the_user(beside: Json) -> None:
    """An instance of vmalert of the user's has the rules. A Prometheus without the targets has none."""
    here: Json = ["http://127.0.0.1:9093"]
    assert at(beside, "main", "vmalert") == {"main": ["http://own.example.org:9093", "http://127.0.0.1:9093"]}
    # One that sends nothing does not replace ours, and would not start with a URL.
    assert at(beside, "silent", "vmalert") == {"clan-discovery": here, "silent": []}
    assert [at(beside, name, "vmalert") for name in ("prometheus", "clan")] == [{"clan-discovery": here}] * 2


def test_a_whole_configuration_of_the_user_needs_no_receivers_of_ours(beside: Json) -> None:
    """What it replaces is a warning."""
    assert [at(beside, "whole", kind) for kind in ("failed", "warnings")] == [[], []]
    (said,) = listed(beside, "ignored", "warnings")
    assert "mail, receivers and settings here have no effect" in str(said)


def told(answer: Json, *path: str) -> list[str]:
    """Return failing assertions, without where the settings are written if that is said."""
    return [str(one).removeprefix("services.clan-discovery.stack.alerting") for one in listed(answer, *path)]


def test_a_severity_without_a_receiver_is_an_assertion(mistaken: Json) -> None:
    """There is no silent receiver."""
    mail = "set mail.to, mail.from and mail.smarthost"
    unset = ": no receiver gets alerts of the severity"
    assert told(mistaken, "failed", "empty") == [
        f"{unset} critical and warning: {mail}, or receivers.critical and receivers.warning"
    ]
    assert told(mistaken, "failed", "half") == [f"{unset} warning: {mail}, or receivers.warning"]


def test_incomplete_mail_is_an_assertion(mistaken: Json) -> None:
    assert told(mistaken, "failed", "unset") == [
        '.mail.from is not set, and mail.to needs it: write for example "alerts@example.org"',
        '.mail.smarthost is not set, and mail.to needs it: write for example "mail.example.org:587"',
    ]
    assert told(mistaken, "failed", "mail") == [
        ".mail.smarthost: 'mail' has no port: write for example \"mail:587\"",
        ".mail.username is set, and mail.passwordFile is not: set it to the path of a file with the password",
        ".deadMansSwitch takes `url` or `urlFile`, not both",
    ]


def test_secret_in_the_store_is_an_assertion(mistaken: Json) -> None:
    """By value, or by a path. The certificate of a CA is no secret."""
    public = "in the Nix store, which every user can read: write"
    path = 'the path of a file on the machine, for example "/run/secrets/alerting"'
    hook = ".receivers.warning.webhook_configs.0"
    info = ".receivers.info"
    file = "with the path of a file on the machine"
    values = {
        ".receivers.critical.slack_configs.0.api_url": f"api_url_file, {file}",
        f"{info}.sns_configs.0.sigv4.secret_key": "`profile`, of a file with credentials on the machine",
        f"{info}.webhook_configs.0.http_config.http_headers.X.secrets.0": "`files` instead of `secrets`",
        f"{hook}.http_config.basic_auth.password": f"password_file, {file}",
        ".settings.global.opsgenie_api_key": f"opsgenie_api_key_file, {file}",
        ".settings.global.smtp_auth_password": f"smtp_auth_password_file, {file}",
    }
    assert told(mistaken, "failed", "secrets") == [
        *(f"{name} would be {public} {instead}" for name, instead in values.items()),
        f".mail.passwordFile is /nix/store/secret, {public} {path}",
        f"{hook}.url_file is /nix/store/url, {public} {path}",
    ]


def test_alertmanager_that_no_server_reaches_is_an_assertion(mistaken: Json, unheard: Json) -> None:
    loopback = (
        "listenAddress is 127.0.0.1, and the Alertmanagers of a cluster (peers) each need the alerts of every server"
    )
    assert told(mistaken, "failed", "cluster") == [f".{loopback}: set it to an address that the servers reach"]
    (alone,) = told(unheard, "alone")
    assert alone == (
        ": nothing sends alerts to it: it listens on 127.0.0.1, and this machine evaluates no alert rules: set"
        " services.clan-discovery.stack.server.enable, or set listenAddress to an address that a server reaches"
    )
    where = "clan-discovery: instances.x.roles.alerting.machines.b.settings"
    unreached = "Alertmanager listens on 127.0.0.1, where a cannot reach it"
    assert at(unheard, "roles", "far") == [f"{where}: {unreached}: remove listenAddress, or set another one"]


def test_server_without_alerts_is_an_assertion(unheard: Json) -> None:
    assert told(unheard, "static") == [
        'services.clan-discovery.mode is "static", which has no alerts: set it to "resident"',
    ]
    (closed,) = told(unheard, "closed")
    assert closed == (
        "services.clan-discovery.alerts.alertmanagers: its flags -httpAuth and -tls make it ask for a password or for"
        " TLS, so that no vmalert evaluates the rules: add an instance to services.vmalert.instances, with its user and"
        " password"
    )


def test_role_without_a_server_or_with_two_settings_is_an_assertion(unheard: Json) -> None:
    where = "roles.alerting.machines.b.settings"
    differs, lacks = listed(unheard, "roles", "several")
    assert differs == (
        f"clan-discovery: instances.y.{where} differs from instances.x.{where}, but b has one Alertmanager: give the"
        " role alerting to it in one instance"
    )
    assert lacks == (
        f"clan-discovery: instances.x.{where}: no server evaluates alert rules: give the role server to a machine, with"
        " the backend prometheus or victoriametrics, or vmagent and a storage that is read as one"
    )


def test_no_second_question_for_tls_on_the_port_that_is_encrypted(single: Json) -> None:
    assert at(single, "secure") is False


def envsubst(text: str) -> str:
    """Pass a config through the envsubst of NixOS, as the unit does before it starts."""
    try:
        command = alerting_program("envsubst")
    except NotBuiltError as error:
        absent("envsubst", str(error), required=False)
    done = subprocess.run([command], input=text, capture_output=True, text=True, check=True, env={"HOME": "/wrong"})
    return done.stdout


def written(place: Path, real: Real, single: Json, smarthost: str) -> Path:
    """Write what NixOS writes, with the mail template in a directory of the test's own."""
    path = str(at(single, "template"))
    template = place / "mail.tmpl"
    template.write_text((real.home / "root" / path.removeprefix("/")).read_text())
    text = envsubst(json.dumps(at(single, "good", "config")))
    file = place / "alertmanager.yml"
    file.write_text(text.replace(path, str(template)).replace("SMARTHOST", smarthost))
    return file


@pytest.fixture(params=["debian", "newer"])
def running_unit(
    request: pytest.FixtureRequest, tmp_path: Path, real: Real, single: Json
) -> Generator[tuple[int, Mailbox]]:
    """Run Alertmanager with the flags and the config of the unit; give its port, and the mails that it sends."""
    which = str(request.param)
    with contextlib.ExitStack() as stack:
        box = stack.enter_context(mailbox())
        file = written(tmp_path, real, single, box.address)
        said = subprocess.run(
            [alerting_tool("amtool", which), "check-config", str(file)], capture_output=True, text=True, check=False
        )
        assert said.returncode == 0, said.stdout + said.stderr
        port = free_port()
        changed = {
            "/tmp/alert-manager-substituted.yaml": str(file),  # noqa: S108 - the unit's own /tmp
            "/var/lib/alertmanager": str(tmp_path / "data"),
            "127.0.0.1:9093": f"127.0.0.1:{port}",
        }
        words = [changed.get(word, word) for word in flags(single, "good")]
        if which == "debian":
            # 0.25, which nixpkgs does not have any more, does not know the flag.
            words = [word for word in words if not word.startswith("--dispatch.start-delay")]
        process = stack.enter_context(running([alerting_tool("alertmanager", which), *words], tmp_path / "log"))

        def ready() -> bool:
            assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
            return bool(get(f"http://127.0.0.1:{port}/-/ready"))

        eventually("it answers", ready, LONG_S)
        yield port, box


def test_the_generated_config_sends_mail(running_unit: tuple[int, Mailbox]) -> None:
    """`$` and templates in the settings arrive as they are."""
    port, box = running_unit
    for labels in ({"severity": "critical"}, {"severity": "info"}, {"team": "own"}):
        alert: Json = {
            "labels": {"alertname": "Disk", "machine": "nas", **labels},
            "annotations": {"summary": "$x ${HOME} {{ .Status }}", "board": "/d/clan-host?var-machine=nas"},
        }
        send(port, [alert])
    eventually("three mails have arrived", lambda: len(box.mails) >= 3, LONG_S)
    mails = {mail.recipients[0].partition("@")[0]: mail for mail in box.mails}
    assert set(mails) == {"admin", "info", "own"}
    assert mails["admin"].subject == "[critical] nas: Disk"
    assert mails["info"].subject == "$$ ${HOME} firing"
    assert mails["admin"].message["From"] == "Alerts $5 <alerts@example.org>"
    assert "  $x ${HOME} {{ .Status }}\n" in mails["admin"].text
    assert "  Board:   https://grafana.example.org/d/clan-host?var-machine=nas\n" in mails["admin"].text
