"""Test which names in DNS are machines: only those in trusted domains; PTR records must be confirmed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.dnsclient.names import domains_of, service_domain, split_name
from clan_discovery.errors import InputError
from clan_discovery.model import Declared
from tests.support.dns import NameServer, knot, lying
from tests.support.fleet import explained
from tests.test_dns import Home, addresses, reasons, target
from tests.test_dns_memory import lists, zone

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from clan_discovery.model import Json

    Table = dict[tuple[str, str], list[str] | int]

MACHINES: dict[str, Json] = {"db": {}, "web": {}}
EVIL: Table = {
    ("_a.lan.example", "SRV"): ["60 0 0 9200 db.evil.example.", "60 0 0 9200 web.sub.lan.example."],
    ("db.evil.example", "A"): ["60 10.6.6.6"],
    ("web.sub.lan.example", "A"): ["60 10.6.6.7"],
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return a config's directory."""
    return Home(tmp_path)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Generator[NameServer]:
    """Run Knot with a trusted zone, an untrusted zone, and their reverse zone."""
    zones = {
        "lan.example": "_a SRV 0 0 9200 db.evil.example.\n_a SRV 0 0 9201 web\nweb A 10.0.0.2\n"
        "pool A 10.0.0.2\npool A 10.6.6.6\npool A 10.6.6.7\n",
        "evil.example": "db A 10.6.6.6\n",
        "10.in-addr.arpa": "2.0.0 PTR web.lan.example.\n6.6.6 PTR db.lan.example.\n7.6.6 PTR db.evil.example.\n",
    }
    with knot(tmp_path_factory.mktemp("knot"), zones) as server:
        yield server


def test_only_names_in_trusted_domains_are_machines(home: Home, served: NameServer) -> None:
    """By SRV: a target in another zone is an instance of its own. By PTR: a name without the address is ignored."""
    server: Json = [served.server()]
    done = home.round(
        home.write(
            {
                "target": {"names": ["_a.lan.example"], "machines": "target", "job": "app", "servers": server},
                "ptr": lists(served.server(), "pool.lan.example", job="web", port=80, machines="ptr"),
            },
            machines=MACHINES,
        )
    )
    assert addresses(done.resolution) == {
        "app web": "10.0.0.2:9201",
        "app db.evil.example": "10.6.6.6:9200",
        "node db": "db.lan.example:9100",
        "node web": "10.0.0.2:9100",
        "web web": "10.0.0.2:80",
        "web 10.6.6.6": "10.6.6.6:80",
        "web 10.6.6.7": "10.6.6.7:80",
    }
    located = target(done.resolution, "db.evil.example").located
    assert (
        "db.evil.example is not directly below lan.example, so it is not a machine"
        " (if it is, add evil.example to backends.dns.target.domains, besides lan.example)" in located
    )
    lines = explained("db", Declared(), done.resolution)
    assert any("excluded (app): untrusted_name: db.evil.example is not directly" in line for line in lines)


def test_list_without_job_reports_untrusted_names(home: Home) -> None:
    """In another zone, or in a subdomain that somebody else may control: `domains` sets which domains count."""
    with lying(zone(EVIL)) as liar:
        lan: dict[str, Json] = {"names": ["_a.lan.example"], "machines": "target", "servers": [liar.server]}
        done = home.round(home.write({"lan": lan}, machines=MACHINES))
        assert addresses(done.resolution) == {"node db": "db.lan.example:9100", "node web": "web.lan.example:9100"}
        assert {("db.evil.example", "untrusted_name"), ("web.sub.lan.example", "untrusted_name")} <= reasons(
            done.resolution
        )
        done = home.round(home.write({"lan": {**lan, "domains": ["SUB.lan.example."]}}, machines=MACHINES))
        assert addresses(done.resolution) == {"node db": "db.lan.example:9100", "node web": "10.6.6.7:9100"}


