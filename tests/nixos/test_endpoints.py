"""The names of servers: clan-core's own DNS and certificate services (dm-dns, pki) take them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.nix import at

if TYPE_CHECKING:
    from clan_discovery.model import Json
    from tests.support.nixos import Real

CLANS = """
  clanOf = server: more: t.clan {
    inventory = {
      machines.monitor.tags = [ "scrapes" ];
      machines.db = { };
      machines.resolver = { };
      instances.monitoring = {
        module = { name = "prometheus"; input = "clan-discovery"; };
        roles.server.tags.scrapes = { };
        roles.server.settings = { firewallInterfaces = [ ]; } // server;
      };
      instances.dns = { module.name = "dm-dns"; roles.default.machines.resolver = { }; };
      instances.pki = { module.name = "pki"; roles.default.machines.monitor = { }; };
      imports = [ more ];
    };
    # The data mesher itself is a stub.
    machines.resolver = { lib, ... }: { options.services.data-mesher = lib.mkOption { type = lib.types.raw; }; };
  };
  hosts = server: more: builtins.mapAttrs (_: scope: scope.endpoints.hosts) (
    t.lib.filterAttrs (name: _: t.lib.hasPrefix "prometheus:" name) (clanOf server more).exports
  );
  two.machines.db.tags = [ "scrapes" ];
  generators = config: config.clan.core.vars.generators;
"""


@pytest.fixture(scope="module")
def answer(real: Real) -> Json:
    """Return what the tests ask of several clans, from one evaluation."""
    return real(f"""
      let
        {CLANS}
        one = t.configs (clanOf {{ }} {{ }});
        both = t.configs (clanOf {{ endpoints = [ "metrics.home.arpa" ]; }} two);
        taken = t.configs (clanOf {{ }} {{ machines.prometheus = {{ }}; }});
      in {{
        zone = (generators one.resolver).dm-dns.validation.zoneContent;
        certificate = (generators one.monitor).cert-prometheus.validation;
        failed = map t.failed [ both.monitor both.db taken.monitor ];
        hosts = {{
          one = hosts {{ }} {{ }};
          two = hosts {{ }} two;
          agent = hosts {{ enableAgentMode = true; }} {{ }};
          vmagent = hosts {{ backend = "vmagent"; }} {{ }};
          loopback = hosts {{ listenAddress = "127.0.0.1"; }} {{ }};
          none = hosts {{ endpoints = [ ]; }} {{ }};
          chosen = hosts {{ }} {{
            imports = [ two ];
            instances.monitoring.roles.server.machines.db.settings.endpoints = [ "metrics.home.arpa" ];
          }};
          beside_an_agent = hosts {{ }} {{
            imports = [ two ];
            instances.monitoring.roles.server.machines.db.settings.backend = "vmagent";
          }};
          machine = hosts {{ }} {{
            machines.prometheus = {{ }};
            instances.monitoring.roles.exporter.machines.prometheus = {{ }};
          }};
          mistyped = hosts {{ }} {{
            imports = [ two ];
            instances.monitoring.roles.server.machines.db.settings.backend = 5;
          }};
        }};
      }}
    """)


MONITOR, DB = "prometheus:monitoring:server:monitor", "prometheus:monitoring:server:db"


def test_dns_and_certificates_come_by_themselves(answer: Json) -> None:
    """As clan-core's services write them."""
    assert '"prometheus.home.arpa. CNAME monitor.home.arpa."' in str(at(answer, "zone"))
    assert at(answer, "certificate") == {"domain": "home.arpa", "endpoint": "prometheus"}


def test_the_only_server_has_the_name(answer: Json) -> None:
    """Agents and servers on loopback have none, and they do not count."""
    hosts = at(answer, "hosts")
    assert at(hosts, "one") == {MONITOR: ["prometheus.home.arpa"]}
    assert at(hosts, "beside_an_agent") == {MONITOR: ["prometheus.home.arpa"], DB: []}
    for case in ("agent", "vmagent", "loopback", "none"):
        assert at(hosts, case) == {MONITOR: []}, case


def test_a_name_never_points_at_two_machines(answer: Json) -> None:
    """Several servers have no default; the same name twice is an assertion on both, and so is a machine's name."""
    hosts = at(answer, "hosts")
    assert at(hosts, "two") == {MONITOR: [], DB: []}
    assert at(hosts, "machine") == {MONITOR: []}
    assert at(hosts, "chosen") == {MONITOR: [], DB: ["metrics.home.arpa"]}
    where = "clan-discovery: instances.monitoring.roles.server.machines.{}.settings.endpoints: metrics.home.arpa is"
    own = where.format("monitor").partition(" metrics")[0]
    assert at(answer, "failed") == [
        [f"{where.format('monitor')} exported by {DB}, too: remove it here or there"],
        [f"{where.format('db')} exported by {MONITOR}, too: remove it here or there"],
        [f"{own} prometheus.home.arpa is the name of the machine prometheus: set other names, or [ ] for none"],
    ]


def test_a_mistyped_setting_of_one_server_is_that_servers_own(answer: Json) -> None:
    """The other one still exports; it has no name, because there are two servers."""
    assert at(answer, "hosts", "mistyped", MONITOR) == []
