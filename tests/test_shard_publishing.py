"""What a server of a shard publishes, and how commands name the servers of a target."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Final

import jsonschema
import msgspec
import pytest

from clan_discovery.cli.commands.schema import schema
from clan_discovery.emit.filter import Filter, filtered
from tests.support.answering import resolution_of, target_of
from tests.support.fleet import inventory
from tests.test_expected import checked, lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

MEMBERS: Final = ("Mon1", "mon2", "mon3")
MACHINES: Final = [f"machine{number:02d}" for number in range(20)]


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the config of a member, with more keys of `shard`."""
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(MACHINES)))

    def write(member: str, **shard: Json) -> Path:
        own: Json = {"targets": {"prometheus": ["10.0.0.1:9090", "10.0.0.2:9090"], "lo": ["127.0.0.1:9100"]}}
        written: Json = {
            "inventory": {"file": "inventory.json"},
            "backends": {"tailscale": {}, "static": {"own": own}},
            "shard": {"member": member, "members": list(MEMBERS), "replicas": 2, **shard},
            "output": {"directory": f"targets-{member.lower()}"},
        }
        file = tmp_path / f"{member.lower()}.json"
        file.write_text(json.dumps(written))
        return file

    return write


def published(tmp_path: Path, member: str) -> Counter[tuple[str, str]]:
    """Return the targets in the files of a member, by job and instance."""
    files = (tmp_path / f"targets-{member.lower()}").glob("*.json")
    return Counter((file.stem, group["labels"]["instance"]) for file in files for group in json.loads(file.read_text()))


def test_the_files_of_all_members_have_each_target_as_often_as_replicas(
    tmp_path: Path, run: Run, config: Callable[..., Path]
) -> None:
    """Unshared jobs and targets on loopback are in the files of every member; the metrics have the same share."""
    total: Counter[tuple[str, str]] = Counter()
    for member in MEMBERS:
        done = run("refresh", "-c", config(member), "--metrics-file", tmp_path / "m.prom")
        assert done.code == 0, done.err
        share = published(tmp_path, member)
        total += share
        metrics = checked((tmp_path / "m.prom").read_bytes())
        expected = lines(metrics, "clan_discovery_expected{")
        assert len(expected) == share.total() == int(float(lines(metrics, "clan_discovery_shard_targets ")[0]))
        machines = {line.partition('machine="')[2].partition('"')[0] for line in expected}
        assert len(lines(metrics, "clan_discovery_machine_info{")) == len(machines)
        assert f"23 targets in 3 jobs; {share.total()} published by {member}; " in done.out
        info = lines(metrics, "clan_discovery_shard_info{")
        hashes = re.findall(r'"([0-9a-f]{8})"', info[0])
        assert info == [f'list="{hashes[0]}",member="{member}",replicas="2",targets="{hashes[1]}"}} 1.0']
    everywhere = {("prometheus", "10.0.0.1"), ("prometheus", "10.0.0.2"), ("lo", "127.0.0.1")}
    assert total == {**{("node", machine): 2 for machine in MACHINES}, **dict.fromkeys(everywhere, 3)}


def test_servers_with_other_sources_have_another_fingerprint(
    tmp_path: Path, run: Run, config: Callable[..., Path]
) -> None:
    """What is seen, unshared jobs and lists on loopback do not matter; a machine, an exporter or a list does."""

    def targets(file: Path, **changes: Json) -> str:
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
        assert run("refresh", "-c", file, "--metrics-file", tmp_path / "m.prom").code in (0, 3)
        (info,) = lines((tmp_path / "m.prom").read_bytes(), "clan_discovery_shard_info{")
        return info.partition('targets="')[2].partition('"')[0]

    def static(**lists: Json) -> Json:
        return {"own": {"targets": lists}}

    known = targets(config("Mon1"))
    same: Json = {"tailscale": {}, "static": static(prometheus=["10.0.0.3:9090"], other=["[::1]:9100"])}
    assert targets(config("mon2"), backends=same) == known
    assert targets(config("mon3", members=["mon3", "mon4"])) == known
    seen: Json = {"static": {"lan": {"machines": {machine: ["10.0.0.1"] for machine in MACHINES}}}}
    assert targets(config("mon2"), backends=seen) == known
    found = [targets(config("mon2"), backends={"static": static(node=["10.0.0.9:9100"])})]
    found.append(targets(config("mon2"), ignore={"names": [MACHINES[0]]}))
    (tmp_path / "inventory.json").write_text(json.dumps(inventory([*MACHINES, "new"])))
    found.append(targets(config("mon2")))
    exporters: Json = {"exporters": {"node": {}, "systemd": {}}}
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(MACHINES, exporter=exporters)))  # type: ignore[arg-type]
    found.append(targets(config("mon2")))
    assert len({known, *found}) == len(found) + 1


