"""Inventories, as clan serialises them or as a person writes them, become expected targets."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.errors import InputError
from clan_discovery.inventory.clan.declare import Dump, Options, declare, parse_dump
from clan_discovery.inventory.clan.wire import parse_inventory
from clan_discovery.inventory.exporters import known_exporters
from clan_discovery.resolve.resolver import Policy, resolve
from tests.support.fleet import inventory

if TYPE_CHECKING:
    from clan_discovery.model import DarwinPolicy, Declared, Json
    from tests.support.fleet import Object

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def read(document: Json, options: Options | None = None) -> Declared:
    """Read an inventory document."""
    return declare(parse_inventory(json.dumps(document).encode(), "inv.json"), options or Options())


def refused(document: Json, options: Options | None = None) -> str:
    """Return the error message for an inventory."""
    with pytest.raises(InputError) as caught:
        read(document, options)
    return str(caught.value)


def instance(exporter: Object, **more: Json) -> Object:
    """Return an instance of the service with an exporter role."""
    return {"module": {"name": "prometheus", "input": "self"}, "roles": {"exporter": exporter}, **more}


def expected(declared: Declared) -> list[tuple[str, str, int]]:
    """Return machine, type and port of every expected target."""
    return [(e.machine.name, e.exporter.type, e.exporter.port) for e in declared.expected]


def test_serialised_and_hand_written_inventories_are_equal() -> None:
    """They differ only in form."""
    by_hand: Json = {
        "machines": {"a": {"tags": ["web"]}, "b": {}, "mac": {"machineClass": "darwin"}},
        "tags": {"extra": ["b"]},
        "instances": {"mon": instance({"tags": ["web", "extra"], "settings": {"port": 9200}})},
        "meta": {"domain": "demo.lan"},
    }

    def wrapped(settings: Json) -> Json:
        return {"imports": [{"_file": "x.nix", "imports": [settings]}]}

    serialised: Json = {
        "machines": {
            "a": {"name": "a", "machineClass": "nixos", "tags": ["web", "all", "nixos"]},
            "b": {"name": "b", "machineClass": "nixos", "tags": ["all", "extra", "nixos"]},
            "mac": {"name": "mac", "machineClass": "darwin", "tags": ["all", "darwin"]},
        },
        "tags": {"all": ["a", "b", "mac"], "nixos": ["a", "b"], "darwin": ["mac"], "extra": ["b"]},
        "instances": {
            "mon": instance(
                {
                    "machines": {},
                    "tags": {"web": {"settings": wrapped({})}, "extra": {"settings": wrapped({})}},
                    "settings": wrapped({"port": 9200}),
                }
            )
        },
        "meta": {"domain": "demo.lan", "name": "demo", "tld": None},
    }
    assert read(by_hand).machines == read(serialised).machines
    assert expected(read(by_hand)) == expected(read(serialised)) == [("a", "node", 9200), ("b", "node", 9200)]


def test_computed_tags_can_be_overridden() -> None:
    """`all`, `nixos` and `darwin` are computed unless `inventory.tags` sets them."""
    document = inventory({"a": {}, "mac": {"machineClass": "darwin"}}, instances={})
    tags = {m.name: m.tags for m in read(document).machines}
    assert tags == {"a": ("all", "nixos"), "mac": ("all", "darwin")}
    document["tags"] = {"all": ["a"]}
    assert {m.name: m.tags for m in read(document).machines} == {"a": ("all", "nixos"), "mac": ("darwin",)}


def test_exporters_of_all_instances_of_the_module_count() -> None:
    """Each exporter type needs an instance of its own."""
    document = inventory(["a", "monitor"])
    instances = document["instances"]
    assert isinstance(instances, dict)
    document["instances"] = {
        **instances,
        "systemd-monitoring": instance({"tags": ["all"], "settings": {"exporterType": "systemd"}}),
        "other": {"module": {"name": "borgbackup"}, "roles": {"exporter": {"tags": ["all"]}}},
        "prometheus": {"roles": {"exporter": {"machines": {"a": {"settings": {"exporterType": "nginx"}}}}}},
    }
    found = expected(read(document))
    assert found == [
        ("a", "node", 9100),
        ("monitor", "node", 9100),
        ("a", "nginx", 9113),
        ("a", "systemd", 9558),
        ("monitor", "systemd", 9558),
    ]
    only = read(document, Options(instances=("monitoring",)))
    assert {e.instance for e in only.expected} == {"monitoring"}
    named = read(document, Options(modules=frozenset({"borgbackup"})))
    assert {e.instance for e in named.expected} == {"other"}


def test_settings_of_role_tag_and_machine_are_merged() -> None:
    """A forced port of the machine wins. A conflict names the path and both values."""
    document = inventory(["a", "b"])
    document["instances"] = {
        "mon": instance(
            {
                "settings": {"exporterType": "node", "port": 9100},
                "tags": {"all": {}},
                "machines": {"b": {"settings": {"port": {"_type": "override", "content": 9300, "priority": 50}}}},
            }
        )
    }
    assert expected(read(document)) == [("a", "node", 9100), ("b", "node", 9300)]
    document["instances"] = {
        "mon": instance({"settings": {"port": 9100}, "machines": {"b": {"settings": {"port": 9300}}}})
    }
    said = refused(document)
    assert "instances.mon.roles.exporter.machines.b.settings.port" in said
    assert "9300 and 9100" in said
    assert "mkForce" in said


def test_a_settings_dump_replaces_our_merge() -> None:
    """Also where our merge has a conflict."""
    document = inventory(["a", "b"])
    document["instances"] = {
        "mon": instance({"tags": ["all"], "settings": {"port": 9100}, "machines": {"b": {"settings": {"port": 9300}}}})
    }
    dump: Dump = {"self-prometheus": {"mon": {"exporter": {"a": {"port": 1111}, "b": {"exporterType": "systemd"}}}}}
    assert expected(read(document, Options(dump=dump))) == [("a", "node", 1111), ("b", "systemd", 9558)]
    for exporter in ({"b": {"port": 1}}, {"a": None, "b": {"port": 1}}):  # null: its evaluation failed
        partial = parse_dump(json.dumps({"self-prometheus": {"mon": {"exporter": exporter}}}).encode(), "x")
        found = read(document, Options(dump=partial))
        assert expected(found) == [("a", "node", 9100), ("b", "node", 1)]
        assert "the settings dump lacks a: their settings are merged without Nix" in str(found.problems[0])
    assert parse_dump(json.dumps(dump).encode(), "x") == dump
    with pytest.raises(InputError, match="a settings dump is an object"):
        parse_dump(b"[]", "x")


def test_a_role_member_that_is_no_machine_is_reported() -> None:
    """Clan accepts the typo.

    Here it is an error with a suggestion, and gives no target.
    """
    document = inventory(["web1", "db"])
    document["instances"] = {"mon": instance({"machines": {"wbe1": {}, "db": {}}, "tags": ["databse"]})}
    found = read(document)
    assert expected(found) == [("db", "node", 9100)]
    typo, tag = found.problems
    assert typo.severity == "problem"
    assert "'wbe1' is not a machine" in typo.what
    assert typo.hint == "did you mean 'web1'?"
    assert tag.severity == "warning"
    assert "no machine has the tag 'databse'" in tag.what


@pytest.mark.parametrize(
    ("policy", "excluded"),
    [("exclude", {"nginx": "include", "node": "set it to node"}), ("node", {"nginx": "include"}), ("include", {})],
)
def test_policy_darwin_selects_nixos_exporters_of_a_mac(policy: DarwinPolicy, excluded: dict[str, str]) -> None:
    """Services and types of the user are always targets; what is excluded says which policy includes it."""
    exporters: Object = {"node": {}, "nginx": {}, "caddy": {}, "mine": {"port": 7000}}
    found = read(inventory({"mac": {"machineClass": "darwin"}}, {"exporters": exporters}), Options(darwin=policy))
    details = {str(e.job): e.detail for e in found.excluded if e.reason == "darwin"}
    assert {job for _, job, _ in expected(found)} == exporters.keys() - excluded.keys()
    assert details.keys() == excluded.keys()
    assert all(fix in details[job] for job, fix in excluded.items())


def test_all_exporters_of_nixos_and_the_services_are_known() -> None:
    """98 exporter types, and services that export metrics themselves."""
    known = known_exporters()
    assert sum(k.nixos for k in known.values()) == 98 + 1  # scaphandre, up to NixOS 25.11
    assert known["node"].port == 9100
    assert known["nut"].path == "/ups_metrics"
    assert known["caddy"].port == 2019
    assert known["netdata"].params == {"format": ["prometheus"]}
    assert {name for name, k in known.items() if k.kind == "probe"} >= {"blackbox", "snmp", "json", "domain"}
    if SHARED.is_dir():
        facts = json.loads((SHARED / "nixos_exporters.json").read_bytes())
        assert {n: (f["port"], f["path"]) for n, f in facts.items()} == {
            n: (known[n].port, known[n].path) for n in facts
        }


@pytest.mark.parametrize("type_", sorted(known_exporters()))
def test_a_known_type_needs_no_port(type_: str) -> None:
    """Without a port it has the default of NixOS. A probe needs a target."""
    known = known_exporters()[type_]
    settings: dict[str, Json] = {"exporterType": type_, "port": None}
    found = read(inventory(["a"], exporter=settings))
    if known.kind == "probe":
        assert [e.reason for e in found.excluded] == ["probe_without_target"]
        settings["params" if type_ == "script" else "target"] = {"script": "x"} if type_ == "script" else "https://x"
        found = read(inventory(["a"], exporter=settings))
    assert expected(found) == [("a", type_, known.port)]
    assert found.expected[0].exporter.path == known.path


def test_an_unknown_type_needs_a_port() -> None:
    """With a port it is a job; without one it is an error with a suggestion."""
    assert expected(read(inventory(["a"], exporter={"exporterType": "mine", "port": 1234}))) == [("a", "mine", 1234)]
    said = refused(inventory(["a"], exporter={"exporterType": "nod"}))
    assert "unknown exporter type 'nod' without a port" in said
    assert "did you mean 'node'?" in said
    assert "is called 'unpoller' now" in refused(inventory(["a"], exporter={"exporterType": "unifi-poller"}))


def test_scrape_options_of_an_exporter_reach_the_target() -> None:
    """Path, scheme, parameters and labels."""
    settings: dict[str, Json] = {
        "exporterType": "nginx",
        "telemetryPath": "/status",
        "scheme": "https",
        "params": {"a": ["b"]},
        "labels": {"team": "x"},
    }
    (found,) = read(inventory(["a"], exporter=settings)).expected
    assert (found.exporter.path, found.exporter.scheme) == ("/status", "https")
    assert found.exporter.params == (("a", "b"),)
    assert found.exporter.labels == (("team", "x"),)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"port": 0}, "invalid port 0: must be 1 to 65535"),
        ({"port": 70000}, "invalid port 70000: must be 1 to 65535"),
        ({"port": "9100x"}, 'invalid port "9100x": must be 1 to 65535'),
        ({"port": True}, "invalid port true: must be 1 to 65535"),
        ({"exporterType": 7}, "7 is not an exporter type"),
        ({"exporterType": "../x", "port": 1}, "is not an exporter type"),
        ({"path": "x"}, "'x' is no path"),
        ({"scheme": "ftp"}, '"ftp" is no scheme'),
        ({"scheme": "http", "security": "tls"}, "scheme: is http, but `security` is tls (remove it)"),
        ({"security": "ssl"}, 'security: "ssl" is no security'),
        ({"exporters": {"node": {"security": "tsl"}}}, 'exporters.node.security: "tsl" is no security (did you mean'),
        ({"labels": {"instance": "x"}}, "cannot be set"),
        ({"labels": {"a": 1}}, "must be one string"),
        ({"params": []}, "must be an attribute set"),
        ({"exporters": ["node"]}, "exporters: must be an attribute set of exporters, not a list (exporters.node = {}"),
        ({"exporters": {"a/b": {}}}, "exporters: 'a/b' cannot be the name of a job"),
        (
            {"exporters": {"node": None}},
            "exporters.node: must be an attribute set, not null (exporters.node = {} for its defaults",
        ),
        ({"exporters": {"node": 9100}}, "exporters.node: must be an attribute set, not a number"),
        ({"exporters": {"nod": {}}}, "exporters.nod: unknown exporter type 'nod' without a port (did you mean"),
        ({"exporters": {"node": {"port": 0}}}, "exporters.node.port: invalid port 0: must be 1 to 65535"),
        ({"exporters": {"nginx": {"telemetryPath": "x"}}}, "exporters.nginx.telemetryPath: 'x' is no path"),
        ({"exporters": {"node": {"labels": {"a": 1}}}}, "exporters.node.labels.a: must be one string"),
        ({"exporters": {"node": {"enable": 1}}}, "exporters.node.enable: must be true or false, not 1"),
        ({"exporters": {"node": {"exporterType": "nginx"}}}, "exporters.node.exporterType: does not belong here"),
        ({"exporters": {"node": {"exporters": {}}}}, "exporters.node.exporters: does not belong here"),
        ({"exporterType": "node", "exporters": {"node": {}}}, "exporters.node: `exporterType` says 'node', too"),
        ({"exporterType": "", "exporters": {"node": {}}}, 'exporterType: "" is not an exporter type'),
    ],
)
def test_invalid_exporter_settings_are_errors(settings: Object, said: str) -> None:
    """The message has the option, the value and the machine."""
    message = refused(inventory(["a"], exporter=settings))
    assert said in message
    assert "instances.monitoring.roles.exporter.machines.a.settings." in message


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"exporters": {"systemd": {}}}, [("systemd", 9558)]),
        ({"exporterType": None, "exporters": {"systemd": {}}}, [("systemd", 9558)]),
        ({"exporterType": "node", "exporters": {"systemd": {}}}, [("node", 9100), ("systemd", 9558)]),
        ({"port": 9200, "exporterType": "node", "exporters": {"nginx": {}}}, [("node", 9200), ("nginx", 9113)]),
        ({"port": 9200, "exporters": {"nginx": {}}}, [("nginx", 9113)]),
        ({"exporters": {"mine": {"port": 81}, "nginx": {"port": 82}}}, [("mine", 81), ("nginx", 82)]),
        ({"exporters": {"node": {"enable": True, "exporterType": "node"}}}, [("node", 9100)]),
        ({"exporters": {"node": {"enable": None}}}, [("node", 9100)]),
        ({"exporters": {}}, [("node", 9100)]),
        ({"exporters": None, "exporterType": None}, [("node", 9100)]),
    ],
)
def test_each_key_of_exporters_is_an_exporter(settings: Object, found: list[tuple[str, int]]) -> None:
    """`node` is the default only if no exporter is named."""
    assert expected(read(inventory(["a"], exporter=settings))) == [("a", *one) for one in found]


def test_settings_below_exporters_equal_top_level_settings() -> None:
    """Top-level settings do not apply to the keys of `exporters`."""
    one: Object = {
        "port": 8443, "telemetryPath": "/status", "scheme": "https", "params": {"a": ["b"]}, "labels": {"team": "x"}
    }  # fmt: skip
    alone = read(inventory(["a"], exporter={"exporterType": "nginx", **one})).expected
    node: Object = {"exporterType": "node", "labels": {"n": "1"}}
    both = read(inventory(["a"], exporter={**node, "exporters": {"nginx": one}})).expected
    assert [e.exporter for e in both if e.exporter.type == "nginx"] == [e.exporter for e in alone]
    assert [(e.exporter.port, e.exporter.labels) for e in both if e.exporter.type == "node"] == [(9100, (("n", "1"),))]
    probes = read(inventory(["a"], exporter={"exporters": {"blackbox": {"target": "https://x"}, "snmp": {}}}))
    assert [(e.exporter.type, e.exporter.params) for e in probes.expected] == [("blackbox", (("target", "https://x"),))]
    assert [(e.job, e.reason) for e in probes.excluded] == [("snmp", "probe_without_target")]


def test_exporters_with_tls_are_scraped_over_https() -> None:
    """`security` of the machine applies to each key of `exporters` that has none of its own."""
    exporters: Object = {"nginx": {}, "systemd": {"security": "none"}, "postgres": {"security": "basic-auth"}}
    found = read(inventory(["a"], exporter={"exporterType": "node", "security": "tls", "exporters": exporters}))
    schemes = {one.exporter.type: one.exporter.scheme for one in found.expected}
    assert schemes == {"node": "https", "nginx": "https", "systemd": "http", "postgres": "http"}


def test_enable_false_removes_one_exporter() -> None:
    """The exclusion is counted, and the exporter's other settings are not checked."""
    document = inventory(["a", "b"])
    role: Object = {
        "tags": ["all"],
        "settings": {"exporters": {"node": {}, "nginx": {"enabledCollectors": ["x"]}}},
        "machines": {
            "b": {"settings": {"exporters": {"node": {"enable": False}, "nginx": {"enabledCollectors": ["y"]}}}}
        },
    }
    document["instances"] = {"mon": instance(role)}
    found = read(document)
    assert expected(found) == [("a", "nginx", 9113), ("a", "node", 9100), ("b", "nginx", 9113)]
    assert [(e.name, e.job, e.reason) for e in found.excluded] == [("b", "node", "disabled")]
    assert found.excluded[0].detail == "its settings say exporters.node.enable = false"
    merged = found.roles[0].members["b"]["exporters"]
    assert merged == {"node": {"enable": False}, "nginx": {"enabledCollectors": ["x", "y"]}}
    nobody = read(inventory(["a"], exporter={"exporters": {"mine": {"enable": False, "port": 0}}}))
    assert (expected(nobody), len(nobody.excluded)) == ([], 1)


