"""What agents push: declared with its delivery, resolved to targets of its own, in no output that a server scrapes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest

from clan_discovery.emit.file_sd import render_jobs
from clan_discovery.emit.json import inventory_document, resolution_document
from clan_discovery.emit.states import TargetStates
from clan_discovery.inventory.merge import Part, merge
from clan_discovery.model import Belief, BeliefState, Declared, Expected, Exporter, Machine, Node, Snapshot
from clan_discovery.resolve.resolver import Policy, resolve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json, Resolution
    from tests.conftest import Done

    Run = Callable[..., Done]

NOW = datetime(2026, 11, 22, tzinfo=UTC)
LAPTOP = Machine(name="dino", tags=("laptop",))
SERVER = Machine(name="web01")


def expected(machine: Machine, type_: str, port: int, role: str = "exporter", host: str = "") -> Expected:
    """Return an exporter that an inventory declares."""
    exporter = Exporter(type=type_, port=port)
    return Expected(machine=machine, exporter=exporter, instance="mon", role=role, because="inventory", host=host)


def part(source: str, *declared: Expected, agents: tuple[str, ...] = ()) -> Part:
    """Return what a source declares."""
    machines = {e.machine.name: e.machine for e in declared}
    found = Declared(machines=tuple(machines.values()), expected=declared, agents=agents)
    return Part(source=source, declared=found, place=lambda name: f"{source}:{name}")


def resolved(declared: Declared, *, seen: bool = True) -> Resolution:
    """Resolve against a tailnet that sees every machine, or that has no answer."""
    nodes = tuple(Node(machine.name, ("100.64.0.9",)) for machine in declared.machines)
    belief = Belief(backend="tailnet", state=BeliefState.FRESH, snapshot=Snapshot(backend="tailnet", nodes=nodes))
    if not seen:
        belief = Belief(backend="tailnet", state=BeliefState.UNKNOWN, snapshot=None, why="down")
    return resolve(declared, [belief], (), Policy(), now=NOW)


def deliveries(declared: Declared) -> dict[str, str]:
    """Return the delivery of each exporter, by machine and type."""
    return {f"{e.machine.name}/{e.exporter.type}": e.delivery for e in declared.expected}


def test_the_clan_and_exposed_services_of_an_agent_are_pushed() -> None:
    """The metrics of the server itself, and what a Compose file declares, are scraped."""
    clan = part("clan", expected(LAPTOP, "node", 9100), expected(LAPTOP, "prometheus", 9090, role="server"))
    exposed = part("exposed", expected(Machine(name="Dino"), "photos", 8080), agents=("Dino",))
    compose = part("compose", expected(LAPTOP, "redis", 6379, host="redis"))
    found = merge([compose, exposed, clan])
    assert found.agents == ("dino",)
    assert deliveries(found) == {
        "dino/node": "push",
        "dino/prometheus": "pull",
        "dino/photos": "push",
        "dino/redis": "pull",
    }


def test_an_agent_is_known_with_one_source() -> None:
    """The exporters of other machines stay scraped."""
    found = merge([part("clan", expected(LAPTOP, "node", 9100), expected(SERVER, "node", 9100), agents=("dino",))])
    assert deliveries(found) == {"dino/node": "push", "web01/node": "pull"}


def test_an_exporter_of_two_sources_is_pushed_if_one_of_them_says_so() -> None:
    """The result does not depend on the order of the sources."""
    compose = part("compose", expected(LAPTOP, "node", 9100))
    exposed = part("exposed", expected(LAPTOP, "node", 9100), agents=("dino",))
    for parts in ([compose, exposed], [exposed, compose]):
        assert deliveries(merge(parts)) == {"dino/node": "push"}


def test_a_pushed_target_is_no_target_of_the_server() -> None:
    """It is on loopback of its machine, in the state `pushed`, and its machine is neither missing nor a stray."""
    declared = merge([part("clan", expected(LAPTOP, "node", 9100), expected(SERVER, "node", 9100), agents=("dino",))])
    found = resolved(declared)
    assert [target.machine for target in found.targets] == ["web01"]
    [pushed] = found.pushed
    assert (pushed.job, pushed.machine, pushed.address) == ("node", "dino", "127.0.0.1:9100")
    assert (pushed.labels["instance"], pushed.labels["machine"], pushed.delivery) == ("dino", "dino", "push")
    assert [TargetStates(found).of(target) for target in found.all_targets] == ["pushed", "seen"]
    assert [target.machine for target in found.all_targets] == ["dino", "web01"]
    assert b"dino" not in b"".join(render_jobs(found).values())
    assert (found.missing, found.stray, found.unknown) == ((), (), ())


def test_an_outage_does_not_change_what_is_pushed() -> None:
    """The server needs no address of the machine."""
    declared = merge([part("clan", expected(LAPTOP, "node", 9100), agents=("dino",))])
    down = resolved(declared, seen=False)
    assert down.pushed == resolved(declared).pushed
    assert (down.unknown, down.missing, down.jobs) == ((), (), ())


def test_of_two_exporters_of_one_type_an_agent_sends_the_first() -> None:
    """The receiver forces `instance`: their samples would be one series. The same exporter twice is one target."""
    twice = (expected(LAPTOP, "node", 9100), expected(LAPTOP, "node", 9100), expected(LAPTOP, "node", 9101))
    found = resolved(merge([part("clan", *twice, agents=("dino",))]))
    assert [target.address for target in found.pushed] == ["127.0.0.1:9100"]
    assert [(e.name, e.reason, e.job) for e in found.excluded] == [("dino", "inexpressible", "node")]
    assert "127.0.0.1:9101" in found.excluded[0].detail


def test_the_documents_have_pushed_targets_delivery_and_patience() -> None:
    """As the schemas describe."""
    declared = merge([part("clan", expected(LAPTOP, "node", 9100), agents=("dino",))])
    document = msgspec.to_builtins(resolution_document(resolved(declared)))
    assert [target["delivery"] for target in document["pushed"]] == ["push"]
    assert document["targets"] == ()
    inventory = msgspec.to_builtins(inventory_document(declared))
    assert inventory["agents"] == ("dino",)
    assert [(e["delivery"], e["patience"]) for e in inventory["exporters"]] == [("push", "always")]


@pytest.mark.parametrize(
    ("policy", "patience"),
    [("", "roaming"), ("policy: {roaming_tags: []}\n", "always"), ("policy: {roaming_tags: [phone]}\n", "always")],
)
def test_machines_with_a_roaming_tag_come_and_go(tmp_path: Path, run: Run, policy: str, patience: str) -> None:
    """`laptop` is a roaming tag unless the config says otherwise."""
    inventory: Json = {
        "machines": {"dino": {"tags": ["laptop"]}, "phone": {"tags": ["phone"]}, "web01": {}},
        "instances": {"mon": {"module": {"name": "prometheus"}, "roles": {"exporter": {"machines": {"dino": {}}}}}},
    }
    (tmp_path / "inventory.json").write_text(json.dumps(inventory))
    (tmp_path / "c.yaml").write_text(f"inventory: {{file: inventory.json}}\n{policy}")
    done = run("show", "-c", tmp_path / "c.yaml", "--format", "json")
    assert [target["patience"] for target in json.loads(done.out)["targets"]] == [patience]
