"""What `check` says of a shard: names that may be misspelt, and values that cannot be used."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest

from clan_discovery.assemble.plan import make_plan
from clan_discovery.config.load import load_config
from tests.support.fleet import inventory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]
    Check = Callable[..., Done]

MEMBERS: Final = ["mon1", "mon2", "mon3"]
SERVERS: Final[dict[str, Json]] = {name: {} for name in MEMBERS}


@pytest.fixture
def check(tmp_path: Path, run: Run) -> Check:
    """Return a function that checks a config with a shard, and an inventory with these servers."""

    def checked(shard: dict[str, Json], servers: Json = None, **others: Json) -> Done:
        machines: dict[str, dict[str, Json]] = {name: {} for name in ("web", "db", *MEMBERS)}
        roles: Json = {"exporter": {"tags": ["all"]}, "server": {"machines": servers or {}}}
        instance: Json = {"module": {"name": "prometheus", "input": "self"}, "roles": roles}
        machines["mac"] = {"machineClass": "darwin"}
        document = inventory(machines, instances={"monitoring": instance})
        (tmp_path / "inventory.json").write_text(json.dumps(document))
        config: dict[str, Json] = {"inventory": {"file": "inventory.json"}, "backends": {"tailscale": {}}}
        file = tmp_path / "config.json"
        file.write_text(json.dumps({**config, "shard": {"member": "mon1", **shard}, **others}))
        return run("check", "-c", file)

    return checked


def test_servers_and_members_that_differ_are_warned_of(check: Check) -> None:
    """Both places are named. Case does not matter."""
    done = check({"members": ["mon1", "MON2", "mon33"]}, servers=dict(SERVERS))
    assert done.code == 0
    lines = done.err.splitlines()
    assert len(lines) == 2
    assert all(
        "config.json:1:" in line and "inventory.json: instances.monitoring.roles.server" in line for line in lines
    )
    assert "'mon33' is not in" in lines[0]
    assert "(did you mean 'mon3'?)" in lines[0]
    assert "'mon3' is in" in lines[1]
    assert "no member" in lines[1]


def test_the_first_of_many_misspelt_members_get_a_suggestion(check: Check, tmp_path: Path) -> None:
    """A search takes milliseconds in a large fleet, and each cycle of `refresh` warns."""
    misspelt = [f"mon1{number}" for number in range(30)]
    check({"members": ["mon1", *misspelt]}, servers=dict(SERVERS))
    plan = make_plan(load_config(tmp_path / "config.json"))
    found = [problem for problem in plan.declared.problems if "mon1" in problem.what]
    suggested = ["did you mean" in (problem.hint or "") for problem in found]
    assert suggested == [True] * 20 + [False] * 10


@pytest.mark.parametrize("servers", [{}, SERVERS, {**SERVERS, "db": {"settings": {"enable": False}}, "mac": {}}])
def test_an_inventory_with_the_same_servers_or_none_is_not_warned_of(check: Check, servers: Json) -> None:
    """A machine that is switched off, and a darwin machine, runs no server."""
    assert check({"members": MEMBERS}, servers=servers).err == ""


def test_an_unshared_job_that_does_not_exist_is_warned_of(check: Check) -> None:
    """Except for those of the default, which may exist on another fleet alone."""
    done = check({"members": MEMBERS, "unshared": ["prometheus", "clan-discovery", "nodee", "node"]})
    assert done.code == 0
    (line,) = done.err.splitlines()
    assert "shard.unshared.2: there is no job 'nodee' (did you mean 'node'?)" in line


def test_a_scraper_elsewhere_that_is_no_member_is_warned_of(check: Check) -> None:
    """On loopback it is this server's, whatever its name is."""
    urls = {"MON1": "http://10.0.0.1:9090", "mon22": "http://10.0.0.2:9090", "own": "http://[::1]:9090"}
    scrapers: Json = {name: {"url": url} for name, url in urls.items()}
    done = check({"members": MEMBERS}, verify={"scrapers": scrapers})
    assert done.code == 0
    (line,) = done.err.splitlines()
    assert "verify.scrapers.mon22: 'mon22' is not in `shard.members`" in line
    assert "(did you mean 'mon2'?)" in line
    done = check({"members": MEMBERS}, verify={"scrapers": {"other": {"url": "http://10.0.0.2:9090"}}})
    assert "give it the name of its member (mon1, mon2, mon3), or remove it if its server has left" in done.err