WRONG_SERVERS: list[tuple[Object, str]] = [
    ({"discoveryMethod": "tailscal"}, "did you mean 'tailscale'?"),
    ({"discoveryMethod": ["tailscale", "dsn"]}, "\"dsn\" is no discovery method (did you mean 'dns'?)"),
    ({"discoveryMethod": ["none", "dns"]}, '"none" cannot be combined with other discovery methods (remove "none")'),
    ({"discoveryMethod": [None]}, "null is no discovery method (one of none, tailscale, dns, static)"),
    ({"discoveryMethod": {"dns": True}}, '{"dns": true} is no discovery method'),
    ({"scrapeServers": "yes"}, 'scrapeServers: must be true or false, not "yes"'),
    ({"scrapeServers": 1}, "scrapeServers: must be true or false, not 1"),
    ({"scrapeServers": True, "backend": "victoria-metrics"}, "is no backend (did you mean 'victoriametrics'?)"),
    (
        {"scrapeServers": True, "backend": []},
        "backend: [] is no backend (one of prometheus, victoriametrics, vmagent, alloy)",
    ),
    ({"scrapeServers": True, "port": 0}, "port: invalid port 0: must be 1 to 65535"),
    ({"enableAutoDiscovery": "yes"}, "must be true or false"),
    ({"staticTargets": []}, "must be an attribute set"),
    ({"staticTargets": {"node": "x"}}, "must be a list"),
    ({"staticTargets": {"node": ["http://x"]}}, "is a URL"),
    ({"staticTargets": {"mine": ["x"]}}, "has no port"),
    ({"staticTargets": {"a/b": ["x:1"]}}, "cannot be the name of a job"),
    ({"additionalScrapeConfigs": [{}]}, "has no job_name"),
    ({"additionalScrapeConfigs": [{"job_name": "x"}, {"job_name": "x"}]}, "there are two jobs"),
]


