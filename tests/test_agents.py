"""What agents push: declared with its delivery, resolved to targets of its own, in no output that a server scrapes."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.emit.file_sd import render_all, render_jobs
from clan_discovery.emit.json import inventory_document, resolution_document
from clan_discovery.emit.snapshot import render_snapshot
from clan_discovery.emit.states import TargetStates
from clan_discovery.emit.status import FleetView, StatusInput
from clan_discovery.inventory.merge import Part, merge
from clan_discovery.model import Belief, BeliefState, Declared, Expected, Exporter, Machine, Node, Snapshot
from clan_discovery.resolve.resolver import Policy, resolve
from clan_discovery.web.pages import render_machine
from tests.support.fleet import node, status
from tests.support.status import report_of

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


def test_what_an_agent_cannot_scrape_is_reported() -> None:
    """A parameter that is no label, and a host that is none: excluded, or a warning; the others are pushed."""
    odd = expected(LAPTOP, "redis", 9121)
    odd = msgspec.structs.replace(odd, exporter=msgspec.structs.replace(odd.exporter, params=(("a-b", "1"),)))
    both = (odd, expected(LAPTOP, "systemd", 9558, host="no host"), expected(LAPTOP, "node", 9100))
    found = resolved(merge([part("clan", *both, agents=("dino",))]))
    assert [(e.name, e.reason, e.job) for e in found.excluded] == [("dino", "inexpressible", "redis")]
    assert [target.job for target in found.pushed] == ["node", "systemd"]
    assert ["'no host' is neither a DNS name" in problem.what for problem in found.problems] == [True]


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


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write a config with a server, a laptop that sends, and a tailnet that sees a server and a stranger."""
    inventory: Json = {
        "machines": {"dino": {"tags": ["laptop"]}, "web01": {}},
        "instances": {
            "mon": {
                "module": {"name": "prometheus"},
                "roles": {
                    "exporter": {"tags": ["all"], "settings": {"exporters": {"node": {}, "systemd": {}}}},
                    "agent": {"machines": {"dino": {}}},
                },
            }
        },
    }
    (tmp_path / "inventory.json").write_text(json.dumps(inventory))
    (tmp_path / "status.json").write_text(json.dumps(status([node(1, "web01"), node(2, "dino"), node(3, "other")])))
    (tmp_path / "c.yaml").write_text(
        "inventory: {file: inventory.json}\n"
        "backends: {tailscale: {tailnet: {status_file: status.json}}}\n"
        "output: {directory: targets}\nstate: state\n"
    )
    return tmp_path / "c.yaml"


def test_show_has_pushed_targets_in_its_table(config: Path, run: Run) -> None:
    """With their own state, in both groupings, and chosen by machine, job and state."""
    table = run("show", "-c", config).out.splitlines()
    assert [line.split() for line in table if "dino" in line] == [
        ["node", "dino", "127.0.0.1:9100", "pushed", "-"],
        ["systemd", "dino", "127.0.0.1:9558", "pushed", "-"],
        ["vmagent", "dino", "127.0.0.1:8429", "pushed", "-"],
    ]
    assert "5 targets of 2 machines: 2 seen, 3 pushed" in table
    by_machine = run("show", "-c", config, "--by", "machine").out.splitlines()
    assert [line.split() for line in by_machine if "dino" in line] == [
        ["dino", "node,", "systemd,", "vmagent", "127.0.0.1", "pushed", "-"]
    ]
    for chosen in (("dino",), ("--state", "pushed")):
        assert "3 targets of 1 machine: 3 pushed" in run("show", "-c", config, *chosen).out
    assert "1 target of 1 machine: 1 pushed" in run("show", "-c", config, "--job", "vmagent").out
    assert "2 targets of 1 machine: 2 seen" in run("show", "-c", config, "web01").out


def test_outputs_for_a_server_have_no_pushed_target(config: Path, run: Run) -> None:
    """Neither the target lists, nor the scrape config, nor Nix; and nothing of it is a change."""
    for format_ in ("file-sd", "nix", "scrape-config"):
        text = run("show", "-c", config, "--format", format_).out
        assert "dino" not in text
        assert "vmagent" not in text
    done = run("refresh", "-c", config)
    assert done.out == "2 targets in 2 jobs; 2 seen, 0 not seen; 3 pushed by 1 machine; 2 files written, 0 unchanged\n"
    assert sorted(file.name for file in config.parent.glob("targets/[!.]*")) == ["node.json", "systemd.json"]
    (config.parent / "status.json").write_text(json.dumps(status([node(1, "web01")])))
    assert run("diff", "-c", config, "--exit-code").code == 0
    assert run("refresh", "-c", config).code == 0
    assert "dino" not in run("history", "-c", config).out


