"""Alertmanager, Grafana, stores and vmalert of a clan as targets, and why some are none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from clan_discovery.assemble.sources import read_declared
from clan_discovery.config.load import load_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Declared, Json
    from tests.conftest import Done

    Run = Callable[..., Done]

HERE: Json = {"monitor": {}}
OTHER: Json = {"web": {}}


def written(tmp_path: Path, roles: dict[str, Json], server: str | None = "monitor", **machines: Json) -> Path:
    """Write an inventory with these members of roles, each with its settings, and a config; return its file."""
    members: Json = {
        role: {"machines": {name: {"settings": settings} for name, settings in of.items()}}
        for role, of in roles.items()
        if isinstance(of, dict)
    }
    instance: Json = {"module": {"name": "prometheus"}, "roles": members}
    inventory: Json = {"machines": {"monitor": {}, "web": {}, **machines}, "instances": {"m": instance}}
    (tmp_path / "inventory.json").write_text(json.dumps(inventory))
    config: Json = {"inventory": {"file": "inventory.json"}, "server": server}
    (tmp_path / "c.json").write_text(json.dumps(config))
    return tmp_path / "c.json"


def read(tmp_path: Path, roles: dict[str, Json], server: str | None = "monitor", **machines: Json) -> Declared:
    """Return what the inventory declares."""
    return read_declared(load_config(written(tmp_path, roles, server, **machines)))


def targets(declared: Declared) -> list[str]:
    """Return the targets of components, as `type machine:port`, with what replaces the machine's address."""
    return [
        f"{e.exporter.type} {e.host or e.machine.name}:{e.exporter.port}"
        for e in declared.expected
        if e.exporter.type != "node"
    ]


@pytest.mark.parametrize(
    ("roles", "found", "excluded"),
    [
        ({"alerting": HERE}, ["alertmanager 127.0.0.1:9093"], []),
        ({"alerting": OTHER}, ["alertmanager web:9093"], []),
        ({"alerting": {"monitor": {}, "web": {}}}, ["alertmanager monitor:9093", "alertmanager web:9093"], []),
        ({"alerting": {"web": {"listenAddress": "127.0.0.1", "port": 9}}}, [], ["alertmanager web"]),
        ({"alerting": {"web": {"listenAddress": "10.0.0.9", "port": 9}}}, ["alertmanager web:9"], []),
        ({"alerting": {"monitor": {"listenAddress": "[::]"}}}, ["alertmanager monitor:9093"], []),
        ({"dashboards": HERE}, ["grafana 127.0.0.1:3000"], []),
        ({"dashboards": {"web": {"port": 3001}}}, [], ["grafana web"]),
        ({"logs": HERE}, ["victorialogs 127.0.0.1:9428"], []),
        ({"logs": {"monitor": {"backend": "loki", "port": 31}}}, ["loki 127.0.0.1:31"], []),
        ({"logs": {"web": {"backend": "loki", "listenAddress": "::"}}}, ["loki web:3100"], []),
        ({"logs": OTHER}, [], ["victorialogs web"]),
        ({"storage": {"web": {"port": 8500}}}, ["victoriametrics web:8500"], []),
        ({"storage": {"web": {"listenAddress": "127.0.0.1"}}}, [], ["victoriametrics web"]),
        ({"storage": {"monitor": {"engine": "thanos"}}}, ["thanos 127.0.0.1:10902"], []),
        ({"storage": {"web": {"engine": "thanos", "port": 19000, "listenAddress": "::"}}}, [], ["thanos web"]),
        ({"storage": {"web": {"engine": "remote-write"}}}, [], []),
    ],
)
def test_component_is_a_target_where_the_server_reaches_it(
    tmp_path: Path, roles: dict[str, Json], found: list[str], excluded: list[str]
) -> None:
    """On loopback of the server's machine, or at an address of another one."""
    declared = read(tmp_path, {"server": HERE, **roles})
    assert targets(declared) == found
    assert [f"{e.job} {e.name}" for e in declared.excluded if e.reason == "loopback"] == excluded
    assert declared.problems == ()


