"""Limits, units and needs in a clan inventory, and what `explain` and the JSON documents say of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jsonschema
import pytest

from clan_discovery.assemble.sources import read_declared
from clan_discovery.cli.commands.schema import schema
from clan_discovery.config.load import load_config
from clan_discovery.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Declared, Json
    from tests.conftest import Done

    Run = Callable[..., Done]


def override(priority: int, value: Json) -> Json:
    """Return what lib.mkForce (50) and lib.mkDefault (1000) write."""
    return {"_type": "override", "priority": priority, "content": value}


def clan(exporter: Json, **instances: Json) -> Json:
    """Return an inventory of three machines, whose instance `m` has these settings of the role exporter."""
    module: Json = {"name": "prometheus"}
    roles: dict[str, Json] = {"m": exporter, **instances}
    return {
        "machines": {
            "nas": {"tags": ["storage"], "description": "the big\nbox"},
            "db": {"tags": ["storage", "sql"]},
            "web": {"tags": []},
        },
        "instances": {name: {"module": module, "roles": {"exporter": role}} for name, role in roles.items()},
    }


EXPORTER: Json = {
    "settings": {"limits": {"cpu_percent": override(1000, 70), "unit_restarts": 5}, "units": ["sshd"]},
    "machines": {"web": {"settings": {"needs": ["db"], "units": ["nginx.service"], "limits": {"cpu_percent": 60.5}}}},
    "tags": {
        "all": {"settings": {}},
        "storage": {"settings": {"limits": {"disk_percent": 95}, "units": ["smartd.service", "sshd"]}},
        "sql": {"settings": {"limits": {"disk_percent": override(50, 80)}, "needs": ["nas", "db"]}},
    },
}


def written(tmp_path: Path, inventory: Json, **keys: Json) -> Path:
    """Write an inventory and its config; return the config's file."""
    (tmp_path / "inventory.json").write_text(json.dumps(inventory))
    (tmp_path / "c.json").write_text(json.dumps({"inventory": {"file": "inventory.json"}, **keys}))
    return tmp_path / "c.json"


def declared(tmp_path: Path, inventory: Json, **keys: Json) -> Declared:
    """Return what an inventory declares."""
    return read_declared(load_config(written(tmp_path, inventory, **keys)))


def test_settings_merge_and_each_value_has_its_origin(tmp_path: Path) -> None:
    """As all settings do: limits may be overridden, lists are joined."""
    found = declared(tmp_path, clan(EXPORTER))
    role = "inventory: instance m, role exporter"
    assert sorted((x.machine, x.name, x.value, x.because) for x in found.limits) == [
        ("db", "cpu_percent", 70, role),
        ("db", "disk_percent", 80, f"{role}, tag sql"),
        ("db", "unit_restarts", 5, role),
        ("nas", "cpu_percent", 70, role),
        ("nas", "disk_percent", 95, f"{role}, tag storage"),
        ("nas", "unit_restarts", 5, role),
        ("web", "cpu_percent", 60.5, f"{role}, machine web"),
        ("web", "unit_restarts", 5, role),
    ]
    assert sorted((x.machine, x.unit, x.because) for x in found.units) == [
        ("db", "smartd.service", f"{role}, tag storage"),
        ("db", "sshd.service", f"{role}, tag storage"),
        ("nas", "smartd.service", f"{role}, tag storage"),
        ("nas", "sshd.service", f"{role}, tag storage"),
        ("web", "nginx.service", f"{role}, machine web"),
        ("web", "sshd.service", role),
    ]
    assert [(x.machine, x.on, x.because) for x in found.needs] == [
        ("db", "nas", f"{role}, tag sql"),
        ("web", "db", f"{role}, machine web"),
    ]
    assert found.problems == ()


def test_config_and_inventory_set_limits(tmp_path: Path) -> None:
    """Machines and tags of the config win over the inventory, which wins over the default of the config."""
    limits: Json = {
        "default": {"disk_percent": 50, "cpu_percent": 1},
        "tags": {"sql": {"cpu_percent": 2}},
        "machines": {"nas": {"disk_percent": 3}},
    }
    found = declared(tmp_path, clan(EXPORTER), limits=limits)
    values = {(x.machine, x.name): x.value for x in found.limits if x.name != "unit_restarts"}
    assert values == {
        ("*", "cpu_percent"): 1,
        ("*", "disk_percent"): 50,
        ("db", "cpu_percent"): 2,
        ("db", "disk_percent"): 80,
        ("nas", "cpu_percent"): 70,
        ("nas", "disk_percent"): 3,
        ("web", "cpu_percent"): 60.5,
    }


def test_two_instances_with_different_limits_are_a_problem(tmp_path: Path) -> None:
    """The first is used; equal ones are none. Of a role with many members it is told once."""
    one: Json = {"settings": {"limits": {"cpu_percent": 10, "disk_percent": 9}}, "tags": ["all"]}
    other: Json = {"settings": {"limits": {"cpu_percent": 20, "disk_percent": 9}}, "tags": ["all"]}
    found = declared(tmp_path, clan(one, n=other))
    assert {limit.value for limit in found.limits if limit.name == "cpu_percent"} == {10}
    assert [str(problem) for problem in found.problems if "limit" in problem.what] == [
        (
            "inventory: instance n, role exporter: the limit cpu_percent of db is 20 here and 10 in "
            "inventory: instance m, role exporter; the latter is used (set it in one instance)"
        )
    ]


