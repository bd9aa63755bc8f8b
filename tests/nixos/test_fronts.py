"""`services.clan-discovery.front` and role `front` on a real NixOS: each proxy, its units, and what is refused.

Debian's caddy and nginx check the configurations that NixOS makes of it, with an own virtual host beside the fronts.
"""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.nix import at, listed, text
from tests.support.programs import program

if TYPE_CHECKING:
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.support.nixos import Real

KINDS = ("caddy", "nginx", "traefik")
COPIES = "/var/lib/clan-discovery-front"
SUFFIXES = {"caddy": "caddy", "nginx": "conf", "traefik": "yml"}

MACHINES = """
  machine = kind: more: t.nixos [
    {
      services.clan-discovery = {
        mode = "resident";
        settings.backends.static.lab.targets.node = [ "10.0.0.5:9100" ];
        front = { enable = true; inherit kind; domain = "home.example.org"; };
      };
      services.prometheus.exporters.node.enable = true;
    }
    more
  ];
  own = {
    caddy.services.caddy.virtualHosts."own.example.org".extraConfig = "respond own";
    nginx.services.nginx = {
      recommendedProxySettings = true;
      virtualHosts."own.example.org".locations."/".return = "200 own";
    };
    traefik.services.traefik.dynamicConfigOptions.http.routers.own = {
      rule = "Host(`own.example.org`)";
      service = "noop@internal";
    };
  };
  # The derivation of a text with this name.
  made = name: told: builtins.head (builtins.filter (t.lib.hasSuffix name) (builtins.attrNames
    (builtins.getContext told)));
  names = { caddy = "Caddyfile-formatted.drv"; nginx = "nginx.conf.drv"; traefik = "config.toml.drv"; };
  config = kind: config: made names.${kind} (if kind == "caddy" then config.services.caddy.configFile
      else config.systemd.services.${kind}.serviceConfig.ExecStart);
  ours = config: builtins.filter (t.lib.hasInfix "clan-discovery-front") config.systemd.tmpfiles.rules;
"""


@pytest.fixture(scope="module")
def machines(real: Real) -> Json:
    """Return what the tests ask of a machine with each proxy and an own virtual host."""
    return real(f"""
      let {MACHINES} in t.lib.genAttrs [ "caddy" "nginx" "traefik" ] (kind:
        let found = machine kind own.${{kind}}; in {{
          failed = t.failed found;
          inherit (found) warnings;
          front = found.services.clan-discovery.settings.front;
          config = config kind found;
          units = builtins.mapAttrs (_: unit: unit.text) (t.lib.filterAttrs
            (name: _: t.lib.hasInfix "clan-discovery" name || name == "${{kind}}.service") found.systemd.units);
          rules = ours found;
          ports = t.ports found;
          toplevel = t.toplevel found;
        }})
    """)


@pytest.mark.parametrize("kind", KINDS)
def test_each_proxy_is_a_whole_system(kind: str, machines: Json) -> None:
    """No assertion fails, nothing warns, no port is open, and the proxy keeps its other units' settings."""
    found = at(machines, kind)
    assert (at(found, "failed"), at(found, "warnings"), at(found, "ports")) == ([], [], {})
    assert str(at(found, "toplevel")).endswith(".drv")
    units = at(found, "units")
    assert isinstance(units, dict)
    assert f"PathChanged=/var/lib/clan-discovery/front/clan.{SUFFIXES[kind]}" in str(units["clan-discovery-front.path"])
    assert "clan-discovery/front" in str(units["clan-discovery.service"])
    assert "InaccessiblePaths=-/var/lib/clan-discovery\n" in str(units[f"{kind}.service"])
    assert "ExecReload=" in str(units[f"{kind}.service"])