@pytest.mark.parametrize(("settings", "said"), WRONG_SERVERS)
def test_invalid_server_settings_are_errors(settings: Object, said: str) -> None:
    """With the path and the value."""
    assert said in refused(inventory(["monitor", "a"], server=settings))


def test_server_settings_are_read() -> None:
    """Discovery method, static targets and scrape configs are read; NixOS checks the rest."""
    settings: dict[str, Json] = {
        "enableAutoDiscovery": True,
        "discoveryMethod": "static",
        "staticTargets": {"node": ["10.0.0.5:9100", "[fd00::1]:9100", "nas"]},
        "additionalScrapeConfigs": [{"job_name": "ext", "static_configs": [{"targets": ["x:1"]}]}],
        "retentionTime": "30d",
        "whatever": {"a": [1]},
    }
    (server,) = read(inventory(["monitor"], server=settings)).servers
    assert server.discovery == ("static",)
    assert [(e.host, e.exporter.port) for e in server.static_targets] == [
        ("10.0.0.5", 9100), ("fd00::1", 9100), ("nas", 9100),
    ]  # fmt: skip
    assert server.additional_scrape_configs == ({"job_name": "ext", "static_configs": [{"targets": ["x:1"]}]},)


@pytest.mark.parametrize(
    ("said", "methods"),
    [
        (None, None),
        ("dns", ("dns",)),
        (["tailscale", "dns"], ("tailscale", "dns")),
        (["dns", "tailscale", "dns"], ("dns", "tailscale")),
        ("none", ("none",)),
        (["none", "none"], ("none",)),
        ([], ()),
    ],
)
def test_discovery_method_is_a_word_or_a_list(said: Json, methods: tuple[str, ...] | None) -> None:
    """Duplicates are removed.

    An empty list asks no backend, which differs from an unset method.
    """
    (server,) = read(inventory(["monitor"], server={"discoveryMethod": said})).servers
    assert server.discovery == methods


