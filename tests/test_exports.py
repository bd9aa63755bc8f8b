"""Exports of the clan: the declared address of a machine that no backend sees."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.assemble import watched_files
from clan_discovery.config.load import load_config
from clan_discovery.errors import InputError
from clan_discovery.inventory.clan.declare import Options, declare
from clan_discovery.inventory.clan.exports import Exports, parse_exports
from clan_discovery.inventory.clan.wire import parse_inventory
from clan_discovery.inventory.queries import DUMP, EXPORTS
from clan_discovery.model import Belief, BeliefState, Exclusion, Exporter, Node, SelectRule, Snapshot
from clan_discovery.resolve.resolver import Policy, resolve
from clan_discovery.syntax.endpoint import is_address
from tests.support.fleet import SUFFIX, explained, fleet, inventory
from tests.support.programs import checkout, program

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from clan_discovery.model import Declared, Json, Resolution
    from tests.conftest import Done
    from tests.support.fleet import Object

    Run = Callable[..., Done]

HERE = Path(__file__).parent
RECORDED = HERE / "data/clan-exports.json"
NOW = datetime(2026, 11, 20, tzinfo=UTC)
WG: Object = {
    "clan-core/wireguard:wg::": {"networking": {"module": "clan_lib.network.direct", "priority": 1000}, "peer": None},
    "clan-core/wireguard:wg:peer:db": {"networking": None, "peer": {"hosts": [{"plain": "db.wg"}]}},
}
AT_DECLARED = "at its address in the clan's exports: clan-core/wireguard:wg:peer:db (priority 1000)"


def peer(*hosts: Json) -> Object:
    """Return the exports of a machine with these hosts."""
    return {"networking": None, "peer": {"hosts": list(hosts), "name": "peer", "port": 22, "user": None}}


def plain(host: str) -> Object:
    """Return a host that is a plain address."""
    return {"plain": host}


def network(priority: int | None = None, module: str = "direct") -> Object:
    """Return the exports of a network."""
    said: Object = {"module": f"clan_lib.network.{module}"}
    return {"peer": None, "networking": said if priority is None else {**said, "priority": priority}}


def read(document: Json) -> Exports:
    """Read exports."""
    return parse_exports(json.dumps(document).encode(), "exports.json")


def hosts(document: Json) -> dict[str, str]:
    """Return the declared address of each machine; the exports must give no warning."""
    found = read(document)
    assert found.problems == ()
    return {machine: home.host for machine, home in found.addresses.items()}


# Which host it is


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({}, {}),
        (WG, {"db": "db.wg"}),
        ({":::db": peer(plain("a"))}, {"db": "a"}),
        ({"s:i::db": peer(plain("a"))}, {"db": "a"}),
        ({"s:i:r:": peer(plain("a"))}, {}),
        ({"s:i:r:db": peer(plain("200:1::2\n"))}, {"db": "200:1::2"}),
        ({"s:i:r:db": peer(plain(" [fd00::1] "))}, {"db": "fd00::1"}),
        ({"s:i:r:db": peer({"var": {"machine": "db", "generator": "tor"}}, plain("a"), plain("b"))}, {"db": "a"}),
        ({"s:i:r:db": peer({"var": {}})}, {}),
        ({"s:i::": network(2), "s:i:r:db": peer(plain("a")), "s:j::": network(3), "s:j:r:db": peer()}, {"db": "a"}),
        ({"t:t::": network(9999, "tor"), "t:t:r:db": peer(plain("x.onion")), **WG}, {"db": "db.wg"}),
        ({"p:p::": network(9999, "p2p_ssh_iroh"), "p:p:r:db": peer(plain("x"))}, {}),
        ({"z:z::": network(900, "zerotier"), "z:z::db": peer(plain("fd00::1"))}, {"db": "fd00::1"}),
        ({"a:i:r:db": peer(plain("unsaid")), "b:i::": network(999), "b:i:r:db": peer(plain("b"))}, {"db": "unsaid"}),
        ({"a:i:r:db": peer(plain("unsaid")), "b:i::": network(1001), "b:i:r:db": peer(plain("b"))}, {"db": "b"}),
        ({"a:i::": network(), "a:i:r:db": peer(plain("a")), "b:i:r:db": peer(plain("b"))}, {"db": "a"}),
        ({"b:i:r:db": peer(plain("b")), "a:i:s:db": peer(plain("s")), "a:i:r:db": peer(plain("r"))}, {"db": "r"}),
        ({"a:i:r:db": network(5000), "a:i:s:db": peer(plain("a")), "b:i:r:db": peer(plain("b"))}, {"db": "a"}),
    ],
)
def test_the_first_plain_host_of_the_highest_priority_wins(document: Json, found: dict[str, str]) -> None:
    """An instance without a priority has 1000."""
    assert hosts(document) == found


@pytest.mark.parametrize(
    "odd",
    [
        None,
        7,
        "x",
        [],
        {},
        {"peer": None, "networking": None},
        {"peer": [], "networking": "x", "endpoints": {"hosts": ["a"]}},
        {"peer": {"hosts": None}},
        {"peer": {"hosts": 7}},
        {"peer": {"hosts": {"plain": "db.wg"}}},
        {"peer": {"hosts": "db.wg"}},
        {"peer": {"hosts": [None, "db.wg", {}, {"plain": 7}, {"plain": None}, {"unknown": "x"}]}},
    ],
)
def test_null_and_foreign_keys_are_ignored(odd: Json) -> None:
    """A value is null where its evaluation failed; other keys belong to other services."""
    assert hosts({"s:i:r:db": odd, "s:i::": odd, **WG}) == {"db": "db.wg"}
    assert hosts({"s:i:r:db": odd}) == {}
    assert hosts({"s:i:r:db": peer(plain("a")), "s:i::": odd}) == {"db": "a"}


@pytest.mark.parametrize("priority", [None, True, "2000", 2000.5, []])
def test_a_priority_that_is_no_integer_is_ignored(priority: Json) -> None:
    """The default is used."""
    odd: Object = {"networking": {"priority": priority, "module": ["x"]}}
    document: Object = {"a:i:r:db": peer(plain("a")), "b:i::": odd, "b:i:r:db": peer(plain("b"))}
    assert read(document).addresses["db"].words == "the clan's exports: a:i:r:db (priority 1000)"
    assert hosts({**document, "a:i::": network(999)}) == {"db": "b"}


@pytest.mark.parametrize(
    ("host", "hint"),
    [
        ("fe80::1%eth0", "a zone (%)"),
        ("[fe80::1%1]", "a zone (%)"),
        ("root@db", ""),
        ("db:22", ""),
        ("a b", ""),
        ("127.0.0.1", ""),
        ("LocalHost", ""),
        ("::1", ""),
        ("fe80::1", ""),
        ("169.254.169.254", ""),
        ("0.0.0.0", ""),  # noqa: S104 - what is refused
        ("64:ff9b::7f00:1", ""),
        ("2002:7f00:1::", ""),
        ("::127.0.0.1", ""),
        ("::ffff:127.0.0.1", ""),
        ("100.100.100.100", ""),
        ("fd00:ec2::254", ""),
        ("168.63.129.16", ""),
        ("192.0.0.192", ""),
        ("240.0.0.1", ""),
        ("fec0::1", ""),
        ("127.1", ""),
        ("db.localhost.", ""),
    ],
)
def test_an_invalid_host_is_skipped_with_a_warning(host: str, hint: str) -> None:
    """The next host or network is used; the warning names the scope."""
    for document in (
        {"a:i:r:db": peer(plain(host), plain("b"))},
        {"a:i::": network(2000), "a:i:r:db": peer(plain(host)), "b:i:r:db": peer(plain("b"))},
    ):
        found = read(document)
        assert found.addresses["db"].host == "b"
        (problem,) = found.problems
        assert (problem.severity, problem.where) == ("warning", "exports.json: a:i:r:db")
        said = "an address that no target may have" if is_address(host) else "neither an address nor a machine name"
        assert problem.what.startswith(f"{json.dumps(host)} is {said}")
        assert problem.what.endswith(": it is not used")
        assert (problem.hint or "").startswith(hint)
    assert read({"a:i:r:db": peer(plain(host))}).addresses == {}


def test_an_empty_host_gives_no_warning() -> None:
    """clan-core's services export an empty host by default."""
    assert read({"a:i:r:db": peer(plain(""))}) == Exports({})


