"""`ignore` and `aliases`: which machine a name means, and which names are neither target nor stray."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.emit.alias import suggested_aliases
from clan_discovery.emit.json import count_reasons
from clan_discovery.emit.table import notes
from clan_discovery.model import Belief, BeliefState, Declared, Exporter, Failure, Group, Node, SelectRule, Snapshot
from clan_discovery.resolve.names import Ignore, Names, unmatched_names, usable_aliases, without_ignored
from clan_discovery.resolve.resolver import Policy, resolve
from tests.support.fleet import explained, fleet, inventory, node, status
from tests.test_resolve import NOW, addresses, declared, seen, static

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from clan_discovery.model import Json, Resolution
    from tests.conftest import Done

    Run = Callable[..., Done]

_ANY = SelectRule(exporter=Exporter(type="smartctl", port=9633), backends=frozenset({"tailnet"}))
_ALIAS = Policy(aliases={"desktop-pc": "desktop"})


def ignored(
    machines: list[str], ignore: Ignore, beliefs: Sequence[Belief], rules: Sequence[SelectRule] = ()
) -> Resolution:
    """Resolve an inventory with what a config ignores."""
    world = without_ignored(declared(inventory(machines)), ignore)
    return resolve(world, beliefs, rules, Policy(ignore=ignore), now=NOW)


def reasons(found: Resolution) -> dict[str, str]:
    """Return the detail of each ignored name."""
    return {e.name: e.detail for e in found.excluded if e.reason == "ignored"}


def test_an_ignored_name_is_neither_target_nor_stray() -> None:
    """Declared, selected, seen by another backend, or listed: each is one exclusion."""
    beliefs = [static({"phone-guest": "10.0.0.9"}), seen(fleet(["web", "db", "phone-guest", "lamp"]))]
    found = ignored(["web", "db"], Ignore(names=("DB", "*-guest")), beliefs, [_ANY])
    assert {t.machine for t in found.targets} == {"web", "lamp"}
    assert (found.stray, found.missing) == ((), ())
    assert reasons(found) == {
        "db": "the config ignores it: ignore.names",
        "phone-guest": "the config ignores '*-guest': ignore.names",
    }
    assert count_reasons(found.excluded) == {"ignored": 2}
    assert "excluded: 2 ignored by the config: db, phone-guest" in notes(found)
    assert found.jobs == ("node", "smartctl")
    said = explained("db", declared(inventory(["db"])), found)
    assert any(line.strip().startswith("excluded: ignored: the config ignores it") for line in said)


def test_ignored_tags_and_os_never_remove_a_declared_machine() -> None:
    """They hide only undeclared nodes, also those that another backend sees."""
    nodes = [
        node(1, "web", OS="windows", Tags=["tag:guest"]),
        node(2, "kiosk", OS="Windows"),
        node(3, "visitor", Tags=["tag:guest", "tag:x"]),
        node(4, "lamp"),
    ]
    beliefs = [static({"visitor": "10.0.0.9"}), seen(status(nodes))]
    hidden = Ignore(tags=frozenset({"guest"}), os=frozenset({"windows"}))
    found = ignored(["web"], hidden, beliefs, [_ANY])
    assert {t.machine for t in found.targets} == {"web", "lamp"}
    assert {t.address for t in found.targets if t.machine == "web"} == {"100.64.0.1:9100", "100.64.0.1:9633"}
    assert reasons(found) == {
        "kiosk": "its OS is windows: ignore.os",
        "visitor": "it has the tag guest: ignore.tags",
    }
    assert found.stray == ()


def test_a_node_never_hides_a_machine_of_a_more_trusted_backend() -> None:
    """Law 4: whoever joins a tailnet as `router` and says that it runs Windows removes no target of `static`."""
    rule = SelectRule(exporter=Exporter(type="smartctl", port=9633), backends=frozenset({"lab", "tailnet"}))
    lab, tailnet = static({"router": "10.0.0.1"}), seen(status([node(1, "router", OS="windows"), node(2, "lamp")]))
    hidden = Ignore(os=frozenset({"windows"}))
    found = ignored(["web"], hidden, [lab, tailnet], [rule])
    assert {t.machine: t.address for t in found.targets if t.job == "smartctl"} == {
        "router": "10.0.0.1:9633",
        "lamp": "100.64.0.2:9633",
    }
    assert reasons(found) == {"router": "its OS is windows: ignore.os"}
    found = ignored(["web"], hidden, [tailnet, lab], [rule])  # less trusted: the ignored node itself, seen once more
    assert {t.machine for t in found.targets if t.job == "smartctl"} == {"lamp"}


def test_an_alias_gives_the_machine_the_address_of_the_node() -> None:
    """A rule selects the node as that machine, and the machine is not missing."""
    beliefs = [seen(fleet(["Desktop-PC"]))]
    found = resolve(declared(inventory(["desktop"])), beliefs, [_ANY], _ALIAS, now=NOW)
    assert {(t.job, t.machine, t.address) for t in found.targets} == {
        ("node", "desktop", "100.64.0.1:9100"),
        ("smartctl", "desktop", "100.64.0.1:9633"),
    }
    assert found.targets[0].located == "tailnet sees it as desktop-pc (config: aliases)"
    assert (found.stray, found.missing, found.unknown) == ((), (), ())
    said = explained("desktop-pc", declared(inventory(["desktop"])), found)
    assert said[0] == "desktop"
    assert "  alias: desktop-pc is desktop (config: aliases)" in said


def test_two_names_of_one_machine_are_a_conflict() -> None:
    """Law 4: the address of neither node is used, and both are named in any order."""
    for names in (["desktop", "desktop-pc"], ["desktop-pc", "desktop"]):
        found = resolve(declared(inventory(["desktop"])), [seen(fleet(names))], [], _ALIAS, now=NOW)
        (claimed,) = found.ambiguous
        assert claimed.name == "desktop"
        assert sum(claim.startswith("desktop-pc n") for claim in claimed.claims) == 1
        (target,) = found.targets
        assert not target.observed
        assert target.address == "desktop.home.arpa:9100"


def test_two_backends_may_name_one_machine_differently() -> None:
    """A name is ambiguous only within one backend."""
    beliefs = [static({"desktop": "10.0.0.7"}), seen(fleet(["desktop-pc"]))]
    found = resolve(declared(inventory(["desktop"])), beliefs, [], _ALIAS, now=NOW)
    assert addresses(found) == {"desktop": "10.0.0.7:9100"}
    assert found.ambiguous == ()


def test_a_failed_lookup_of_an_alias_leaves_the_machine_unknown() -> None:
    """Law 1: the machine is not proven missing while the lookup of its alias fails."""
    group = Group((Failure("desktop-pc.lan", "SERVFAIL", "desktop-pc"),))
    snapshot = Snapshot(backend="lan", groups={"x": group})
    belief = Belief(backend="lan", state=BeliefState.PARTIAL, snapshot=snapshot)
    found = resolve(declared(inventory(["desktop"])), [belief], [], _ALIAS, now=NOW)
    assert found.unknown == ("desktop",)
    assert found.missing == ()


def test_the_address_of_an_untrusted_node_with_an_alias_is_not_used() -> None:
    """The reason names that node."""
    document = status([node(1, "monitor"), node(2, "desktop-pc", ShareeNode=True)])
    found = resolve(declared(inventory(["desktop"])), [seen(document)], [], _ALIAS, now=NOW)
    (target,) = found.targets
    assert target.address == "desktop.home.arpa:9100"
    assert "tailnet has a node of the name desktop-pc, but" in target.located


_NAME = st.sampled_from(["a", "b", "c", "d", "A", "e*"])


@given(
    machines=st.sets(st.sampled_from("abc")),
    nodes=st.lists(st.tuples(st.sampled_from("abcde"), st.booleans(), st.booleans()), unique_by=lambda n: n[0]),
    names=st.lists(_NAME, max_size=2),
    aliases=st.dictionaries(st.sampled_from("abcde"), st.sampled_from("abc"), max_size=2),
)
def test_ignore_and_aliases_account_for_every_name(
    machines: set[str], nodes: list[tuple[str, bool, bool]], names: list[str], aliases: dict[str, str]
) -> None:
    """Only names remove declared machines.

    Every node is a target, a stray, ignored or ambiguous.
    """
    ignore = Ignore(names=tuple(names), tags=frozenset({"guest"}), os=frozenset({"windows"}))
    world = declared(inventory(sorted(machines)))
    usable, _ = usable_aliases(aliases, world.machines)
    tagged = [
        Node(name, (f"100.64.0.{ord(name)}",), tags=("guest",) if guest else (), os="windows" if windows else "linux")
        for name, guest, windows in nodes
    ]
    snapshot = Snapshot(backend="tailnet", nodes=tuple(tagged))
    belief = Belief(backend="tailnet", state=BeliefState.FRESH, snapshot=snapshot)
    found = resolve(without_ignored(world, ignore), [belief], [_ANY], Policy(ignore=ignore, aliases=usable), now=NOW)
    named = {name.casefold() for name in names}
    known = {machine.name for machine in world.machines}
    expected = {expected.machine.name for expected in world.expected}
    assert {t.machine for t in found.targets if t.job == "node"} == expected - named
    gone = {e.name for e in found.excluded if e.reason == "ignored"}
    assert gone.isdisjoint(t.machine for t in found.targets if t.machine not in known)
    assert gone.isdisjoint(stray.name for stray in found.stray)
    assert len(gone) == sum(e.reason == "ignored" for e in found.excluded)
    assert gone & known == {machine for machine in known if machine.casefold() in named}
    resolved = {t.machine for t in found.targets} | {s.name for s in found.stray} | gone
    resolved |= {claimed.name for claimed in found.ambiguous} | {m.machine for m in found.missing}
    meant = Names({machine.casefold() for machine in known}, usable, ignore)
    assert all(one.name in resolved or meant.machine_of(one.name) in resolved | known for one in tagged)


@pytest.mark.parametrize(
    ("aliases", "what"),
    [
        ({"desktop-pc": "destkop"}, "no source declares a machine 'destkop' (did you mean 'desktop'?)"),
        ({"web": "desktop"}, "'web' is a declared machine itself, and keeps its own targets"),
        ({"Desktop": "desktop"}, "'Desktop' is a declared machine itself"),
        ({"x": "web", "X": "desktop"}, "is an alias of 2 machines, so it is used for none of them"),
    ],
)
def test_an_invalid_alias_is_not_used(tmp_path: Path, run: Run, aliases: dict[str, str], what: str) -> None:
    """`check` fails and names its position; everything else is published."""
    config = world(tmp_path, ["desktop", "web"], ["desktop", "web"], aliases=aliases)
    checked = run("check", "-c", config)
    assert checked.code == 2
    assert what in checked.err
    assert re.search(r"config\.json:\d+:\d+: aliases\.", checked.err)
    assert run("refresh", "-c", config).code == 0
    assert set(json.loads((tmp_path / "targets/node.json").read_text())[0]["targets"]) == {"100.64.0.1:9100"}


def world(place: Path, machines: list[str], nodes: list[str], **config: Json) -> Path:
    """Write a config, an inventory and a status; return the config."""
    (place / "inventory.json").write_text(json.dumps(inventory([*machines, "monitor"])))
    (place / "status.json").write_text(json.dumps(fleet([*nodes, "monitor"])))
    (place / "config.json").write_text(
        json.dumps(
            {
                "inventory": {"file": "inventory.json"},
                "backends": {"tailscale": {"tailnet": {"status_file": "status.json"}}},
                "output": {"directory": "targets"},
                **config,
            },
            indent=1,
        )
    )
    return place / "config.json"


def test_doctor_and_explain_suggest_the_alias(tmp_path: Path, run: Run) -> None:
    """With it the machine is found.

    A name in `ignore` that matches nothing is reported.
    """
    config = world(tmp_path, ["desktop", "web"], ["desktop-pc", "web"], ignore={"names": ["nobody", "web*"]})
    fix = "desktop-pc is not declared and desktop is missing: if they are the same, add"
    fix += " `aliases: {desktop-pc: desktop}` to the config"
    doctor = run("doctor", "-c", config)
    assert doctor.code == 0
    assert f"to fix: {fix}" in doctor.out
    assert "ignore.names nobody: no machine has this name" in doctor.out
    assert "ignore.names web*" not in doctor.out
    for name in ("desktop", "desktop-pc"):
        assert f"to fix: {fix}" in run("explain", name, "-c", config).out
    config = world(tmp_path, ["desktop", "web"], ["desktop-pc", "web"], aliases={"desktop-pc": "desktop"})
    assert run("check", "-c", config).code == 0
    assert "to fix" not in run("explain", "desktop", "-c", config).out


def test_an_alias_cannot_be_a_pattern(tmp_path: Path, run: Run) -> None:
    """A pattern would make every node one machine."""
    config = world(tmp_path, ["desktop"], ["desktop"], aliases={"*": "desktop"})
    done = run("check", "-c", config)
    assert done.code == 2
    assert "aliases.*: '*' cannot be an alias: write one name, patterns are for `ignore.names`" in done.err


def test_suggested_aliases_are_unambiguous_and_fast() -> None:
    """No other machine of a numbered group, no two similar machines, and 10,000 strays are fast."""

    def suggested(machines: list[str], nodes: list[str]) -> dict[str, str]:
        found = resolve(declared(inventory(machines)), [seen(fleet(nodes))], [], Policy(), now=NOW)
        return suggested_aliases(found)

    assert suggested(["web1"], ["web2"]) == {}
    assert suggested(["db"], ["db-1"]) == {"db": "db-1"}
    assert suggested(["web-1", "shop-a"], ["web2", "shop-b"]) == {}
    assert suggested(["nas01", "db1", "db2"], ["nas-01", "db-x"]) == {"nas01": "nas-01"}
    many = [f"node{number}" for number in range(10_000)]
    assert suggested(["desktop", *(f"gone{n}" for n in range(500))], [*many, "desktop-pc"]) == {"desktop": "desktop-pc"}


def test_no_name_is_called_unmatched_while_a_backend_has_no_data() -> None:
    """The name may be one that this backend would see."""
    no_data = Belief(backend="tailnet", state=BeliefState.UNKNOWN, snapshot=None)
    ignore = Ignore(names=("x",))
    for beliefs, unmatched in (([no_data], []), ([], ["x"])):
        found = resolve(Declared(), beliefs, [], Policy(), now=datetime(2026, 11, 20, tzinfo=UTC))
        assert unmatched_names(ignore, found) == unmatched
