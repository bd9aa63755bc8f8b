"""What stands of each name when things go wrong together: outages, lost states, edited configs, claims that clash."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import dns.message
import dns.rrset
import pytest

from tests.support.dns import lying, reply
from tests.test_dns import NOW, Home, addresses, inventory, reasons, target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]
    Table = dict[tuple[str, str], list[str] | int]

GLUE = "additional"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return a config's directory."""
    return Home(tmp_path)


def zone(table: Table, glue: Mapping[str, list[str]] | None = None) -> Callable[[dns.message.Message, bool], bytes]:
    """Answer each name and type with `ttl rdata` records or a response code; `glue` comes along with SRV, by name."""

    def answer(query: dns.message.Message, _: bool) -> bytes:  # noqa: FBT001 - the server's form
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        type_ = query.question[0].rdtype.name
        said = table.get((name, type_), 0 if any(known == name for known, _ in table) else 3)
        if isinstance(said, int):
            return reply(query, rcode=said).to_wire()
        records = [f"{name}. {record.replace(' ', f' {type_} ', 1)}" for record in said]
        response = reply(query, *records)
        for owner, found in (glue or {}).items() if type_ == "SRV" else ():
            for record in found:
                ttl, family, address = record.split()
                response.additional.append(dns.rrset.from_text(f"{owner}.", int(ttl), "IN", family, address))
        return response.to_wire()

    return answer


def published(home: Home) -> dict[str, str]:
    """Return the address of each published target, by job and instance."""
    found: dict[str, str] = {}
    for file in home.plan().directory.glob("*.json"):
        for group in json.loads(file.read_bytes()):
            found[f"{file.stem} {group['labels']['instance']}"] = group["targets"][0]
    return found


def forget(home: Home) -> None:
    """Delete the state."""
    shutil.rmtree(home.plan().state_directory)


def lists(server: str, *names: str, job: str = "node", type_: str = "A", **more: Json) -> dict[str, Json]:
    """Return a backend that lists a job."""
    return {"names": list(names), "type": type_, "job": job, "servers": [server], **more}


# Addresses in the additional section


def test_additional_address_is_kept_while_the_lookup_fails(home: Home) -> None:
    """The next SRV response has no additional record, and the lookup of the host fails."""
    table: Table = {("_a.x", "SRV"): ["30 0 0 9100 db.x."]}
    glue = {"db.x": ["300 A 10.0.0.5"]}
    with lying(zone(table, glue)) as liar:
        plan = home.write({"lan": lists(liar.server, "_a.x", type_="SRV")})
        assert addresses(home.round(plan).resolution) == {"node db.x": "10.0.0.5:9100"}
        glue.clear()
        table["db.x", "A"] = 2
        done = home.round(plan, after=301)
        assert addresses(done.resolution) == {"node db.x": "10.0.0.5:9100"}
        assert done.exit_code == 3


def test_additional_address_has_its_own_ttl(home: Home) -> None:
    """SRV has an hour, the address 30 s: then the host is looked up."""
    table: Table = {("_a.x", "SRV"): ["3600 0 0 9100 db.x."], ("db.x", "A"): ["300 10.0.0.6"]}
    with lying(zone(table, {"db.x": ["30 A 10.0.0.5"]})) as liar:
        plan = home.write({"lan": lists(liar.server, "_a.x", type_="SRV")})
        done = home.round(plan)
        assert done.due == NOW.timestamp() + 30
        assert addresses(home.round(plan, after=31).resolution) == {"node db.x": "10.0.0.6:9100"}


def test_additional_aaaa_record_does_not_replace_the_a_lookup(home: Home) -> None:
    """A is still looked up; a refused AAAA address does not remove the target."""
    table: Table = {("_a.x", "SRV"): ["30 0 0 9100 db.x."], ("db.x", "A"): ["60 10.0.0.5"]}
    for extra in ("60 AAAA fd00::5", "60 AAAA ::1"):
        with lying(zone(table, {"db.x": [extra]})) as liar:
            done = home.round(home.write({"lan": lists(liar.server, "_a.x", type_="SRV")}), after=100)
            assert addresses(done.resolution) == {"node db.x": "10.0.0.5:9100"}


# Published files while the memory is lost


def test_split_horizon_answers_are_not_mixed(home: Home) -> None:
    """The state is lost and both servers are dead: the files are kept."""
    inside: Table = {("db.x", "A"): ["60 10.0.0.5"]}
    outside: Table = {("db.x", "A"): ["60 192.168.0.5"]}
    with lying(zone(inside)) as one, lying(zone(outside)) as two:
        backends: Json = {
            "inside": lists(one.server, "db.x"),
            "outside": lists(two.server, "db.x", job="web", port=80),
            "there": lists(two.server, "db.x", port=9101),
        }
        before = addresses(home.round(home.write(backends)).resolution)
    assert before == {
        "node db.x:9100": "10.0.0.5:9100",
        "node db.x:9101": "192.168.0.5:9101",
        "web db.x": "192.168.0.5:80",
    }
    forget(home)
    done = home.round(after=60)
    assert published(home) == before
    assert {job.job for job in done.resolution.frozen} == {"node", "web"}
    assert done.exit_code == 3


