"""Any components of the stack together on a real NixOS, and what another component changes in their units.

Without a clan they are all on one machine; through clan-core the agent and the exporter are on another one.
"""

from __future__ import annotations

import json
from itertools import combinations
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clan_discovery.model import Json
    from tests.support.nixos import Real

pytestmark = pytest.mark.timeout(900)

COMPONENTS: Final = ("agent", "alerting", "dashboards", "exporter", "front", "logs")
"""The optional ones, beside `server`."""

ADDED: Final = {
    "agent": {"clan-discovery-agent", "clan-discovery-cursor", "clan-discovery-logs", "systemd-journal-upload"},
    "alerting": {"alertmanager"},
    "dashboards": {"grafana"},
    "exporter": {"prometheus-node-exporter", "prometheus-systemd-exporter"},
    "front": {"caddy", "clan-discovery-front", "clan-discovery-front-changed"},
    # The agent sends logs where there is a store for them.
    "logs": {"clan-discovery-cursor", "clan-discovery-logs", "systemd-journal-upload", "victorialogs"},
}
"""The services that a component may add."""

# The server scrapes every component, and the agent reads those of its own machine.
SCRAPING: Final = {"clan-discovery", "clan-discovery-agent", "prometheus"}
READERS: Final = {
    # An agent sends what node exporter says, so that it must not read the metrics of the unit.
    "agent": SCRAPING | {"prometheus-node-exporter"},
    "alerting": SCRAPING,
    # Mails link to Grafana where it has a front.
    "dashboards": SCRAPING | {"alertmanager"},
    # The metrics of the unit are in a file that it reads.
    "exporter": SCRAPING,
    # Its domain is in Grafana's URL.
    "front": SCRAPING | {"alertmanager", "grafana"},
    "logs": SCRAPING | {"grafana"},
}
"""The services that read a component: only their units may change with it."""

MACHINE: Final = """
  # One instance of nixpkgs for all.
  inherit ((t.evaluated [ ])._module.args) pkgs;
  machine = on: t.evaluated [ {
    nixpkgs.pkgs = pkgs;
    services.clan-discovery = {
      front.domain = "home.example.org";
      agent = { tokenFile = "/run/secrets/token"; urls = [ "https://push.example.org" ]; };
      stack.server.enable = true;
      stack.alerting.mail = {
        to = [ "admin@example.org" ];
        from = "alerts@example.org";
        smarthost = "mail.example.org:587";
      };
      stack.dashboards = { adminPasswordFile = "/run/secrets/admin"; secretKeyFile = "/run/secrets/key"; };
    };
  } {
    services.clan-discovery.stack = t.lib.genAttrs on (_: { enable = true; });
  } ];
"""
CLAN: Final = """
  clan = on: t.clan {
    inventory = {
      machines = { hub = { }; edge = { }; };
      instances.monitoring = {
        module = { name = "prometheus"; input = "clan-discovery"; };
        roles = {
          server.machines.hub.settings = {
            backend = "victoriametrics";
            listenAddress = "127.0.0.1";
            scrapeServers = false;
          };
        } // t.lib.getAttrs on {
          agent.machines.edge.settings.token.file = "/run/secrets/token";
          alerting.machines.hub.settings.mail = {
            to = [ "admin@example.org" ];
            from = "alerts@example.org";
            smarthost = "mail.example.org:587";
          };
          dashboards.machines.hub.settings = {
            adminPasswordFile = "/run/secrets/admin";
            secretKeyFile = "/run/secrets/key";
          };
          exporter.tags.all = { };
          exporter.settings.firewallInterfaces = [ "wg0" ];
          front.machines.hub.settings = {
            firewallInterfaces = [ "wg0" ];
            domain = "home.example.org";
            tls = { certificate = "/run/secrets/crt"; key = "/run/secrets/key"; };
            receive.tokens.edge = [ "/run/secrets/agent-edge" ];
          };
          logs.machines.hub = { };
        };
      };
    };
  };
"""
NO_FRONT: Final = [
    (
        "services.clan-discovery.agent.urls is empty: set it to the machines that receive, for example "
        '[ "https://push.home.example.org" ]'
    ),
    (
        "clan-discovery: instances.monitoring.roles.agent.machines.edge.settings: no machine receives what edge sends: "
        "give the role front to a machine beside a VictoriaMetrics, or set `urls`"
    ),
]


