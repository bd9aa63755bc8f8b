"""Limits, units and needs: from the config, a clan inventory, and declared services."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import msgspec
import pytest

from clan_discovery.assemble.sources import read_declared
from clan_discovery.config.load import load_config
from clan_discovery.syntax.limits import known_limits, limit_complaint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Declared, Json

    Declare = Callable[..., Declared]

CLAN: Json = {
    "machines": {
        "nas": {"tags": ["storage", "slow"], "description": "the big disk box"},
        "db": {"tags": ["storage"], "description": None},
        "Web": {"tags": ["web"]},
    },
    "instances": {"m": {"module": {"name": "prometheus"}, "roles": {"exporter": {"tags": {"all": {}}}}}},
}
MANIFEST: Json = {
    "services": {
        "blog": {"enable": True, "hostname": "web", "ip": "10.0.0.1", "depends_on": ["db", "cache", "mail"]},
        "cache": {"enable": True, "hostname": "web", "ip": "10.0.0.1"},
        "db": {
            "enable": True,
            "hostname": "db",
            "ip": "10.0.0.2",
            "interface": {"health": {"liveness": "systemctl is-active postgresql"}},
        },
        "mail": {"enable": True, "hostname": "nas", "ip": "10.0.0.3", "depends_on": ["db"]},
    }
}


@pytest.fixture
def declare(tmp_path: Path) -> Declare:
    """Return a function that reads the sources of a config with these keys."""

    def call(*, clan: Json = CLAN, manifest: Json = None, **keys: Json) -> Declared:
        inventory: dict[str, Json] = {}
        for key, document in (("file", clan), ("manifest", manifest)):
            if document is not None:
                (tmp_path / f"{key}.json").write_text(json.dumps(document))
                inventory[key] = f"{key}.json" if key == "file" else {"file": f"{key}.json"}
        config: Json = {**keys, **({"inventory": inventory} if inventory else {})}
        (tmp_path / "c.json").write_text(json.dumps(config))
        return read_declared(load_config(tmp_path / "c.json"))

    return call


def limits(declared: Declared) -> list[tuple[str, str, float, str]]:
    """Return the limits, sorted."""
    return sorted((limit.machine, limit.name, limit.value, limit.because) for limit in declared.limits)


def problems(declared: Declared) -> list[str]:
    """Return the problems, each with its severity and without the directory of the file."""
    return [f"{p.severity}: {str(p).rpartition('/')[2]}" for p in declared.problems]


def test_machine_has_the_description_of_the_inventory(declare: Declare) -> None:
    """It may be null or missing; another source does not take it away."""
    for manifest in (None, MANIFEST):
        found = {machine.name: machine.description for machine in declare(manifest=manifest).machines}
        assert found == {"nas": "the big disk box", "db": "", "Web": ""}


def test_limit_of_a_machine_wins_over_tag_and_default(declare: Declare) -> None:
    found = declare(
        limits={
            "default": {"disk_percent": 85, "cpu_percent": 80},
            "tags": {"storage": {"disk_percent": 95}, "slow": {"cpu_percent": 99}},
            "machines": {"DB": {"disk_percent": 97.5}},
        }
    )
    assert limits(found) == [
        ("*", "cpu_percent", 80, "config: limits.default"),
        ("*", "disk_percent", 85, "config: limits.default"),
        ("db", "disk_percent", 97.5, "config: limits.machines.DB"),
        ("nas", "cpu_percent", 99, "config: limits.tags.slow"),
        ("nas", "disk_percent", 95, "config: limits.tags.storage"),
    ]
    assert problems(found) == []


def test_two_tags_with_different_limits_are_a_problem(declare: Declare) -> None:
    """The first one is used; equal ones are none, and the machine's own limit decides."""
    tags: Json = {
        "storage": {"disk_percent": 95, "cpu_percent": 50},
        "slow": {"disk_percent": 90, "cpu_percent": 50, "memory_percent": 1},
    }
    found = declare(limits={"tags": tags})
    assert ("nas", "disk_percent", 90, "config: limits.tags.slow") in limits(found)
    assert problems(found) == [
        (
            "problem: c.json:1:50: limits.tags.storage.disk_percent: nas has the tags slow and storage, and "
            "their limits differ: 90 and 95; the first is used "
            "(make them equal, or set limits.machines.nas.disk_percent)"
        )
    ]
    assert problems(declare(limits={"tags": tags, "machines": {"nas": {"disk_percent": 3}}})) == []


