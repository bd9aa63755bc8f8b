"""Tests of the DNS backend as a whole: names become targets, answers are cached, each name fails by itself."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dns.message
import dns.rrset
import pytest
import yaml

from clan_discovery.assemble import make_plan
from clan_discovery.config.load import load_config
from clan_discovery.dnsclient.cache import Cache
from clan_discovery.dnsclient.names import absolute
from clan_discovery.dnsclient.servers import parse_resolv, parse_server
from clan_discovery.publish.state import State
from clan_discovery.round import Plan, Round, publish_round, run_round
from tests.support.dns import Liar, NameServer, knot, lying, reply

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    from clan_discovery.model import Json, Resolution, Target
    from tests.conftest import Done

    Run = Callable[..., Done]

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Generator[NameServer]:
    """Knot with the zones of the tests."""
    with knot(tmp_path_factory.mktemp("knot")) as server:
        yield server


class Home:
    """A directory with a config, and refresh cycles of it at chosen times."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.now = NOW

    def write(self, dns: Json, *, machines: Mapping[str, Json] | None = None, **more: Json) -> Plan:
        """Write a config with this DNS backend, and an inventory of these machines, each with a node exporter."""
        config: dict[str, Json] = {"output": {"directory": "out"}, **more}
        config["backends"] = {"dns": dns}
        if machines is not None:
            config["inventory"] = {"file": "inventory.json"}
            (self.place / "inventory.json").write_text(json.dumps(inventory(machines)))
        (self.place / "config.yaml").write_text(yaml.safe_dump(config))
        return self.plan()

    def plan(self) -> Plan:
        """Read the config."""
        return make_plan(load_config(self.place / "config.yaml"))

    def round(self, plan: Plan | None = None, *, after: float = 0.0) -> Round:
        """Run one cycle, so many seconds after the previous one, and publish it."""
        self.now += timedelta(seconds=after)
        plan = plan or self.plan()
        plan.directory.mkdir(exist_ok=True)
        state = State(plan.state_directory)
        done = run_round(plan, state, self.now)
        publish_round(plan, done)
        assert state.problems == []
        return done


def inventory(
    machines: Mapping[str, Json], server: Mapping[str, Json] | None = None, domain: str = "lan.example"
) -> Json:
    """Return an inventory whose machines all have a node exporter; the first is the server."""
    names = list(machines)
    roles: Json = {
        "exporter": {"machines": {name: {} for name in names}},
        "server": {"machines": {names[0]: {"settings": server or {"discoveryMethod": "none"}}}},
    }
    return {
        "meta": {"domain": domain},
        "machines": {name: {"tags": []} for name in names},
        "instances": {"monitoring": {"module": {"name": "prometheus"}, "roles": roles}},
    }


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return a config's directory."""
    return Home(tmp_path)


def addresses(resolution: Resolution) -> dict[str, str]:
    """Return targets by job and instance."""
    return {f"{t.job} {t.labels['instance']}": t.address for t in resolution.targets}


def target(resolution: Resolution, instance: str) -> Target:
    """Return the one target of an instance."""
    (found,) = [t for t in resolution.targets if t.labels["instance"] == instance]
    return found


def reasons(resolution: Resolution) -> set[tuple[str, str]]:
    """Return what is not a target, with the reason."""
    return {(e.name, e.reason) for e in resolution.excluded}


# Names and targets


def test_srv_records_become_targets(home: Home, served: NameServer) -> None:
    """The SRV target is the instance.

    Its address is from the additional section or its own lookup; port 0 means the job's port, and the labels are those
    of dns_sd.
    """
    names = ["_node._tcp.lan.example", "_far._tcp.lan.example."]
    done = home.round(home.write({"lan": {"names": names, "job": "node", "servers": [served.server()]}}))
    assert addresses(done.resolution) == {
        "node db.lan.example": "10.0.0.5:9100",
        "node six.lan.example": "[fd00::6]:9101",
        "node many.lan.example": "10.0.1.1:9100",
        "node host.other.example": "10.0.2.1:9100",
    }
    found = target(done.resolution, "many.lan.example")
    assert found.labels["__meta_dns_name"] == "_node._tcp.lan.example"
    assert found.labels["__meta_dns_srv_record_target"] == "many.lan.example."
    assert found.labels["__meta_dns_srv_record_port"] == "0"
    assert found.labels["__meta_clan_backend"] == "lan"
    assert target(done.resolution, "host.other.example").labels["__meta_dns_name"] == "_far._tcp.lan.example."
    assert "every host is scraped" in target(done.resolution, "db.lan.example").located
    assert done.exit_code == 0