def test_lost_memory_keeps_every_kind_of_target(home: Home) -> None:
    """Search list, A-label, PTR, browsed path, host without address: the files are byte-identical."""
    table: Table = {
        ("db.b.x", "A"): ["60 10.0.0.1"],
        ("xn--bcher-kva.x", "A"): ["60 10.0.0.2"],
        ("many.x", "A"): ["60 10.0.1.1", "60 10.0.1.2"],
        ("1.1.0.10.in-addr.arpa", "PTR"): ["60 one.x."],
        ("2.1.0.10.in-addr.arpa", "PTR"): ["60 two.x."],
        ("one.x", "A"): ["60 10.0.1.1"],
        ("two.x", "A"): ["60 10.0.1.2"],
        ("_m.x", "PTR"): ["60 i._m.x."],
        ("i._m.x", "SRV"): ["60 0 0 9200 h.x.", "60 0 0 9300 gone.x."],
        ("i._m.x", "TXT"): ['60 "path=/custom"'],
        ("h.x", "A"): ["60 10.0.0.3"],
    }
    with lying(zone(table)) as liar:
        backends: dict[str, Json] = {
            "search": lists(liar.server, "db", search=["a.x", "b.x"]),
            "idna": lists(liar.server, "Bücher.x"),
            "ptr": lists(liar.server, "many.x", job="web", port=80, machines="ptr"),
            "browse": lists(liar.server, "_m.x", job="app", type_="SRV"),
        }
        plan = home.write(backends, machines={"one": {}, "away": {}})
        home.round(plan)
        files = {file.name: file.read_bytes() for file in plan.directory.glob("*.json")}
        assert b"/custom" in files["app.json"]
        assert b"gone.x.invalid" in files["app.json"]
        for key in table:
            table[key] = 2
        forget(home)
        for after in (61, 80_000):
            done = home.round(plan, after=after)
            assert done.exit_code == 3
            assert {name: (plan.directory / name).read_bytes() for name in files} == files
            assert "away" in done.resolution.unknown
            assert done.resolution.missing == ()
        # The present files are kept for policy.max_age at most.
        assert home.round(plan, after=8_000).resolution.frozen == ()
        assert "app" not in {key.split()[0] for key in published(home)}


def test_backend_that_never_answered_freezes_no_file(home: Home) -> None:
    """A dead backend that is added to the config does not block new targets of another one."""
    table: Table = {("a.x", "A"): ["60 10.0.0.1"], ("b.x", "A"): ["60 10.0.0.2"], ("dead.x", "A"): 2}
    with lying(zone(table)) as liar:
        home.round(home.write({"one": lists(liar.server, "a.x")}))
        dead = lists(liar.server, "dead.x")
        done = home.round(home.write({"one": lists(liar.server, "a.x", "b.x"), "two": dead}), after=61)
        assert done.resolution.frozen == ()
        assert published(home) == {"node a.x": "10.0.0.1:9100", "node b.x": "10.0.0.2:9100"}
        assert done.exit_code == 3


def test_renamed_backend_keeps_its_memory(home: Home) -> None:
    """It has the same settings, so its last good answers are used."""
    table: Table = {("a.x", "A"): ["60 10.0.0.1"]}
    with lying(zone(table)) as liar:
        home.round(home.write({"one": lists(liar.server, "a.x")}))
        table["a.x", "A"] = 2
        done = home.round(home.write({"two": lists(liar.server, "a.x")}), after=61)
        assert addresses(done.resolution) == {"node a.x": "10.0.0.1:9100"}


def test_renamed_backends_are_distinguished_by_their_jobs(home: Home) -> None:
    """Both ask the same server with the same settings."""
    table: Table = {("a.x", "A"): ["60 10.0.0.1"], ("b.x", "A"): ["60 10.0.0.2"]}
    with lying(zone(table)) as liar:
        a, b = lists(liar.server, "a.x"), lists(liar.server, "b.x", job="web", port=80)
        home.round(home.write({"one": a, "two": b}))
        before = published(home)
    home.round(home.write({"eins": b, "zwei": a}), after=61)
    assert published(home) == before