def test_discovery_methods_of_role_and_machine_are_merged() -> None:
    """Two lists are concatenated, the machine's first.

    A word conflicts with a list and with another word.
    """

    def methods(role: Json, machine: Json) -> Object:
        document = inventory(["monitor"])
        server: Object = {
            "settings": {"discoveryMethod": role},
            "machines": {"monitor": {"settings": {"discoveryMethod": machine}}},
        }
        document["instances"] = {"mon": {"module": {"name": "prometheus"}, "roles": {"server": server}}}
        return document

    (server,) = read(methods(["tailscale"], ["dns"])).servers
    assert server.discovery == ("dns", "tailscale")
    (server,) = read(methods(["tailscale"], {"_type": "override", "content": "dns", "priority": 50})).servers
    assert server.discovery == ("dns",)
    where = "instances.mon.roles.server.machines.monitor.settings.discoveryMethod: conflicting definitions"
    assert f'{where}: ["dns"] and "tailscale"' in refused(methods("tailscale", ["dns"]))
    assert f'{where}: "dns" and "tailscale"' in refused(methods("tailscale", "dns"))


def servers(role: Object, machines: list[str] | dict[str, Object], **instances: Json) -> Object:
    """Return an inventory whose only instance has only the role server."""
    document = inventory(machines)
    document["instances"] = {"mon": {"module": {"name": "prometheus"}, "roles": {"server": role}}, **instances}
    return document


