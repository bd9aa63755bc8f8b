"""Role `front` of the clan service: its reverse proxy is a target, and wrong settings are reported."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from clan_discovery.errors import InputError
from clan_discovery.inventory.clan.declare import Options, declare
from clan_discovery.inventory.clan.wire import parse_inventory

if TYPE_CHECKING:
    from clan_discovery.model import Declared, Json


def read(settings: Json, machine: Json = None, name: str = "web") -> Declared:
    """Read a clan in which one machine has the role front, with settings of the role and of the machine."""
    role: Json = {"settings": settings, "machines": {name: {"settings": machine or {}}}}
    document: Json = {
        "machines": {"mac": {"machineClass": "darwin"}, "web": {}},
        "instances": {"monitoring": {"module": {"name": "prometheus"}, "roles": {"front": role}}},
    }
    return declare(parse_inventory(json.dumps(document).encode(), "inventory.json"), Options())


def targets(declared: Declared) -> list[tuple[str, str, int]]:
    """Return machine, type and port of what is expected."""
    return [(found.machine.name, found.exporter.type, found.exporter.port) for found in declared.expected]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ("caddy", 9180)),
        ({"kind": "nginx"}, ("nginx", 9113)),
        ({"kind": "traefik"}, ("traefik", 8082)),
        ({"kind": "caddy", "metrics": {"port": 9555}}, ("caddy", 9555)),
    ],
)
def test_the_proxy_is_a_target(settings: Json, expected: tuple[str, int]) -> None:
    """Not on the port of an admin API: Caddy's 2019 and Traefik's 8080."""
    declared = read(settings)
    assert targets(declared) == [("web", *expected)]
    assert declared.expected[0].because == "inventory: instance monitoring, role front, metrics"
    assert declared.problems == ()


def test_metrics_can_be_off() -> None:
    """Then the proxy is no target, and no exclusion either."""
    declared = read({"metrics": {"enable": False}})
    assert (targets(declared), declared.excluded) == ([], ())


def test_every_setting_of_the_interface_is_known() -> None:
    """Headers of role and machine are joined; nothing is reported."""
    settings: Json = {
        "kind": "nginx",
        "domain": "home.example.org",
        "tls": {"useACMEHost": "home.example.org"},
        "auth": {"forward": {"url": "http://127.0.0.1:9091/", "headers": ["Remote-User"]}},
        "entryPoints": {"http": "web"},
        "openFirewall": True,
        "firewallInterfaces": ["wg0"],
        "metrics": {"enable": True},
    }
    declared = read(settings, {"auth": {"forward": {"headers": ["Remote-Groups"]}}})
    assert declared.problems == ()
    (role,) = declared.roles
    auth = role.members["web"]["auth"]
    assert auth == {"forward": {"url": "http://127.0.0.1:9091/", "headers": ["Remote-Groups", "Remote-User"]}}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "ngnix"}, "kind: \"ngnix\" is no reverse proxy (did you mean 'nginx'?)"),
        ({"metrics": {"port": 99999}}, "metrics.port: invalid port 99999"),
        ({"metrics": {"prot": 1}}, "metrics.prot: unknown option (did you mean 'port'?)"),
        ({"metrics": True}, "metrics: must be an attribute set of settings"),
    ],
)
def test_wrong_settings_are_errors(settings: Json, said: str) -> None:
    """Each names the place."""
    with pytest.raises(InputError) as refused:
        read(settings)
    place = "inventory.json: instances.monitoring.roles.front.machines.web.settings"
    assert f"{place}.{said}" in str(refused.value)


def test_a_misspelt_setting_is_a_warning() -> None:
    """It would be ignored silently."""
    (problem,) = read({"domian": "home.example.org"}).problems
    assert problem.severity == "warning"
    assert "settings.domian: unknown setting, ignored (did you mean 'domain'?)" in str(problem)


def test_a_mac_runs_no_proxy() -> None:
    """The service has one for NixOS only."""
    declared = read({}, name="mac")
    assert [(found.name, found.reason, found.job) for found in declared.excluded] == [("mac", "darwin", "caddy")]