def test_python_gets_the_proxy(machines: Json) -> None:
    """The key `front` of the config."""
    common: dict[str, Json] = {"machine": "probe", "domain": "home.example.org", "tls": "off"}
    sites: dict[str, Json] = {
        "ports": {"http": 80, "https": 443},
        "refuse_unknown_hosts": True,
        "own_domains": ["own.example.org"],
    }
    assert {kind: at(machines, kind, "front") for kind in KINDS} == {
        kind: {
            "kind": kind,
            "file": f"/var/lib/clan-discovery/front/clan.{SUFFIXES[kind]}",
            **common,
            **({"entry_point": "web"} if kind == "traefik" else sites),
        }
        for kind in KINDS
    }


def test_own_hosts_in_every_spelling(real: Real) -> None:
    """Caddy takes lists of hosts; nginx gives unknown hosts to a site `_`."""
    found = real(f"""
      let
        {MACHINES}
        front = kind: more: (machine kind more).services.clan-discovery.settings.front;
        domains = hosts: (front "caddy" {{
          services.caddy.virtualHosts = t.lib.genAttrs hosts (_: {{ }});
        }}).own_domains;
        refuses = kind: host: (front kind {{
          services.${{kind}}.virtualHosts.${{host}} = {{ }};
        }}).refuse_unknown_hosts;
      in {{
        lists = domains [ "a.example.org, b.example.org" "https://c.example.org:8443,d.example.org" ];
        refuses = {{
          nginx = [ (refuses "nginx" "own.example.org") (refuses "nginx" "_") ];
          caddy = [ (refuses "caddy" "own.example.org,") (refuses "caddy" "own.example.org, :80") ];
        }};
      }}
    """)
    assert at(found, "lists") == ["a.example.org", "b.example.org", "c.example.org", "d.example.org"]
    assert at(found, "refuses") == {"nginx": [True, False], "caddy": [True, False]}


def test_a_ui_for_a_proxy_elsewhere(real: Real) -> None:
    """What listens on loopback is not reached from another machine, so clan-discovery leaves its front out."""
    found = real("""
      t.lib.mapAttrs (_: one: one.loopback) (t.nixos [ {
        services.clan-discovery = {
          settings.web = { };
          front.uis = t.lib.genAttrs [ "grafana" "prometheus" "status" "victoriametrics" ] (_: { enable = true; });
        };
      } ]).services.clan-discovery.expose
    """)
    assert found == {"grafana": True, "prometheus": False, "status": True, "victoriametrics": False}


def included(folder: Path, config: str, kind: str, fronts: str | None) -> Path:
    """Write a proxy's configuration that includes fronts from a folder instead of the state."""
    copies = folder / "fronts"
    copies.mkdir(exist_ok=True)
    if fronts is not None:
        (copies / f"clan.{SUFFIXES[kind]}").write_text(fronts)
    assert f"{COPIES}/*.{SUFFIXES[kind]}" in config
    file = folder / "proxy.conf"
    file.write_text(config.replace(COPIES, str(copies)))
    return file


def caddyfile(real: Real, path: str) -> str:
    """Return the Caddyfile before it is formatted; Debian's Caddy does not know the global option `metrics`."""
    inputs = at(real.derivation(path), "inputDrvs")
    assert isinstance(inputs, dict)
    (raw,) = (name for name in inputs if name.endswith("-Caddyfile.drv"))
    config = str(at(real.derivation(raw), "env", "text"))
    assert re.search(r"^\s*metrics$", config, re.MULTILINE)
    return re.sub(r"^\s*metrics$", "", config, flags=re.MULTILINE)


FRONTS = {
    "caddy": 'http://app.home.example.org {\n\trespond "app"\n}\n',
    "nginx": "server { listen 80; server_name app.home.example.org; return 200 app; }\n",
}


