"""Expected targets and observed nodes become the resolution."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.backends.tailscale_wire import TailscaleOptions, parse_status
from clan_discovery.emit.file_sd import render_jobs
from clan_discovery.emit.table import render_table
from clan_discovery.inventory.clan.declare import Options, declare
from clan_discovery.inventory.clan.wire import parse_inventory
from clan_discovery.model import (
    Belief,
    BeliefState,
    Declared,
    Endpoint,
    Expected,
    Exporter,
    Machine,
    Node,
    Outage,
    Resolution,
    SelectRule,
    Snapshot,
)
from clan_discovery.resolve.memory import Memory, Remembered
from clan_discovery.resolve.resolver import Policy, resolve
from clan_discovery.resolve.trust import Trust, believe
from tests.support.fleet import SUFFIX, explained, fleet, inventory, node, status

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from clan_discovery.model import Json
    from tests.support.fleet import Object

NOW = datetime(2026, 11, 20, tzinfo=UTC)
NODE = Exporter(type="node", port=9100)
RULE = SelectRule(exporter=NODE, backends=frozenset({"tailnet"}))


def declared(document: Json) -> Declared:
    """Read an inventory document."""
    return declare(parse_inventory(json.dumps(document).encode(), "inv.json"), Options())


def seen(document: Json, backend: str = "tailnet") -> Belief:
    """Return the belief about a backend that answers with this status."""
    snapshot = parse_status(json.dumps(document).encode(), TailscaleOptions(backend=backend))
    return Belief(backend=backend, state=BeliefState.FRESH, snapshot=snapshot)


def no_data(backend: str = "tailnet") -> Belief:
    """Return the belief about a backend without data."""
    return Belief(backend=backend, state=BeliefState.UNKNOWN, snapshot=None, why="down")


def static(machines: dict[str, str], backend: str = "lab") -> Belief:
    """Return the belief about a list of addresses."""
    nodes = tuple(Node(name, (address,)) for name, address in machines.items())
    return Belief(backend=backend, state=BeliefState.FRESH, snapshot=Snapshot(backend=backend, nodes=nodes))


def resolved(
    document: Json, beliefs: Sequence[Belief], rules: Sequence[SelectRule] = (), policy: Policy | None = None
) -> Resolution:
    """Resolve an inventory."""
    return resolve(declared(document), beliefs, rules, policy or Policy(), now=NOW)


def addresses(resolution: Resolution) -> dict[str, str]:
    """Return the address of each instance."""
    return {t.labels["instance"]: t.address for t in resolution.targets}


def test_declared_machines_have_observed_addresses_or_magicdns_names() -> None:
    """Only declared machines are targets. A missing one is kept, a stray is not added."""
    found = resolved(inventory(["monitor", "db", "attic"]), [seen(fleet(["monitor", "db", "stray"]))])
    assert addresses(found) == {
        "attic": f"attic.{SUFFIX}:9100",
        "db": "100.64.0.2:9100",
        "monitor": "100.64.0.1:9100",
    }
    assert {t.machine: t.labels["__meta_clan_observed"] for t in found.targets} == {
        "attic": "false",
        "db": "true",
        "monitor": "true",
    }
    assert [m.machine for m in found.missing] == ["attic"]
    assert [s.name for s in found.stray] == ["stray"]
    assert found.unknown == ()


def test_without_an_answer_machines_have_clan_domain_names() -> None:
    """A machine is missing only if a backend answers without it."""
    for beliefs in ([no_data()], []):
        found = resolved(inventory(["monitor", "db"]), beliefs)
        assert addresses(found) == {"db": "db.home.arpa:9100", "monitor": "monitor.home.arpa:9100"}
        assert found.missing == ()
    assert resolved(inventory(["monitor", "db"]), [no_data()]).unknown == ("db", "monitor")


def test_absent_drop_needs_an_answer_of_every_backend() -> None:
    """With a backend without data, nothing is proven absent."""
    document, drop = inventory(["monitor", "db"]), Policy(absent="drop")
    gone = resolved(document, [seen(fleet(["monitor"]))], policy=drop)
    assert addresses(gone) == {"monitor": "100.64.0.1:9100"}
    assert [(e.name, e.reason, e.job) for e in gone.excluded] == [("db", "absent", "node")]
    assert len(resolved(document, [seen(fleet(["monitor"])), no_data("other")], policy=drop).targets) == 2


def test_names_match_regardless_of_case() -> None:
    """DNS ignores case."""
    found = resolved(inventory(["Monitor"], server={}), [seen(fleet(["monitor"]))])
    assert addresses(found) == {"Monitor": "100.64.0.1:9100"}


def test_a_name_with_two_claims_is_ambiguous() -> None:
    """The machine stays a target, but with the address of neither node."""
    twice = status([node(1, "monitor"), node(2, "db"), node(3, "db")])
    found = resolved(inventory(["monitor", "db"]), [seen(twice)])
    assert addresses(found)["db"] == "db.home.arpa:9100"
    assert found.missing == ()
    assert [(a.name, len(a.claims)) for a in found.ambiguous] == [("db", 2)]
    assert "2 times" in next(t.located for t in found.targets if t.machine == "db")


def test_a_static_address_wins_over_the_tailnet() -> None:
    """The address is that of the list, the labels are those of the tailnet."""
    found = resolved(inventory(["monitor"]), [static({"monitor": "10.0.0.7"}), seen(fleet(["monitor"]))])
    (target,) = found.targets
    assert (target.address, target.backend) == ("10.0.0.7:9100", "lab")
    assert target.labels["__meta_tailscale_device_os"] == "linux"


def test_a_node_without_an_address_of_the_family_has_its_magicdns_name() -> None:
    """The node is observed, but its address cannot be used."""
    six = status([node(1, "monitor", TailscaleIPs=["fd7a:115c:a1e0::1"])])
    (target,) = resolved(inventory(["monitor"]), [seen(six)]).targets
    assert target.address == f"monitor.{SUFFIX}:9100"
    assert target.observed
    assert "IPv6" not in target.address
    assert "it has no IPv4 address" in target.located


def test_rules_select_by_tags_and_os_and_never_phones() -> None:
    """`tags_any`, `tags_all`, `tags_none` and `os`."""
    nodes = [
        node(1, "a", Tags=["tag:server", "tag:eu"]),
        node(2, "b", Tags=["tag:server", "tag:old"]),
        node(3, "c", Tags=["tag:web", "tag:eu"], OS="windows"),
        node(4, "d", Tags=None),
        node(5, "phone", OS="iOS", Tags=["tag:server", "tag:eu"]),
        node(6, "tv", OS="tvOS"),
        node(7, "pad", OS="android"),
    ]
    belief = seen(status(nodes))

    def selected(**changes: frozenset[str]) -> list[str]:
        rule = msgspec.structs.replace(RULE, **changes)
        found = resolve(Declared(), [belief], [rule], Policy(), now=NOW)
        assert sorted(e.name for e in found.excluded if e.reason == "phone_or_tv") == ["pad", "phone", "tv"]
        return [t.machine for t in found.targets]

    assert selected() == ["a", "b", "c", "d"]
    assert selected(tags_any=frozenset({"server", "web"})) == ["a", "b", "c"]
    assert selected(tags_all=frozenset({"server", "eu"})) == ["a"]
    assert selected(tags_any=frozenset({"server"}), tags_none=frozenset({"old"})) == ["a"]
    assert selected(os=frozenset({"windows"})) == ["c"]


def test_a_rule_and_the_inventory_make_one_target() -> None:
    """One exporter of one machine is one target, as the inventory declares it."""
    found = resolved(inventory(["a"]), [seen(fleet(["a", "b"]))], [RULE])
    assert [(t.machine, t.because.partition(":")[0]) for t in found.targets] == [("a", "inventory"), ("b", "config")]


def test_instances_are_unique_for_exporters_of_one_type() -> None:
    """`instance` becomes machine and port; on one port also path and query."""
    document = inventory(["a"])
    settings: list[Object] = [
        {"exporterType": "blackbox", "target": "https://x"},
        {"exporterType": "blackbox", "target": "https://y"},
        {"exporterType": "nginx", "port": 9113},
        {"exporterType": "nginx", "port": 9114},
        {"exporterType": "node"},
        {"exporterType": "node"},
    ]
    document["instances"] = {
        f"i{n}": {"module": {"name": "prometheus"}, "roles": {"exporter": {"tags": ["all"], "settings": s}}}
        for n, s in enumerate(settings)
    }
    found = resolved(document, [])
    assert [(t.job, t.labels["instance"]) for t in found.targets] == [
        ("blackbox", "a:9115/probe?target=https%3A%2F%2Fx"),
        ("blackbox", "a:9115/probe?target=https%3A%2F%2Fy"),
        ("nginx", "a:9113"),
        ("nginx", "a:9114"),
        ("node", "a"),
    ]
    first = found.targets[0].labels
    assert (first["__metrics_path__"], first["__param_target"]) == ("/probe", "https://x")


def test_static_endpoints_are_targets() -> None:
    """IPv6 is bracketed.

    An endpoint with the name of a declared machine is that machine.
    """
    endpoints = tuple(
        Endpoint(host=host, exporter=NODE, machine=host, because="config", backend="lab")
        for host in ("10.0.0.5", "fd00::1", "a")
    )
    belief = Belief(backend="lab", state=BeliefState.FRESH, snapshot=Snapshot(backend="lab", endpoints=endpoints))
    document = inventory({"a": {"tags": ["web"]}})
    document["instances"] = {}
    found = resolve(declared(document), [belief], [], Policy(), now=NOW)
    assert addresses(found) == {"10.0.0.5": "10.0.0.5:9100", "a": "a:9100", "fd00::1": "[fd00::1]:9100"}
    assert found.targets[1].labels["__meta_clan_machine_tag_web"] == "1"


def test_labels_are_as_documented() -> None:
    """Labels that have a default in Prometheus are set only if they differ from it."""
    document = inventory({"a": {"tags": ["web", "a-b"]}}, exporter={"exporterType": "nut", "scheme": "https"})
    (target,) = resolved(document, [seen(fleet(["a"]))], policy=Policy(labels=(("site", "x"),))).targets
    assert {k: v for k, v in target.labels.items() if not k.startswith("__meta_tailscale")} == {
        "instance": "a",
        "machine": "a",
        "site": "x",
        "__meta_clan_instance": "monitoring",
        "__meta_clan_role": "exporter",
        "__meta_clan_exporter": "nut",
        "__meta_clan_machine_tags": ",a-b,all,nixos,web,",
        "__meta_clan_machine_tag_a_b": "1",
        "__meta_clan_machine_tag_all": "1",
        "__meta_clan_machine_tag_nixos": "1",
        "__meta_clan_machine_tag_web": "1",
        "__meta_clan_observed": "true",
        "__meta_clan_backend": "tailnet",
        "__metrics_path__": "/ups_metrics",
        "__scheme__": "https",
    }


def test_a_missing_machine_has_similar_strays() -> None:
    """A machine that registers again gets another name."""
    found = resolved(inventory(["db"]), [seen(fleet(["monitor", "db-1"]))])
    assert found.missing[0].similar == ("db-1",)


def test_a_stray_with_the_host_name_of_a_machine_is_reported() -> None:
    """The machine keeps its address.

    `explain` tells it for the machine and for the stray.
    """
    nodes = [node(1, "db", Online=False), node(2, "db-1", HostName="DB"), node(3, "lamp", Expired=True)]
    world = declared(inventory(["db", "lamp"]))
    found = resolve(world, [seen(status([node(9, "monitor"), *nodes]))], [], Policy(), now=NOW)
    assert [(t.machine, t.address) for t in found.targets] == [("db", "100.64.0.1:9100"), ("lamp", "100.64.0.3:9100")]
    assert [(s.name, s.alias) for s in found.stray] == [("db-1", "db"), ("monitor", "")]
    said = {name: "\n".join(explained(name, world, found)) for name in ("db", "db-1", "lamp")}
    assert "namesake: tailnet sees db-1, which calls itself db" in said["db"]
    assert "it calls itself db, which is declared" in said["db-1"]
    assert "address: tailnet sees it; its key there has expired" in said["lamp"]
    table = "\n".join(line for line, _ in render_table(found))
    assert re.search(r"lamp .* expired ", table)
    assert "stray: db-1 (calls itself db)" in table


def test_a_host_name_of_an_online_machine_is_not_reported() -> None:
    """Many nodes share a host name.

    It is reported only if the machine is known to be offline.
    """
    for online in (True, None):
        nodes = [node(1, "db", Online=online), node(2, "laptop", HostName="db"), node(3, "x", HostName="localhost")]
        world = declared(inventory(["db"]))
        found = resolve(world, [seen(status(nodes))], [], Policy(), now=NOW)
        assert [(s.name, s.alias) for s in found.stray] == [("laptop", ""), ("x", "")]
        assert "namesake" not in "\n".join(explained("db", world, found))
        assert explained("", world, found) == []


def test_an_expired_key_is_reported_also_for_an_excluded_machine() -> None:
    """Its machine counts as offline, and the policy may exclude it."""
    world = declared(inventory(["lamp", "db"]))
    nodes = [node(1, "lamp", Expired=True), node(2, "db"), node(3, "guest", Expired=True)]
    belief = msgspec.structs.replace(seen(status(nodes)), offline={"lamp": 5.0})
    kept = resolve(world, [belief], [], Policy(), now=NOW)
    dropped = resolve(world, [belief], [], Policy(offline=0.0), now=NOW)
    assert [t.machine for t in kept.targets] == ["db", "lamp"]
    assert [t.machine for t in dropped.targets] == ["db"]
    assert kept.expired == dropped.expired == ("lamp",)
    assert "its key there has expired, offline for 5 s" in dropped.excluded[0].detail


def test_a_last_good_answer_is_shown_as_kept() -> None:
    """`explain` tells when the backend last saw the machine."""
    world = declared(inventory(["a"]))
    fresh = seen(fleet(["a"]))
    kept = msgspec.structs.replace(fresh, state=BeliefState.KEPT, age=7500.0)
    found = resolve(world, [kept], [], Policy(), now=NOW)
    assert found.targets[0].located == "tailnet saw it 2 h ago"
    table = "\n".join(line for line, _ in render_table(found))
    assert re.search(r"a .* kept +tailnet", table)


def test_explain_describes_each_machine_and_node() -> None:
    """A name that is not known has no lines."""
    document = inventory({"a": {}, "gone": {}, "mac": {"machineClass": "darwin"}})
    world = declared(document)
    found = resolve(
        world, [seen(status([node(1, "a"), node(2, "stray"), node(3, "pixel", OS="android")]))], [], Policy(), now=NOW
    )
    said = {name: "\n".join(explained(name, world, found)) for name in ("a", "gone", "mac", "stray", "pixel", "nope")}
    assert "because: inventory: instance monitoring, role exporter, tag all" in said["a"]
    assert "no backend sees it: at its MagicDNS name" in said["gone"]
    assert "excluded (node): darwin" in said["mac"]
    assert "stray: tailnet sees it" in said["stray"]
    assert "its OS is android" in said["pixel"]
    assert said["nope"] == ""


names = st.lists(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=8, unique=True)


@given(names, names, st.randoms(use_true_random=False))
def test_the_order_of_machines_and_nodes_does_not_matter(machines: list[str], nodes: list[str], random: Random) -> None:
    """Any order gives the same bytes."""
    shuffled = list(machines)
    random.shuffle(shuffled)
    tailnet = [node(number, name) for number, name in enumerate(nodes, 10)]
    first = resolved(inventory(machines), [seen(status([node(1, "zz"), *tailnet]))])
    random.shuffle(tailnet)
    second = resolved(inventory(shuffled), [seen(status([node(1, "zz"), *tailnet]))])
    assert render_jobs(first) == render_jobs(second)


@given(names, names)
def test_exactly_the_declared_machines_are_targets(machines: list[str], nodes: list[str]) -> None:
    """With any tailnet, and with or without an answer."""
    answers = [[seen(fleet(["zz", *nodes]))], [no_data()], [no_data(), seen(fleet(["zz", *nodes]), "second")]]
    for beliefs in answers:
        found = resolved(inventory(machines), beliefs)
        assert sorted(t.machine for t in found.targets) == sorted(machines)


# --- memory ---------------------------------------------------------------------------------------------------------


def snapshot(*machines: str) -> Snapshot:
    """Return a snapshot of these machines."""
    return Snapshot(backend="t", nodes=tuple(Node(m, ("100.64.0.1",)) for m in machines))


def remembered(*machines: str, at: float = 0.0) -> Memory:
    """Remember an answer."""
    return Memory(last=Remembered(snapshot=snapshot(*machines), taken_at=at, fingerprint="x"))


def test_an_outage_serves_the_last_good_answer_until_it_is_too_old() -> None:
    """It is kept for policy.max_age, whatever the clock says."""
    outage = Outage(backend="t", reason="down")
    belief, memory = believe(outage, remembered("a"), Trust(), fingerprint="x", now=100.0)
    assert (belief.state, belief.age, belief.snapshot) == ("kept", 100.0, snapshot("a"))
    assert memory == remembered("a")
    assert believe(outage, remembered("a"), Trust(), fingerprint="x", now=-9e9)[0].age == 0.0
    assert believe(outage, remembered("a"), Trust(), fingerprint="x", now=90000.0)[0].state == "expired"
    assert believe(outage, remembered("a"), Trust(max_age=None), fingerprint="x", now=9e12)[0].state == "kept"
    assert believe(outage, Memory(), Trust(), fingerprint="x", now=0)[0].state == "unknown"
    assert believe(outage, remembered("a"), Trust(), fingerprint="other", now=0)[0].state == "kept"


def test_a_large_loss_is_held_and_a_small_one_is_not() -> None:
    """Large: more than half of at least four.

    It is accepted on demand, or when it is repeated often enough.
    """
    before = remembered("a", "b", "c", "d")
    belief, memory = believe(snapshot("a"), before, Trust(), fingerprint="x", now=1)
    assert (belief.state, belief.snapshot) == ("held", snapshot("a", "b", "c", "d"))
    assert "4 machines would become 1" in belief.why
    assert believe(snapshot("a", "b"), before, Trust(), fingerprint="x", now=1)[0].state == "fresh"
    assert believe(snapshot(), remembered("a", "b", "c"), Trust(), fingerprint="x", now=1)[0].state == "fresh"
    assert believe(snapshot(), before, Trust(accept_shrink=True), fingerprint="x", now=1)[0].state == "fresh"
    assert believe(snapshot(), before, Trust(max_shrink=1.0), fingerprint="x", now=1)[0].state == "fresh"
    assert believe(snapshot(), before, Trust(), fingerprint="new", now=1)[0].state == "fresh"
    assert believe(snapshot("a"), memory, Trust(), fingerprint="x", now=700)[0].state == "fresh"
    rounds = 1
    while believe(snapshot("a"), memory, Trust(), fingerprint="x", now=2)[0].state == "held":
        memory = believe(snapshot("a"), memory, Trust(), fingerprint="x", now=2)[1]
        rounds += 1
        assert rounds < 20
    assert rounds == 9
    changed, _ = believe(snapshot("b"), memory, Trust(), fingerprint="x", now=2)
    assert changed.state == "held"  # a different loss is counted from the start


def flagged(**online: bool | None) -> Snapshot:
    """Return a snapshot of machines with their online flags."""
    nodes = tuple(Node(name, ("100.64.0.1",), online=flag) for name, flag in online.items())
    return Snapshot(backend="t", nodes=nodes)


def test_the_offline_time_counts_until_a_machine_is_online() -> None:
    """An unknown flag stops the clock, a clock that was set back restarts it, an outage changes nothing."""
    memory = Memory()
    history: list[tuple[float, bool | None, float | None]] = [
        (0, True, None),
        (10, False, 0),
        (70, False, 60),
        (500, None, 60),
        (510, False, 500),
        (520, True, None),
        (530, False, 0),
        (100, False, 0),
        (160, False, 60),
    ]
    for now, online, expected in history:
        belief, memory = believe(flagged(a=online), memory, Trust(), fingerprint="x", now=now)
        assert belief.offline.get("a") == expected, now
    outage, _ = believe(Outage(backend="t", reason="down"), memory, Trust(), fingerprint="x", now=9e5)
    assert outage.offline == {"a": 60}


def test_offline_policies() -> None:
    """Keep, drop, or grace.

    The most patient machine tag wins; an unknown flag keeps the target.
    """
    document = inventory({"a": {}, "laptop": {"tags": ["roaming", "vip"]}})
    nodes = tuple(Node(name, ("100.64.0.1",), online=False) for name in ("a", "laptop"))
    snap = Snapshot(backend="t", nodes=nodes)

    def left(policy: Policy, seconds: float | None) -> list[str]:
        away: dict[str, float] = {} if seconds is None else {"a": seconds, "laptop": seconds}
        belief = Belief(backend="t", state=BeliefState.FRESH, snapshot=snap, offline=away)
        found = resolve(declared(document), [belief], [], policy, now=NOW)
        assert {e.reason for e in found.excluded} <= {"offline"}
        return [t.machine for t in found.targets]

    both = ["a", "laptop"]
    assert left(Policy(), 9e9) == both
    assert left(Policy(offline=0.0), 0.0) == []
    assert left(Policy(offline=0.0), None) == both
    assert left(Policy(offline=60.0), 59.0) == both
    assert left(Policy(offline=60.0), 60.0) == []
    assert left(Policy(offline=60.0, offline_tags={"roaming": 90.0}), 60.0) == ["laptop"]
    assert left(Policy(offline_tags={"roaming": 0.0}), 0.0) == ["a"]
    assert left(Policy(offline_tags={"roaming": 0.0, "vip": None}), 9e9) == both
    rule = SelectRule(backends=frozenset({"t"}), exporter=NODE, offline=0.0)
    belief = Belief(backend="t", state=BeliefState.FRESH, snapshot=snap, offline={"a": 0.0})
    assert [t.machine for t in resolve(Declared(), [belief], [rule], Policy(), now=NOW).targets] == ["laptop"]


answers = st.one_of(st.none(), st.sets(st.sampled_from("abcdef")))


@given(st.lists(answers, max_size=12))
def test_an_outage_never_removes_a_machine(history: list[set[str] | None]) -> None:
    """For any history, an outage keeps the machines that were known before it."""
    memory = Memory()
    believed: frozenset[str] | None = None
    for now, answer in enumerate(history):
        outcome = Outage(backend="t", reason="down") if answer is None else snapshot(*sorted(answer))
        belief, memory = believe(outcome, memory, Trust(), fingerprint="x", now=float(now))
        names_now = None if belief.snapshot is None else frozenset(n.name for n in belief.snapshot.nodes)
        if answer is None:
            assert names_now == believed
        believed = names_now


def test_target_on_loopback_of_the_scraper() -> None:
    """It is scraped at 127.0.0.1, and its explanation does not speak of a shared network."""
    monitor = Machine(name="monitor")
    expected = Expected(machine=monitor, exporter=NODE, because="exposed: node", host="127.0.0.1")
    [target] = resolve(Declared(machines=(monitor,), expected=(expected,)), (), (), Policy(), now=NOW).targets
    assert (target.address, target.located) == ("127.0.0.1:9100", "on loopback of the machine that scrapes it")


def test_endpoints_of_a_source_are_targets() -> None:
    """They need not be on a machine of the source."""
    endpoint = Endpoint(
        host="10.0.0.9", exporter=NODE, machine="10.0.0.9", because="exposed: node", backend="inventory"
    )
    [target] = resolve(Declared(endpoints=(endpoint,)), (), (), Policy(), now=NOW).targets
    assert (target.job, target.address, target.because) == ("node", "10.0.0.9:9100", "exposed: node")
