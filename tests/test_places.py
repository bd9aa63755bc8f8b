"""Addresses of declared targets: always valid, and never the address of a foreign host."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.backends.tailscale_wire import TailscaleOptions, parse_status
from clan_discovery.emit.file_sd import render_jobs
from clan_discovery.errors import BackendError
from clan_discovery.model import (
    Belief,
    BeliefState,
    Declared,
    DeclaredAddress,
    Exclusion,
    Expected,
    Exporter,
    Machine,
    Node,
    Outage,
    Snapshot,
)
from clan_discovery.publish.files import prepare, publish
from clan_discovery.resolve.memory import Memory
from clan_discovery.resolve.resolver import Policy, resolve
from clan_discovery.resolve.trust import Trust, believe
from clan_discovery.syntax.endpoint import is_host, nowhere, split_endpoint
from tests.support.fleet import SUFFIX, fleet, inventory, node, status
from tests.support.programs import program, promtool_accepts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

NOW = datetime(2026, 11, 20, tzinfo=UTC)
EXPORTERS = (Exporter(type="node", port=9100), Exporter(type="systemd", port=9558))
CONFIG = """\
inventory: {file: inventory.json}
backends: {tailscale: {tailnet: {status_file: status.json}}}
output: {directory: targets}
"""

machines = st.sampled_from(
    ["db", "DB2", "a_b", "a b", "b\u00fccher", "x" * 63, "x" * 64, "x" * 260, "-a", "a-", "", "a.b", "10", "\x1b[2J",
     "::1", "localhost", "%{HOME}", "a/b", "\u202eevil", "[", "a:b", "\U0001f9ea"]
)  # fmt: skip
texts = st.text(min_size=1, max_size=8) | machines
suffixes = (
    st.sampled_from(["tail.net", "clan", ".".join(["s" * 60] * 4), "tail net", "x" * 260, "a\x1b.net", ""]) | texts
)
domains = st.sampled_from(["", "clan", "home.arpa", ".".join(["d" * 60] * 4), "::1", "0.0.1", "x" * 63])
Seen = tuple[str, ...]


def declared(names: list[str], domain: str, exported: dict[str, str]) -> Declared:
    """Declare two exporters on each machine."""
    found = tuple(Machine(name=name) for name in names)
    expected = tuple(
        Expected(machine=machine, exporter=exporter, instance="i", role="exporter", because="")
        for machine in found
        for exporter in EXPORTERS
    )
    addresses = {name: DeclaredAddress(host, "the clan's exports") for name, host in exported.items()}
    return Declared(machines=found, expected=expected, domain=domain, addresses=addresses)


def tailnet(document: Json) -> Belief:
    """Return the belief about a status, without memory.

    A status that cannot be used is an outage.
    """
    try:
        answer: Snapshot | Outage = parse_status(json.dumps(document).encode(), TailscaleOptions(backend="tailnet"))
    except BackendError as error:
        answer = Outage(backend="tailnet", reason=str(error))
    return believe(answer, Memory(), Trust(), fingerprint="", now=0.0)[0]


def refusing(names: list[str]) -> Belief:
    """Return the belief about a zone in which these machines have refused addresses."""
    excluded = tuple(Exclusion(name=n, reason="refused_address", detail="it is loopback", by="dns") for n in names)
    nodes = tuple(Node(name, (), note="has only 127.0.0.1") for name in names)
    return Belief(
        backend="dns", state=BeliefState.FRESH, snapshot=Snapshot(backend="dns", nodes=nodes, excluded=excluded)
    )


@given(st.data())
def test_every_declared_target_has_a_valid_address(data: st.DataObject) -> None:
    """For any names of machines, suffix and domain, and any machines seen, refused or without an answer."""
    names = data.draw(st.lists(machines, min_size=1, max_size=5, unique=True))
    some = st.lists(st.sampled_from(names), max_size=3, unique=True)
    suffix, domain = data.draw(suffixes), data.draw(domains)
    seen, refused, exported = data.draw(some), data.draw(some), data.draw(some)
    nodes: list[dict[str, Json]] = [node(1, "me", DNSName=f"me.{suffix}.")]
    for number, name in enumerate(seen, 2):
        addresses: Json = data.draw(st.sampled_from([["100.64.0.9"], ["127.0.0.1"], ["fd7a:115c:a1e0::9"], None]))
        tags: Json = data.draw(st.sampled_from([["tag:server"], None]))
        changed = node(number, name, DNSName=f"{name}.{suffix}.", TailscaleIPs=addresses, AllowedIPs=None, Tags=tags)
        nodes += [changed] * data.draw(st.integers(1, 2))
    for number, peer in enumerate(nodes):
        peer["PublicKey"] = str(number)
    current: Json = {"Name": "x", "MagicDNSSuffix": suffix, "MagicDNSEnabled": data.draw(st.booleans())}
    beliefs = [tailnet(status(nodes, CurrentTailnet=current, MagicDNSSuffix=suffix)), refusing(refused)]
    if data.draw(st.booleans()):
        beliefs.append(Belief(backend="down", state=BeliefState.UNKNOWN, snapshot=None))
    inventory_ = declared(names, domain, dict.fromkeys(exported, "10.0.0.7"))
    found = resolve(inventory_, beliefs, [], Policy(), now=NOW)
    assert {(t.machine, t.job) for t in found.targets} == {(name, e.type) for name in names for e in EXPORTERS}
    assert not [e for e in found.excluded if e.reason == "inexpressible"]
    down = any(belief.snapshot is None for belief in beliefs)
    for target in found.targets:
        host, port = split_endpoint(target.address)
        assert port in (9100, 9558)
        assert is_host(host)
        assert re.fullmatch(r"[A-Za-z0-9_.-]{1,253}|[0-9a-f:]+", host)
        is_name = target.backend is None or not re.fullmatch(r"[0-9.]+", host)
        if target.machine in refused and is_name and target.machine not in exported:
            assert host.endswith(".invalid")
        if down and is_name:
            assert not host.endswith(f".{suffix.lower()}") or suffix in ("", "clan", domain)


def test_promtool_accepts_every_address(tmp_path: Path) -> None:
    """Unusual names in one target file, checked by the real program."""
    program("promtool")
    names = [
        "db",
        "a_b",
        "a b",
        "b\u00fccher",
        "x" * 64,
        "x" * 260,
        "-a",
        "",
        "a.b",
        "\x1b[2J",
        "::1",
        "a/b",
        "[",
        "a:b",
    ]
    found = resolve(declared(names, "clan", {}), [], [], Policy(), now=NOW)
    directory = tmp_path / "targets"
    prepare(directory)
    publish(directory, render_jobs(found), tmp_path / "tmp")
    promtool_accepts(directory)
    assert len({t.address for t in found.targets}) == len(names) * len(EXPORTERS)


@given(texts, texts)
def test_invalid_names_are_valid_hosts_and_unique(one: str, other: str) -> None:
    """Letters and a checksum, in lower case because DNS ignores case."""
    assert is_host(nowhere(one))
    assert nowhere(one).endswith(".invalid")
    if one != other and not is_host(one) and not is_host(other):
        assert nowhere(one) != nowhere(other)


def host_of_db(suffix: str | None = SUFFIX, *, refused: str = "", exported: str = "", **changes: Json) -> str:
    """Return the host of `db`, which the tailnet sees with these changes, or not at all without changes."""
    nodes = [node(1, "monitor"), node(2, "db", **changes)] if changes else [node(1, "monitor")]
    belief = tailnet(status(nodes))
    assert belief.snapshot is not None
    belief = msgspec.structs.replace(belief, snapshot=msgspec.structs.replace(belief.snapshot, suffix=suffix))
    beliefs = [belief]
    if refused:
        beliefs.append(refusing([refused]))
    inventory_ = declared(["db"], "home.arpa", {"db": exported} if exported else {})
    found = resolve(inventory_, beliefs, [], Policy(), now=NOW)
    return split_endpoint(found.targets[0].address)[0]


def test_the_order_of_addresses() -> None:
    """Declared address, MagicDNS name, name in the declared domain, `.invalid`; invalid ones are skipped."""
    assert host_of_db(exported="10.0.0.7") == "10.0.0.7"
    assert host_of_db() == f"db.{SUFFIX}"
    assert host_of_db("x" * 250) == "db.home.arpa"
    assert host_of_db(None) == "db.home.arpa"
    # seen without an address of the family: the MagicDNS name is newer than the declared address
    six: Json = ["fd7a:115c:a1e0::9"]
    assert host_of_db(exported="10.0.0.7", TailscaleIPs=six) == f"db.{SUFFIX}"
    assert host_of_db(None, exported="10.0.0.7", TailscaleIPs=six) == "10.0.0.7"
    # refused address: any name would lead to it
    assert host_of_db(TailscaleIPs=["127.0.0.1"]) == "db.invalid"
    assert host_of_db(TailscaleIPs=["127.0.0.1"], exported="10.0.0.7") == "10.0.0.7"
    # an excluded node has the name: the MagicDNS name would lead to that node
    assert host_of_db(Tags=["tag:mullvad-exit-node"]) == "db.home.arpa"
    assert host_of_db(ShareeNode=True) == "db.home.arpa"
    assert host_of_db(refused="db") == "db.invalid"
    assert host_of_db(refused="db", exported="10.0.0.7") == "10.0.0.7"


@pytest.mark.parametrize(
    ("machine", "host"),
    [("nas", "nas"), ("localhost", "localhost.invalid"), ("7", "7.invalid")],
)
def test_bare_name_without_any_domain(machine: str, host: str) -> None:
    """A name that leads to the scraper itself, or an address, is not used; nor is that of an untrusted node."""
    bare = declared([machine], "", {})
    assert {split_endpoint(t.address)[0] for t in resolve(bare, [], [], Policy(), now=NOW).targets} == {host}
    untrusted = resolve(bare, [refusing([machine])], [], Policy(), now=NOW).targets
    assert {split_endpoint(t.address)[0] for t in untrusted} == {f"{machine}.invalid"}
    sharee = tailnet(status([node(1, "me"), node(2, machine, ShareeNode=True)]))
    found = resolve(bare, [sharee], [], Policy(), now=NOW).targets
    assert {split_endpoint(t.address)[0] for t in found} == {f"{machine}.invalid"}


@pytest.mark.parametrize("suffix", ["tail net", "x" * 260, "a\x1b]0;pwned\x07.net", "localhost", ".", "10.0.0.1"])
def test_an_invalid_suffix_is_an_outage(tmp_path: Path, run: Run, suffix: str) -> None:
    """Exit 3, and the last good answer is kept; without one, targets have names in the clan's domain."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["monitor", "db", "away"])))
    good, tail = fleet(["monitor", "db"]), {"Name": "x", "MagicDNSSuffix": suffix, "MagicDNSEnabled": True}
    bad = {**good, "CurrentTailnet": tail}
    command = ("refresh", "-c", tmp_path / "config.yaml")
    (tmp_path / "status.json").write_text(json.dumps(bad))
    done = run(*command)
    assert (done.code, "is not a valid domain" in done.err) == (3, True)
    assert "3 targets" in done.out
    (tmp_path / "status.json").write_text(json.dumps(good))
    assert run(*command).code == 0
    before = (tmp_path / "targets/node.json").read_bytes()
    (tmp_path / "status.json").write_text(json.dumps(bad))
    done = run(*command)
    assert done.code == 3
    assert (tmp_path / "targets/node.json").read_bytes() == before
    assert "\x1b" not in done.out + done.err