def test_servers_with_one_inventory_have_one_fingerprint(tmp_path: Path, run: Run) -> None:
    """Also if each of them reaches a program on its own loopback, and agents send what others scrape."""
    servers = ["mon1", "mon2", "mon3"]

    def refreshed(server: str, *agents: str) -> tuple[str, int]:
        """Return the fingerprint and the number of targets on a server."""
        roles: Json = {
            "exporter": {"tags": ["all"]},
            "server": {"machines": {name: {} for name in servers}},
            "alerting": {"machines": {"mon1": {}}},
            "dashboards": {"machines": {"mon1": {}, "mon2": {}}},
            "agent": {"machines": {name: {} for name in agents}},
        }
        instance: Json = {"module": {"name": "prometheus", "input": "self"}, "roles": roles}
        document = inventory(["db", *agents, *servers], instances={"monitoring": instance})
        (tmp_path / "inventory.json").write_text(json.dumps(document))
        config: Json = {
            "inventory": {"file": "inventory.json"},
            "server": server,
            "backends": {"tailscale": {}},
            "shard": {"members": [*servers]},
            "output": {"directory": server},
        }
        (tmp_path / "c.json").write_text(json.dumps(config))
        assert run("refresh", "-q", "-c", tmp_path / "c.json", "--metrics-file", tmp_path / "m.prom").code == 0
        (info,) = lines((tmp_path / "m.prom").read_bytes(), "clan_discovery_shard_info{")
        shown = json.loads(run("show", "-c", tmp_path / "c.json", "--format", "json").out)
        return info.partition("targets=")[2], len(shown["targets"])

    found = [refreshed("mon1", "web"), refreshed("mon2", "web"), refreshed("mon3", "web", "app")]
    assert len({fingerprint for fingerprint, _ in found}) == 1
    assert found[0][1] == found[1][1] == found[2][1] + 1  # Grafana on their own loopback


def test_a_second_exporter_on_a_machine_leaves_the_first_with_its_servers(
    tmp_path: Path, run: Run, config: Callable[..., Path]
) -> None:
    """It changes `instance` to `machine:port`, on the servers that know it."""

    def servers() -> dict[str, list[set[str]]]:
        """Return the servers of each target, by machine."""
        done = run("show", "-c", config("Mon1"), "--job", "node", "--format", "json")
        found: dict[str, list[set[str]]] = {}
        for target in json.loads(done.out)["targets"]:
            found.setdefault(target["machine"], []).append(set(target["servers"]))
        return found

    before = servers()
    document = json.loads(json.dumps(inventory(MACHINES)))
    second = json.loads(json.dumps(inventory(MACHINES, exporter={"exporterType": "node", "port": 9200})))
    del second["instances"]["monitoring"]["roles"]["server"]
    document["instances"]["second"] = second["instances"]["monitoring"]
    (tmp_path / "inventory.json").write_text(json.dumps(document))
    assert servers() == {machine: found * 2 for machine, found in before.items()}


def test_show_names_the_servers(tmp_path: Path, run: Run, config: Callable[..., Path]) -> None:
    """The table has all targets; `--server` has those in the files of a member, in each format."""
    file = config("Mon1")
    shown = run("show", "-c", file)
    rows = [line.split() for line in shown.out.splitlines()]
    assert rows[0][-1] == "SERVERS"
    assert sum(row[:1] == ["node"] for row in rows) == len(MACHINES)
    assert ["lo", "127.0.0.1", "127.0.0.1:9100", "seen", "own", "every", "server"] in rows
    document = json.loads(run("show", "-c", file, "--format", "json").out)
    jsonschema.validate(document, schema("resolution"))
    assert document["shard"]["member"] == "Mon1"
    for member in MEMBERS:
        run("refresh", "-q", "-c", config(member))
        files = published(tmp_path, member)
        assert {
            (t["job"], t["labels"]["instance"])
            for t in document["targets"]
            if not t["servers"] or member in t["servers"]
        } == set(files)
        own = json.loads(run("show", "-c", file, "--server", member.upper(), "--format", "file-sd").out)
        assert Counter((group["labels"]["job"], group["labels"]["instance"]) for group in own) == files
        machines = run("show", "-c", file, "--server", member, "--by", "machine").out
        assert machines.splitlines()[-1].startswith(f"{files.total()} targets of ")
    several = json.loads(run("show", "-c", file, "--server", "MON1", "--server", "mon2", "--format", "file-sd").out)
    shares = [published(tmp_path, member) for member in ("Mon1", "mon2")]
    assert {(group["labels"]["job"], group["labels"]["instance"]) for group in several} == {*shares[0], *shares[1]}
    assert {*shares[0]} != {*shares[0], *shares[1]} != {*shares[1]}