def test_explain_says_who_scrapes_a_pushed_target(config: Path, run: Run) -> None:
    """And that no backend can remove it."""
    done = run("explain", "-c", config, "dino", "vmagent/dino")
    assert done.code == 0
    assert done.out.count("target: 127.0.0.1:8429 in job vmagent, as instance dino") == 2
    first = done.out[done.out.index("  target: 127.0.0.1:9100") :].splitlines()[:7]
    assert first == [
        "  target: 127.0.0.1:9100 in job node, as instance dino",
        "    state: pushed: the agent on its machine scrapes it there and sends the samples",
        "    because: inventory: instance mon, role exporter, tag all",
        "    address: on its machine, where the agent scrapes it",
        "    scraped: http://127.0.0.1:9100/metrics (by the agent on the machine)",
        "    patience: roaming: the machine comes and goes, and no alert fires while it is off (policy.roaming_tags)",
        "    dropped: when its source no longer declares it",
    ]
    found = json.loads(run("explain", "-c", config, "dino", "--format", "json").out)
    jsonschema.validate(found, json.loads(run("schema", "explain").out))
    assert {target["delivery"] for target in found[0]["targets"]} == {"push"}


def test_documents_of_show_and_inventory_have_their_schemas(config: Path, run: Run) -> None:
    """The inventory that is printed can be read again: the agent is still one."""
    shown = json.loads(run("show", "-c", config, "--format", "json").out)
    jsonschema.validate(shown, json.loads(run("schema", "resolution").out))
    assert [target["machine"] for target in shown["pushed"]] == ["dino", "dino", "dino"]
    text = run("inventory", "-c", config).out
    jsonschema.validate(json.loads(text), json.loads(run("schema", "inventory").out))
    (config.parent / "again.json").write_text(text)
    again = json.loads(run("inventory", "--file", config.parent / "again.json").out)
    assert again["agents"] == ["dino"]
    assert run("machines", "-c", config, "--job", "vmagent").out == "dino\n"


def test_check_and_doctor_know_agents(config: Path, run: Run) -> None:
    """`doctor --live` cannot reach their exporters, and says so."""
    assert run("check", "-c", config).out.startswith(
        "ok: 2 machines declared, 5 targets expected (3 pushed); jobs: node"
    )
    assert run("refresh", "-c", config).code == 0
    done = run("doctor", "-c", config)
    assert "dino" not in done.out
    done = run("doctor", "-c", config, "--live", "dino")
    assert "machine 'dino' has no target (it is an agent, which scrapes itself: clan-discovery verify)" in done.err


def test_selected_targets_of_a_laptop_are_patient(config: Path, run: Run) -> None:
    """A rule that picks a declared machine gives its target the patience of the machine."""
    text = config.read_text() + "exporters: {redis: {select: {}}}\n"
    config.write_text(text)
    shown = json.loads(run("show", "-c", config, "--job", "redis", "--format", "json").out)
    assert {target["machine"]: target["patience"] for target in shown["targets"]} == {
        "dino": "roaming",
        "other": "always",
        "web01": "always",
    }


NAMES = ("dino", "rex", "web01")
TYPES = ("node", "redis", "systemd")