def test_an_address_of_two_machines_is_used_for_neither() -> None:
    """One of them would be scraped under both names."""
    found = read({"a:i:r:db": peer(plain("10.0.0.1")), "b:i:r:web": peer(plain("10.0.0.1")), **WG})
    assert "web" not in found.addresses
    (problem,) = found.problems
    assert problem.what == "10.0.0.1 is the address of db, web: it is used for none of them"


@pytest.mark.parametrize("key", ["db", "a:i:db", "a:b:i:r:db", ""])
def test_a_key_that_is_no_scope_is_skipped_with_a_warning(key: str) -> None:
    """A service name with a colon gives five parts."""
    found = read({key: peer(plain("a")), **WG})
    assert {machine: home.host for machine, home in found.addresses.items()} == {"db": "db.wg"}
    assert [(p.severity, p.where) for p in found.problems] == [("warning", "exports.json")]
    assert f"{json.dumps(key)} is not a scope" in found.problems[0].what


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the exports file is empty"),
        (b"null", "exports are an object of scopes, not null"),
        (b"[]", "exports are an object of scopes, not a list"),
        (b'{"a:b::": {"peer', "the exports file ends in the middle"),
        (b"\xff", "the exports file is not UTF-8"),
    ],
)
def test_invalid_exports_are_refused_in_one_line(body: bytes, said: str) -> None:
    """With the position, and with the command that writes them unless the file is truncated."""
    with pytest.raises(InputError) as caught:
        parse_exports(body, "exports.json")
    (problem,) = caught.value.problems
    assert problem.where.startswith("exports.json")
    assert said in problem.what
    assert "exit status" in str(problem) or str(problem).endswith(f"(write it with: {DUMP})")