@pytest.mark.parametrize("fronts", [None, FRONTS["caddy"]])
def test_caddy_accepts_the_configuration(fronts: str | None, machines: Json, real: Real, tmp_path: Path) -> None:
    """Also before there is a file of fronts: the own virtual host, the metrics, and then the front."""
    file = included(tmp_path, caddyfile(real, str(at(machines, "caddy", "config"))), "caddy", fronts)
    done = subprocess.run(
        [program("caddy"), "adapt", "--adapter", "caddyfile", "--config", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    servers = json.loads(done.stdout)["apps"]["http"]["servers"].values()
    listens = sorted(address for server in servers for address in server["listen"])
    assert listens == sorted([":443", "127.0.0.1:9180", *([":80"] if fronts else [])])
    assert '"handler":"metrics"' in done.stdout
    assert "own.example.org" in done.stdout
    assert ("app.home.example.org" in done.stdout) is (fronts is not None)


@pytest.mark.parametrize("fronts", [None, FRONTS["nginx"]])
def test_nginx_accepts_the_configuration(fronts: str | None, machines: Json, real: Real, tmp_path: Path) -> None:
    """Also before there is a file of fronts: the own virtual host, the status page, and then the front."""
    made = at(real.derivation(str(at(machines, "nginx", "config"))), "env", "__json")
    config = str(at(json.loads(str(made)), "text"))
    # Files of the store, and what Debian's older nginx does not know.
    config = re.sub(r"include\s+/nix/store/\S+;", "", config)
    config = config.replace("/run/nginx/nginx.pid", str(tmp_path / "pid")).replace("daemon off;", "")
    temporary = "".join(
        f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = config.replace("http {", f"http {{ {temporary} access_log off;", 1)
    # Only root may listen on a port below 1024.
    config = re.sub(r"(listen \S+?):?80 ", r"\1:18080 ", config)
    file = included(tmp_path, config, "nginx", fronts and fronts.replace("80", "18080"))
    done = subprocess.run([program("nginx"), "-T", "-q", "-c", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "stub_status;" in done.stdout
    assert ("server_name app.home.example.org" in done.stdout) is (fronts is not None)


def test_traefik_reads_both_dynamic_configurations(machines: Json, real: Real) -> None:
    """A directory, in which the configuration of NixOS is linked; metrics have an entry point of their own."""
    config = real.document(str(at(machines, "traefik", "config")))
    assert at(config, "providers", "file", "directory") == COPIES
    assert at(config, "entryPoints") == {
        "clan-discovery-metrics": {"address": "127.0.0.1:8082"},
        "web": {"address": ":80"},
    }
    assert at(config, "metrics", "prometheus", "entryPoint") == "clan-discovery-metrics"
    assert at(config, "global") == {"checkNewVersion": False, "sendAnonymousUsage": False}
    assert re.search(rf"L\+ {COPIES}/nixos.toml - - - - /nix/store/\S+", str(at(machines, "traefik", "rules")))


def test_certificates_and_logins(real: Real) -> None:
    """security.acme reloads the proxy, whose user may read the files; systemd reads the users; oauth2-proxy runs."""
    found = real(f"""
      let
        {MACHINES}
        found = machine "nginx" {{
          services.clan-discovery.front = {{
            tls.useACMEHost = "home.example.org";
            openFirewall = true;
            auth.basic.file = "/run/secrets/users";
            auth.oidc.enable = true;
          }};
          services.nginx.virtualHosts."own.example.org" = {{
            default = true;
            forceSSL = true;
            useACMEHost = "home.example.org";
          }};
          services.oauth2-proxy = {{ clientID = "front"; keyFile = "/run/secrets/oauth2-proxy"; }};
          security.acme = {{
            acceptTerms = true;
            defaults.email = "admin@example.org";
            certs."home.example.org" = {{
              domain = "*.home.example.org";
              group = "certificates";
              dnsProvider = "desec";
              environmentFile = "/run/secrets/desec";
            }};
          }};
          users.groups.certificates = {{ }};
          users.users.nginx.extraGroups = [ "certificates" ];
        }};
      in {{
        failed = t.failed found;
        front = found.services.clan-discovery.settings.front;
        ports = t.ports found;
        unit = found.systemd.units."nginx.service".text;
        reloads = found.security.acme.certs."home.example.org".reloadServices;
        oauth2 = found.systemd.services.oauth2-proxy.serviceConfig.ExecStart;
        toplevel = t.toplevel found;
      }}
    """)
    assert at(found, "failed") == []
    assert at(found, "ports") == {"all": [80, 443]}
    assert at(found, "front", "tls") == {
        "certificate": "/var/lib/acme/home.example.org/fullchain.pem",
        "key": "/var/lib/acme/home.example.org/key.pem",
    }
    # The own virtual host answers for unknown hosts.
    assert at(found, "front", "refuse_unknown_hosts") is False
    assert at(found, "front", "auth") == {
        "basic": {"file": "/run/credentials/nginx.service/clan-discovery-users"},
        "oidc": {"url": "http://127.0.0.1:4180"},
    }
    assert "nginx.service" in listed(found, "reloads")
    unit = str(at(found, "unit"))
    assert "SupplementaryGroups=certificates" in unit
    assert "LoadCredential=clan-discovery-users:/run/secrets/users" in unit
    assert "--set-xauthrequest" in str(at(found, "oauth2"))


REFUSED = {
    "caddy": (
        """
          services.caddy = {
            globalConfig = "admin 0.0.0.0:2019\\nadmin off\\nadmin \\":2020\\" {\\n}";
            settings.admin.listen = "[::]:2019";
            configFile = "/etc/Caddyfile";
            enableReload = false;
            resume = true;
          };
          services.clan-discovery.front.metrics.port = 2019;
          services.clan-discovery.front.tls.certificate = "/x";
          services.clan-discovery.front.uis.grafana.enable = true;
        """,
        (
            "the admin API listens on 0.0.0.0:2019, and every client that can connect can replace",
            "the admin API listens on :2020",
            "the admin API listens on [::]:2019",
            "has `admin off`, without which Caddy cannot reload the fronts",
            "services.caddy.settings replaces the whole Caddyfile",
            "services.caddy.configFile replaces the whole Caddyfile",
            "would break connections: set it to true",
            "starts with an old configuration",
            "front.metrics.port is 2019, the port of Caddy's admin API",
            "front.tls needs either `useACMEHost`, or `certificate` and `key`",
            "front.uis.grafana is enabled, but services.grafana.enable is not set",
        ),
    ),
    "nginx": (
        """
          services.nginx.httpConfig = "server { }";
          services.clan-discovery.front.tls = "acme";
        """,
        (
            "services.nginx.httpConfig replaces the whole http block",
            "set front.tls.useACMEHost to a certificate of security.acme.certs, such as one for *.home.example.org",
        ),
    ),
    "traefik": (
        """
          services.traefik.staticConfigFile = "/etc/traefik.toml";
          services.traefik.staticConfigOptions = {
            api.insecure = true;
            entryPoints.http.address = ":80";
            providers.file.directory = "/etc/traefik";
          };
          services.clan-discovery.front.tls = "internal";
        """,
        (
            "api.insecure serves the API and the dashboard to every client that can connect to port 8080",
            "the entry points http and web have port 80: set front.entryPoints.http",
            "providers.file.directory is /etc/traefik, but the fronts are in /var/lib/clan-discovery-front",
            "services.traefik.staticConfigFile replaces the entry points",
            'front.tls is "internal", which only Caddy has',
        ),
    ),
}


def test_what_exposes_the_proxy_or_hides_the_fronts_is_refused(real: Real) -> None:
    """One assertion for each mistake, which names the fix; an admin API that nobody else reaches is none."""
    cases = "".join(f"{kind} = t.failed (machine {text(kind)} {{ {more} }});" for kind, (more, _) in REFUSED.items())
    closed = ("localhost:2019", "127.0.0.1:2020", "[::1]:2019", "unix//run/caddy.sock", "{$ADMIN}")
    admins = text("\n".join(f"admin {address}" for address in closed))
    found = real(f"""
      let {MACHINES} in {{
        {cases}
        closed = t.failed (machine "caddy" {{ services.caddy.globalConfig = {admins}; }});
        oidc = map (secure: t.failed (machine "caddy" {{
          services.clan-discovery.front.auth.oidc.enable = true;
          services.oauth2-proxy.cookie = {{ inherit secure; }};
          services.oauth2-proxy.clientID = "fronts";
        }})) [ true false ];
      }}
    """)
    assert at(found, "closed") == []
    secure, insecure = (str(messages) for messages in listed(found, "oidc"))
    assert "browsers keep the cookie of oauth2-proxy with https alone" in secure
    assert "browsers keep" not in insecure
    for kind, (_, parts) in REFUSED.items():
        messages = [str(message) for message in listed(found, kind)]
        assert len(messages) == len(parts), messages
        for part in parts:
            assert sum(part in message for message in messages) == 1, part


def test_the_role_front(real: Real) -> None:
    """A machine of the tailnet runs the proxy; its metrics are a target of the server, open on the tailnet only."""
    found = real("""
      let
        clan = t.clan {
          inventory = {
            machines = { gate = { }; monitor = { }; };
            instances.monitoring = {
              module = { name = "prometheus"; input = "clan-discovery"; };
              roles.server.machines.monitor.settings.discoveryMethod = "tailscale";
              roles.exporter.machines = { gate = { }; monitor = { }; };
              roles.front.machines.gate.settings = {
                kind = "nginx";
                domain = "home.example.org";
                tls = { certificate = "/var/lib/certs/home.pem"; key = "/var/lib/certs/home.key"; };
                auth.forward = { url = "http://127.0.0.1:9091/check"; headers = [ "Remote-User" ]; };
                openFirewall = true;
              };
            };
          };
          machines.gate = {
            networking.hostName = "edge-1";
            services.tailscale.enable = true;
          };
          machines.monitor.services.tailscale.enable = true;
        };
        seen = config: {
          failed = t.failed config;
          inherit (config) warnings;
          inherit (config.services.clan-discovery) jobs mode;
          ports = t.ports config;
          toplevel = t.toplevel config;
        };
        configs = t.configs clan;
      in {
        gate = seen configs.gate;
        monitor = seen configs.monitor;
        front = configs.gate.services.clan-discovery.settings.front;
        inventory = configs.gate.services.clan-discovery.settings.inventory.file.drvPath;
        listens = configs.gate.services.prometheus.exporters.nginx.listenAddress;
      }
    """)
    for machine in ("gate", "monitor"):
        assert (at(found, machine, "failed"), at(found, machine, "warnings")) == ([], [])
        assert at(found, machine, "jobs") == ["nginx", "node", "prometheus"]
        assert at(found, machine, "mode") == "resident"
    assert at(found, "gate", "ports") == {"all": [80, 443], "tailscale0": [9100, 9113]}
    assert at(found, "monitor", "ports") == {"tailscale0": [9090, 9100]}
    assert at(found, "listens") == "[::]"
    assert at(found, "front", "machine") == "gate"
    assert at(found, "front", "tls") == {"certificate": "/var/lib/certs/home.pem", "key": "/var/lib/certs/home.key"}
    forward: Json = {"url": "http://127.0.0.1:9091/check", "headers": ["Remote-User"]}
    assert at(found, "front", "auth") == {"forward": forward}
    inventory = real.document(str(at(found, "inventory")))
    # Nothing else of the settings is world-readable.
    front: Json = {"kind": "nginx", "metrics": {"enable": True, "port": None}}
    roles = at(inventory, "instances", "monitoring", "roles")
    assert at(roles, "front", "machines", "gate", "settings") == front