def test_srv_record_without_target_address_or_port(home: Home, served: NameServer) -> None:
    """`.` is excluded, and so is port 0 if the job has no port.

    A host without an address is a target below .invalid.
    """
    names = ["_gone._tcp.lan.example", "_dangling._tcp.lan.example", "_node._tcp.lan.example", "db.lan.example"]
    done = home.round(home.write({"lan": {"names": names, "job": "mine", "servers": [served.server()]}}))
    assert addresses(done.resolution) == {
        "mine nothing.other.example": "nothing.other.example.invalid:9100",
        "mine db.lan.example": "10.0.0.5:9100",
        "mine six.lan.example": "[fd00::6]:9101",
    }
    assert not target(done.resolution, "nothing.other.example").observed
    assert reasons(done.resolution) == {
        ("_gone._tcp.lan.example", "withdrawn"),
        ("many.lan.example", "no_port"),
        ("db.lan.example", "no_such_name"),
    }


def test_dns_sd_service_is_browsed(home: Home, served: NameServer) -> None:
    """RFC 6763: PTR records list instances, each with SRV and TXT records; `path` in TXT is the metrics path."""
    done = home.round(
        home.write({"lan": {"names": ["_metrics._tcp.lan.example"], "job": "app", "servers": [served.server()]}})
    )
    assert addresses(done.resolution) == {
        "app db.lan.example": "10.0.0.5:9200",
        "app six.lan.example": "[fd00::6]:9201",
    }
    assert target(done.resolution, "db.lan.example").labels["__metrics_path__"] == "/custom"
    assert "__metrics_path__" not in target(done.resolution, "six.lan.example").labels


def test_addresses_are_grouped_into_hosts(home: Home, served: NameServer) -> None:
    """Addresses of both families are one host, IPv4 first.

    Several addresses of one family are several hosts. Aliases are followed.
    """
    names = ["db.lan.example", "many.lan.example", "out.lan.example", "host.sub.lan.example", "six.lan.example"]
    lan: dict[str, Json] = {"names": names, "type": "A+AAAA", "job": "node", "port": 1, "servers": [served.server()]}
    done = home.round(home.write({"lan": lan}))
    assert addresses(done.resolution) == {
        "node db.lan.example": "10.0.0.5:1",
        "node six.lan.example": "[fd00::6]:1",
        "node 10.0.1.1": "10.0.1.1:1",
        "node 10.0.1.2": "10.0.1.2:1",
        "node 10.0.1.3": "10.0.1.3:1",
        "node out.lan.example": "10.0.2.1:1",
        "node host.sub.lan.example": "10.0.2.1:1",
    }
    lan = {"names": ["db.lan.example"], "type": "AAAA", "job": "node", "servers": [served.server()]}
    assert addresses(home.round(home.write({"lan": lan})).resolution) == {"node db.lan.example": "[fd00::5]:9100"}


def test_non_ascii_name_is_looked_up_as_a_label(home: Home, served: NameServer) -> None:
    """The A-label (RFC 5890) is also the instance; `__meta_dns_name` is the name as written."""
    lan: dict[str, Json] = {"names": ["Bücher.lan.example"], "type": "A", "job": "node", "servers": [served.server()]}
    found = target(home.round(home.write({"lan": lan})).resolution, "xn--bcher-kva.lan.example")
    assert found.address == "10.0.0.7:9100"
    assert found.labels["__meta_dns_name"] == "Bücher.lan.example"


# Machines


def test_machines_are_looked_up_below_the_clan_domain(home: Home, served: NameServer, run: Run) -> None:
    """A machine that is proven absent stays a target, with its name as address."""
    plan = home.write({"lan": {"servers": [served.server()]}}, machines={"db": {}, "six": {}, "nobody": {}})
    done = home.round(plan)
    assert addresses(done.resolution) == {
        "node db": "10.0.0.5:9100",
        "node six": "[fd00::6]:9100",
        "node nobody": "nobody.lan.example:9100",
    }
    assert [missing.machine for missing in done.resolution.missing] == ["nobody"]
    assert target(done.resolution, "db").labels["__meta_dns_name"] == "db.lan.example"
    said = run("explain", "db", "-c", home.place / "config.yaml").out
    assert "address: lan sees it: db.lan.example has 10.0.0.5, fd00::5" in said
    other = home.write({"lan": {"domain": "other.example", "servers": [served.server()]}}, machines={"host": {}})
    assert addresses(home.round(other).resolution) == {"node host": "10.0.2.1:9100"}


