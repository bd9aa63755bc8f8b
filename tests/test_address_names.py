"""`address: name`: targets at names instead of IP addresses, for certificates."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from clan_discovery.model import Belief, BeliefState, Endpoint, Exporter, Node, Outage, SelectRule, Snapshot
from clan_discovery.resolve.memory import Memory, decode_snapshot, encode_snapshot
from clan_discovery.resolve.resolver import Policy, resolve
from clan_discovery.resolve.targets import Naming
from clan_discovery.resolve.trust import Trust, believe
from tests.support.dns import lying
from tests.support.fleet import SUFFIX, fleet, inventory, node, status
from tests.test_dns import Home
from tests.test_dns_memory import zone
from tests.test_names import world
from tests.test_resolve import NOW, declared, no_data, seen, static

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from clan_discovery.model import Json, Resolution
    from tests.conftest import Done

    Run = Callable[..., Done]

_BY_NAME = Naming(backends=frozenset({"tailnet", "lan"}))
_SCRAPED = Exporter(type="app", port=443)


def named(beliefs: Sequence[Belief], naming: Naming = _BY_NAME, machines: Sequence[str] = ("db",)) -> Resolution:
    """Resolve an inventory whose targets have names as addresses."""
    rule = SelectRule(exporter=_SCRAPED, backends=frozenset({"tailnet"}))
    return resolve(declared(inventory(list(machines))), beliefs, [rule], Policy(naming=naming), now=NOW)


def at(found: Resolution) -> dict[str, str]:
    """Return the address of each target by job and machine."""
    return {f"{t.job} {t.machine}": t.address for t in found.targets}


def lan(*nodes: Node, endpoints: Sequence[Endpoint] = ()) -> Belief:
    """Return a belief of a DNS backend."""
    snapshot = Snapshot(backend="lan", nodes=nodes, endpoints=tuple(endpoints))
    return Belief(backend="lan", state=BeliefState.FRESH, snapshot=snapshot)


def test_targets_have_magicdns_names_as_addresses() -> None:
    """Declared and selected targets do; labels do not change, and `explain` says why."""
    beliefs = [seen(fleet(["db", "lamp"]))]
    found = named(beliefs)
    assert at(found) == {
        "node db": f"db.{SUFFIX}:9100",
        "app db": f"db.{SUFFIX}:443",
        "app lamp": f"lamp.{SUFFIX}:443",
    }
    plain = named(beliefs, Naming())
    assert [t.labels for t in plain.targets] == [t.labels for t in found.targets]
    assert plain.targets[0].address == "100.64.0.1:443"
    assert found.targets[0].located == f"tailnet sees it; at its name db.{SUFFIX} (config: address)"


def test_exporter_setting_wins_over_backend_setting() -> None:
    """In both directions: name over address, and address over name."""
    beliefs = [seen(fleet(["db"]))]
    assert at(named(beliefs, Naming(jobs={"app": True}))) == {
        "app db": f"db.{SUFFIX}:443",
        "node db": "100.64.0.1:9100",
    }
    found = named(beliefs, Naming(backends=frozenset({"tailnet"}), jobs={"app": False}))
    assert at(found) == {"app db": "100.64.0.1:443", "node db": f"db.{SUFFIX}:9100"}


def test_unusable_name_falls_back_to_address() -> None:
    """MagicDNS is off, the list is static, an untrusted node has the name, or the name is invalid."""
    off: Json = {"Name": "x", "MagicDNSSuffix": SUFFIX, "MagicDNSEnabled": False}
    assert at(named([seen(fleet(["db"], CurrentTailnet=off))]))["node db"] == "100.64.0.1:9100"
    found = named([static({"db": "10.0.0.7"}, "tailnet")])
    assert at(found)["node db"] == "10.0.0.7:9100"
    assert found.targets[0].located.endswith("; at its address, because none of its names can be used")
    sharee = status([node(1, "monitor"), node(2, "db", ShareeNode=True)])
    assert at(named([lan(Node("db", ("10.0.0.8",), dns_name="db.lan")), seen(sharee)]))["node db"] == "10.0.0.8:9100"
    for bad in ("localhost", "db.invalid", "a" * 300, "10.0.0.1", "x y"):
        assert at(named([lan(Node("db", ("10.0.0.8",), dns_name=bad))]))["node db"] == "10.0.0.8:9100"


def test_outage_keeps_names_as_addresses() -> None:
    """Laws 1 and 5: an outage of the same backend, whose last good answer is used, or of another backend."""
    before = seen(fleet(["db"]))
    assert before.snapshot is not None
    _, memory = believe(before.snapshot, Memory(), Trust(), fingerprint="x", now=1e9)
    kept, _ = believe(Outage(backend="tailnet", reason="down"), memory, Trust(), fingerprint="x", now=1e9 + 60)
    assert kept.state is BeliefState.KEPT
    for beliefs in ([kept], [before, no_data("lan")]):
        assert at(named(beliefs))["node db"] == f"db.{SUFFIX}:9100"


def test_aliased_machine_uses_the_name_of_its_node() -> None:
    """The tailnet does not know the machine's declared name."""
    policy = Policy(naming=_BY_NAME, aliases={"db-box": "db"})
    found = resolve(declared(inventory(["db"])), [seen(fleet(["db-box"]))], [], policy, now=NOW)
    assert at(found) == {"node db": f"db-box.{SUFFIX}:9100"}