@given(st.data())
def test_each_expected_exporter_is_scraped_pushed_or_excluded(data: st.DataObject) -> None:
    """In exactly one of the three, whatever is an agent and whatever backends answer; outages change nothing pushed."""
    pairs = st.tuples(st.sampled_from(NAMES), st.sampled_from(TYPES), st.integers(1, 4))
    listed = data.draw(st.lists(pairs, unique=True, max_size=12))
    agents = data.draw(st.sets(st.sampled_from(NAMES)))
    machines = {name: Machine(name=name) for name in NAMES}
    exporters = tuple(expected(machines[name], type_, port) for name, type_, port in listed)
    source = Declared(machines=tuple(machines.values()), expected=exporters, agents=tuple(sorted(agents)))
    declared = merge([Part(source="clan", declared=source, place=str)])
    policy = Policy(
        absent=data.draw(st.sampled_from(["keep", "drop"])), offline=data.draw(st.sampled_from([None, 0.0]))
    )
    found = [resolve(declared, [belief], (), policy, now=NOW) for belief in data.draw(st.lists(beliefs(), min_size=1))]
    for resolution in found:
        written = Counter((t.machine, t.job, t.address.rpartition(":")[2]) for t in resolution.targets)
        pushed = Counter((t.machine, t.job, t.address.rpartition(":")[2]) for t in resolution.pushed)
        excluded = Counter((e.name, e.job) for e in resolution.excluded)
        assert {machine for machine, _, _ in pushed} <= agents
        assert not {machine for machine, _, _ in written} & agents
        for name, type_, _ in listed:
            ports = [str(port) for on, of, port in listed if (on, of) == (name, type_)]
            kept = sum(written[name, type_, port] + pushed[name, type_, port] for port in ports)
            assert kept + excluded[name, type_] == len(ports)
        outputs = b"".join([*render_jobs(resolution).values(), render_all(resolution)])
        outputs += render_snapshot(resolution, ".json").encode()
        assert not any(f'"{agent}"'.encode() in outputs for agent in agents)
        assert resolution.pushed == found[0].pushed
        assert not agents & {*resolution.unknown, *(m.machine for m in resolution.missing)}


@st.composite
def beliefs(draw: st.DrawFn) -> Belief:
    """Return a belief: an answer with some machines, offline or not, or an outage with or without memory."""
    nodes = [
        Node(name, ("100.64.0.9",), online=draw(st.sampled_from([None, True, False])), expired=draw(st.booleans()))
        for name in draw(st.sets(st.sampled_from((*NAMES, "stranger"))))
    ]
    offline = {node.name: 60.0 for node in nodes if node.online is False}
    snapshot = Snapshot(backend="tailnet", nodes=tuple(nodes))
    state = draw(st.sampled_from(BeliefState))
    if state in (BeliefState.UNKNOWN, BeliefState.EXPIRED):
        return Belief(backend="tailnet", state=state, snapshot=None, why="down")
    return Belief(backend="tailnet", state=state, snapshot=snapshot, why="down", offline=offline)


def test_the_status_page_has_a_row_for_an_agent() -> None:
    """In the state `pushed`, which needs no attention; no page of a scraper lists its targets."""
    declared = merge([part("clan", expected(LAPTOP, "node", 9100), expected(SERVER, "node", 9100), agents=("dino",))])
    report = msgspec.structs.replace(report_of(resolved(declared)), declared=2)
    given_input = StatusInput(declared=declared, report=report, scrapers={"prometheus": "http://127.0.0.1:9090"})
    view = FleetView(given_input)
    assert [(machine.name, machine.state, machine.reason) for machine in view.fleet.machines] == [
        ("dino", "pushed", ""),
        ("web01", "seen", ""),
    ]
    assert (view.fleet.targets, view.fleet.states, view.fleet.attention) == (2, {"seen": 1, "pushed": 1}, ())
    dino, web01 = view.machine("dino"), view.machine("web01")
    assert dino is not None
    assert web01 is not None
    assert dino.scrapes == {"node": ()}
    assert web01.scrapes["node"]
    html = render_machine(view.fleet, dino, failing="").decode()
    assert "scraped by the agent on the machine" in html
    assert '<span class="label good">pushed</span>' in html
    assert "127.0.0.1:9090" not in html


def test_what_an_agent_sends_is_not_scraped_as_well(config: Path, run: Run) -> None:
    """A rule that picks every machine skips it. Another port is another target, with an instance of its own."""
    static = "static: {lab: {targets: {systemd: ['dino:9999']}}}, tailscale:"
    text = config.read_text().replace("tailscale:", static)
    config.write_text(f"{text}exporters: {{node: {{select: {{}}}}}}\n")
    shown = json.loads(run("show", "-c", config, "dino", "--format", "json").out)
    assert [(t["job"], t["labels"]["instance"]) for t in shown["targets"]] == [("systemd", "dino:9999")]
    assert [(t["job"], t["labels"]["instance"]) for t in shown["pushed"]] == [
        ("node", "dino"),
        ("systemd", "dino"),
        ("vmagent", "dino"),
    ]