def test_show_adds_up_servers_and_keeps_states(run: Run, config: Callable[..., Path]) -> None:
    """Several `--server` are a union, and a machine that is missing is missing in the share, too."""
    file = config("Mon1")
    backends: Json = {"static": {"lab": {"machines": {MACHINES[0]: ["10.0.0.1"]}}}}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"backends": backends}))

    def shown(*words: str) -> tuple[dict[str, str], set[str]]:
        """Return the state of each machine's target, and the machines that are missing."""
        done = run("show", "-c", file, *words)
        rows = [line.split() for line in done.out.splitlines()]
        document = json.loads(run("show", "-c", file, *words, "--format", "json").out)
        return {row[1]: row[3] for row in rows if row[0] == "node"}, {one["machine"] for one in document["missing"]}

    everything, missing = shown()
    assert set(everything.values()) == {"missing", "seen"}
    shares = [shown("--server", member) for member in MEMBERS]
    for share, named in shares:
        assert share.items() < everything.items()
        assert named == missing & set(share)
    assert shown("--server", "mon1", "--server", "MON2") == (shares[0][0] | shares[1][0], shares[0][1] | shares[1][1])


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--server", "mon9"), "--server: 'mon9' is no member of the shard (there are: Mon1, mon2, mon3)"),
        (("--server", "mon1", "--server", "mon9"), "--server: 'mon9' is no member of the shard (there are: Mon1,"),
        (("--server", "mon2", "--by", "front"), "--by front: has neither jobs nor states nor servers"),
    ],
)
def test_show_refuses_a_server_that_is_none(
    run: Run, config: Callable[..., Path], words: tuple[str, ...], error: str
) -> None:
    """The message names the members."""
    done = run("show", "-c", config("mon2"), *words)
    assert (done.code, done.out) == (2, "")
    assert error in done.err


def test_a_target_that_an_agent_sends_is_of_no_server() -> None:
    """Also where every server publishes all targets of its job."""
    one = target_of("node", "db", "10.0.0.1:9100")
    sent = msgspec.structs.replace(target_of("node", "laptop", "127.0.0.1:9100"), delivery="push")
    found = filtered(msgspec.structs.replace(resolution_of([one]), pushed=(sent,)), Filter(servers=frozenset({"mon1"})))
    assert (found.targets, found.pushed) == ((one,), ())


def test_show_refuses_a_server_without_a_shard(tmp_path: Path, run: Run) -> None:
    """The message says what is needed."""
    (tmp_path / "c.yaml").write_text("backends: {static: {lab: {targets: {node: [a]}}}}\n")
    done = run("show", "-c", tmp_path / "c.yaml", "--server", "mon1")
    assert done.code == 2
    assert "--server: needs `shard` in the config (see docs/sharding.md)" in done.err


def test_explain_names_the_servers_and_why(run: Run, config: Callable[..., Path]) -> None:
    """Also why every server publishes a target."""
    members: Json = {"Mon1": {}, "mon2": {}, "mon3": {"state": "joining"}}
    file = config("Mon1", members=members, replicas=1)
    said = run("explain", "-c", file, *MACHINES, "lo/127.0.0.1", "prometheus/10.0.0.1").out
    reasons = Counter(line.strip() for line in said.splitlines() if "published by:" in line)
    score = "the highest score of 2 active members"
    assert reasons.keys() == {
        f"published by: Mon1: {score}",
        f"published by: Mon1, mon3: {score}; mon3 is joining",
        f"published by: mon2: {score}; not this server, Mon1",
        f"published by: mon2, mon3: {score}; mon3 is joining; not this server, Mon1",
        "published by: every server: only a scraper beside it reaches this address",
        "published by: every server: job prometheus is not shared (shard.unshared)",
    }
    document = json.loads(run("explain", "-c", file, MACHINES[0], "--format", "json").out)
    jsonschema.validate(document, schema("explain"))