def test_dns_discovery_of_the_service_is_read(home: Home, served: NameServer, run: Run) -> None:
    """With discoveryMethod "dns", `*.` means each declared machine, and `explain` says so."""
    node: Json = {"names": ["*.lan.example"], "type": "A", "port": 9100}
    wanted: dict[str, Json] = {"discoveryMethod": "dns", "dnsDiscovery": {"node": node}}
    home.write({"dns": {"servers": [served.server()]}}, machines={"db": {}})
    found = inventory({"monitor": {}, "db": {}, "six": {}, "many": {}}, wanted, domain="elsewhere.example")
    (home.place / "inventory.json").write_text(json.dumps(found))
    done = home.round()
    assert addresses(done.resolution) == {
        "node db": "10.0.0.5:9100",
        "node many": "10.0.1.1:9100",
        "node monitor": "monitor.elsewhere.example:9100",
        "node six": "six.elsewhere.example:9100",  # it has only AAAA, and A was asked for
    }
    said = run("explain", "db", "-c", home.place / "config.yaml").out
    assert "db.lan.example has 10.0.0.5, asked for '*.lan.example': no resolver can list a zone" in said


def test_list_makes_targets_of_machines_without_the_exporter(home: Home, served: NameServer) -> None:
    """A name that lists a job makes a target of every declared machine that DNS has."""
    wanted: dict[str, Json] = {
        "discoveryMethod": "dns",
        "dnsDiscovery": {"web": {"names": ["*.lan.example"], "type": None, "port": 80}},  # a port means addresses
    }
    home.write({"dns": {"servers": [served.server()]}}, machines={"db": {}})
    (home.place / "inventory.json").write_text(json.dumps(inventory({"db": {}, "nobody": {}}, wanted)))
    done = home.round()
    assert addresses(done.resolution)["web db"] == "10.0.0.5:80"
    assert "web nobody" not in addresses(done.resolution)
    assert target(done.resolution, "nobody").job == "node"


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ({"names": "x"}, "dnsDiscovery.node.names: must be a list of names"),
        ({"names": ["x"], "type": "MX"}, '"MX" is no type to ask for (one of A, AAAA, SRV, A+AAAA)'),
        ({"names": ["x"], "prot": 1}, "dnsDiscovery.node.prot: unknown option (did you mean 'port'?)"),
        ({"names": ["x"], "port": 0}, "dnsDiscovery.node.port: invalid port 0: must be 1 to 65535"),
        ({"names": ["x y"]}, "dnsDiscovery.node.names: 'x y' is not a DNS name"),
        ([], "dnsDiscovery.node: must be an attribute set"),
    ],
)
def test_invalid_dns_discovery_is_reported(home: Home, run: Run, said: Json, hint: str) -> None:
    """With its position in the inventory."""
    home.write({}, machines={"db": {}})
    (home.place / "config.yaml").write_text("inventory: {file: inventory.json}\n")
    wanted: dict[str, Json] = {"discoveryMethod": "dns", "dnsDiscovery": {"node": said}}
    (home.place / "inventory.json").write_text(json.dumps(inventory({"db": {}}, wanted)))
    done = run("check", "-c", home.place / "config.yaml")
    assert done.code == 2
    assert hint in done.err


def test_answers_are_mapped_to_machines(home: Home, served: NameServer) -> None:
    """By the first label of the name, by the SRV target, or by the PTR record of the address."""
    server: Json = [served.server()]
    machines: dict[str, Json] = {"db": {}, "six": {}, "One": {}, "two": {}}
    plan = home.write(
        {
            "name": {"names": ["db.lan.example"], "type": "A", "machines": "name", "servers": server},
            "target": {"names": ["_metrics._tcp.lan.example"], "machines": "target", "job": "app", "servers": server},
            "ptr": {
                "names": ["many.lan.example"],
                "type": "A",
                "machines": "ptr",
                "job": "web",
                "port": 80,
                "servers": server,
            },
        },
        machines=machines,
    )
    done = home.round(plan)
    assert addresses(done.resolution) == {
        "app db": "10.0.0.5:9200",
        "app six": "[fd00::6]:9201",
        "node db": "10.0.0.5:9100",
        "node six": "[fd00::6]:9100",
        "node One": "10.0.1.1:9100",
        "node two": "10.0.1.2:9100",
        "web One": "10.0.1.1:80",
        "web two": "10.0.1.2:80",
    }
    assert done.resolution.ambiguous == ()