instances = st.tuples(st.sampled_from(["", "a", "b"]), st.sampled_from(["", "i", "j"]))
priorities = st.dictionaries(instances, st.none() | st.sampled_from([10, 999, 1000, 1001, 2000]))
scopes = st.dictionaries(
    st.tuples(instances, st.sampled_from(["", "peer", "r"]), st.sampled_from(["db", "web"])),
    st.sampled_from(["h", "h", "no host ", None]),
    min_size=1,
)


@given(priorities, scopes, st.randoms(use_true_random=False))
def test_the_highest_priority_wins_in_any_order_of_keys(
    networks: dict[tuple[str, str], int | None],
    peers: dict[tuple[tuple[str, str], str, str], str | None],
    random: Random,
) -> None:
    """Compared with a simple search; the order of the keys changes nothing."""
    document: Object = {f"{s}:{i}::": network(p) for (s, i), p in networks.items()}
    offers: dict[str, list[tuple[int, str, str]]] = {}
    for number, (((service, name), role, machine), written) in enumerate(peers.items()):
        key, host = f"{service}:{name}:{role}:{machine}", f"{written}{number}"
        document[key] = peer(plain(host) if written else {"var": {}})
        if written == "h":
            priority = networks.get((service, name))
            offers.setdefault(machine, []).append((1000 if priority is None else priority, key, host))
    found = read(document)
    for machine, ours in offers.items():
        highest = max(priority for priority, _, _ in ours)
        first = min(key for priority, key, _ in ours if priority == highest)
        assert found.addresses[machine].host == next(host for _, key, host in ours if key == first)
        assert found.addresses[machine].words == f"the clan's exports: {first} (priority {highest})"
    assert found.addresses.keys() == offers.keys()
    assert len(found.problems) == list(peers.values()).count("no host ")
    items = list(document.items())
    random.shuffle(items)
    assert read(dict(items)) == found


anything: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a:i::", "a:i:r:db", "peer", "networking", "hosts", "plain", "priority", "module", "x"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(anything)
def test_any_json_is_read_or_refused(document: Json) -> None:
    """Only our own error is raised, and addresses that are read are usable."""
    try:
        found = read(document)
    except InputError as error:
        assert error.problems  # noqa: PT017 - either way is right
    else:
        assert all(home.host for home in found.addresses.values())


# The address of a target


def declared(names: list[str], exports: Json = WG) -> Declared:
    """Return an inventory of these machines with these exports."""
    document = parse_inventory(json.dumps(inventory(names)).encode(), "inv.json")
    return declare(document, Options(exports=read(exports)))


def believed(*nodes: Node, suffix: str | None = SUFFIX, excluded: Sequence[Exclusion] = ()) -> Belief:
    """Believe a backend that sees these nodes."""
    snapshot = Snapshot(backend="t", nodes=nodes, suffix=suffix, excluded=tuple(excluded))
    return Belief(backend="t", state=BeliefState.FRESH, snapshot=snapshot)


def resolve_db(world: Declared, *beliefs: Belief, policy: Policy | None = None) -> tuple[Resolution, str, str]:
    """Resolve; return the resolution, the address of `db` and the reason for it."""
    found = resolve(world, beliefs, [], policy or Policy(), now=NOW)
    (target,) = [t for t in found.targets if t.machine == "db"]
    assert (
        target.observed == (target.labels["__meta_clan_observed"] == "true") == ("__meta_clan_backend" in target.labels)
    )
    return found, target.address, target.located