@pytest.mark.parametrize(
    ("settings", "port"),
    [
        ({}, None),
        ({"scrapeServers": None}, None),
        ({"scrapeServers": False, "port": "none of ours", "backend": "cortex"}, None),
        ({"scrapeServers": True}, 9090),
        ({"scrapeServers": True, "backend": None, "port": None}, 9090),
        ({"scrapeServers": True, "listenAddress": "0.0.0.0", "webExternalUrl": "https://m/"}, 9090),  # noqa: S104
        ({"scrapeServers": True, "listenAddress": "127.0.0.1"}, None),
        ({"scrapeServers": True, "listenAddress": "[::1]"}, None),
        ({"scrapeServers": True, "scrapeConfigs": [{"job_name": "prometheus"}]}, None),
        ({"scrapeServers": True, "additionalScrapeConfigs": [{"job_name": "prometheus"}]}, None),
        ({"scrapeServers": True, "backend": "victoriametrics"}, 8428),
        ({"scrapeServers": True, "backend": "vmagent"}, 8429),
        ({"scrapeServers": True, "backend": "vmagent", "port": 9091}, 9091),
        ({"scrapeServers": True, "backend": "alloy"}, None),
    ],
)
def test_scrape_servers_makes_a_server_a_target(settings: Object, port: int | None) -> None:
    """Type `prometheus`, with its own port or that of its backend; not a target by default."""
    found = read(servers({"machines": {"a": {"settings": settings}}}, ["a"]))
    assert expected(found) == ([] if port is None else [("a", "prometheus", port)])
    for one in found.expected:
        assert (one.role, one.exporter.path) == ("server", "/metrics")
        assert one.because == "inventory: instance mon, role server, scrapeServers"