def test_lost_cache_keeps_addresses_while_lookups_fail(home: Home) -> None:
    """The last good answer of the backend is used, even without a target file."""
    table: Table = {("a.x", "A"): ["60 10.0.0.1"], ("b.x", "A"): ["60 10.0.0.2"]}
    with lying(zone(table)) as liar:
        plan = home.write({"book": {"domain": "x", "servers": [liar.server]}}, machines={"a": {}, "b": {}})
        home.round(plan)
        table["a.x", "A"] = 2
        (plan.state_directory / "memory-book").unlink()
        (plan.directory / "node.json").unlink()
        for _ in range(2):
            home.round(plan, after=61)
            assert published(home)["node a"] == "10.0.0.1:9100"


def test_machine_that_returns_to_the_inventory_keeps_its_answer(home: Home) -> None:
    """It was missing from the inventory for one cycle."""
    table: Table = {("a.x", "A"): ["60 10.0.0.1"], ("b.x", "A"): ["60 10.0.0.2"]}
    with lying(zone(table)) as liar:
        book: Json = {"book": {"domain": "x", "type": "A", "servers": [liar.server]}}
        home.round(home.write(book, machines={"a": {}, "b": {}}))
        home.round(home.write(book, machines={"a": {}}), after=10)
        table["b.x", "A"] = 2
        done = home.round(home.write(book, machines={"a": {}, "b": {}}), after=61)
        assert addresses(done.resolution)["node b"] == "10.0.0.2:9100"


# Large losses


def test_loss_is_held_despite_lost_state_and_new_names(home: Home) -> None:
    """The state is lost, and a name is added to the config."""
    table: Table = {(f"{n}.x", "A"): [f"60 10.0.0.{i}"] for i, n in enumerate("abcdef", 1)}
    names = [name for name, _ in table]
    with lying(zone(table)) as liar:
        home.round(home.write({"lan": lists(liar.server, *names)}))
        table.clear()
        forget(home)
        assert home.round(after=61).exit_code == 4
        done = home.round(home.write({"lan": lists(liar.server, *names, "g.x")}), after=61)
        assert done.exit_code == 4
        assert len(published(home)) == 6


def test_new_machine_does_not_hide_a_loss_of_the_others(home: Home) -> None:
    """policy.absent would drop them."""
    table: Table = {(f"{n}.x", "A"): [f"60 10.0.0.{i}"] for i, n in enumerate("abcdef", 1)}
    with lying(zone(table)) as liar:
        book: Json = {"book": {"domain": "x", "type": "A", "servers": [liar.server]}}
        machines: dict[str, Json] = {n: {} for n in "abcdef"}
        home.round(home.write(book, machines=machines, policy={"absent": "drop"}))
        table.clear()
        done = home.round(home.write(book, machines={**machines, "g": {}}, policy={"absent": "drop"}), after=61)
        assert done.exit_code == 4
        assert addresses(done.resolution)["node a"] == "10.0.0.1:9100"


def test_expired_names_are_not_a_held_loss(home: Home) -> None:
    """After policy.max_age their targets are removed; names that are removed from the config are no loss either."""
    table: Table = {(f"{n}.x", "A"): [f"60 10.0.0.{i}"] for i, n in enumerate("abcdef", 1)}
    names = [name for name, _ in table]
    with lying(zone(table)) as liar:
        plan = home.write({"lan": lists(liar.server, *names)})
        home.round(plan)
        for name in names[:4]:
            table[name, "A"] = 2
        done = home.round(plan, after=90_000)
        assert done.exit_code == 3
        assert len(done.resolution.targets) == 2
        assert [b.state for b in done.resolution.beliefs] == ["partial"]
        assert home.round(home.write({"lan": lists(liar.server, "f.x")}), after=1).exit_code == 0


def test_failed_lookups_are_reported_during_a_hold(home: Home) -> None:
    """The failures are those of the newest answer."""
    table: Table = {(f"{n}.x", "A"): [f"60 10.0.0.{i}"] for i, n in enumerate("abcdef", 1)}
    with lying(zone(table)) as liar:
        plan = home.write({"lan": lists(liar.server, *(name for name, _ in table))})
        home.round(plan)
        table.clear()
        table["a.x", "A"] = 2
        done = home.round(plan, after=61)
    (belief,) = done.resolution.beliefs
    assert belief.state == "held"
    assert belief.snapshot is not None
    assert [u.name for u in belief.snapshot.failures] == ["a.x"]


# Which backends locate machines


def test_list_makes_no_machine_missing(home: Home) -> None:
    """It does not say where machines are."""
    table: Table = {("_a.x", "SRV"): ["60 0 0 9100 h.x."], ("h.x", "A"): ["60 10.0.0.5"]}
    with lying(zone(table)) as liar:
        lan = lists(liar.server, "_a.x", type_="SRV", job="app")
        done = home.round(home.write({"lan": lan}, machines={"db": {}}, policy={"absent": "drop"}))
    assert (
        addresses(done.resolution) == {"app h.x": "10.0.0.5:9100", "node db": "db.lan.example:9100"}
        or addresses(done.resolution)["node db"]
    )
    assert done.resolution.missing == ()
    done = home.round(after=90_000)
    assert done.resolution.unknown == ()