def test_name_from_the_state_is_checked() -> None:
    """A state file is untrusted input."""
    good = Snapshot(backend="lan", nodes=(Node("db", ("10.0.0.8",), dns_name="db.lan"),))
    assert decode_snapshot(encode_snapshot(good), "lan") == good
    with pytest.raises(ValueError, match="is not a valid name of a machine"):
        decode_snapshot(encode_snapshot(good).replace(b"db.lan", b"localhost"), "lan")


def test_dns_targets_have_the_looked_up_name_as_address(tmp_path: Path) -> None:
    """For machines, lists and SRV targets.

    The address is used instead if one of the name's addresses is refused, or if the name lists several targets.
    """
    home = Home(tmp_path)
    table: dict[tuple[str, str], list[str] | int] = {
        ("db.a.x", "A"): ["60 10.0.0.1"],
        ("web.a.x", "A"): ["60 10.0.0.2", "60 127.0.0.1"],
        ("one.a.x", "A"): ["60 10.0.0.3"],
        ("pool.a.x", "A"): ["60 10.0.0.4", "60 10.0.0.5"],
        ("_s.a.x", "SRV"): ["60 0 0 8000 srv.a.x."],
        ("srv.a.x", "A"): ["60 10.0.0.6"],
        ("half.a.x", "A"): ["60 10.0.0.7", "60 127.0.0.1"],
    }
    with lying(zone(table)) as liar:
        common: dict[str, Json] = {"servers": [liar.server], "address": "name"}
        backends: Json = {
            "lan": {**common, "domain": "a.x"},
            "list": {**common, "names": ["one.a.x", "pool.a.x"], "type": "A", "job": "app", "port": 80},
            "half": {**common, "names": ["half"], "search": ["a.x"], "type": "A", "job": "app", "port": 80},
            "srv": {**common, "names": ["_s.a.x"], "job": "srv"},
        }
        found = home.round(home.write(backends, machines={"db": {}, "web": {}})).resolution
    assert {t.address for t in found.targets} == {
        "db.a.x:9100",
        "10.0.0.2:9100",
        "one.a.x:80",
        "10.0.0.4:80",
        "10.0.0.5:80",
        "srv.a.x:8000",
        "10.0.0.7:80",
    }


def test_config_selects_targets_with_names_as_addresses(tmp_path: Path, run: Run) -> None:
    """By backend and by exporter."""
    tailnet: dict[str, Json] = {"status_file": "status.json"}
    for backend, exporter, address in (
        ({"address": "name"}, {}, f"db.{SUFFIX}:9100"),
        ({}, {"address": "name"}, f"db.{SUFFIX}:9100"),
        ({"address": "name"}, {"address": "ip"}, "100.64.0.1:9100"),
    ):
        settings: dict[str, Json] = {**tailnet, **backend}
        config = world(
            tmp_path, ["db"], ["db"], backends={"tailscale": {"tailnet": settings}}, exporters={"node": exporter}
        )
        assert run("refresh", "-c", config).code == 0
        assert json.loads((tmp_path / "targets/node.json").read_text())[0]["targets"] == [address]
    config = world(tmp_path, ["db"], ["db"], exporters={"node": {"address": "dns"}})
    assert "exporters.node.address: 'dns' is not one of 'ip' or 'name'" in run("check", "-c", config).err