MISTAKES: list[tuple[Json, str, str]] = [
    ({"limits": 85}, "limits", "must be an attribute set of numbers, not a number"),
    ({"limits": {"disk_procent": 9}}, "limits.disk_procent", "of this name (did you mean 'disk_percent'?)"),
    ({"limits": {"zz": 9}}, "limits.zz", "no alert rule reads a limit of this name (known: certificate_days, "),
    ({"limits": {"disk_percent": "90"}}, "limits.disk_percent", 'must be a number, not "90"'),
    ({"limits": {"disk_percent": True}}, "limits.disk_percent", "must be a number, not true"),
    ({"limits": {"disk_percent": 101}}, "limits.disk_percent", "must be at most 100, not 101"),
    ({"limits": {"clock_skew_seconds": -0.5}}, "limits.clock_skew_seconds", "must be at least 0, not -0.5"),
    ({"units": "nginx"}, "units", "must be a list of systemd units, not a string"),
    ({"units": ["a b"]}, "units", "'a b' is not a systemd unit: write one such as nginx.service"),
    ({"units": [3]}, "units", "must be a list of systemd units, and 3 is not a string"),
    ({"needs": {"db": {}}}, "needs", "must be a list of machines, not an object"),
    (
        {"exporters": {"node": {"limits": {}}}},
        "exporters.node.limits",
        "is a setting of the machine (write it beside `exporters`)",
    ),
    ({"limit": {"disk_percent": 95}}, "limit", "unknown setting, ignored (did you mean 'limits'?)"),
    ({"unit": ["x"]}, "unit", "unknown setting, ignored (did you mean 'units'?)"),
]


@pytest.mark.parametrize(("settings", "option", "words"), MISTAKES)
def test_mistake_is_told_with_its_place(tmp_path: Path, settings: Json, option: str, words: str) -> None:
    """Once for all members of a role."""
    try:
        problems = declared(tmp_path, clan({"settings": settings, "tags": ["all"]})).problems
    except InputError as error:
        problems = error.problems
    (message,) = map(str, problems)
    assert f"inventory.json: instances.m.roles.exporter.machines.db.settings.{option}: " in message
    assert words in message


def test_unknown_machine_in_needs_is_a_problem(tmp_path: Path) -> None:
    """Told once, and the others are used."""
    found = declared(tmp_path, clan({"settings": {"needs": ["dbb", "nas"]}, "tags": ["all"]}))
    assert [(need.machine, need.on) for need in found.needs] == [("db", "nas"), ("web", "nas")]
    (problem,) = found.problems
    assert problem.severity == "problem"
    assert str(problem).endswith(
        "inventory.json: instances.m.roles.exporter.machines.db.settings.needs: no source declares a machine 'dbb' "
        "(did you mean 'db'?)"
    )


def test_explain_names_limits_units_and_needs(tmp_path: Path, run: Run) -> None:
    config = written(tmp_path, clan(EXPORTER), limits={"default": {"memory_percent": 12.5}})
    text = run("explain", "db", "nas", "-c", config).out
    for line in (
        "limit: disk_percent 80 [inventory: instance m, role exporter, tag sql]",
        "limit: memory_percent 12.5 [config: limits.default]",
        "unit that must be active: smartd.service [inventory: instance m, role exporter, tag storage]",
        "needs: nas [inventory: instance m, role exporter, tag sql]",
        "needed by: web",
        "needed by: db",
        r"description: the big\nbox",
    ):
        assert f"\n  {line}\n" in text


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("resolution", ["show", "--format", "json"]),
        ("inventory", ["inventory"]),
        ("explain", ["explain", "db", "--format", "json"]),
    ],
)
def test_documents_match_their_schemas(tmp_path: Path, run: Run, name: str, args: list[str]) -> None:
    """Each has what is declared."""
    config = written(tmp_path, clan(EXPORTER), limits={"default": {"memory_percent": 12.5}})
    done = run(*args, "-c", config)
    document = json.loads(done.out)
    jsonschema.validate(document, schema(name), cls=jsonschema.Draft202012Validator)
    found = document[0] if name == "explain" else document
    assert {"machine": "db", "name": "disk_percent", "value": 80.0} in [
        {key: limit[key] for key in ("machine", "name", "value")} for limit in found["limits"]
    ]
    assert "smartd.service" in {unit["unit"] for unit in found["units"]}
    assert {"db", "nas"} <= {word for need in found["needs"] for word in (need["machine"], need["on"])}


def test_show_of_one_machine_has_its_limits_alone(tmp_path: Path, run: Run) -> None:
    done = run("show", "web", "--format", "json", "-c", written(tmp_path, clan(EXPORTER)))
    document = json.loads(done.out)
    assert {limit["machine"] for limit in document["limits"]} == {"web"}
    assert [need["on"] for need in document["needs"]] == ["db"]