@pytest.mark.parametrize(
    "lan",
    [
        {"names": ["_a.x", "_b.x"], "machines": "target"},
        {"names": ["many.x"], "type": "A", "machines": "ptr"},
    ],
)
def test_no_machine_is_missing_while_a_lookup_fails(home: Home, lan: dict[str, Json]) -> None:
    """The failed name may be that of the machine."""
    table: Table = {
        ("_a.x", "SRV"): ["60 0 0 1 one.x."],
        ("one.x", "A"): ["60 10.0.1.1"],
        ("_b.x", "SRV"): 2,
        ("many.x", "A"): ["60 10.0.1.1", "60 10.0.1.2"],
        ("1.1.0.10.in-addr.arpa", "PTR"): ["60 one.x."],
        ("2.1.0.10.in-addr.arpa", "PTR"): 2,
    }
    with lying(zone(table)) as liar:
        plan = home.write(
            {"lan": {**lan, "servers": [liar.server]}}, machines={"one": {}, "two": {}}, policy={"absent": "drop"}
        )
        done = home.round(plan)
    assert addresses(done.resolution) == {"node one": "10.0.1.1:9100", "node two": "two.lan.example:9100"}
    assert done.resolution.unknown == ("two",)
    assert done.resolution.missing == ()


def test_failed_ptr_lookup_keeps_the_instance_name(home: Home) -> None:
    """If the name was never known, the address is not a target."""
    table: Table = {("many.x", "A"): ["60 10.0.1.1", "60 10.0.1.2"], ("2.1.0.10.in-addr.arpa", "PTR"): ["60 two.x."]}
    table["1.1.0.10.in-addr.arpa", "PTR"] = 2
    table["two.x", "A"] = ["60 10.0.1.2"]
    with lying(zone(table)) as liar:
        plan = home.write({"lan": lists(liar.server, "many.x", job="web", port=80, machines="ptr")})
        done = home.round(plan)
        assert addresses(done.resolution) == {"web two.x": "10.0.1.2:80"}
        assert done.exit_code == 3
        table["2.1.0.10.in-addr.arpa", "PTR"] = 2
        assert addresses(home.round(plan, after=90_000).resolution) == {"web two.x": "10.0.1.2:80"}


def test_ptr_of_a_refused_address_is_not_looked_up(home: Home) -> None:
    """The address cannot become a target."""
    table: Table = {
        ("many.x", "A"): ["60 10.0.1.1", "60 169.254.169.254"],
        ("1.1.0.10.in-addr.arpa", "PTR"): ["60 a.x."],
    }
    with lying(zone(table)) as liar:
        done = home.round(home.write({"lan": lists(liar.server, "many.x", machines="ptr")}))
        assert {name for name, _, _ in liar.asked} == {"many.x", "1.1.0.10.in-addr.arpa", "a.x"}
    assert done.exit_code == 0


def test_failed_txt_lookup_keeps_the_last_path(home: Home) -> None:
    """As long as the service exists; without a last path, the job's path is used and the failure is reported."""
    table: Table = {
        ("_m.x", "PTR"): ["60 i._m.x."],
        ("i._m.x", "SRV"): ["60 0 0 9200 h.x."],
        ("i._m.x", "TXT"): 2,
        ("h.x", "A"): ["60 10.0.0.3"],
    }
    with lying(zone(table)) as liar:
        plan = home.write({"lan": lists(liar.server, "_m.x", job="app", type_="SRV")})
        found = target(home.round(plan).resolution, "h.x")
        assert "the lookup of its TXT record failed" in found.located
        table["i._m.x", "TXT"] = ['60 "path=/custom"']
        assert target(home.round(plan, after=61).resolution, "h.x").labels["__metrics_path__"] == "/custom"
        table["i._m.x", "TXT"] = 2
        assert target(home.round(plan, after=90_000).resolution, "h.x").labels["__metrics_path__"] == "/custom"


# Claims