def test_scrape_servers_is_read_for_every_server() -> None:
    """The config's `server` chooses whose settings are used, not which servers are targets."""
    role: Object = {
        "tags": ["all"],
        "settings": {"scrapeServers": {"_type": "override", "content": True, "priority": 1000}},
        "machines": {"b": {"settings": {"port": 9095}}, "c": {"settings": {"scrapeServers": False}}},
    }
    machines: dict[str, Object] = {"a": {}, "b": {}, "c": {}, "mac": {"machineClass": "darwin"}}
    found = read(servers(role, machines), Options(server="a"))
    assert expected(found) == [("a", "prometheus", 9090), ("b", "prometheus", 9095)]
    assert [s.machine for s in found.servers] == ["a"]
    assert [(e.name, e.job, e.reason) for e in found.excluded] == [("mac", "prometheus", "darwin")]
    assert ("mac", "prometheus", 9090) in expected(read(servers(role, machines), Options(darwin="include")))


def test_only_the_selected_servers_settings_are_checked() -> None:
    """Its path is named, also if another server has the same settings.

    Others are checked as targets only.
    """
    role: Object = {"tags": ["all"], "settings": {"discoveryMethod": "tailscal"}}
    assert "machines.b.settings.discoveryMethod" in refused(servers(role, ["a", "b"]), Options(server="b"))
    role = {"machines": {"a": {"settings": {"discoveryMethod": "tailscal"}}, "b": {}}}
    assert read(servers(role, ["a", "b"]), Options(server="b")).problems == ()
    role = {"machines": {"a": {"settings": {"scrapeServers": True, "port": 0}}, "b": {}}}
    assert "machines.a.settings.port: invalid port 0: must be 1 to 65535" in refused(
        servers(role, ["a", "b"]), Options(server="b")
    )