@pytest.mark.parametrize(
    ("backend", "machines"),
    [
        ({"names": ["db.a.x"], "type": "A", "machines": "name"}, {"db": "10.0.0.1"}),
        ({"names": ["db.a.x"], "type": "A", "machines": "name", "domains": ["b.x"]}, {}),
        ({"names": ["db"], "type": "A", "machines": "name", "search": ["none.x", "a.x"]}, {"db": "10.0.0.1"}),
        ({"names": ["_s.b.x"], "machines": "target"}, {"web": "10.0.0.3"}),
        ({"names": ["_s.b.x"], "machines": "target", "domain": "a.x"}, {"db": "10.0.0.1", "web": "10.0.0.3"}),
        ({"names": ["_s"], "machines": "target", "search": ["b.x"]}, {"web": "10.0.0.3"}),
        ({"names": ["_s.b.x"], "machines": "target", "domains": ["a.x", "b.x"]}, {"db": "10.0.0.1", "web": "10.0.0.3"}),
        ({"names": ["_s.b.x"], "machines": "target", "domains": ["x"]}, {}),
        ({"names": ["list.b.x"], "type": "SRV", "machines": "target"}, {"web": "10.0.0.3"}),
    ],
)
def test_trusted_domains_of_a_backend(home: Home, backend: dict[str, Json], machines: dict[str, str]) -> None:
    """Those of the list, the backend and the search list; or only those of `domains`."""
    table: Table = {
        ("db.a.x", "A"): ["60 10.0.0.1"],
        ("web.b.x", "A"): ["60 10.0.0.3"],
        ("db.c.x", "A"): ["60 10.6.6.6"],
    }
    for name in ("_s.b.x", "list.b.x"):
        table[name, "SRV"] = ["60 0 0 1 db.a.x.", "60 0 0 1 web.b.x."]
    with lying(zone(table)) as liar:
        done = home.round(home.write({"lan": {**backend, "servers": [liar.server]}}, machines=MACHINES))
    seen = {t.machine: t.address.removesuffix(":9100") for t in done.resolution.targets if t.backend == "lan"}
    assert seen == machines


def test_machine_is_also_looked_up_by_its_alias(home: Home) -> None:
    """Below `domain`, and for `*.`; if both names have different addresses, neither gives the address."""
    aliases: Json = {"db-box": "db"}
    lan: dict[str, Json] = {"domain": "a.x", "names": ["*.b.x"], "type": "A", "job": "app", "port": 80}
    table: Table = {("db-box.a.x", "A"): ["60 10.0.0.1"], ("db-box.b.x", "A"): ["60 10.0.0.1"]}
    with lying(zone(table)) as liar:
        done = home.round(home.write({"lan": {**lan, "servers": [liar.server]}}, machines=MACHINES, aliases=aliases))
    found = addresses(done.resolution)
    assert (found["node db"], found["app db"]) == ("10.0.0.1:9100", "10.0.0.1:80")
    table = {("db-box.a.x", "A"): ["60 10.0.0.1"], ("db.a.x", "A"): ["60 10.0.0.2"]}
    with lying(zone(table)) as liar:
        asked: Json = {"domain": "a.x", "servers": [liar.server]}
        done = home.round(home.write({"lan": asked}, machines=MACHINES, aliases=aliases), after=7200)
    assert addresses(done.resolution)["node db"] == "db.lan.example:9100"
    assert [claimed.name for claimed in done.resolution.ambiguous] == ["db"]


def test_clan_domain_is_trusted(home: Home) -> None:
    """`meta.domain` is lan.example, and the list is in another domain."""
    table: Table = {("_s.b.x", "SRV"): ["60 0 0 1 db.lan.example."], ("db.lan.example", "A"): ["60 10.0.0.1"]}
    with lying(zone(table)) as liar:
        lan: Json = {"names": ["_s.b.x"], "machines": "target", "servers": [liar.server]}
        done = home.round(home.write({"lan": lan}, machines=MACHINES))
    assert addresses(done.resolution)["node db"] == "10.0.0.1:9100"


def test_additional_records_of_other_zones_are_looked_up_again(home: Home) -> None:
    """Additional records are used only for hosts of the same zone."""
    table: Table = {
        ("_s.evil.x", "SRV"): ["60 0 0 1 db.lan.example.", "60 0 0 2 own.evil.x."],
        ("db.lan.example", "A"): ["60 10.0.0.1"],
    }
    with lying(zone(table, {"db.lan.example": ["60 A 10.6.6.6"], "own.evil.x": ["60 A 10.6.6.7"]})) as liar:
        lan: Json = {"names": ["_s.evil.x"], "machines": "target", "job": "app", "servers": [liar.server]}
        done = home.round(home.write({"lan": lan}, machines=MACHINES))
    assert addresses(done.resolution) == {
        "app db": "10.0.0.1:1",
        "app own.evil.x": "10.6.6.7:2",
        "node db": "10.0.0.1:9100",
        "node web": "web.lan.example:9100",
    }


