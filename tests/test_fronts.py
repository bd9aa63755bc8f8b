"""Declared fronts: which ones a proxy serves, where it connects, and why others are left out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
import pytest

from clan_discovery.model import (
    Belief,
    BeliefState,
    Declared,
    DeclaredAddress,
    Expected,
    Exporter,
    Front,
    FrontSettings,
    Machine,
    Node,
    Snapshot,
)
from clan_discovery.resolve.fronts import named_fronts, served_fronts
from clan_discovery.resolve.resolver import Policy, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clan_discovery.model import Resolution

GRAFANA: Final = Front(
    service="grafana", domain="grafana", machine="Monitor", port=3000, because="exposed: grafana", where="e.json:2:3"
)
SETTINGS: Final = FrontSettings(kind="caddy", domain="home.example.org", machine="web01")


def changed(front: Front = GRAFANA, **changes: object) -> Front:
    """Return a front with other fields."""
    return msgspec.structs.replace(front, **changes)


def served(
    *fronts: Front, settings: FrontSettings = SETTINGS, expected: Iterable[Expected] = ()
) -> tuple[list[str], list[str]]:
    """Return domain and path of the fronts that are served, and the problems."""
    named = named_fronts(fronts)
    found = served_fronts(named.fronts, settings, expected, frozenset({"node"}))
    problems = [*named.problems, *found.problems]
    assert {problem.severity for problem in problems} <= {"problem"}
    return [f"{front.domain}{front.path}" for front in found.fronts], [str(problem) for problem in problems]


@pytest.mark.parametrize(
    ("domain", "whole"),
    [
        ("Grafana", "grafana.home.example.org"),
        ("grafana.example.net.", "grafana.example.net"),
        ("bücher", "xn--bcher-kva.home.example.org"),
        ("*.apps.example.org", "*.apps.example.org"),
    ],
)
def test_domain_without_a_dot_gets_that_of_the_proxy(domain: str, whole: str) -> None:
    assert served(changed(domain=domain)) == ([f"{whole}/"], [])


def test_domain_of_the_proxys_own_config_is_left_out() -> None:
    settings = msgspec.structs.replace(SETTINGS, own_domains=("grafana.home.example.org",))
    found, problems = served(GRAFANA, changed(domain="other"), settings=settings)
    assert found == ["other.home.example.org/"]
    said = "the proxy serves its domain by its own config, too (front.own_domains); it is left out"
    assert problems == [f"e.json:2:3: front grafana: {said} (remove one of them, or declare another domain)"]


def test_domain_without_a_dot_is_a_problem_without_a_domain_of_the_proxy() -> None:
    found, problems = served(GRAFANA, settings=FrontSettings(kind="nginx"))
    assert found == []
    assert problems == [
        "e.json:2:3: front grafana: its domain has no dot; it is left out (set front.domain, or write the whole domain)"
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("domain", "a b.example.org"),
        ("domain", "{env.SECRET}"),
        ("domain", 'a"\n}'),
        ("domain", "10.0.0.5"),
        ("path", "metrics"),
        ("path", "/a b"),
        ("path", "/.clan-discovery/forward"),
        ("host", "a b"),
        ("headers", (("X-A", 'quote"'),)),
        ("headers", (("X-A", "{env.SECRET}"),)),
        ("headers", (("X-A", "$cookie_session"),)),
        ("headers", (("X A", "b"),)),
    ],
)
def test_hostile_names_never_reach_a_config(field: str, value: object) -> None:
    front: Front = msgspec.structs.replace(GRAFANA, **{field: value})
    found, problems = served(front)
    assert found == []
    assert len(problems) == 1
    assert "it is left out" in problems[0]


@pytest.mark.parametrize("auth", ["basic", "forward", "oidc"])
def test_front_is_never_served_without_the_auth_that_it_demands(auth: str) -> None:
    found, problems = served(changed(auth=auth))
    assert found == []
    assert f"it demands auth {auth}, which the config does not give" in problems[0]
    assert f"set front.auth.{auth}" in problems[0]


def test_service_on_loopback_is_served_on_its_own_machine_only() -> None:
    assert served(changed(loopback=True, machine="WEB01"))[0] == ["grafana.home.example.org/"]
    found, problems = served(changed(loopback=True))
    assert found == []
    assert "it listens on loopback of Monitor, and the proxy runs on web01" in problems[0]


@pytest.mark.parametrize(
    ("proxy", "machines", "answered"),
    [
        ("", ["nas"], ["nas"]),
        ("", ["nas", "other"], []),
        ("nas", ["nas", "other"], ["nas"]),
        ("web01", ["nas"], []),
    ],
)
def test_service_in_a_network_is_served_on_its_machine_only(
    proxy: str, machines: list[str], answered: list[str]
) -> None:
    """Two machines may have a service of the same name, each in a network of its own."""
    fronts = [changed(domain=machine, machine=machine, host="app", loopback=True) for machine in machines]
    found, problems = served(*fronts, settings=changed_settings(machine=proxy))
    assert found == [f"{machine}.home.example.org/" for machine in answered]
    assert len(problems) == len(machines) - len(answered)
    assert all("it listens at app in a network of" in problem for problem in problems)


def test_admin_api_of_caddy_is_never_published() -> None:
    found, problems = served(changed(port=2019, auth="basic"), settings=changed_settings(basic="/users"))
    assert found == []
    assert "can replace the whole config of Caddy" in problems[0]


def changed_settings(**changes: object) -> FrontSettings:
    """Return settings with other fields."""
    return msgspec.structs.replace(SETTINGS, **changes)


def expect(type_: str, port: int, path: str = "/metrics") -> Expected:
    """Return a target on the machine of the front."""
    exporter = Exporter(type=type_, port=port, path=path)
    return Expected(machine=Machine(name="monitor"), exporter=exporter, because="test")


def test_exporter_is_not_published_without_auth() -> None:
    found, problems = served(changed(port=9100), expected=[expect("node", 9100)])
    assert found == []
    assert "it publishes the metrics of node to every client of the proxy" in problems[0]
    found, problems = served(
        changed(port=9100, auth="basic"), settings=changed_settings(basic="/users"), expected=[expect("node", 9100)]
    )
    assert (len(found), problems) == (1, [])


@pytest.mark.parametrize("path", ["/metrics", "/metrics/x"])
def test_path_of_metrics_is_not_published_without_auth(path: str) -> None:
    found, problems = served(changed(path=path), expected=[expect("grafana", 3000)])
    assert found == []
    assert "publishes the metrics of grafana" in problems[0]


def test_metrics_of_a_service_are_hidden_in_its_front() -> None:
    """Grafana serves both on one port."""
    found = served_fronts(named_fronts([GRAFANA]).fronts, SETTINGS, [expect("grafana", 3000)], frozenset())
    assert [front.hidden for front in found.fronts] == [("/metrics",)]
    other = served_fronts(named_fronts([changed(path="/ui")]).fronts, SETTINGS, [expect("grafana", 3000)], frozenset())
    assert [front.hidden for front in other.fronts] == [()]


def test_metrics_on_loopback_are_hidden() -> None:
    """The scraper of the same machine is at 127.0.0.1."""
    target = msgspec.structs.replace(expect("grafana", 3000), host="127.0.0.1")
    front = changed(loopback=True)
    found = served_fronts(named_fronts([front]).fronts, changed_settings(machine="monitor"), [target], frozenset())
    assert [front.hidden for front in found.fronts] == [("/metrics",)]


def test_hidden_paths_of_a_source_are_checked_as_those_of_targets() -> None:
    assert served(changed(path="/metrics", hidden=("/metrics?all=1",)))[0] == []
    (front,) = served_fronts(named_fronts([changed(hidden=("/m/?x",))]).fronts, SETTINGS, [], frozenset()).fronts
    assert front.hidden == ("/m",)


def test_domain_that_is_declared_twice_is_served_by_nobody() -> None:
    """Once it is completed: the merge of the sources does not see it."""
    twice = changed(domain="GRAFANA.home.example.org", path="/", machine="other", where="m.json:9:1")
    found, problems = served(GRAFANA, twice)
    assert found == []
    assert "grafana.home.example.org/ is declared 2 times: e.json:2:3 and m.json:9:1" in problems[0]
    assert len(served(GRAFANA, changed(path="/api"))[0]) == 2


def hidden(*fronts: Front, settings: FrontSettings = SETTINGS) -> dict[str, tuple[str, ...]]:
    """Return what the fronts that are served hide."""
    named = named_fronts(fronts)
    found = served_fronts(named.fronts, settings, (), frozenset(), named.refused)
    return {f"{front.domain}{front.path}": front.hidden for front in found.fronts}


@pytest.mark.parametrize("auth", ["basic", "forward", "oidc"])
def test_no_other_front_takes_the_requests_of_one_that_is_left_out(auth: str) -> None:
    """The service may have a public root and a private path: without its auth, that path is not public, too."""
    assert hidden(GRAFANA, changed(path="/Admin/x", auth=auth)) == {"grafana.home.example.org/": ("/admin/x",)}
    assert hidden(GRAFANA, changed(path="/a", auth=auth), changed(path="/a/b")) == {
        "grafana.home.example.org/": ("/a",),
        "grafana.home.example.org/a/b": (),
    }
    wild = changed(domain="*.home.example.org")
    assert hidden(wild, changed(auth=auth)) == {"*.home.example.org/": ("grafana.home.example.org",)}
    own = changed_settings(own_domains=("grafana.home.example.org",))
    assert hidden(wild, changed(auth=auth), settings=own) == {"*.home.example.org/": ()}


def test_front_that_is_declared_twice_is_not_taken_by_the_one_above() -> None:
    twice = (changed(path="/admin", auth="basic"), changed(path="/ADMIN", auth="basic", port=1))
    found = hidden(GRAFANA, *twice, settings=changed_settings(basic="/users"))
    assert found == {"grafana.home.example.org/": ("/admin",)}


def test_front_is_left_out_where_it_would_answer_for_a_path_that_cannot_be_written() -> None:
    private = changed(path="/admin/x y", auth="basic", where="m.json:9:1")
    settings = changed_settings(basic="/users")
    assert hidden(GRAFANA, private, settings=settings) == {"grafana.home.example.org/": ("/admin",)}
    assert hidden(GRAFANA, changed(private, path="/x y"), settings=settings) == {}
    protected = changed(auth="basic")
    assert hidden(protected, changed(private, path="/x y"), settings=settings) == {"grafana.home.example.org/": ()}


def test_path_of_oauth2_proxy_is_refused_where_it_logs_users_in() -> None:
    settings = changed_settings(oidc="http://127.0.0.1:4180")
    found, problems = served(changed(auth="oidc"), changed(path="/oauth2/x"), settings=settings)
    assert found == ["grafana.home.example.org/"]
    assert "oauth2-proxy answers below /oauth2 of this domain" in problems[0]


def resolved(front: Front, settings: FrontSettings | None, *nodes: Node) -> Resolution:
    """Resolve one front of a machine that is declared at 10.0.0.9."""
    declared = Declared(
        machines=(Machine(name="monitor"),),
        addresses={"monitor": DeclaredAddress("10.0.0.9", "the manifest")},
        fronts=(front,),
    )
    snapshot = Snapshot(backend="tailnet", nodes=nodes, suffix="tail.ts.net")
    belief = Belief(backend="tailnet", state=BeliefState.FRESH, snapshot=snapshot)
    return resolve(declared, [belief], [], Policy(front=settings), now=datetime.fromtimestamp(0, UTC))


def test_front_is_at_the_address_of_its_machine() -> None:
    """The one that a backend sees; until it sees one, the declared address."""
    nodes = [Node("monitor", ("100.64.0.1",)), Node("monitor", ("fd00::1",))]
    assert resolved(GRAFANA, None).fronts[0].address == "10.0.0.9:3000"
    assert [resolved(GRAFANA, None, node).fronts[0].address for node in nodes] == ["100.64.0.1:3000", "[fd00::1]:3000"]


def test_proxy_reaches_its_own_machine_on_loopback() -> None:
    settings = changed_settings(machine="MONITOR")
    node = Node("monitor", ("100.64.0.1",))
    assert resolved(GRAFANA, settings, node).fronts[0].address == "127.0.0.1:3000"
    assert resolved(changed(host="grafana"), settings, node).fronts[0].address == "grafana:3000"


def test_service_at_a_name_needs_a_resolver_in_nginx() -> None:
    front = changed(host="grafana")
    found = resolved(front, changed_settings(kind="nginx"))
    assert [problem.hint for problem in found.problems] == ["set front.resolver to the address of a DNS server"]
    assert resolved(front, changed_settings(kind="nginx", resolvers=("127.0.0.53:53",))).problems == ()
    assert resolved(front, SETTINGS).problems == ()


def test_front_of_a_machine_without_address_is_reported() -> None:
    front = changed(machine="no such machine")
    found = resolved(front, SETTINGS)
    assert found.fronts[0].address.endswith(".invalid:3000")
    assert "the proxy answers 503 for grafana/" in str(found.problems[-1])
