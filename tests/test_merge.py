"""Several sources are merged: equal facts agree, different ones are a conflict that names both places."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.errors import InputError
from clan_discovery.inventory.merge import Part, merge
from clan_discovery.model import (
    Declared,
    DeclaredAddress,
    DeclaredRole,
    DeclaredService,
    Endpoint,
    Exclusion,
    Expected,
    Exporter,
    Front,
    Machine,
    MachineLimit,
    MachineNeed,
    MachineUnit,
    Problem,
    PublishedMetrics,
    ServerSettings,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]


def addresses(source: str, machine: str, host: str) -> Part:
    """Return a part with the address of one machine."""
    declared = Declared(machines=(Machine(name=machine),), addresses={machine: DeclaredAddress(host, source)})
    return Part(source=source, declared=declared, place=lambda name: f"{source}:{name}")


def exporter(source: str, machine: str, port: int, **given: str) -> Part:
    """Return a part with one exporter."""
    labels = tuple((name, value) for name, value in given.items() if name not in ("type", "path", "scheme", "where"))
    found = Exporter(
        type=given.get("type", "node"),
        port=port,
        path=given.get("path", "/metrics"),
        scheme=given.get("scheme", "http"),
        labels=labels,
    )
    where = given.get("where", "")
    expected = Expected(machine=Machine(name=machine), exporter=found, because=source, where=where)
    declared = Declared(machines=(Machine(name=machine),), expected=(expected,))
    return Part(source=source, declared=declared, place=lambda name: f"{source}:{name}")


def front(source: str, domain: str, machine: str, port: int) -> Part:
    """Return a part with one front."""
    found = Front(service="s", domain=domain, machine=machine, port=port, because=source)
    declared = Declared(machines=(Machine(name=machine),), fronts=(found,))
    return Part(source=source, declared=declared, place=lambda name: f"{source}:{name}")


def conflicts(*parts: Part) -> list[str]:
    """Return the conflicts of the parts; they are the same in the other order."""
    found: list[list[str]] = []
    for order in (parts, parts[::-1]):
        with pytest.raises(InputError) as error:
            merge(order)
        found.append([str(problem) for problem in error.value.problems])
    assert found[0] == found[1]
    return found[0]


def test_equal_exporters_are_one() -> None:
    """Both sources are named, and labels add up. The machine of the clan is used."""
    clan = exporter("clan", "db", 9100, rack="a")
    merged = merge([exporter("manifest", "DB", 9100, room="1"), clan])
    (found,) = merged.expected
    assert (found.machine.name, found.because) == ("db", "clan and manifest")
    assert found.exporter.labels == (("rack", "a"), ("room", "1"))
    assert [machine.name for machine in merged.machines] == ["db"]


def test_two_exporters_of_a_machine_are_two() -> None:
    """They differ in port, or in type and path."""
    parts = [exporter("a", "db", 9100), exporter("b", "db", 9101), exporter("c", "db", 9100, type="x", path="/x")]
    assert len(merge(parts).expected) == 3


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"path": "/m"}, "db:9100 is declared as node (http, /metrics) and as node (http, /m)"),
        ({"scheme": "https"}, "db:9100 is declared as node (http, /metrics) and as node (https, /metrics)"),
        ({"type": "app"}, "db:9100 is declared as node (http, /metrics) and as app (http, /metrics)"),
        ({"rack": "b"}, "db:9100 is declared as node (http, /metrics, rack=a) and as node (http, /metrics, rack=b)"),
    ],
)
def test_different_facts_about_one_exporter_are_a_conflict(other: dict[str, str], words: str) -> None:
    """The error names both places, and does not depend on the order of the sources."""
    own = {"rack": "a"} if "rack" in other else {}
    parts = exporter("clan", "db", 9100, **own), exporter("manifest", "db", 9100, where="m.json:3:1", **other)
    assert conflicts(*parts) == [
        f"m.json:3:1: {words} (the other place: clan:db) (make them equal, or remove one of them)"
    ]


def test_different_addresses_are_a_conflict() -> None:
    """Two notations of one address are equal."""
    parts = addresses("a", "db", "10.0.0.1"), addresses("b", "db", "10.0.0.2")
    (error,) = conflicts(*parts)
    assert error.startswith("b:db: the machine db is at 10.0.0.1 and at 10.0.0.2 (the other place: a:db)")
    same = addresses("a", "db", "fd00::1"), addresses("b", "DB", "fd00:0::1")
    assert {name: address.host for name, address in merge(same).addresses.items()} == {"db": "fd00::1"}


def test_a_front_has_one_place() -> None:
    """A domain that is declared twice is an error, also within one source and in another case."""
    (error,) = conflicts(front("a", "x.example", "db", 80), front("b", "X.example", "db", 81))
    assert error.startswith(
        "b:db: the front X.example leads to http://db:80 and to http://db:81 (the other place: a:db)"
    )
    one = front("a", "x.example", "db", 80)
    both = Declared(
        machines=one.declared.machines,
        fronts=(*one.declared.fronts, *front("a", "x.example", "db", 81).declared.fronts),
    )
    assert len(conflicts(Part(source="a", declared=both, place=one.place))) == 1
    assert len(merge([one, front("b", "x.example", "DB", 80)]).fronts) == 1


def test_services_of_one_name_add_up() -> None:
    """The checks of both sources count."""
    parts: list[Part] = []
    for source in ("a", "b"):
        service = DeclaredService(name="web", machine="db", because=source, units=(f"{source}.service",))
        declared = Declared(machines=(Machine(name="db"),), services=(service,))
        parts.append(Part(source=source, declared=declared, place=str))
    (service,) = merge(parts).services
    assert (service.because, service.units) == ("a and b", ("a.service", "b.service"))


PARTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([9100, 9200]), st.sampled_from(["node", "app"])), max_size=4
)


@given(lists=st.dictionaries(st.sampled_from(["clan", "compose", "exposed", "manifest"]), PARTS), data=st.data())
def test_the_order_of_sources_does_not_matter(
    lists: dict[str, list[tuple[str, int, str]]], data: st.DataObject
) -> None:
    """Neither for the result nor for the conflicts."""
    parts: list[Part] = []
    for source, facts in lists.items():
        found = [exporter(source, machine, port, type=type_).declared for machine, port, type_ in facts]
        declared = Declared(
            machines=tuple(Machine(name=name) for name in sorted({machine for machine, _, _ in facts})),
            expected=tuple(expected for one in found for expected in one.expected),
        )
        parts.append(Part(source=source, declared=declared, place=f"{source}:{{}}".format))
    outcomes: list[object] = []
    for order in (parts, data.draw(st.permutations(parts))):
        try:
            outcomes.append(merge(order))
        except InputError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


def test_nothing_of_a_source_is_lost() -> None:
    """Each field of two sources with different facts is in the result."""
    parts: list[Part] = []
    for name in ("a", "b"):
        machine, endpoint = Machine(name=name), Exporter(type="list", port=1)
        declared = Declared(
            machines=(machine,),
            expected=(Expected(machine=machine, exporter=Exporter(type="node", port=9100), because=name),),
            servers=(ServerSettings(instance="i", machine=name),),
            excluded=(Exclusion(name=name, reason="disabled", detail="", by=name),),
            problems=(Problem(where=name, what="x"),),
            domain=name,
            roles=(DeclaredRole(instance="i", module="m", source=None, role=name, members={}),),
            addresses={name: DeclaredAddress(name, name)},
            fronts=(Front(service="s", domain=name, machine=name, port=1, because=name),),
            services=(DeclaredService(name="s", machine=name, because=name),),
            endpoints=(Endpoint(host=name, exporter=endpoint, machine=name, because=name, backend="inventory"),),
            refused=(Front(service="r", domain=name, machine=name, port=0, because=name),),
            agents=(name,),
            limits=(MachineLimit(machine=name, name="cpu_percent", value=1, because=name),),
            units=(MachineUnit(machine=name, unit="a.service", because=name),),
            needs=(MachineNeed(machine=name, on="c", because=name),),
            published=(PublishedMetrics(service="s", machine=name, port=1),),
        )
        parts.append(Part(source=name, declared=declared, place=str))
    merged = msgspec.structs.asdict(merge(parts))
    assert merged.pop("domain") == "a"
    assert {field: len(values) for field, values in merged.items()} == dict.fromkeys(merged, 2)


def test_one_source_is_not_changed(tmp_path: Path, run: Run) -> None:
    """A clan inventory alone gives what it gave before there were others."""
    inventory: Json = {
        "machines": {"db": {}},
        "instances": {"m": {"module": {"name": "prometheus"}, "roles": {"exporter": {"machines": {"db": {}}}}}},
    }
    (tmp_path / "inventory.json").write_text(json.dumps(inventory))
    (tmp_path / "c.yaml").write_text("inventory: {file: inventory.json}\n")
    document = json.loads(run("inventory", "-c", tmp_path / "c.yaml").out)
    alone = json.loads(run("inventory", "--file", tmp_path / "inventory.json").out)
    assert document == alone
    assert [e["machine"] for e in document["exporters"]] == ["db"]