@pytest.mark.parametrize(
    ("backend", "alerting", "found"),
    [
        ("victoriametrics", True, ["alertmanager 127.0.0.1:9093", "vmalert 127.0.0.1:8880"]),
        ("victoriametrics", False, []),
        ("prometheus", True, ["alertmanager 127.0.0.1:9093"]),
        ("vmagent", True, ["alertmanager 127.0.0.1:9093"]),
    ],
)
def test_vmalert_evaluates_the_rules_of_victoriametrics(
    tmp_path: Path, backend: str, *, alerting: bool, found: list[str]
) -> None:
    """Where something gets its alerts."""
    roles: dict[str, Json] = {"server": {"monitor": {"backend": backend}}}
    if alerting:
        roles["alerting"] = HERE
    assert sorted(targets(read(tmp_path, roles))) == found


@pytest.mark.parametrize(
    ("storage", "is_read"),
    [
        ({}, True),
        ({"engine": "victoriametrics", "mode": "replicate"}, True),
        ({"mode": "shard"}, False),
        ({"engine": "thanos"}, True),
        ({"engine": "remote-write"}, False),
    ],
)
def test_vmalert_reads_what_vmagent_writes_to_a_storage(tmp_path: Path, storage: Json, *, is_read: bool) -> None:
    """If something reads the nodes as one; then another machine may need the Alertmanager, too."""
    roles: dict[str, Json] = {
        "server": {"monitor": {"backend": "vmagent"}, "web": {"backend": "vmagent"}},
        "storage": {"db": storage},
        "alerting": HERE,
    }
    found = {target for target in targets(read(tmp_path, roles, db={})) if "alert" in target}
    assert found == (
        {"alertmanager monitor:9093", "vmalert 127.0.0.1:8880"} if is_read else {"alertmanager 127.0.0.1:9093"}
    )


def test_alertmanager_is_on_loopback_if_no_other_machine_sends_alerts(tmp_path: Path) -> None:
    """A vmagent and a server that is switched off evaluate no rules."""
    server: dict[str, Json] = {"monitor": {}, "web": {"backend": "vmagent"}, "off": {"enable": False}}
    roles: dict[str, Json] = {"server": server, "alerting": HERE}
    assert targets(read(tmp_path, roles, off={})) == ["alertmanager 127.0.0.1:9093"]
    server["web"] = {}
    assert targets(read(tmp_path, roles, off={})) == ["alertmanager monitor:9093"]


def test_agent_sends_the_metrics_of_its_components(tmp_path: Path) -> None:
    """It reaches those on loopback."""
    roles: dict[str, Json] = {"server": HERE, "agent": OTHER, "dashboards": OTHER, "logs": OTHER}
    declared = read(tmp_path, roles)
    sent = {e.exporter.type for e in declared.expected if e.delivery == "push"}
    assert sent == {"vmagent", "vlagent", "grafana", "victorialogs"}
    assert declared.excluded == ()


def test_declared_exporter_of_the_same_port_wins(tmp_path: Path) -> None:
    exporter: Json = {"monitor": {"exporters": {"node": {}, "grafana": {"labels": {"a": "b"}}}}}
    declared = read(tmp_path, {"server": HERE, "exporter": exporter, "dashboards": HERE})
    assert targets(declared) == ["grafana monitor:3000"]


def test_darwin_machine_has_no_components(tmp_path: Path) -> None:
    declared = read(tmp_path, {"server": HERE, "logs": {"mac": {}}}, mac={"machineClass": "darwin"})
    assert [(e.name, e.job, e.reason) for e in declared.excluded] == [("mac", "victorialogs", "darwin")]


def test_mistakes_in_the_settings_of_roles(tmp_path: Path) -> None:
    roles: dict[str, Json] = {
        "server": HERE,
        "alerting": {"monitor": {"recievers": {}}},
        "dashboards": {"monitor": {"root_url": "x"}},
    }
    unknown, of_grafana = [str(problem) for problem in read(tmp_path, roles).problems]
    words = "unknown setting, ignored (did you mean"
    assert f"roles.alerting.machines.monitor.settings.recievers: {words} 'receivers'?)" in unknown
    assert f"roles.dashboards.machines.monitor.settings.root_url: {words} 'rootUrl'?)" in of_grafana


def test_explain_says_why_a_component_is_no_target(tmp_path: Path, run: Run) -> None:
    config = written(tmp_path, {"server": HERE, "exporter": HERE, "dashboards": OTHER})
    line = "excluded (grafana): loopback: grafana listens on 127.0.0.1, which no other machine can reach [inventory]"
    assert line in run("explain", "web", "-c", config).out
