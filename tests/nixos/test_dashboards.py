"""Grafana on a real NixOS, with clan-core and without: datasources, secrets, boards, and what an evaluation refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.nix import ROOT, at, listed

if TYPE_CHECKING:
    from clan_discovery.model import Json
    from tests.support.nixos import Real

pytestmark = pytest.mark.timeout(900)

BOARDS = sorted((ROOT / "clan_discovery/data/dashboards").glob("*.json"))
PAGE = "http://status.home.example.org"
CREDENTIALS = "/run/credentials/grafana.service"
WHERE = "clan-discovery: instances.monitoring.roles"

# `nas` has Grafana, a store of metrics and Loki; Grafana reaches `mon`, too, but not the loopback of `web`.
CLAN = """
  clan = extra: (t.clan {
    machines = t.lib.genAttrs [ "dino" "mon" "nas" "web" ] (_: { sops.age.keyFile = "/var/lib/sops-nix/key.txt"; });
    inventory = t.lib.recursiveUpdate {
      machines = { dino = { }; mon = { }; nas = { }; web = { }; };
      instances.monitoring = {
        module = { name = "prometheus"; input = "clan-discovery"; };
        roles.server.settings.firewallInterfaces = [ "wg0" ];
        roles.server.machines = {
          mon.settings.webExternalUrl = "https://mon.example.org/prometheus/";
          nas.settings = { backend = "victoriametrics"; listenAddress = "127.0.0.1"; scrapeServers = false; };
          web.settings = { listenAddress = "127.0.0.1"; scrapeServers = false; };
        };
        roles.front.machines.nas.settings = {
          firewallInterfaces = [ ];
          domain = "home.example.org";
          tls = { certificate = "/run/secrets/crt"; key = "/run/secrets/key"; };
        };
        roles.agent.machines.dino = { };
        roles.logs.machines.nas.settings.backend = "loki";
        roles.dashboards.machines.nas.settings = {
          oidc = { enable = true; clientId = "grafana"; authUrl = "https://id/auth"; tokenUrl = "https://id/token"; };
          database.type = "postgres";
        };
      };
    } extra;
  }).nixosConfigurations;
"""
PLAIN = """
  machine = modules: t.evaluated ([ {
    services.clan-discovery = {
      front.domain = "home.example.org";
      settings.web = { };
      front.uis.status.enable = true;
      stack = {
        server = { enable = true; backend = "victoriametrics"; };
        logs.enable = true;
        front.enable = true;
        dashboards = {
          enable = true;
          adminPasswordFile = "/run/secrets/admin";
          secretKeyFile = "/run/secrets/key";
        };
      };
    };
  } ] ++ modules);