def test_host_with_several_names_is_one_machine(home: Home) -> None:
    """Looked up for one family and for both, in a list and below `domain`, or as the target of two services."""
    table: Table = {
        ("db.x", "A"): ["60 10.0.0.5"],
        ("db.x", "AAAA"): ["60 fd00::5"],
        ("_a.x", "SRV"): ["60 0 0 1 db.x."],
        ("_b.x", "SRV"): ["60 0 0 2 db.x."],
    }
    with lying(zone(table)) as liar:
        book: dict[str, Json] = {
            "names": ["db.x"],
            "type": "A",
            "machines": "name",
            "domain": "x",
            "servers": [liar.server],
        }
        both: dict[str, Json] = {"names": ["_a.x", "_b.x"], "machines": "target", "servers": [liar.server]}
        wanted: dict[str, Json] = {
            "discoveryMethod": "dns",
            "dnsDiscovery": {
                "node": {"names": ["*.x"], "type": "A", "port": 9100},
                "web": {"names": ["*.x"], "type": "AAAA", "port": 80},
            },
        }
        for lan in (book, both):
            done = home.round(home.write({"lan": lan}, machines={"db": {}}))
            assert addresses(done.resolution) == {"node db": "10.0.0.5:9100"}
            assert done.resolution.ambiguous == ()
        home.write({"dns": {"servers": [liar.server]}}, machines={"db": {}})
        (home.place / "inventory.json").write_text(json.dumps(inventory({"db": {}}, wanted)))
        assert addresses(home.round().resolution) == {"node db": "10.0.0.5:9100", "web db": "[fd00::5]:80"}


def test_two_hosts_that_claim_a_machine_are_listed_by_full_name(home: Home) -> None:
    """The machine gets neither address."""
    table: Table = {("db.x", "A"): ["60 10.0.0.5"], ("db.y", "A"): ["60 10.0.0.6"]}
    with lying(zone(table)) as liar:
        lan = lists(liar.server, "db.x", "db.y", job="web", port=80, machines="name")
        done = home.round(home.write({"lan": lan}, machines={"db": {}}))
    assert addresses(done.resolution) == {
        "web db.x": "10.0.0.5:80",
        "web db.y": "10.0.0.6:80",
        "node db": "db.lan.example:9100",
    }
    assert ("db", "ambiguous") in reasons(done.resolution)


@pytest.mark.parametrize("address", ["10.6.6.6", "127.0.0.1"])
def test_list_entry_named_like_a_machine_is_not_that_machine(home: Home, address: str) -> None:
    """Unless `machines` is set."""
    table: Table = {("_a.x", "SRV"): ["60 0 0 9101 db."], ("db", "A"): [f"60 {address}"]}
    with lying(zone(table)) as liar:
        done = home.round(home.write({"lan": lists(liar.server, "_a.x", type_="SRV")}, machines={"db": {}}))
    found = addresses(done.resolution)
    assert found["node db"] == "db.lan.example:9100"
    assert found.get("node db.") == (None if address.startswith("127") else "10.6.6.6:9101")


# Reports


def test_one_failed_name_makes_the_backend_partial(home: Home) -> None:
    """In every cycle, as long as other names have valid answers."""
    table: Table = {(f"{n}.x", "A"): ["300 10.0.0.1"] for n in "bcd"} | {("a.x", "A"): 2}
    with lying(zone(table)) as liar:
        plan = home.write({"lan": lists(liar.server, "a.x", "b.x", "c.x", "d.x")})
        for _ in range(3):
            (belief,) = home.round(plan, after=10).resolution.beliefs
            assert belief.state == "partial"
    (belief,) = home.round(plan, after=400).resolution.beliefs
    assert (belief.state, belief.age) == ("kept", 420.0)


def test_edited_config_does_not_hide_an_outage(home: Home) -> None:
    """`machines` is added during the outage: the answer is kept with its age."""
    table: Table = {("db.x", "A"): ["60 10.0.0.1"]}
    with lying(zone(table)) as liar:
        home.round(home.write({"lan": lists(liar.server, "db.x")}))
    (belief,) = home.round(
        home.write({"lan": lists(liar.server, "db.x", machines="name")}), after=600
    ).resolution.beliefs
    assert (belief.state, belief.age) == ("kept", 600.0)


@pytest.mark.parametrize("kind", ["static", "tailscale"])
def test_name_of_the_implied_backend_is_reserved(home: Home, run: Run, kind: str) -> None:
    """Two backends of one name would share their memory and metrics."""
    home.write({}, machines={"db": {}})
    entry = "{machines: {db: 10.0.0.1}}" if kind == "static" else "{}"
    config = f"inventory: {{file: inventory.json}}\nbackends: {{{kind}: {{dns: {entry}}}}}\n"
    (home.place / "config.yaml").write_text(config)
    (home.place / "inventory.json").write_text(json.dumps(inventory({"db": {}}, {"discoveryMethod": "dns"})))
    done = run("check", "-c", home.place / "config.yaml")
    assert done.code == 2
    assert f"backends.{kind}.dns: the name 'dns' is taken by the backend that discoveryMethod implies" in done.err