def test_two_names_of_one_machine_are_a_conflict(home: Home) -> None:
    """Neither name gives the address."""
    names: Json = ["db.lan.example", "db.lan2.example"]
    answers: dict[str, str | int | None] = {"db.lan.example": "10.0.0.5", "db.lan2.example": "10.0.0.6"}
    with lying(switchable(answers)) as liar:
        lan: dict[str, Json] = {"names": names, "type": "A", "machines": "name", "servers": [liar.server]}
        done = home.round(home.write({"lan": lan}, machines={"db": {}}))
    assert [(a.name, len(a.claims)) for a in done.resolution.ambiguous] == [("db", 2)]
    assert addresses(done.resolution) == {"node db": "db.lan.example:9100"}


# Refused addresses


def test_hostile_zone_cannot_list_loopback_or_metadata_addresses(home: Home, served: NameServer) -> None:
    """They are refused and counted; a declared machine gets an address below .invalid, not its name."""
    names: Json = ["evil.lan.example", "here.lan.example", "db.lan.example"]
    lan: dict[str, Json] = {"names": names, "type": "A", "job": "web", "port": 80, "servers": [served.server()]}
    plan = home.write({"lan": lan, "book": {"servers": [served.server()]}}, machines={"evil": {}, "here": {}})
    done = home.round(plan)
    assert addresses(done.resolution) == {
        "web db.lan.example": "10.0.0.5:80",
        "node evil": "evil.invalid:9100",
        "node here": "here.invalid:9100",
    }
    refused = {e.name: e.detail for e in done.resolution.excluded if e.reason == "refused_address"}
    assert (
        refused["evil.lan.example"]
        == "evil.lan.example has the address 169.254.169.254: the metadata address of clouds"
    )
    assert "loopback" in refused["here.lan.example"]
    lan = {**lan, "allow_networks": ["127.0.0.0/8"], "deny_networks": ["10.0.0.5/32"]}
    done = home.round(home.write({"lan": lan}))
    assert addresses(done.resolution) == {"web here.lan.example": "127.0.0.1:80"}
    assert ("db.lan.example", "refused_address") in reasons(done.resolution)


# Answers, absences and failures


def switchable(answers: dict[str, str | int | None]) -> Callable[[dns.message.Message, bool], bytes | None]:
    """Answer each name with an address, with a response code, or not at all."""

    def answer(query: dns.message.Message, _: bool) -> bytes | None:  # noqa: FBT001 - the server's form
        question = query.question[0]
        said = answers.get(question.name.to_text(omit_final_dot=True).lower(), 3)
        if said is None:
            return None
        if isinstance(said, int):
            return reply(query, rcode=said).to_wire()
        return reply(query, f"{question.name} 300 A {said}").to_wire()

    return answer


def test_each_name_fails_by_itself(home: Home) -> None:
    """One lookup fails, one name is proven absent, one moves: only the failed one keeps its last good answer."""
    answers: dict[str, str | int | None] = {"a.x": "10.0.0.1", "b.x": "10.0.0.2", "c.x": "10.0.0.3"}
    with lying(switchable(answers)) as liar:
        lan: dict[str, Json] = {"names": ["a.x", "b.x", "c.x"], "type": "A", "job": "node", "servers": [liar.server]}
        plan = home.write({"lan": lan})
        assert len(home.round(plan).resolution.targets) == 3
        answers.update({"a.x": 2, "b.x": 3, "c.x": "10.0.0.33"})
        done = home.round(plan, after=301)
        assert addresses(done.resolution) == {"node a.x": "10.0.0.1:9100", "node c.x": "10.0.0.33:9100"}
        assert done.exit_code == 3
        (belief,) = done.resolution.beliefs
        assert (belief.state, belief.age) == ("partial", 301.0)
        assert belief.why == f"lookup failed: a.x ({liar.server}: SERVFAIL)"
        assert ("b.x", "no_such_name") in reasons(done.resolution)
        answers["a.x"] = 3
        assert addresses(home.round(plan, after=1).resolution) == {"node c.x": "10.0.0.33:9100"}
        answers["a.x"] = "10.0.0.11"
        done = home.round(plan, after=301)
        assert addresses(done.resolution)["node a.x"] == "10.0.0.11:9100"
        assert done.exit_code == 0