def test_an_unseen_machine_has_its_declared_address_and_is_missing() -> None:
    """A seen machine has its observed address; one without exports has its name."""
    world = declared(["db", "web"])
    web = Node("web", ("100.64.0.2",))
    found, address, located = resolve_db(world, believed(web))
    assert (address, located) == ("db.wg:9100", f"no backend sees it: {AT_DECLARED}")
    assert [m.machine for m in found.missing] == ["db"]
    assert f"  address: no backend sees it: {AT_DECLARED}" in "\n".join(explained("db", world, found))
    found, address, located = resolve_db(world, believed(Node("db", ("100.64.0.1",))))
    assert (address, located) == ("100.64.0.1:9100", "t sees it")
    assert [(m.machine, t.address) for m, t in zip(found.missing, found.targets[1:], strict=True)] == [
        ("web", f"web.{SUFFIX}:9100")
    ]


def test_without_an_answer_machines_have_their_declared_addresses() -> None:
    """No machine is missing if no backend is asked or none answers."""
    world = declared(["db"])
    found, address, located = resolve_db(world)
    assert (address, located) == ("db.wg:9100", f"no backend is asked: {AT_DECLARED}")
    assert (found.missing, found.unknown) == ((), ())
    no_data = Belief(backend="t", state=BeliefState.UNKNOWN, snapshot=None, why="down")
    found, address, located = resolve_db(world, no_data)
    assert (address, located) == ("db.wg:9100", f"no answer from t: {AT_DECLARED}")
    assert (found.missing, found.unknown) == ((), ("db",))


def test_a_declared_ipv6_address_is_bracketed() -> None:
    """As every IPv6 address in a target."""
    assert resolve_db(declared(["db"], {"s:i:r:db": peer(plain("200:1::2\n"))}))[1] == "[200:1::2]:9100"


def test_absent_drop_ignores_declared_addresses() -> None:
    """A declared address is no observation: a machine that is proven absent is dropped."""
    found = resolve(declared(["db"]), [believed(Node("x", ("100.64.0.9",)))], [], Policy(absent="drop"), now=NOW)
    assert (found.targets, [e.reason for e in found.excluded]) == ((), ["absent"])
    no_data = Belief(backend="t", state=BeliefState.UNKNOWN, snapshot=None)
    assert resolve_db(declared(["db"]), no_data, policy=Policy(absent="drop"))[1] == "db.wg:9100"


def test_a_machine_with_an_untrusted_name_has_its_declared_address() -> None:
    """Two nodes claim the name, or its node lacks a required tag.

    The address of those nodes is not used.
    """
    twice = believed(Node("db", ("100.64.0.1",), id="1"), Node("db", ("100.64.0.2",), id="2"))
    found, address, located = resolve_db(declared(["db"]), twice)
    assert (address, located) == ("db.wg:9100", f"t has the name 2 times: {AT_DECLARED}")
    assert (found.missing, [a.name for a in found.ambiguous]) == ((), ["db"])
    untagged = Exclusion(name="db", reason="missing_tag", detail="it lacks tag:server", by="t")
    found, address, located = resolve_db(declared(["db"]), believed(Node("x", ("100.64.0.9",)), excluded=[untagged]))
    assert (address, found.missing) == ("db.wg:9100", ())
    assert "it lacks tag:server: at its address in the clan's exports" in located


def test_a_refused_address_is_replaced_by_the_declared_one() -> None:
    """The declared address goes before `.invalid`. The target is not observed there."""
    node = Node("db", (), labels={"__meta_dns_name": "db.x"}, note="db.x has only 127.0.0.1")
    refused = Exclusion(name="db", reason="refused_address", detail="loopback", by="t")
    belief = believed(node, suffix=None, excluded=[refused])
    found, address, located = resolve_db(declared(["db"]), belief)
    assert (address, located) == ("db.wg:9100", f"t sees it, but db.x has only 127.0.0.1: {AT_DECLARED}")
    assert (found.missing, "__meta_dns_name" in found.targets[0].labels) == ((), False)
    assert resolve_db(declared(["db"], {}), belief)[1] == "db.invalid:9100"
    rule = SelectRule(exporter=Exporter(type="mine", port=1), backends=frozenset({"t"}))
    picked = resolve(declared(["db"]), [belief], [rule], Policy(), now=NOW)
    assert [(t.job, t.address, t.observed) for t in picked.targets] == [
        ("mine", "db.wg:1", False),
        ("node", "db.wg:9100", False),
    ]


def test_a_machine_seen_without_an_address_has_its_magicdns_name() -> None:
    """It is on the tailnet, and the name leads to it."""
    node = Node("db", (), note="it has no IPv4 address")
    assert resolve_db(declared(["db"]), believed(node))[1] == f"db.{SUFFIX}:9100"