def test_servers_are_targets_without_auto_discovery() -> None:
    """`enableAutoDiscovery = false` applies to the role exporter only."""
    found = read(inventory(["monitor", "a"], server={"enableAutoDiscovery": False, "scrapeServers": True}))
    assert expected(found) == [("monitor", "prometheus", 9090)]
    assert sorted(e.name for e in found.excluded) == ["a", "monitor"]


def test_a_server_declared_several_times_is_one_target() -> None:
    """In two instances, and as an exporter, whose labels then win.

    Another port is another target.
    """
    serving: Object = {"machines": {"a": {"settings": {"scrapeServers": True}}}}
    second: Object = {"module": {"name": "prometheus"}, "roles": {"server": serving}}
    labelled: Object = {"exporterType": "prometheus", "labels": {"team": "x"}}
    third = instance({"machines": {"a": {"settings": labelled}}})
    document = servers(serving, ["a"], second=second, third=third)
    found = read(document)
    resolution = resolve(found, [], [], Policy(), now=datetime(2026, 11, 20, tzinfo=UTC))
    (target,) = resolution.targets
    assert (target.address, target.labels["team"], target.labels["__meta_clan_role"]) == (
        "a.home.arpa:9090", "x", "exporter",
    )  # fmt: skip
    assert found.problems == ()
    second["roles"] = {"server": {"machines": {"a": {"settings": {"scrapeServers": True, "port": 9095}}}}}
    resolution = resolve(read(document), [], [], Policy(), now=datetime(2026, 11, 20, tzinfo=UTC))
    assert [t.labels["instance"] for t in resolution.targets] == ["a:9090", "a:9095"]


def test_without_auto_discovery_exporters_are_excluded() -> None:
    """Unless another server has it on."""
    found = read(inventory(["monitor", "a"], server={"enableAutoDiscovery": False}))
    assert found.expected == ()
    assert {(e.name, e.reason) for e in found.excluded} == {
        ("monitor", "auto_discovery_off"),
        ("a", "auto_discovery_off"),
    }