"""


@pytest.fixture(scope="module")
def answer(real: Real) -> Json:
    """Return what the tests read of the clan and of the machine without one."""
    return real(f"""
      let
        {CLAN}
        {PLAIN}
        seen = system: let inherit (system) config; in {{
          failed = t.refused system;
          warnings = t.warned system;
          sources = map (t.lib.filterAttrs (_: value: value != null))
            config.services.grafana.provision.datasources.settings.datasources;
          credentials = config.systemd.services.grafana.serviceConfig.LoadCredential;
          inherit (config.services.grafana) declarativePlugins settings;
          inherit (config.services.grafana.provision.dashboards.settings) providers;
        }};
        found = clan {{ }};
        nas = found.nas.config;
        system = machine [ ];
        plain = system.config;
      in {{
        clan = seen found.nas // {{
          generators = t.lib.mapAttrs (_: one: {{
            files = builtins.attrNames one.files;
            prompts = builtins.attrNames one.prompts;
          }}) nas.clan.core.vars.generators;
          postgresql = {{ inherit (nas.services.postgresql) enable ensureDatabases; }};
        }};
        tenants = (t.lib.head (builtins.attrNames (builtins.getContext (t.lib.last
          nas.services.grafana.provision.datasources.settings.datasources).secureJsonData.httpHeaderValue1)));
        others = t.lib.mapAttrs (_: system: [ system.config.services.grafana.enable ] ++ t.refused system) found;
        plain = seen system // {{
          ports = t.ports plain;
          fronts = t.lib.mapAttrs (_: one: one.front.domain or null) plain.services.clan-discovery.expose;
        }};
        boards = (import {ROOT}/nix/nixos/dashboards/boards.nix {{ inherit (t) lib; pkgs = null; }}).of "{PAGE}";
      }}
    """)


def test_grafana_has_each_server_and_store_that_it_reaches(answer: Json) -> None:
    """Its own first, which is the default; a warning names the others."""
    sources = listed(answer, "clan", "sources")
    assert [(at(one, "name"), at(one, "type"), at(one, "url")) for one in sources] == [
        ("nas", "prometheus", "http://127.0.0.1:8428"),
        ("mon", "prometheus", "http://mon.home.arpa:9090/prometheus"),
        ("nas logs", "loki", "http://127.0.0.1:3100"),
    ]
    assert [one for one in sources if isinstance(one, dict) and one.get("isDefault")] == sources[:1]
    assert at(answer, "clan", "warnings") == [
        (
            f"{WHERE}.dashboards.machines.nas.settings: Grafana has no datasource for "
            "instances.monitoring.roles.server.machines.web.settings, which listens on 127.0.0.1, where nas does not "
            "reach it: give the role dashboards to its machine, or let it listen on the clan's network, or add a "
            "datasource named 'web' to `datasources`"
        )
    ]
    assert at(answer, "others") == {"dino": [False], "mon": [False], "nas": [True], "web": [False]}


def test_grafana_reads_the_logs_of_each_agent(answer: Json, real: Real) -> None:
    """Loki has a tenant for each. It is no secret, and nixpkgs would warn of a plain value."""
    store = listed(answer, "clan", "sources")[2]
    assert at(store, "jsonData") == {"httpHeaderName1": "X-Scope-OrgID"}
    header = str(at(store, "secureJsonData", "httpHeaderValue1"))
    assert header.startswith("$__file{/nix/store/")
    assert header.endswith("-clan-discovery-tenants}")
    assert at(real.derivation(str(at(answer, "tenants"))), "env", "text") == "dino"


def test_clan_vars_make_the_secrets(answer: Json) -> None:
    """The password and the key are random; the client's secret is asked for. Grafana reads files of systemd."""
    generators = at(answer, "clan", "generators")
    assert at(generators, "prometheus-grafana") == {"files": ["admin-password", "secret-key"], "prompts": []}
    assert at(generators, "prometheus-grafana-oidc") == {"files": ["client-secret"], "prompts": ["client-secret"]}
    names = [str(line).partition(":")[0] for line in listed(answer, "clan", "credentials")]
    assert names == ["admin-password", "oidc-secret", "secret-key"]
    settings = at(answer, "clan", "settings")
    assert at(settings, "security", "secret_key") == f"$__file{{{CREDENTIALS}/secret-key}}"
    assert at(settings, "security", "admin_password") == f"$__file{{{CREDENTIALS}/admin-password}}"
    assert at(settings, "auth.generic_oauth", "client_secret") == f"$__file{{{CREDENTIALS}/oidc-secret}}"
    assert at(settings, "security", "cookie_secure") is False  # without a front of its own


def test_the_database_is_postgres_over_its_socket(answer: Json) -> None:
    """NixOS makes the database and its user."""
    assert at(answer, "clan", "postgresql") == {"enable": True, "ensureDatabases": ["grafana"]}
    database = at(answer, "clan", "settings", "database")
    assert [at(database, name) for name in ("type", "host", "user")] == ["postgres", "/run/postgresql", "grafana"]
    assert at(answer, "plain", "settings", "database", "type") == "sqlite3"


def test_the_components_of_one_machine_find_each_other(answer: Json) -> None:
    """Without a clan: the server, the store of logs with its plugin, and the front."""
    plain = at(answer, "plain")
    assert at(plain, "failed") == []
    assert at(plain, "warnings") == []
    sources = listed(plain, "sources")
    assert [(at(one, "name"), at(one, "type"), at(one, "url")) for one in sources] == [
        ("probe", "prometheus", "http://127.0.0.1:8428"),
        ("probe logs", "victoriametrics-logs-datasource", "http://127.0.0.1:9428"),
    ]
    (plugin,) = listed(plain, "declarativePlugins")
    assert "victoriametrics-logs-datasource" in str(plugin)
    assert at(plain, "credentials") == ["admin-password:/run/secrets/admin", "secret-key:/run/secrets/key"]
    assert at(plain, "fronts", "grafana") == "grafana"
    server = at(plain, "settings", "server")
    assert at(server, "http_addr") == "127.0.0.1"
    assert at(server, "root_url") == "http://grafana.home.example.org/"
    assert at(plain, "ports") == {}