def test_ptr_record_is_confirmed_by_the_address(home: Home) -> None:
    """In both families. Without confirmation the address is the instance; while it is unknown, so is the machine."""
    table: Table = {
        ("pool.x", "A"): ["60 10.0.0.1", "60 10.0.0.2"],
        ("1.0.0.10.in-addr.arpa", "PTR"): ["60 db.x."],
        ("2.0.0.10.in-addr.arpa", "PTR"): ["60 web.x."],
        ("db.x", "A"): ["60 10.0.0.9"],
        ("web.x", "A"): 2,
    }
    with lying(zone(table)) as liar:
        plan = home.write({"lan": lists(liar.server, "pool.x", job="web", port=80, machines="ptr")}, machines=MACHINES)
        done = home.round(plan)
        assert addresses(done.resolution) == {
            "web 10.0.0.1": "10.0.0.1:80",
            "node db": "db.lan.example:9100",
            "node web": "web.lan.example:9100",
        }
        assert done.exit_code == 3
        assert done.resolution.unknown == ("web",)
        table["web.x", "A"] = ["60 10.0.0.7", "60 10.0.0.2"]
        table["db.x", "A"] = ["60 10.0.0.1"]
        done = home.round(plan, after=61)
        assert addresses(done.resolution) == {
            "web db": "10.0.0.1:80",
            "web web": "10.0.0.2:80",
            "node db": "10.0.0.1:9100",
            "node web": "10.0.0.2:9100",
        }
        assert done.exit_code == 0
        table["web.x", "A"] = 2
        assert addresses(home.round(plan, after=61).resolution) == addresses(done.resolution)
        table["web.x", "A"] = ["60 10.0.0.7"]
        assert "node web" in addresses(home.round(plan, after=61).resolution)
        assert addresses(home.round(plan, after=1).resolution)["node web"] == "web.lan.example:9100"


def test_ipv6_ptr_record_is_confirmed_by_aaaa(home: Home) -> None:
    """An A record of the name does not confirm it."""
    arpa = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa"
    table: Table = {("pool.x", "AAAA"): ["60 fd00::1"], (arpa, "PTR"): ["60 db.x."], ("db.x", "A"): ["60 10.0.0.1"]}
    with lying(zone(table)) as liar:
        lan = lists(liar.server, "pool.x", job="web", type_="AAAA", port=80, machines="ptr")
        plan = home.write({"lan": lan}, machines=MACHINES)
        assert "web fd00::1" in addresses(home.round(plan).resolution)
        table["db.x", "AAAA"] = ["60 fd00::1"]
        assert addresses(home.round(plan, after=301).resolution)["web db"] == "[fd00::1]:80"


@pytest.mark.parametrize(
    ("lan", "said"),
    [
        ({"names": ["a.x"], "job": "node", "domains": ["x"]}, "`machines` is missing"),
        ({"names": ["a.x"], "machines": "ptr", "type": "A", "domains": ["a b"]}, "'a b' is not a DNS name"),
    ],
)
def test_invalid_domains_are_refused(home: Home, lan: dict[str, Json], said: str) -> None:
    """With their position in the config."""
    with pytest.raises(InputError, match=said):
        home.write({"lan": lan})


labels = st.sampled_from(["db", "_node", "_tcp", "lan", "example", "a\\.b"])


@given(st.lists(labels, min_size=1, max_size=5), st.booleans())
def test_machine_name_is_directly_below_its_domain(parts: list[str], service: bool) -> None:  # noqa: FBT001 - hypothesis's
    """An escaped dot is not a separator; service labels are not part of a list's domains."""
    name = ".".join(parts)
    label, domain = split_name(name)
    if "\\" in name:
        assert (label, domain) == (name, "")
        return
    assert ".".join(filter(None, [label, domain])) == name
    for own in domains_of(name, is_service=service):
        assert own in (name, "") or name.endswith(f".{own}")


def test_domains_of_a_list() -> None:
    """Those of its hosts; for a service and its instances, the domain after the service labels."""
    assert service_domain("on\\032db._node._tcp.lan.example") == "lan.example"
    assert service_domain("_node._tcp.lan.example") == "lan.example"
    assert service_domain("nodes.lan.example") == "lan.example"
    assert service_domain("nodes") == ""
    assert domains_of("_node._tcp.lan.example", is_service=True) == ("lan.example",)
    assert domains_of("nodes.lan.example", is_service=True) == ("nodes.lan.example", "lan.example")
    assert domains_of("db.lan.example", is_service=False) == ("lan.example",)
    assert domains_of("db", is_service=False) == ("",)
    assert domains_of("_node", is_service=True) == ("_node", "_node")