def test_list_does_not_disable_machine_lookups(home: Home) -> None:
    """With discoveryMethod "dns", machines are looked up unless another backend of the config does so."""
    table: Table = {("a.x", "A"): ["60 10.0.0.1"]}
    with lying(zone(table)) as liar:
        home.write({"lan": lists(liar.server, "a.x")}, machines={"db": {}})
        (home.place / "inventory.json").write_text(json.dumps(inventory({"db": {}}, {"discoveryMethod": "dns"})))
        assert [backend.name for backend in home.plan().backends] == ["lan", "dns"]
        home.write({"lan": lists(liar.server, "a.x"), "book": {"servers": [liar.server]}}, machines={"db": {}})
        (home.place / "inventory.json").write_text(json.dumps(inventory({"db": {}}, {"discoveryMethod": "dns"})))
        assert [backend.name for backend in home.plan().backends] == ["book", "lan"]


# Regressions


def test_search_list_completes_srv_names(home: Home) -> None:
    """The name is not in the first domain."""
    table: Table = {("_n._tcp.b.x", "SRV"): ["60 0 0 9100 h.x."], ("h.x", "A"): ["60 10.0.0.1"]}
    with lying(zone(table)) as liar:
        lan = lists(liar.server, "_n._tcp", type_="SRV", search=["a.x", "b.x"])
        assert addresses(home.round(home.write({"lan": lan})).resolution) == {"node h.x": "10.0.0.1:9100"}


def test_failed_search_domain_keeps_a_later_one(home: Home) -> None:
    """The name was proven absent there before."""
    table: Table = {("db.b.x", "A"): ["60 10.0.0.1"]}
    with lying(zone(table)) as liar:
        plan = home.write({"lan": lists(liar.server, "db", search=["a.x", "b.x"])})
        home.round(plan)
        table["db.a.x", "A"] = 2
        for _ in range(2):
            assert addresses(home.round(plan, after=80_000).resolution) == {"node db.b.x": "10.0.0.1:9100"}


def test_unknown_instance_restores_no_removed_target(home: Home) -> None:
    """Targets that moved or were proven absent are not restored from the files."""
    table: Table = {
        ("_m.x", "PTR"): ["60 i1._m.x.", "60 i2._m.x."],
        ("i1._m.x", "SRV"): ["60 0 0 9200 h.x."],
        ("i2._m.x", "SRV"): 2,
        ("h.x", "A"): ["60 10.0.0.3"],
    }
    with lying(zone(table)) as liar:
        plan = home.write({"lan": lists(liar.server, "_m.x", type_="SRV", job="app")})
        assert addresses(home.round(plan).resolution) == {"app h.x": "10.0.0.3:9200"}
        table["i1._m.x", "SRV"] = ["60 0 0 9300 h.x."]
        assert addresses(home.round(plan, after=61).resolution) == {"app h.x": "10.0.0.3:9300"}
        table["_m.x", "PTR"] = ["60 i2._m.x."]
        assert addresses(home.round(plan, after=61).resolution) == {}


def test_names_replaced_during_an_outage(home: Home) -> None:
    """Names removed from the config have no targets; a machine of the new ones is unknown, not missing."""
    table: Table = {("a.x", "A"): ["60 10.0.0.1"]}
    with lying(zone(table)) as liar:
        home.round(home.write({"lan": lists(liar.server, "a.x")}))
        book: Json = {"book": {"domain": "x", "servers": [liar.server]}}
        home.round(home.write(book, machines={"a": {}}))
    done = home.round(home.write({"lan": lists(liar.server, "b.x")}), after=61)
    assert done.resolution.targets == ()
    assert done.exit_code == 3
    done = home.round(home.write(book, machines={"b": {}}, policy={"absent": "drop"}), after=61)
    assert addresses(done.resolution) == {"node b": "b.lan.example:9100"}
    assert done.resolution.unknown == ("b",)


def test_max_age_counts_for_each_name(home: Home) -> None:
    """A name that never had an answer does not extend that of another one."""
    table: Table = {("a.x", "A"): ["60 10.0.0.1"]}
    with lying(zone(table)) as liar:
        home.round(home.write({"lan": lists(liar.server, "a.x")}))
    both = home.write({"lan": lists(liar.server, "a.x", "b.x")})
    done = home.round(both, after=43_200)
    assert addresses(done.resolution) == {"node a.x": "10.0.0.1:9100"}
    assert [(b.state, b.age) for b in done.resolution.beliefs] == [("kept", 43_200.0)]
    done = home.round(both, after=43_900)
    assert done.resolution.targets == ()
    assert [b.state for b in done.resolution.beliefs] == ["expired"]


def test_hold_ends_while_other_targets_come_and_go(home: Home) -> None:
    """Only names that are missing all the time count."""
    table: Table = {(f"{n}.x", "A"): [f"20 10.0.0.{i}"] for i, n in enumerate("abcdef", 1)}
    gone = [name for name, _ in table]
    table["pool.x", "A"] = ["20 10.0.1.1", "20 10.0.1.2", "20 10.0.1.3"]
    with lying(zone(table)) as liar:
        plan = home.write({"lan": lists(liar.server, *gone, "pool.x")})
        home.round(plan)
        for name in gone:
            del table[name, "A"]
        codes: list[int] = []
        for turn in range(12):
            more = ["20 10.0.1.3"] if turn % 2 else []
            table["pool.x", "A"] = ["20 10.0.1.1", "20 10.0.1.2", *more]
            codes.append(home.round(plan, after=30).exit_code)
    assert codes == [4] * 9 + [0] * 3