def test_units_of_machines_tags_and_services_add_up(declare: Declare) -> None:
    """A unit without a suffix is a service. The first source is named."""
    found = declare(
        manifest=MANIFEST,
        units={"tags": {"storage": ["smartd", "zfs.target"]}, "machines": {"db": ["postgresql.service", "smartd"]}},
    )
    assert sorted((unit.machine, unit.unit, unit.because) for unit in found.units) == [
        ("db", "postgresql.service", "config: units.machines.db"),
        ("db", "smartd.service", "config: units.machines.db"),
        ("db", "zfs.target", "config: units.tags.storage"),
        ("nas", "smartd.service", "config: units.tags.storage"),
        ("nas", "zfs.target", "config: units.tags.storage"),
    ]


def test_needs_are_those_of_the_config_and_of_services(declare: Declare) -> None:
    """A service depends on services; their machines need each other, but no machine needs itself."""
    found = declare(manifest=MANIFEST, needs={"web": ["nas", "Web"], "NAS": "db"})
    assert [(need.machine, need.on) for need in found.needs] == [("Web", "nas"), ("nas", "db"), ("Web", "db")]
    assert found.needs[0].because == "config: needs.web"
    assert found.needs[2].because.startswith("manifest: services.blog (")
    assert found.needs[2].because.endswith(") depends on db")


def test_manifest_alone_has_units_and_needs(declare: Declare) -> None:
    """Without any key in the config."""
    found = declare(clan=None, manifest=MANIFEST)
    assert [(unit.machine, unit.unit) for unit in found.units] == [("db", "postgresql.service")]
    assert [(need.machine, need.on) for need in found.needs] == [("web", "db"), ("web", "nas"), ("nas", "db")]


def test_unknown_machines_and_tags_are_problems(declare: Declare) -> None:
    found = declare(
        limits={"tags": {"storrage": {"cpu_percent": 1}}, "machines": {"nass": {"cpu_percent": 1}}},
        units={"tags": {"webb": ["a"]}, "machines": {"zz": ["a"]}},
        needs={"web": ["db", "dbb"]},
    )
    assert sorted(re.sub(r"^problem: c.json:[0-9]+:[0-9]+: ", "", message) for message in problems(found)) == [
        "limits.machines.nass: no source declares a machine 'nass' (did you mean 'nas'?)",
        "limits.tags.storrage: the inventory has no tag 'storrage' (did you mean 'storage'?)",
        "needs.web.1: no source declares a machine 'dbb' (did you mean 'db'?)",
        "units.machines.zz: no source declares a machine 'zz' (name a declared machine)",
        "units.tags.webb: the inventory has no tag 'webb' (did you mean 'web'?)",
    ]


def test_tag_without_a_clan_is_a_problem(declare: Declare) -> None:
    """Only a clan and exposed services give machines tags."""
    (problem,) = problems(declare(clan=None, manifest=MANIFEST, units={"tags": {"web": ["nginx"]}}))
    assert "units.tags.web: no machine has the tag 'web'" in problem


def test_listed_machines_are_known(declare: Declare) -> None:
    """A machine of a static list, and any machine where a backend finds some."""
    static: Json = {"static": {"lab": {"machines": {"nas": "10.0.0.7"}, "targets": {"node": ["10.0.0.5:9100", "old"]}}}}
    machines: Json = {name: {"disk_percent": 3} for name in ("nas", "10.0.0.5", "old")}
    found = declare(clan=None, backends=static, limits={"machines": machines})
    assert [limit.machine for limit in found.limits] == ["nas", "10.0.0.5", "old"]
    assert problems(found) == []
    assert len(problems(declare(clan=None, backends=static, needs={"nas": "other"}))) == 1
    assert problems(declare(clan=None, exporters={"node": {"select": {}}}, needs={"nas": "other"})) == []


def test_limits_reach_the_metrics(tmp_path: Path, run: Callable[..., object], declare: Declare) -> None:
    """From the config to the file."""
    declare(limits={"default": {"disk_percent": 85}}, units={"tags": {"web": ["nginx"]}}, needs={"web": "db"})
    run("refresh", "-q", "-c", tmp_path / "c.json", "--output", tmp_path / "out", "--metrics-file", tmp_path / "m.prom")
    text = (tmp_path / "m.prom").read_text()
    for line in (
        'clan_discovery_limit{machine="nas",name="disk_percent"} 85.0',
        'clan_discovery_unit{machine="Web",unit="nginx.service"} 1.0',
        'clan_discovery_needs{machine="Web",on="db"} 1.0',
        'clan_discovery_machine_info{description="the big disk box",machine="nas",tags="slow,storage"} 1.0',
    ):
        assert f"\n{line}\n" in text


def test_known_limits_are_complete() -> None:
    """The defaults are in their own range, and the texts are sentences."""
    for limit in known_limits().values():
        assert limit_complaint(limit, limit.default) is None
        assert limit.description.endswith(".")
        assert msgspec.structs.astuple(limit).count("") == 0