def test_a_suffix_of_another_domain_is_an_outage(tmp_path: Path, run: Run) -> None:
    """It would give two machines names in a foreign domain, and two are too few for the loss guard."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["monitor", "db"])))
    good, tail = fleet(["monitor", "db"]), {"Name": "x", "MagicDNSSuffix": "evil.example", "MagicDNSEnabled": True}
    (tmp_path / "status.json").write_text(json.dumps(good))
    assert run("refresh", "-c", tmp_path / "config.yaml").code == 0
    before = (tmp_path / "targets/node.json").read_bytes()
    (tmp_path / "status.json").write_text(json.dumps({**good, "CurrentTailnet": tail}))
    done = run("refresh", "-c", tmp_path / "config.yaml")
    assert (done.code, "is not below the MagicDNS suffix 'evil.example'" in done.err) == (3, True)
    assert (tmp_path / "targets/node.json").read_bytes() == before


@pytest.mark.parametrize(("machine", "domain"), [("10", "0.0.1"), ("::1", "0.0.1"), ("127", "0.0.1")])
def test_a_name_is_never_read_as_an_address(machine: str, domain: str) -> None:
    """`10` in the domain 0.0.1 does not become 10.0.0.1."""
    found = resolve(declared([machine], domain, {}), [], [], Policy(), now=NOW)
    assert {split_endpoint(t.address)[0] for t in found.targets} == {nowhere(machine)}


def test_a_too_long_magicdns_name_is_replaced(tmp_path: Path, run: Run) -> None:
    """Such a machine has its name in the declared domain."""
    suffix = ".".join(["s" * 60] * 4)
    nodes = [node(1, "m", DNSName=f"m.{suffix}.")]
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["m", "db", "long-" * 10])))
    current: Json = {"Name": "x", "MagicDNSSuffix": suffix, "MagicDNSEnabled": True}
    (tmp_path / "status.json").write_text(json.dumps(status(nodes, CurrentTailnet=current)))
    assert run("refresh", "-c", tmp_path / "config.yaml").code == 0
    found = {
        group["labels"]["instance"]: group["targets"][0]
        for group in json.loads((tmp_path / "targets/node.json").read_bytes())
    }
    assert found == {"m": "100.64.0.1:9100", "db": f"db.{suffix}:9100", "long-" * 10: f"{'long-' * 10}.home.arpa:9100"}