def subsets() -> Iterator[tuple[str, ...]]:
    """Return every set of optional components."""
    for size in range(len(COMPONENTS) + 1):
        yield from combinations(COMPONENTS, size)


def expression(chosen: list[tuple[str, ...]]) -> str:
    """Write sets of components by name, as an attribute set of lists."""
    lists = ((one, " ".join(json.dumps(name) for name in one)) for one in chosen)
    return f"{{ {' '.join(f'{json.dumps(key(one))} = [ {names} ];' for one, names in lists)} }}"


def key(components: tuple[str, ...]) -> str:
    """Return the name of a set of components."""
    return "+".join(components)


def test_roles_of_a_clan_evaluate(real: Real) -> None:
    """All roles, with a VictoriaMetrics; and an agent without a front, which is told who could receive."""
    found = real(f"""
      let
        {CLAN}
        seen = system: {{ refused = t.refused system; warned = t.warned system; }};
      in t.lib.mapAttrs (_: on: t.lib.mapAttrs (_: seen) (clan on).nixosConfigurations)
        {expression([("agent",), COMPONENTS])}
    """)
    good: Json = {"refused": [], "warned": []}
    assert found == {
        "agent": {"edge": {"refused": [*NO_FRONT], "warned": []}, "hub": good},
        key(COMPONENTS): {"edge": good, "hub": good},
    }


def compared() -> list[tuple[str, ...]]:
    """Return no component, each alone, all but one, and all."""
    few = [(), *((name,) for name in COMPONENTS)]
    return [*few, *(tuple(other for other in COMPONENTS if other != name) for name in COMPONENTS), COMPONENTS]


@pytest.fixture(scope="module")
def units(real: Real) -> dict[str, dict[str, str]]:
    """Return the hash of each service's unit that is not in every NixOS, by set of components."""
    found = real(f"""
      let
        {MACHINE}
        plain = builtins.attrNames (t.evaluated [ {{ nixpkgs.pkgs = pkgs; }} ]).config.systemd.services;
        seen = system: t.lib.genAttrs (
          t.lib.subtractLists plain (builtins.attrNames system.config.systemd.services)
        ) (name: builtins.hashString "sha256" (t.unit system name));
      in t.lib.mapAttrs (_: on: seen (machine on)) {expression(compared())}
    """)
    assert isinstance(found, dict)
    answer: dict[str, dict[str, str]] = {}
    for name, services in found.items():
        assert isinstance(services, dict)
        answer[name] = {service: str(digest) for service, digest in services.items()}
    return answer


def test_a_component_changes_only_its_own_units_and_those_of_its_readers(units: dict[str, dict[str, str]]) -> None:
    """Alone beside the server, and beside all others: a unit with the same text is not restarted."""
    for component in COMPONENTS:
        others = tuple(other for other in COMPONENTS if other != component)
        for before, after in ((units[""], units[component]), (units[key(others)], units[key(COMPONENTS)])):
            assert before.keys() <= after.keys(), component
            assert after.keys() - before.keys() <= ADDED[component], component
            changed = {name for name in before if before[name] != after[name]}
            assert changed <= READERS[component], component
        assert units[component].keys() - units[""].keys(), f"{component} adds nothing"


QUARTERS: Final = ((), ("front",), ("logs",), ("front", "logs"))
"""All 64 sets in four parts, which run at the same time."""


def quarter(part: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the sets that have these of `front` and `logs`."""
    return [one for one in subsets() if set(part) == {"front", "logs"} & set(one)]


@pytest.mark.parametrize("part", QUARTERS, ids=key)
def test_any_components_of_one_machine_evaluate(part: tuple[str, ...], real: Real) -> None:
    """All sets beside the server, by the options of the stack; no assertion fails and nothing warns."""
    found = real(f"""
      let
        {MACHINE}
        seen = system: {{ refused = t.refused system; warned = t.warned system; }};
      in t.lib.mapAttrs (_: on: seen (machine on)) {expression(quarter(part))}
    """)
    assert isinstance(found, dict)
    assert len(found) == 16
    for name, said in found.items():
        assert said == {"refused": [], "warned": []}, name
