"""Servers that share targets by rendezvous hashing, through clan-core on a real NixOS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.nix import at, listed

if TYPE_CHECKING:
    from clan_discovery.model import Json
    from tests.support.nixos import Real

pytestmark = pytest.mark.timeout(900)

SERVERS = ("mon1", "mon2", "mon3")

# Three servers by tag, the mac that the tag names, too, and an exporter.
CLAN = """
  clan = extra: (t.clan {
    inventory = t.lib.recursiveUpdate {
      machines = t.lib.genAttrs [ "mon1" "mon2" "mon3" ] (_: { tags = [ "scrapes" ]; }) // {
        db = { };
        mac = { machineClass = "darwin"; tags = [ "scrapes" ]; };
      };
      instances.monitoring = {
        module = { name = "prometheus"; input = "clan-discovery"; };
        roles.server = {
          tags.scrapes = { };
          settings = {
            sharding = "rendezvous";
            replicas = 2;
            firewallInterfaces = [ ];
            additionalScrapeConfigs = [
              { job_name = "own"; static_configs = [ { targets = [ "10.0.0.1:80" ]; } ]; }
              { job_name = "here"; static_configs = [ { targets = [ "127.0.0.1:80" ]; } ]; }
            ];
          };
        };
        roles.exporter.machines.db.settings.firewallInterfaces = [ ];
      };
    } extra;
  });
  servers = extra: (clan extra).nixosConfigurations;
  with_ = roles: servers { instances.monitoring.roles = roles; };
  machine = name: settings: with_ { server.machines.${name}.settings = settings; };
"""


@pytest.fixture(scope="module")
def answer(real: Real) -> Json:
    """Return what the tests read of the clan, and of the same clan with changes and with mistakes."""
    return real(f"""
      let
        {CLAN}
        seen = system: let inherit (system) config; in {{
          inherit (config.services.clan-discovery.settings) shard;
          rules = map (job: job.relabel_configs or [ ]) (t.jobs config);
          jobs = map (job: job.job_name) (t.jobs config);
          scrapers = t.lib.mapAttrs (_: one: one.url) config.services.clan-discovery.settings.verify.scrapers;
          failed = t.refused system;
        }};
        plain = servers {{ }};
        joins = machine "mon3" {{ shardState = "joining"; shardWeight = 2; webExternalUrl = "https://m/p"; }};
      in {{
        plain = t.lib.genAttrs [ "mon1" "mon2" "mon3" ] (name: seen plain.${{name}});
        joins = seen joins.mon1;
        joined = seen joins.mon3;
        toplevel = t.toplevel plain.mon1.config;
        set = (seen ((clan {{ }}).nixosConfigurations.mon2.extendModules {{
          modules = [ {{ services.clan-discovery.settings.shard.replicas = 1; }} ];
        }})).shard;
        typos = map (settings: (builtins.tryEval (
          builtins.toJSON (machine "mon2" settings).mon2.config.services.clan-discovery.settings.shard
        )).success) [
          {{ shardWeight = 3; }}
          {{ shardState = "leave"; }}
          {{ shardWeight = 0; }}
          {{ replicas = t.lib.mkForce 0; }}
          {{ sharding = t.lib.mkForce "rendevous"; }}
        ];
        other = t.refused (machine "mon2" {{ shardState = "leave"; }}).mon1;
      }}
    """)


def test_each_server_names_itself_and_all_members(answer: Json) -> None:
    """The tag's members, without the mac; nothing is refused, up to the derivation of the system."""
    for name in SERVERS:
        assert at(answer, "plain", name, "failed") == []
        assert at(answer, "plain", name, "shard") == {
            "member": name,
            "replicas": 2,
            "members": {server: {} for server in SERVERS},
            "unshared": ["clan-discovery", "prometheus"],
        }
    assert str(at(answer, "toplevel")).endswith(".drv")


def test_only_own_jobs_have_rules(answer: Json) -> None:
    """The others are shared before they are written. A job on loopback is that of each server."""
    parts: list[str] = []
    for name in SERVERS:
        of = at(answer, "plain", name)
        jobs = [str(job) for job in listed(of, "jobs")]
        assert jobs == ["prometheus", "node", "here", "own"]
        *others, shared = listed(of, "rules")
        assert others == [[], [], []]
        hashed, kept = listed({"own": shared}, "own")
        assert (at(hashed, "action"), at(hashed, "modulus"), at(kept, "action")) == ("hashmod", 3, "keep")
        parts += str(at(kept, "regex")).split("|")
    assert sorted(parts) == ["0", "0", "1", "1", "2", "2"]


def test_a_server_joins(answer: Json) -> None:
    """Its state and weight are in the list of each server; own jobs have no rules until it is active."""
    members: Json = {"mon1": {}, "mon2": {}, "mon3": {"state": "joining", "weight": 2}}
    for name in ("joins", "joined"):
        assert at(answer, name, "shard", "members") == members
        assert at(answer, name, "failed") == []
        assert listed(answer, name, "rules") == [[], [], [], []]


def test_verify_asks_all_members_by_name(answer: Json) -> None:
    """At the URLs at which they are scraped."""
    assert at(answer, "joins", "scrapers") == {
        "mon1": "http://127.0.0.1:9090",
        "mon2": "http://mon2.home.arpa:9090",
        "mon3": "http://mon3.home.arpa:9090/p",
    }


def test_the_machine_itself_wins(answer: Json) -> None:
    """A value in its own configuration replaces that of the role."""
    assert at(answer, "set", "replicas") == 1


def test_a_typo_fails_its_server_alone(answer: Json) -> None:
    """A state, a weight, a number of replicas and a kind that do not exist."""
    assert at(answer, "typos") == [True, False, False, False, False]
    assert at(answer, "other") == []