def test_boards_link_to_the_status_page(answer: Json) -> None:
    """Each board of the package, with the URL of the front of the status page in its constant `page`."""
    (provider,) = listed(answer, "plain", "providers")
    assert at(provider, "disableDeletion") is False  # a board that is gone is removed
    assert str(at(provider, "options", "path")).endswith("-clan-discovery-boards")
    home = at(answer, "plain", "settings", "dashboards", "default_home_dashboard_path")
    assert home == f"{at(provider, 'options', 'path')}/fleet.json"
    boards = at(answer, "boards")
    assert isinstance(boards, dict)
    assert sorted(boards) == [path.name for path in BOARDS]
    for path in BOARDS:
        written = json.loads(path.read_text())
        pages = [one for one in written["templating"]["list"] if one["name"] == "page"]
        for one in pages:
            option = {"selected": True, "text": PAGE, "value": PAGE}
            one |= {"query": PAGE, "current": {"text": PAGE, "value": PAGE}, "options": [option]}
        assert len(pages) == 1
        assert boards[path.name] == written


# Settings of the machine without a clan, and the message that refuses them.
MISTAKES = {
    "no server": (
        "stack.server.enable = t.lib.mkForce false;",
        (
            ": there is no server to show: enable stack.server on this machine, or name one of another machine in "
            '`datasources`, with type = "prometheus" and its url (in a clan: give the role server to a machine)'
        ),
    ),
    "no password": (
        "stack.dashboards.adminPasswordFile = t.lib.mkForce null;",
        (
            ".adminPasswordFile is not set, and the password would be `admin`: write one to a file on the machine, and "
            "set its path"
        ),
    ),
    "no key": (
        "stack.dashboards.secretKeyFile = t.lib.mkForce null;",
        ".secretKeyFile is not set: write `openssl rand -hex 32` to a file on the machine, and set its path",
    ),
    "a secret in the store": (
        'stack.dashboards.secretKeyFile = t.lib.mkForce "${builtins.toFile "key" "x"}";',
        (
            "-key, in the Nix store, which every user can read: write the path of a file on the machine as a string, "
            'for example "/run/secrets/grafana"'
        ),
    ),
    "a password of a datasource": (
        'stack.dashboards.datasources = [ { name = "old"; type = "influxdb"; secureJsonData.password = "x"; } ];',
        (
            ".datasources (old): secureJsonData.password: every user could read it in the Nix store: write it to a "
            'file on the machine, and set "$__file{/run/secrets/grafana}"'
        ),
    ),
    "a secret of OpenID Connect": (
        'stack.dashboards.oidc.settings.client_secret = "x";',
        (
            ".oidc.settings.client_secret: every user could read it in the Nix store: write it to a file on the "
            'machine, and set "$__file{/run/secrets/grafana}"'
        ),
    ),
    "half of OpenID Connect": (
        'stack.dashboards.oidc = { enable = true; clientId = "grafana"; };',
        ".oidc: authUrl, clientSecretFile, tokenUrl must be set",
    ),
    "one name twice": (
        'stack.dashboards.datasources = [ { name = "probe"; type = "prometheus"; url = "http://archive:9090"; } ];',
        ".datasources: probe is the name of two datasources: rename one of them",
    ),
}


def test_an_evaluation_refuses_mistakes(real: Real) -> None:
    """Each mistake gives its message, and Grafana no other."""
    changes = " ".join(f"{json.dumps(name)} = {{ {said} }};" for name, (said, _) in MISTAKES.items())
    found = real(f"""
      let
        {PLAIN}
      in t.lib.mapAttrs (_: change: t.refused (machine [ {{ services.clan-discovery = change; }} ])) {{ {changes} }}
    """)
    for name, (_, message) in MISTAKES.items():
        (said,) = (one for one in listed(found, name) if "stack.dashboards" in str(one))
        assert str(said).startswith("services.clan-discovery.stack.dashboards"), name
        assert str(said).endswith(message), name