def test_machine_whose_lookup_failed_is_not_missing(home: Home) -> None:
    """NXDOMAIN proves that a name is absent, SERVFAIL does not; policy.absent drops only the former."""
    answers: dict[str, str | int | None] = {"a.lan.example": 2, "b.lan.example": 3, "c.lan.example": "10.0.0.3"}
    with lying(switchable(answers)) as liar:
        plan = home.write(
            {"lan": {"servers": [liar.server], "type": "A"}},
            machines={"a": {}, "b": {}, "c": {}},
            policy={"absent": "drop"},
        )
        done = home.round(plan)
    assert addresses(done.resolution) == {"node a": "a.lan.example:9100", "node c": "10.0.0.3:9100"}
    assert [m.machine for m in done.resolution.missing] == ["b"]
    assert done.resolution.unknown == ("a",)
    assert ("b", "absent") in reasons(done.resolution)
    assert "SERVFAIL" in target(done.resolution, "a").located


def test_dead_server_keeps_every_last_good_answer(home: Home) -> None:
    """Until policy.max_age, as with any backend."""
    answers: dict[str, str | int | None] = {"a.x": "10.0.0.1"}
    with lying(switchable(answers)) as liar:
        lan: dict[str, Json] = {"names": ["a.x"], "type": "A", "job": "node", "servers": [liar.server]}
        plan = home.write({"lan": lan})
        home.round(plan)
    done = home.round(plan, after=3600)
    assert [(b.state, b.age) for b in done.resolution.beliefs] == [("kept", 3600.0)]
    assert addresses(done.resolution) == {"node a.x": "10.0.0.1:9100"}
    assert done.exit_code == 3
    done = home.round(plan, after=86400)
    assert [b.state for b in done.resolution.beliefs] == ["expired"]
    assert done.resolution.targets == ()


def test_lost_state_keeps_the_present_file_while_lookups_fail(home: Home) -> None:
    """The file is written again once all lookups succeed."""
    answers: dict[str, str | int | None] = {"a.x": "10.0.0.1", "b.x": "10.0.0.2"}
    with lying(switchable(answers)) as liar:
        lan: dict[str, Json] = {"names": ["a.x", "b.x"], "type": "A", "job": "node", "servers": [liar.server]}
        plan = home.write({"lan": lan})
        home.round(plan)
        before = (plan.directory / "node.json").read_bytes()
        shutil.rmtree(plan.state_directory)
        answers["a.x"] = 2
        done = home.round(plan, after=60)
        assert [b.state for b in done.resolution.beliefs] == ["partial"]
        assert [(job.job, job.backend) for job in done.resolution.frozen] == [("node", "lan")]
        assert (plan.directory / "node.json").read_bytes() == before
        answers["a.x"] = "10.0.0.3"
        assert home.round(plan, after=60).resolution.frozen == ()
        assert (plan.directory / "node.json").read_bytes() == before.replace(b"10.0.0.1", b"10.0.0.3")