def test_exports_add_no_targets() -> None:
    """Only declared machines get a declared address."""
    world = declared(["web"])
    assert world.addresses == {}
    assert [t.machine for t in resolve(world, [], [], Policy(), now=NOW).targets] == ["web"]


# Through the config


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a directory with a config that has exports; the tailnet sees the server alone."""
    (tmp_path / "config.yaml").write_text(
        "inventory: {file: inventory.json, exports: exports.json}\n"
        "backends: {tailscale: {tailnet: {status_file: status.json}}}\n"
        "output: {directory: targets}\n"
    )
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["monitor", "db"])))
    (tmp_path / "status.json").write_text(json.dumps(fleet(["monitor"])))
    (tmp_path / "exports.json").write_text(json.dumps(WG))
    return tmp_path


def test_the_config_can_name_an_exports_file(home: Path, run: Run) -> None:
    """It is published, explained and watched.

    A warning changes nothing else; an invalid file is an error.
    """
    config = home / "config.yaml"
    done = run("refresh", "-c", config)
    assert (done.code, done.err) == (0, "")
    assert "1 seen, 1 not seen" in done.out
    (group,) = [g for g in json.loads((home / "targets/node.json").read_bytes()) if g["labels"]["machine"] == "db"]
    assert group["targets"] == ["db.wg:9100"]
    assert group["labels"]["__meta_clan_observed"] == "false"
    assert f"  address: no backend sees it: {AT_DECLARED}" in run("explain", "db", "-c", config).out
    assert (home / "exports.json", "inventory") in watched_files(load_config(config))
    (home / "exports.json").write_text(json.dumps({"odd": None, "a:i:r:db": peer(plain("root@db"))}))
    done = run("refresh", "-c", config)
    assert done.code == 0
    assert f'warning: {home}/exports.json: "odd" is not a scope' in done.err
    assert f'warning: {home}/exports.json: a:i:r:db: "root@db" is neither an address' in done.err
    for broken in ("null", ""):
        (home / "exports.json").write_text(broken)
        assert run("check", "-c", config).code == 2
    (home / "exports.json").unlink()
    done = run("check", "-c", config)
    assert done.code == 2
    assert (
        f"{home}/exports.json: cannot read the exports file: No such file or directory (write it with: clan-discovery "
        "dump --flake . --output DIR)" in done.err
    )


# What Nix and clan-core export


def applied(expression: str) -> str:
    """Evaluate the function of the documented command on an expression."""
    function = str(EXPORTS.apply)
    command = [program("nix-instantiate"), "--eval", "--strict", "--json", "--store", "dummy://"]
    done = subprocess.run(
        [*command, "-E", f"({function}) ({expression})"],
        capture_output=True, text=True, check=False, timeout=300, env={**os.environ, "NIX_PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_documented_command_skips_addresses_that_throw() -> None:
    """The others are still exported."""
    said = applied(
        """{
          "s:i::" = { networking = { priority = 5; module = "m"; }; peer = null; };
          "s:i:r:db" = { networking = null; peer.hosts = [ { plain = "db.wg"; } ]; };
          "s:i:r:web" = { networking = null; peer.hosts = [ { plain = throw "not found!"; } ]; };
          "s:i:r:odd" = { };
        }"""
    )
    assert hosts(json.loads(said)) == {"db": "db.wg"}
    assert set(json.loads(said)) == {"s:i::", "s:i:r:db", "s:i:r:web", "s:i:r:odd"}
    assert EXPORTS.command() in (HERE.parent / "docs/inventory.md").read_text()


def test_recorded_exports_of_clan_core() -> None:
    """Two machines have an address in the network with the highest priority, the third in the only network."""
    assert hosts(json.loads(RECORDED.read_bytes())) == {"db": "200:1::2", "monitor": "monitor.wg", "web": "web.wg"}


def test_the_recorded_exports_are_those_of_clan_core(tmp_path: Path) -> None:
    """They are exported again by clan-core's real code."""
    clan_core, library = checkout("CLAN_CORE"), checkout("NIXPKGS_LIB")
    root = next(p for p in (Path(library) / "lib", Path(library)) if (p / "modules.nix").is_file())
    value = tmp_path / "vars/per-machine/db/yggdrasil/address/value"
    value.parent.mkdir(parents=True)
    value.write_text("200:1::2\n")
    arguments = f'nixpkgsLib = "{root}"; clanCore = "{clan_core}"; directory = "{tmp_path}";'
    said = applied(f"import {HERE}/nix/exports.nix {{ {arguments} }}")
    assert json.loads(said.replace(str(tmp_path), "directory")) == json.loads(RECORDED.read_bytes())