def test_outage_does_not_count_towards_shrink_after(home: Home) -> None:
    """A loss was seen once, then no server answered for an hour: the loss is still held."""
    table: Table = {(f"{n}.x", "A"): [f"60 10.0.0.{i}"] for i, n in enumerate("abcdef", 1)}
    names = [name for name, _ in table]
    with lying(zone(table)) as liar:
        plan = home.write({"lan": lists(liar.server, *names)})
        home.round(plan)
        table.clear()
        assert home.round(plan, after=61).exit_code == 4
        table.update({(name, "A"): 2 for name in names})
        assert home.round(plan, after=3600).exit_code == 3
        table.clear()
        done = home.round(plan, after=61)
        assert done.exit_code == 4
        assert len(done.resolution.targets) == 6


def test_changed_job_of_the_same_names_is_no_loss(home: Home) -> None:
    """The change is in the config."""
    table: Table = {(f"{n}.x", "A"): [f"60 10.0.0.{i}"] for i, n in enumerate("abcdef", 1)}
    names = [name for name, _ in table]
    with lying(zone(table)) as liar:
        home.round(home.write({"lan": lists(liar.server, *names)}))
        done = home.round(home.write({"lan": lists(liar.server, *names, job="web", port=80)}), after=1)
        assert done.exit_code == 0
        assert {t.job for t in done.resolution.targets} == {"web"}


def test_hold_covers_only_configured_names(home: Home) -> None:
    """Names removed from the config are dropped and new ones published while the loss of the others is held."""
    table: Table = {(f"{n}.x", "A"): [f"60 10.0.0.{i}"] for i, n in enumerate("abcdefgh", 1)}
    with lying(zone(table)) as liar:
        home.round(home.write({"lan": lists(liar.server, *(f"{n}.x" for n in "abcdef"))}))
        for name in "bcdef":
            del table[f"{name}.x", "A"]
        done = home.round(home.write({"lan": lists(liar.server, *(f"{n}.x" for n in "bcdefgh"))}), after=61)
    assert done.exit_code == 4
    assert set(addresses(done.resolution)) == {f"node {n}.x" for n in "bcdefgh"}


def test_failed_address_family_moves_no_target(home: Home) -> None:
    """With the state lost, the present file is kept until both families have an answer."""
    table: Table = {("a.x", "A"): ["60 10.0.0.1"], ("a.x", "AAAA"): ["60 fd00::1"]}
    with lying(zone(table)) as liar:
        plan = home.write({"lan": lists(liar.server, "a.x", type_="A+AAAA")})
        home.round(plan)
        table["a.x", "A"] = 2
        forget(home)
        home.round(plan, after=61)
        assert published(home) == {"node a.x": "10.0.0.1:9100"}
        table["a.x", "A"] = 0
        home.round(plan, after=61)
        assert published(home) == {"node a.x": "[fd00::1]:9100"}


def test_frozen_file_is_written_at_the_first_answer(home: Home) -> None:
    """Until then it does not change, even if labels in the config do."""
    table: Table = {("a.x", "A"): ["60 10.0.0.1"], ("b.x", "A"): ["60 10.0.0.2"]}
    with lying(zone(table)) as liar:
        home.round(home.write({"lan": lists(liar.server, "a.x", "b.x")}, labels={"env": "old"}))
        file = home.plan().directory / "node.json"
        before = file.read_bytes()
        table["a.x", "A"] = 2
        forget(home)
        plan = home.write({"lan": lists(liar.server, "a.x", "b.x")}, labels={"env": "new"})
        assert [job.job for job in home.round(plan, after=61).resolution.frozen] == ["node"]
        assert file.read_bytes() == before
        table["a.x", "A"] = ["60 10.0.0.1"]
        assert home.round(plan, after=61).resolution.frozen == ()
        assert file.read_bytes() == before.replace(b'"old"', b'"new"')


def test_static_address_has_no_dns_labels(home: Home) -> None:
    """Even if DNS sees the machine, too."""
    table: Table = {("a.x", "A"): ["60 10.0.0.1"]}
    with lying(zone(table)) as liar:
        plan = home.write({"book": {"domain": "x", "type": "A", "servers": [liar.server]}}, machines={"a": {}})
        config = home.place / "config.yaml"
        config.write_text(config.read_text() + "labels: {}\n")
        text = config.read_text().replace("backends:\n", "backends:\n  static: {old: {machines: {a: 192.168.7.7}}}\n")
        config.write_text(text)
        found = target(home.round().resolution, "a")
        assert (found.address, found.labels.get("__meta_dns_name")) == ("192.168.7.7:9100", None)
        assert plan.backends