def test_a_server_without_a_scraper_of_its_own_is_warned_of(check: Check) -> None:
    """Otherwise all targets are `up` before a server that joins scrapes its share."""
    done = check({"members": MEMBERS}, verify={"scrapers": {"mon2": {"url": "http://10.0.0.2:9090"}}})
    (line,) = done.err.splitlines()
    assert "verify.scrapers: none is of 'mon1', this server" in line
    assert "(add 'mon1' with its URL)" in line
    for name, url in {"MON1": "http://10.0.0.1:9090", "own": "http://127.0.0.1:9090"}.items():
        assert check({"members": MEMBERS}, verify={"scrapers": {name: {"url": url}}}).err == ""


def test_no_name_is_suggested_that_another_one_has(check: Check) -> None:
    """A server that is new or has left is not a misspelt one, although the names of servers are similar."""
    urls = {name: {"url": f"http://10.0.0.{name[-1]}:9090"} for name in ("mon1", "mon2", "mon3", "mon4")}
    done = check({"members": MEMBERS}, verify={"scrapers": urls})
    (line,) = done.err.splitlines()
    assert "'mon4'" in line
    assert "did you mean" not in line
    done = check({"members": [*MEMBERS, "mon4"]}, servers=dict(SERVERS))
    (line,) = done.err.splitlines()
    assert "'mon4' is not in" in line
    assert "servers are: mon1, mon2, mon3" in line


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            "shard: {members: [mon1, 2]}",
            "2:18: shard.members: 2 is not a name: write a name, in quotes if it is a number",
        ),
        ("shard: {members: mon1}", "2:18: shard.members: must be a list of names, not 'mon1': write [mon1]"),
        ('shard: {members: [mon1, ""]}', "2:18: shard.members: '' is not a name: write a name"),
        ("shard: {members: [mon1, a b]}", "2:18: shard.members: 'a b' cannot be a name here: letters, digits"),
        ("shard: {members: [mon1, mon1]}", "2:18: shard.members: has the name 'mon1' twice: remove one of them"),
        ("shard: {members: [{name: mon1}]}", "2:18: shard.members: has more than names: write a mapping of names"),
        ("shard: {members: []}", "2:18: shard.members: is empty: name the servers, also this one"),
        ("storage: {nodes: 5}", "2:18: storage.nodes: must be a list of names, not 5: write [NAME]"),
        ("storage: {nodes: [db1, db1]}", "2:18: storage.nodes: has the name 'db1' twice: remove one of them"),
        ("storage: {nodes: [db1, true]}", "2:18: storage.nodes: true is not a name: write a name"),
        ("server: mon$1", "2:9: server: 'mon$1' cannot be a label: scrapers expand '$', write a name without it"),
        ("server: mon%{HOME}", "2:9: server: 'mon%{HOME}' cannot be a label: scrapers expand '%{'"),
        ("server: 'mon{{1'", "2:9: server: 'mon{{1' cannot be a label: scrapers expand '{{'"),
        (
            r'server: "mon\a"',
            r"2:9: server: 'mon\x07' cannot be a label: write one line of 1 to 200 printable characters",
        ),
        ("storage: {cluster: a$b}", "2:20: storage.cluster: 'a$b' cannot be a label: scrapers expand '$'"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_with_its_place(
    written: str, said: str, tmp_path: Path, run: Run
) -> None:
    """The message has the value and the fix."""
    file = tmp_path / "c.yaml"
    file.write_text(f"backends: {{static: {{lab: {{targets: {{node: [a]}}}}}}}}\n{written}\n")
    done = run("check", "-c", file)
    assert done.code == 2
    assert f"c.yaml:{said}" in done.err.splitlines()[0]


@pytest.mark.parametrize("name", ["büro süd", "it's", "100%"])
def test_a_server_may_have_any_other_name(name: str, tmp_path: Path, run: Run) -> None:
    """Spaces, quotes and letters of any language are written as they are."""
    config: Json = {"server": name, "backends": {"static": {"lab": {"targets": {"node": ["a"]}}}}}
    (tmp_path / "c.json").write_text(json.dumps(config))
    assert run("check", "-c", tmp_path / "c.json").code == 0