def test_the_config_selects_the_server() -> None:
    """A machine without the role server is an error with a suggestion."""
    document = inventory(["monitor", "second"])
    role: Object = {"machines": {"monitor": {"settings": {"discoveryMethod": "tailscale"}}, "second": {}}}
    document["instances"] = {"mon": {"module": {"name": "prometheus"}, "roles": {"server": role}}}
    assert [s.machine for s in read(document).servers] == ["monitor", "second"]
    assert [s.machine for s in read(document, Options(server="second")).servers] == ["second"]
    assert "did you mean 'monitor'" in refused(document, Options(server="moniter"))
    assert "the inventory has no instance 'mno'" in refused(document, Options(instances=("mno",)))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the inventory is empty"),
        (b"  \n", "the inventory is empty"),
        (b"[]", "an inventory is an object, not a list"),
        (b"{}", "an empty object"),
        (b'"x"', "not a string"),
        (b"null", "not null"),
        (b'{"machines": {"a": ', "truncated"),
        (b'{"machines": {"a', "truncated"),
        (b'{"machines": nope}', "inv.json:1:14"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"machines": {}, "machines": {}}', "given twice"),
        (b'{"machines": NaN, "instances": {}}', "NaN"),
        (b'{"a": 1}', "has no `machines` and no `instances`"),
        (b'{"machines": {"a": {}}}', "this is a fragment"),
        (b'{"services": {"prometheus": {"mon": {}}}, "machines": {}}', "the old shape"),
        (b'{"machines": [], "instances": {}}', "machines: must be an object, not a list"),
        (b'{"machines": {"a/b": {}}, "instances": {}}', "cannot be the name of a machine"),
        (b'{"machines": {"..": {}}, "instances": {}}', "cannot be the name of a machine"),
        (b'{"machines": {"a": {"tags": "web"}}, "instances": {}}', "machines.a.tags: must be a list of strings"),
        (b'{"machines": {"a": {"machineClass": "bsd"}}, "instances": {}}', "machineClass"),
        (b'{"machines": {}, "instances": {"m": {"roles": {"exporter": {"machines": ["a"]}}}}}', "must be an object"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_an_invalid_inventory_is_one_line(body: bytes, said: str) -> None:
    """With the position, for any file that is no inventory."""
    with pytest.raises(InputError) as caught:
        declare(parse_inventory(body, "inv.json"), Options(modules=frozenset({"m"})))
    message = str(caught.value)
    assert said in message
    assert message.startswith("inv.json")
    assert "\n" not in message


def test_all_errors_are_reported_together() -> None:
    """One run shows everything that has to be fixed."""
    body = b'{"machines": {"a/b": {"tags": 1}, "c": 7}, "instances": {}}'
    with pytest.raises(InputError) as caught:
        parse_inventory(body, "inv.json")
    assert len(caught.value.problems) == 3
    body = b'{"machines": {}, "instances": {"m": {"module": 7, "roles": {"server": [], "exporter": 7}}}}'
    with pytest.raises(InputError) as caught:
        declare(parse_inventory(body, "inv.json"), Options(modules=frozenset({"m"})))
    assert len(caught.value.problems) == 3


def test_instances_of_other_services_are_not_checked() -> None:
    """Those of our service are."""
    document = inventory(["a", "monitor"])
    instances = document["instances"]
    assert isinstance(instances, dict)
    document["instances"] = {**instances, "backup": {"module": "borgbackup", "roles": {"x": {"machines": ["a"]}}}}
    assert len(read(document).expected) == 2
    document["instances"] = {**instances, "prometheus": {"roles": {"exporter": {"machines": ["a"]}}}}
    assert "instances.prometheus.roles.exporter.machines: must be an object" in refused(document)


anything: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["machines", "instances", "tags", "meta", "module", "name", "roles", "exporter", "server", "settings",
             "prometheus", "port", "exporterType", "all", "a", "imports", "_type", "staticTargets", "services"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=30,
)  # fmt: skip


@given(anything)
def test_any_json_is_an_inventory_or_refused(document: Json) -> None:
    """Only our own error is raised, for any document."""
    try:
        read(document)
    except InputError as error:
        assert error.problems  # noqa: PT017 - either way is right


@given(anything, anything)
def test_any_machines_and_roles_are_read_or_refused(machines: Json, roles: Json) -> None:
    """The same for any values of `machines` and `roles`."""
    instances = {"mon": {"module": {"name": "prometheus"}, "roles": roles}}
    try:
        read({"machines": machines, "instances": instances})
    except InputError as error:
        assert error.problems  # noqa: PT017


@given(st.binary(max_size=64))
def test_any_bytes_are_an_inventory_or_refused(body: bytes) -> None:
    """The same for any bytes."""
    with pytest.raises(InputError):
        parse_inventory(body, "inv.json")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "localhost", "::1", "[::1]"])
def test_an_exporter_on_loopback_is_no_target(address: str) -> None:
    """No server can scrape it; the exclusion is counted."""
    found = read(inventory(["a"], exporter={"exporters": {"node": {"listenAddress": address}, "nginx": {}}}))
    assert expected(found) == [("a", "nginx", 9113)]
    assert [(e.name, e.job, e.reason) for e in found.excluded] == [("a", "node", "loopback")]
    assert found.excluded[0].detail == f"listenAddress is {address!r}, which no other machine can reach"
    other = read(inventory(["a"], exporter={"listenAddress": "10.0.0.1"}))
    assert expected(other) == [("a", "node", 9100)]


def test_a_server_with_enable_false_is_none() -> None:
    """It is no target, and its static targets are not read."""
    document = inventory(["a", "b"])
    settings: Object = {"scrapeServers": True, "staticTargets": {"node": ["x:1"]}}
    role: Object = {"settings": settings, "machines": {"a": {}, "b": {"settings": {"enable": False}}}}
    module: Object = {"name": "prometheus", "input": "self"}
    document["instances"] = {"mon": {"module": module, "roles": {"server": role}}}
    found = read(document)
    assert [e.machine.name for e in found.expected] == ["a"]
    assert [server.machine for server in found.servers] == ["a"]
