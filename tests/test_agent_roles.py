"""Roles `agent` and `logs` of a clan inventory, and agents among exposed services: what is declared, and mistakes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from clan_discovery.assemble.sources import read_declared
from clan_discovery.config.load import load_config
from clan_discovery.errors import InputError
from clan_discovery.inventory.exposed.document import declare_exposed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Declared, Json
    from tests.conftest import Done

    Object = dict[str, Json]
    Run = Callable[..., Done]

MACHINES: Object = {"dino": {"tags": ["laptop"]}, "web01": {}, "mac": {"machineClass": "darwin"}}


def instances(**roles: Json) -> Object:
    """Return an instance of the service: every machine has a node exporter unless the role is given."""
    given: Object = {"exporter": {"machines": {"dino": {}, "web01": {}}}, **roles}
    return {"mon": {"module": {"name": "prometheus"}, "roles": given}}


def members(*names: str, **settings: Json) -> Object:
    """Return a role with these machines, and its settings."""
    return {"machines": {name: {} for name in names}, "settings": settings}


def place(directory: Path, services: Object, exposed: Json = None) -> Path:
    """Write an inventory, and a config that reads it."""
    (directory / "inventory.json").write_text(json.dumps({"machines": MACHINES, "instances": services}))
    sources = "file: inventory.json"
    if exposed is not None:
        (directory / "exposed.json").write_text(json.dumps(exposed))
        sources = f"{sources}, exposed: exposed.json"
    (directory / "c.yaml").write_text(f"inventory: {{{sources}}}\n")
    return directory / "c.yaml"


def read(directory: Path, services: Object, exposed: Json = None) -> Declared:
    """Return what the sources declare."""
    return read_declared(load_config(place(directory, services, exposed)))


def pushed(declared: Declared, machine: str = "dino") -> dict[str, str]:
    """Return where the agent of a machine scrapes each exporter type: host (empty: 127.0.0.1), port and scheme."""
    return {
        e.exporter.type: f"{e.exporter.scheme}://{e.host}:{e.exporter.port}"
        for e in declared.expected
        if e.machine.name == machine and e.delivery == "push"
    }


def messages(declared: Declared) -> list[str]:
    """Return the problems with their severity, without the name of the file."""
    return [f"{p.severity}: {p.where.partition(': ')[2]}: {p.what} ({p.hint})" for p in declared.problems]


def test_the_exporters_of_an_agent_are_pushed_with_its_own(tmp_path: Path) -> None:
    """Other machines are scraped; the agent has an exporter of its own type, and no vlagent without a store of logs."""
    found = read(tmp_path, instances(agent=members("dino")))
    assert found.agents == ("dino",)
    assert pushed(found) == {"node": "http://:9100", "vmagent": "http://:8429"}
    assert pushed(found, "web01") == {}
    [agent] = [e for e in found.expected if e.exporter.type == "vmagent"]
    assert (agent.role, agent.instance, agent.because) == ("agent", "mon", "inventory: instance mon, role agent")
    assert (agent.patience, found.problems) == ("roaming", ())


@pytest.mark.parametrize(
    ("agent", "logs", "is_sent"),
    [
        ({}, {"logs": members("web01")}, True),
        ({}, {"logs": members("web01", backend="loki")}, False),
        ({}, {"logs": {"machines": {"dino": {}, "web01": {"settings": {"backend": "loki"}}}}}, True),
        ({}, {"logs": {"machines": {"dino": {"settings": {"backend": "loki"}}, "web01": {}}}}, False),
        ({"logs": {"enable": False}}, {"logs": members("web01")}, False),
        ({"logs": {"enable": True}}, {}, True),
        ({}, {"logs": members()}, False),
    ],
)
def test_vlagent_sends_logs_where_a_store_takes_them(
    tmp_path: Path, agent: Object, logs: Object, *, is_sent: bool
) -> None:
    """Unless the settings of the agent say otherwise; logs for Loki are sent by another program."""
    found = read(tmp_path, instances(agent=members("dino", **agent), **logs))
    assert ("vlagent" in pushed(found)) is is_sent


def test_an_agent_scrapes_what_listens_on_loopback(tmp_path: Path) -> None:
    """At the address where it listens, and without TLS of the service: the samples do not leave the machine."""
    exporters = {"node": {"listenAddress": "::1"}, "redis": {"listenAddress": "localhost"}, "nginx": {}}
    settings: Object = {
        "exporters": exporters,
        "security": "tls",
        "expose": {"photos": {"port": 2342, "loopback": True}},
    }
    found = read(tmp_path, instances(agent=members("dino"), exporter=members("dino", **settings)))
    assert pushed(found) == {
        "node": "http://::1:9100",
        "redis": "http://:9121",
        "nginx": "http://:9113",
        "photos": "http://:2342",
        "vmagent": "http://:8429",
    }
    assert found.excluded == ()
    found = read(tmp_path, instances(exporter=members("dino", **settings)))
    assert sorted(e.job or "" for e in found.excluded) == ["node", "photos", "redis"]


def test_machines_that_share_settings_with_an_agent_are_scraped(tmp_path: Path) -> None:
    """The settings are one object, but `security` applies to those that are scraped over the network."""
    found = read(tmp_path, instances(agent=members("dino"), exporter=members("dino", "web01", security="tls")))
    schemes = {e.machine.name: e.exporter.scheme for e in found.expected if e.exporter.type == "node"}
    assert schemes == {"dino": "http", "web01": "https"}


def test_an_agent_of_any_instance_sends_the_exporters_of_all(tmp_path: Path) -> None:
    """It has one queue and one identity."""
    services: Object = {**instances(), "other": {"module": {"name": "prometheus"}, "roles": {"agent": members("dino")}}}
    assert pushed(read(tmp_path, services)) == {"node": "http://:9100", "vmagent": "http://:8429"}
    services["mon"] = {"module": {"name": "prometheus"}, "roles": {"agent": members("dino")}}
    found = read(tmp_path, services)
    assert (pushed(found), len(found.expected), found.problems) == ({"vmagent": "http://:8429"}, 1, ())


def test_a_front_of_an_agent_is_pushed_and_a_server_is_not(tmp_path: Path) -> None:
    """The server scrapes itself."""
    server = members("web01", scrapeServers=True)
    found = read(tmp_path, instances(agent=members("web01"), front=members("web01", kind="nginx"), server=server))
    assert pushed(found, "web01") == {"node": "http://:9100", "nginx": "http://:9113", "vmagent": "http://:8429"}
    assert {e.exporter.type for e in found.expected if e.delivery == "pull"} == {"node", "prometheus"}


def test_without_auto_discovery_agents_still_send(tmp_path: Path) -> None:
    """They need no server to find them."""
    server = members("web01", enableAutoDiscovery=False)
    found = read(tmp_path, instances(agent=members("dino"), server=server))
    assert pushed(found) == {"node": "http://:9100", "vmagent": "http://:8429"}
    assert [(e.name, e.reason) for e in found.excluded] == [("web01", "auto_discovery_off")]


def test_mistakes_in_the_role_agent_are_reported(tmp_path: Path) -> None:
    """A machine that does not exist, a mac, and one with two kinds of settings. A mac stays scraped."""
    services = instances(agent=members("dnio", "dino", "mac"), exporter=members("dino", "mac", exporterType="redis"))
    agent = members("dino", scrapeInterval="30s")
    services["other"] = {"module": {"name": "prometheus"}, "roles": {"agent": agent}}
    found = read(tmp_path, services)
    assert messages(found) == [
        (
            "problem: instances.mon.roles.agent.machines: 'dnio' is not a machine of the inventory: it gets no target "
            "(did you mean 'dino'?)"
        ),
        (
            "problem: instances.mon.roles.agent (machine mac): a darwin machine cannot be an agent: its units are of "
            "NixOS (remove it from the role: its exporters are scraped)"
        ),
        (
            "problem: instances.other.roles.agent (machine dino): dino has other settings in the role agent of the "
            "instance mon, but one agent (make them equal, or remove it from one instance)"
        ),
    ]
    assert found.agents == ("dino",)
    assert [(e.name, e.reason) for e in found.excluded] == [("mac", "darwin")]


@pytest.mark.parametrize(
    ("role", "settings", "said"),
    [
        ("agent", {"token": "hunter2"}, "token: must be an attribute set of settings, not a string"),
        ("agent", {"token": {"flie": "/x"}}, "token.flie: unknown option (did you mean 'file'?)"),
        ("agent", {"logs": {"enable": "yes"}}, 'logs.enable: must be true or false, not "yes"'),
        ("agent", {"queue": {"size": "1GiB"}}, "queue.size: unknown option (known: maxDiskUsage)"),
        ("logs", {"backend": "lokki"}, "backend: \"lokki\" is no store of logs (did you mean 'loki'?)"),
    ],
)
def test_invalid_settings_are_errors(tmp_path: Path, role: str, settings: Object, said: str) -> None:
    """With their path. What may be a token is not shown."""
    with pytest.raises(InputError) as caught:
        read(tmp_path, instances(**{role: members("dino", **settings)}))
    assert f"roles.{role}.machines.dino.settings.{said}" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_check_refuses_two_exporters_of_one_type_on_an_agent(tmp_path: Path, run: Run) -> None:
    """Other commands leave the second out and say so."""
    expose: Object = {"one": {"port": 1, "type": "photos"}, "two": {"port": 2, "type": "photos"}}
    config = place(tmp_path, instances(agent=members("dino"), exporter=members("dino", expose=expose)))
    done = run("check", "-c", config)
    assert done.code == 2
    assert "dino is an agent, and has two exporters of the type 'photos': port 1 and port 2" in done.err
    shown = json.loads(run("show", "-c", config, "--format", "json").out)
    assert [t["address"] for t in shown["pushed"] if t["job"] == "photos"] == ["127.0.0.1:1"]
    assert [e["reason"] for e in shown["excluded"]] == ["inexpressible"]


def test_check_accepts_two_exporters_of_one_type_on_a_machine_that_is_scraped(tmp_path: Path, run: Run) -> None:
    """Their instances have the port."""
    expose: Object = {"one": {"port": 1, "type": "photos"}, "two": {"port": 2, "type": "photos"}}
    config = place(tmp_path, instances(agent=members("web01"), exporter=members("dino", expose=expose)))
    assert run("check", "-c", config).code == 0


def test_exposed_services_say_who_is_an_agent(tmp_path: Path) -> None:
    """Its services on loopback, adopted scrape configs of loopback, and its own programs are pushed."""
    adopted: Json = [{"job_name": "caddy", "static_configs": [{"targets": ["localhost:2020"]}]}]
    services: Json = {"photos": {"port": 2342, "loopback": True}, "films": {"port": 8096}}
    machine: Json = {"agent": True, "agent_logs": True, "expose": services, "adopted": adopted}
    document: Json = {"machines": {"Dino": machine, "nas": {"agent": False, "expose": {"films": {"port": 8096}}}}}
    found = read(tmp_path, instances(), document)
    assert found.agents == ("dino",)
    assert pushed(found) == {
        "node": "http://:9100",
        "photos": "http://:2342",
        "films": "http://:8096",
        "caddy": "http://:2020",
        "vmagent": "http://:8429",
        "vlagent": "http://:9429",
    }
    assert {e.delivery for e in found.expected if e.machine.name == "nas"} == {"pull"}
    [agent] = [e for e in found.expected if e.exporter.type == "vmagent"]
    assert agent.where.startswith(f"{tmp_path}/exposed.json:1:")


def test_the_clan_and_its_exposed_services_declare_one_agent(tmp_path: Path) -> None:
    """Both say so: each exporter is expected once."""
    services = instances(agent=members("dino"), logs=members("web01"))
    found = read(tmp_path, services, {"machines": {"dino": {"agent": True, "agent_logs": True}}})
    assert sorted(e.exporter.type for e in found.expected if e.machine.name == "dino") == ["node", "vlagent", "vmagent"]


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        ({"agent": "yes"}, 'machines.dino.agent: must be true or false, not "yes"'),
        ({"agent": True, "agent_logs": 1}, "machines.dino.agent_logs: must be true or false, not 1"),
        ({"agnet": True}, "machines.dino.agnet: unknown key (did you mean 'agent'?)"),
        ({"tags": "laptop"}, 'machines.dino.tags: must be a list of tags, not "laptop" (for example: ["laptop"])'),
        ({"tags": ["a", 1]}, "machines.dino.tags: must be a list of tags"),
        ({"tags": ["a,b"]}, "machines.dino.tags: must be a list of tags"),
        ({"tags": [""]}, "machines.dino.tags: must be a list of tags"),
    ],
)
def test_what_is_exposed_of_an_agent_is_checked(machine: Json, said: str) -> None:
    """With the place in the file."""
    with pytest.raises(InputError) as caught:
        declare_exposed(json.dumps({"machines": {"dino": machine}}).encode(), "exposed.json")
    assert said in str(caught.value)
    assert str(caught.value).startswith("exposed.json:1:")


def test_a_laptop_without_a_clan_comes_and_goes(tmp_path: Path, run: Run) -> None:
    """Its tags are in the file of exposed services; those of the clan are kept."""
    machine: Json = {"agent": True, "tags": ["laptop"], "expose": {"films": {"port": 8096}}}
    (tmp_path / "exposed.json").write_text(json.dumps({"machines": {"dino": machine, "nas": {"agent": True}}}))
    config = tmp_path / "config.yaml"
    config.write_text("inventory: {exposed: exposed.json}\noutput: {directory: out}\n")
    shown = json.loads(run("show", "-c", config, "--format", "json").out)
    patience = {(target["machine"], target["job"]): target["patience"] for target in shown["pushed"]}
    assert patience == {("dino", "films"): "roaming", ("dino", "vmagent"): "roaming", ("nas", "vmagent"): "always"}
    found = read(tmp_path, instances(agent=members("dino")), {"machines": {"dino": {"tags": ["quiet", "laptop"]}}})
    [tags] = {e.machine.tags for e in found.expected if e.machine.name == "dino"}
    assert {"laptop", "quiet"} < set(tags)


def test_an_ignored_machine_is_no_agent(tmp_path: Path, run: Run) -> None:
    """Its targets are neither scraped nor pushed."""
    config = place(tmp_path, instances(agent=members("dino")))
    config.write_text(f"{config.read_text()}ignore: {{names: [dino]}}\n")
    shown = json.loads(run("show", "-c", config, "--format", "json").out)
    assert shown["pushed"] == []
    assert [(e["name"], e["reason"]) for e in shown["excluded"]] == [("dino", "ignored")]
    done = run("render", "-c", config, "--agent", "dino", "--output", tmp_path / "out")
    assert (done.code, "'dino' is no agent" in done.err) == (2, True)