def test_diff_says_who_publishes_a_target_now(run: Run, config: Callable[..., Path]) -> None:
    """A server that joins takes targets, which are not gone."""
    run("refresh", "-q", "-c", config("Mon1"))
    done = run("diff", "-c", config("Mon1", members=[*MEMBERS, "mon4", "mon5"]))
    moved = [line for line in done.out.splitlines() if line.startswith("-")]
    assert moved
    assert all("(now published by mon" in line for line in moved)
    joining: Json = {**{name: {} for name in MEMBERS}, "mon4": {"state": "joining"}}
    assert run("diff", "-c", config("Mon1", members=joining)).out == "nothing would change\n"


def test_diff_tells_targets_that_move_from_those_that_come_and_go(
    tmp_path: Path, run: Run, config: Callable[..., Path]
) -> None:
    """A machine that is new or no longer declared while the list changes has its own reason."""

    def reasons(file: Path) -> dict[str, str]:
        """Return the reason of each line of a machine, by the mark and the name."""
        found = re.findall(r"^([+-] machine\d\d|[+-] new\d\d) .*\((.*)\)$", run("diff", "-c", file).out, re.MULTILINE)
        return dict(found)

    more: Json = [*MEMBERS, "mon4", "mon5"]
    run("refresh", "-q", "-c", config("Mon1", members=more))
    before = {name for job, name in published(tmp_path, "Mon1") if job == "node"}
    fewer = reasons(config("Mon1", members=["Mon1"], replicas=1))
    assert fewer == {f"+ {name}": "now published by Mon1" for name in MACHINES if name not in before}
    assert fewer
    kept = MACHINES[:-5]
    (tmp_path / "inventory.json").write_text(json.dumps(inventory([*kept, "new01"])))
    came = reasons(config("Mon1", members=["Mon1"], replicas=1))
    assert came.pop("+ new01") == "at its declared address or name"
    gone = {key: why for key, why in came.items() if key.startswith("-")}
    assert gone == {f"- {name}": "no longer declared" for name in before - set(kept)}
    assert gone
    assert {key: came[key] for key in came.keys() - gone.keys()} == {
        f"+ {name}": "now published by Mon1" for name in kept if name not in before
    }


def test_refresh_says_what_a_change_of_the_shard_moves(tmp_path: Path, run: Run, config: Callable[..., Path]) -> None:
    """The counts are those of the files, without machines that come or go. A quiet cycle says nothing."""
    said: list[str] = []

    def lines_of(**shard: Json) -> list[str]:
        done = run("refresh", "-v", "-c", config("Mon1", **shard))
        said.append(done.err)
        lines = (line.removeprefix("clan-discovery: ") for line in done.err.splitlines())
        return [line for line in lines if line.startswith("shard: ")]

    assert lines_of() == []
    three = published(tmp_path, "Mon1")
    assert lines_of(members=["MON3", "mon2", "mon1"]) == []
    assert "no changes" in said[-1]
    more: Json = [*MEMBERS, "mon4", "mon5"]
    (tmp_path / "inventory.json").write_text(json.dumps(inventory([*MACHINES, "new"])))
    found = lines_of(members=more)
    five = published(tmp_path, "Mon1")
    lost = (three - five).total()
    assert lost
    moved = f"(+0 -{lost} by this change of the shard)"
    assert found == [f"shard: 5 servers, replicas 2; Mon1 publishes {five.total()} of 24 targets {moved}"]
    assert "changes: +1 -0 ~0" in said[-1]
    assert lines_of(members=more) == []
    states: Json = {**{name: {} for name in (*MEMBERS, "mon4", "mon5")}, "mon6": {"state": "joining"}}
    assert lines_of(members=states)[0].endswith("(+0 -0 by this change of the shard)")
    assert "no changes" not in said[-1]
    whole = (published(tmp_path, "Mon1"), lines_of(members=["Mon1"], replicas=1))
    gained = 24 - whole[0].total()
    moved = f"(+{gained} -0 by this change of the shard)"
    assert whole[1] == [f"shard: 1 server, replicas 1; Mon1 publishes 24 of 24 targets {moved}"]
    file = config("Mon1")
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "shard"}))
    assert "shard: removed; all 24 targets are published\n" in run("refresh", "-c", file).err
    first = lines_of()[0]
    assert first.endswith(f"(+0 -{24 - published(tmp_path, 'Mon1').total()} by this change of the shard)")