def test_failed_reverse_zone_is_no_loss(home: Home) -> None:
    """The hosts have new addresses whose PTR lookups fail: it is not proven that they are gone."""
    table: Table = {("many.x", "A"): [f"60 10.0.1.{i}" for i in range(1, 7)]}
    table.update({(f"{i}.1.0.10.in-addr.arpa", "PTR"): [f"60 h{i}.x."] for i in range(1, 7)})
    with lying(zone(table)) as liar:
        plan = home.write({"lan": lists(liar.server, "many.x", machines="ptr")})
        assert len(home.round(plan).resolution.targets) == 6
        table["many.x", "A"] = [f"60 10.0.2.{i}" for i in range(1, 7)]
        table.update({(f"{i}.2.0.10.in-addr.arpa", "PTR"): 2 for i in range(1, 7)})
        done = home.round(plan, after=61)
        assert done.exit_code == 3
        assert len(done.resolution.targets) == 6


def test_invalid_values_in_the_state_are_looked_up_again(home: Home, run: Run) -> None:
    """The state is well-formed JSON with values that are not DNS answers."""
    table: Table = {("a.x", "A"): ["300 10.0.0.1"], ("_s.x", "SRV"): ["300 0 0 1 h.x."], ("h.x", "A"): ["300 10.0.0.2"]}
    with lying(zone(table)) as liar:
        plan = home.write({"a": lists(liar.server, "a.x"), "s": lists(liar.server, "_s.x", type_="SRV")})
        before = addresses(home.round(plan).resolution)
        for file in plan.state_directory.glob("memory-*"):
            text = file.read_text()
            for good in ("10.0.0.1", "10.0.0.2", "0 0 1 h.x"):
                text = text.replace(f'"{good}"', '"nonsense"')
            file.write_text(text)
        assert addresses(home.round(plan, after=1).resolution) == before
    assert run("check", "-c", home.place / "config.yaml").code == 0


def test_failing_list_does_not_hide_the_loss_of_another(home: Home) -> None:
    """Of the same machines, SRV lookups fail, and the addresses are proven absent."""
    names = "abcdef"
    table: Table = {(f"{n}.x", "A"): [f"60 10.0.0.{i}"] for i, n in enumerate(names, 1)}
    table.update({(f"{n}.x", "SRV"): 2 for n in names})
    with lying(zone(table)) as liar:
        jobs: Json = {
            "web": {"names": ["*.x"], "type": "A", "port": 80},
            "app": {"names": ["*.x"], "type": "SRV"},
        }
        home.write({"dns": {"servers": [liar.server]}}, machines={"a": {}})
        wanted: dict[str, Json] = {"discoveryMethod": "dns", "dnsDiscovery": jobs}
        (home.place / "inventory.json").write_text(json.dumps(inventory({n: {} for n in names}, wanted)))
        home.round()
        for name in names:
            table[f"{name}.x", "A"] = 0
        done = home.round(after=61)
    assert done.exit_code == 4
    assert len([t for t in done.resolution.targets if t.job == "web"]) == 6


def silence(_: dns.message.Message, __: bool) -> None:  # noqa: FBT001 - the server's form
    """Do not answer."""


def test_failed_lookup_is_retried_after_a_pause(home: Home) -> None:
    """It counts from the end of the lookup, so a slow failure does not cause continuous cycles."""
    with lying(silence) as liar:
        table: Table = {("b.x", "A"): ["300 10.0.0.1"]}
        with lying(zone(table)) as well:
            home.round(home.write({"lan": lists(well.server, "b.x", timeout="2s")}))
        plan = home.write({"lan": lists(liar.server, "a.x", "b.x", timeout="2s")})
        done = home.round(plan, after=1)
    assert done.due is not None
    assert done.due - home.now.timestamp() >= 11.9


def test_table_shows_refused_and_missing_targets(home: Home, run: Run) -> None:
    """A machine at a refused address is `refused`, a service without an address `missing`; neither is `seen`."""
    table: Table = {("db.x", "A"): ["60 127.0.0.1"], ("_s.x", "SRV"): ["60 0 0 1 h.x."]}
    with lying(zone(table)) as liar:
        book: Json = {"domain": "x", "type": "A", "servers": [liar.server]}
        home.write({"book": book, "s": lists(liar.server, "_s.x", job="app", type_="SRV")}, machines={"db": {}})
        said = run("show", "-c", home.place / "config.yaml").out.splitlines()
    assert said[1].split() == ["app", "h.x", "h.x.invalid:1", "missing", "s"]
    assert said[2].split() == ["node", "db", "db.invalid:9100", "refused", "book"]