def test_lost_state_keeps_srv_targets_while_the_server_is_down(
    home: Home, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The present file has the SRV records and the addresses of their hosts."""
    with knot(tmp_path_factory.mktemp("knot")) as server:
        lan: dict[str, Json] = {"names": ["_node._tcp.lan.example"], "job": "node", "servers": [server.server()]}
        plan = home.write({"lan": lan})
        home.round(plan)
    before = (plan.directory / "node.json").read_bytes()
    for file in plan.state_directory.glob("*.json"):
        file.unlink()
    done = home.round(plan, after=60)
    assert done.exit_code == 3
    assert (plan.directory / "node.json").read_bytes() == before


def test_large_loss_of_a_list_is_held(home: Home) -> None:
    """One absent name is removed at once; the loss of most of a list is held, as with any backend."""
    answers: dict[str, str | int | None] = {f"{n}.x": f"10.0.0.{i}" for i, n in enumerate("abcdef")}
    with lying(switchable(answers)) as liar:
        lan: dict[str, Json] = {"names": sorted(answers), "type": "A", "job": "node", "servers": [liar.server]}
        plan = home.write({"lan": lan})
        home.round(plan)
        answers.clear()
        done = home.round(plan, after=301)
        assert done.exit_code == 4
        assert len(done.resolution.targets) == 6
        assert done.resolution.beliefs[0].why == "of 6 targets that it lists, 0 would be left"


# Time


def test_name_is_looked_up_again_when_its_ttl_ends(home: Home) -> None:
    """The TTL is bounded by min_ttl and max_ttl; an absence is cached for at most five minutes."""
    ttls = {"short.x": 1, "long.x": 86400, "mid.x": 100}

    def answer(query: dns.message.Message, _: bool) -> bytes:  # noqa: FBT001 - the server's form
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        if name not in ttls:
            return reply(query, rcode=3).to_wire()
        return reply(query, f"{name}. {ttls[name]} A 10.0.0.1").to_wire()

    def asked(liar: Liar) -> list[str]:
        found = sorted(name for name, _, _ in liar.asked)
        liar.asked.clear()
        return found

    with lying(answer) as liar:
        lan: dict[str, Json] = {"names": [*ttls, "none.x"], "type": "A", "job": "node", "servers": [liar.server]}
        plan = home.write({"lan": {**lan, "min_ttl": "10s", "max_ttl": "10m"}})
        done = home.round(plan)
        assert asked(liar) == ["long.x", "mid.x", "none.x", "short.x"]
        assert done.due == NOW.timestamp() + 10
        assert not done.polls
        assert (home.round(plan, after=9), asked(liar))[1] == []
        assert (home.round(plan, after=1), asked(liar))[1] == ["none.x", "short.x"]
        assert (home.round(plan, after=90), asked(liar))[1] == ["mid.x", "none.x", "short.x"]
        assert (home.round(plan, after=500), asked(liar))[1] == ["long.x", "mid.x", "none.x", "short.x"]
        assert (home.round(plan, after=-1000), asked(liar))[1] == ["long.x", "mid.x", "none.x", "short.x"]


def test_cache_asks_a_tenth_of_the_questions_of_polling(home: Home) -> None:
    """With a TTL of 300 s: 12 questions per name and hour, not 120 as when polling every 30 s."""
    with lying(lambda query, _: reply(query, f"{query.question[0].name} 300 A 10.0.0.1").to_wire()) as liar:
        names: Json = [f"n{i}.x" for i in range(20)]
        plan = home.write({"lan": {"names": names, "type": "A", "job": "node", "servers": [liar.server]}})
        end = (NOW + timedelta(hours=1)).timestamp()
        done = home.round(plan)
        while done.due is not None and done.due < end:
            done = home.round(plan, after=done.due - home.now.timestamp())
        assert len(liar.asked) == 12 * 20


# Names, servers, search lists


def test_search_list_completes_names(home: Home) -> None:
    """Only if it is enabled; a failed lookup in an earlier domain moves no target."""
    answers: dict[str, str | int | None] = {"db.b.x": "10.0.0.2"}
    with lying(switchable(answers)) as liar:
        lan: dict[str, Json] = {"names": ["db"], "type": "A", "job": "node", "servers": [liar.server]}
        assert home.round(home.write({"lan": lan})).resolution.targets == ()
        assert [name for name, _, _ in liar.asked] == ["db"]
        searching = home.write({"lan": {**lan, "search": ["a.x", "b.x"]}})
        assert addresses(home.round(searching).resolution) == {"node db.b.x": "10.0.0.2:9100"}
        answers["db.a.x"] = 2
        done = home.round(searching, after=301)
        assert addresses(done.resolution) == {"node db.b.x": "10.0.0.2:9100"}
        assert done.exit_code == 0 or done.degraded
        answers["db.a.x"] = "10.0.0.1"
        assert addresses(home.round(searching, after=301).resolution) == {"node db.a.x": "10.0.0.1:9100"}
        assert home.round(home.write({"lan": {**lan, "names": ["db."], "search": ["b.x"]}})).resolution.targets == ()


def test_resolv_conf_is_read_as_by_libc() -> None:
    """Unknown lines are ignored; without a nameserver, the server is 127.0.0.1."""
    found = parse_resolv(
        "; hi\nnameserver 10.0.0.1 # one\nnameserver fd00::1\nnameserver x\nsearch a.x B.x.\noptions ndots:3\n"
    )
    assert [(s.host, s.port) for s in found.servers] == [("10.0.0.1", 53), ("fd00::1", 53)]
    assert found.search == ("a.x", "b.x")
    assert found.ndots == 3
    assert [(s.host, s.port) for s in parse_resolv("").servers] == [("127.0.0.1", 53)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", ("udp", "10.0.0.1", 53, None)),
        ("ns.lan:5353", ("udp", "ns.lan", 5353, None)),
        ("[fd00::1]:5353", ("udp", "fd00::1", 5353, None)),
        ("tcp://10.0.0.1", ("tcp", "10.0.0.1", 53, None)),
        ("tls://9.9.9.9#dns.quad9.net", ("tls", "9.9.9.9", 853, "dns.quad9.net")),
        ("tls://[fd00::1]:8853", ("tls", "fd00::1", 8853, None)),
        ("https://dns.example/q", ("https", "dns.example", 443, None)),
        ("https://10.0.0.1:8443", ("https", "10.0.0.1", 8443, None)),
    ],
)
def test_server_is_parsed(text: str, expected: tuple[str, str, int, str | None]) -> None:
    """In every form that the config accepts."""
    found = parse_server(text)
    assert (found.kind, found.host, found.port, found.server_name) == expected


@pytest.mark.parametrize("text", ["", "a..b", ".", "-" * 64, "a b", "x" * 250 + ".abcd", "ü" * 70, "a.\u200d.b"])
def test_invalid_name_is_refused(text: str) -> None:
    """With a message in words."""
    with pytest.raises(ValueError, match="is not a DNS name"):
        absolute(text)


# Reports


def test_doctor_checks_each_server(home: Home, served: NameServer, run: Run) -> None:
    """One line for each server, with a hint for one that fails."""
    with lying(lambda query, _: reply(query, rcode=5).to_wire()) as liar:
        servers: Json = [served.server(), liar.server, "127.0.0.1:9"]
        home.write({"lan": {"names": ["db.lan.example"], "type": "A", "job": "node", "servers": servers}})
        done = run("doctor", "-c", home.place / "config.yaml")
    assert f"ok    backend lan, server {served.server()}: it responds" in done.out
    assert f"FAIL  backend lan, server {liar.server}: lookup of db.lan.example A failed: REFUSED" in done.out
    assert "FAIL  backend lan, server 127.0.0.1:9: lookup of db.lan.example A failed: Connection refused" in done.out
    assert done.code == 3


def test_record_order_changes_nothing(home: Home) -> None:
    """Servers rotate their records; the target has the numerically lowest address."""
    turns = iter(range(100))

    def answer(query: dns.message.Message, _: bool) -> bytes:  # noqa: FBT001 - the server's form
        numbers = [9, 10, 100]
        turn = next(turns) % 3
        found = [f"db.lan.example. 60 A 10.0.0.{n}" for n in numbers[turn:] + numbers[:turn]]
        return reply(query, *found).to_wire()

    with lying(answer) as liar:
        plan = home.write({"lan": {"servers": [liar.server], "type": "A"}}, machines={"db": {}})
        home.round(plan)
        before = (plan.directory / "node.json").read_bytes()
        for _ in range(3):
            done = home.round(plan, after=61)
            assert addresses(done.resolution) == {"node db": "10.0.0.9:9100"}
            assert (plan.directory / "node.json").read_bytes() == before
        assert next(turns) == 4


def test_unrelated_additional_records_are_ignored(home: Home) -> None:
    """An SRV response with an address of another name: it is neither cached nor used."""

    def answer(query: dns.message.Message, _: bool) -> bytes:  # noqa: FBT001 - the server's form
        found = reply(query, "_n._tcp.x. 60 SRV 0 0 1 a.x.")
        for name in ("a.x.", "db.lan.example."):
            found.additional.append(dns.rrset.from_text(name, 60, "IN", "A", "10.6.6.6"))
        return found.to_wire() if query.question[0].rdtype.name == "SRV" else reply(query, rcode=3).to_wire()

    with lying(answer) as liar:
        lan: dict[str, Json] = {"names": ["_n._tcp.x"], "job": "node", "servers": [liar.server]}
        done = home.round(home.write({"lan": lan, "book": {"servers": [liar.server]}}, machines={"db": {}}))
    assert addresses(done.resolution) == {"node a.x": "10.6.6.6:1", "node db": "db.lan.example:9100"}
    known = [answer for body in done.own.values() for answer in Cache.from_bytes(body)]
    assert {answer.name for answer in known if answer.hosting} == {"a.x"}
