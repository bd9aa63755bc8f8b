"""Where samples are stored: what `show` prints for each engine, and what `check` refuses."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.emit.storage import HASHRING, REMOTE_WRITE, VMAUTH, storage_document
from clan_discovery.model import Storage, StorageEngine, StorageMode, StorageNode
from clan_discovery.resolve.storage import located_storage, unusable_nodes
from clan_discovery.syntax.engines import known_storage
from clan_discovery.syntax.tree import parse_yaml
from tests.support.fleet import fleet, inventory
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]
    Write = Callable[..., Path]

GOLDEN: Final = Path(__file__).resolve().parent / "data/storage"
MACHINES: Final = ["monitor", "db1", "db2", "db3"]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a config with three nodes in the inventory, of which the tailnet sees two."""

    def write(storage: Json, role: Json = None, servers: Json = None, **others: Json) -> Path:
        document = inventory(MACHINES)
        roles = document["instances"]["monitoring"]["roles"]  # type: ignore[index, call-overload]
        if role is not None:
            roles["storage"] = role  # type: ignore[index]
        if servers is not None:
            roles["server"] = servers  # type: ignore[index]
        config: dict[str, Json] = {
            "inventory": {"file": "inventory.json"},
            "backends": {"tailscale": {"tailnet": {"status_file": "status.json"}}},
            **others,
        }
        if storage is not None:
            config["storage"] = storage
        (tmp_path / "inventory.json").write_text(json.dumps(document))
        (tmp_path / "status.json").write_text(json.dumps(fleet(["monitor", "db1", "db2"])))
        file = tmp_path / "config.yaml"
        file.write_text(json.dumps(config))
        return file

    return write


NODES: Final[Json] = ["db1", "db2", "db3"]
CASES: Final[dict[str, Json]] = {
    "victoriametrics": {"nodes": NODES},
    "victoriametrics-shard": {"nodes": NODES, "mode": "shard", "replicas": 2},
    "victoriametrics-cluster": {"engine": "victoriametrics-cluster", "nodes": NODES, "dedup_interval": "15s"},
    "thanos": {"engine": "thanos", "nodes": {"db2": {"address": "fd00::2"}, "db1": {"read_port": 11901}, "db3": None}},
    "mimir": {
        "engine": "remote-write",
        "nodes": {"mimir": {"url": "https://mimir.example.org/api/v1/push"}, "db1": {}},
        "cluster": "home",
    },
}


@pytest.mark.parametrize("case", CASES)
def test_the_storage_of_an_engine(case: str, write: Write, run: Run) -> None:
    """Byte by byte. A node that no backend sees is at its name, and stays in every list."""
    done = run("show", "-c", write(CASES[case]), "--format", "storage")
    assert done.code == 0
    assert done.out == (GOLDEN / f"{case}.json").read_text()


@pytest.mark.parametrize("case", CASES)
def test_each_file_is_the_one_of_the_document(case: str, write: Write, run: Run) -> None:
    """A file that a storage does not have is refused with the reason."""
    config = write(CASES[case])
    files = json.loads(run("show", "-c", config, "--format", "storage").out)["files"]
    for name in (REMOTE_WRITE, VMAUTH, HASHRING):
        done = run("show", "-c", config, "--format", name)
        assert (done.code, done.out) == ((0, files[name]) if name in files else (2, ""))
        assert name in files or f"--format {name}: " in done.err


@pytest.mark.parametrize("case", ["victoriametrics", "thanos", "mimir"])
def test_prometheus_accepts_the_remote_writes(case: str, write: Write, run: Run, tmp_path: Path) -> None:
    text = run("show", "-c", write(CASES[case]), "--format", "remote-write").out
    (tmp_path / "prometheus.yml").write_text(text)
    words = [program("promtool"), "check", "config", "--syntax-only", f"{tmp_path}/prometheus.yml"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_vmagent_accepts_the_flags(write: Write, run: Run, tmp_path: Path) -> None:
    """Debian's release is older than sharding."""
    found = json.loads(run("show", "-c", write(CASES["victoriametrics"]), "--format", "storage").out)
    (flags,) = [each["flags"] for each in found["programs"] if each["program"] == "vmagent"]
    (tmp_path / "scrape.yml").write_text("{}")
    words = [program("vmagent"), "-dryRun", f"-promscrape.config={tmp_path}/scrape.yml", *flags]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_role_names_the_nodes(write: Write, run: Run) -> None:
    """With the settings of the role and a port of one machine; the config wins over both."""
    role: Json = {
        "machines": {"db1": {"settings": {"port": 8500}}, "db2": {}},
        "settings": {"engine": "victoriametrics", "mode": "shard", "replicas": 1},
    }
    found = json.loads(run("show", "-c", write(None, role), "--format", "storage").out)
    assert [(node["name"], node["port"]) for node in found["nodes"]] == [("db1", 8500), ("db2", 8428)]
    assert (found["engine"], found["mode"], found["replicas"]) == ("victoriametrics", "shard", 1)
    config = write({"nodes": ["db2"], "mode": "replicate"}, role)
    found = json.loads(run("show", "-c", config, "--format", "storage").out)
    assert [node["name"] for node in found["nodes"]] == ["db2"]
    assert (found["mode"], found["replicas"]) == ("replicate", 1)


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ({"nodes": NODES, "replicas": 4, "mode": "shard"}, "storage.replicas: 4 copies need 4 nodes, and there are 3"),
        ({"nodes": NODES, "replicas": 2}, "`mode: replicate` each of the 3 nodes gets every sample (remove it"),
        ({"nodes": NODES, "replicas": 0}, "storage.replicas"),
        ({"nodes": ["db1", "DB1"]}, "two nodes of the name 'DB1'"),
        ({"nodes": {"db1": {}, "Db1": {}}}, "two nodes of the name 'Db1'"),
        ({"nodes": []}, "there is no node, and no machine in the role `storage`"),
        ({"nodes": NODES, "engine": "thanos", "mode": "shard"}, "shard is for victoriametrics: thanos distributes"),
        ({"nodes": NODES, "engine": "thanos", "replicas": 4}, "4 copies need 4 nodes"),
        ({"nodes": NODES, "engine": "thanos", "cluster": "a"}, "storage.cluster: is for remote-write to Mimir"),
        ({"nodes": NODES, "engine": "thanos", "dedup_interval": "15s"}, "is for VictoriaMetrics, not for thanos"),
        ({"nodes": NODES, "write_url": "http://x/y"}, "is not for victoriametrics: servers write to the nodes"),
        ({"nodes": {"db1": {"url": "http://x/y"}}}, "storage.nodes.db1.url: is for remote-write"),
        ({"nodes": {"db1": {"read_port": 1}}}, "victoriametrics has one port, for writes and queries"),
        ({"nodes": {"db1": {"url": "http://x/y", "port": 1}}}, "has `url`, which replaces `port`"),
        ({"engine": "remote-write", "nodes": {"a": {"url": "http://x"}}}, "'http://x' has no path"),
        ({"engine": "remote-write", "nodes": {"a": {"url": "http://x/"}}}, "such as http://x/api/v1/push"),
        ({"nodes": {"db1": {"address": "10.0.0.1:99"}}}, "has a port: write `address: 10.0.0.1` and `port: 99`"),
        ({"engine": "remote-write", "nodes": {"a": {"url": "http://u:p@x/y"}}}, "the URL holds a password"),
        ({"engine": "remote-write", "nodes": {"a": {"url": "http://x/y?a,b"}}}, "has a comma, at which vmagent"),
        ({"nodes": NODES, "engine": "thanos", "write_url": "http://x/y,http://z/y"}, "has a comma"),
        ({"nodes": NODES, "engine": "remote-write", "replicas": 1}, "each of the 3 nodes gets every sample"),
        ({"nodes": [1]}, "storage.nodes: 1 is not a name: write a name"),
    ],
)
def test_bad_input_is_refused(storage: Json, said: str, write: Write, run: Run) -> None:
    """At its place, with a fix."""
    done = run("check", "-c", write(storage))
    assert done.code == 2
    assert said in done.err
    assert "config.yaml" in done.err


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ({"nodes": ["db1", "db22"]}, "no source declares a machine 'db22' (did you mean 'db2'?)"),
        ({"nodes": {"db1": {"address": "10.0.0.1"}, "db2": {"address": "10.0.0.1"}}}, "are both at 10.0.0.1:8428"),
    ],
)
def test_probable_mistakes_fail_check_alone(storage: Json, said: str, write: Write, run: Run) -> None:
    """The rest works: a node may have left the clan."""
    config = write(storage)
    assert run("show", "-c", config, "--format", "storage").code == 0
    if "both at" in said:  # two addresses are compared after the backends have answered
        assert said in run("show", "-c", config).err
        return
    done = run("check", "-c", config)
    assert (done.code, said in done.err) == (2, True), done.err


def test_the_members_of_the_role_agree(write: Write, run: Run) -> None:
    role: Json = {
        "machines": {"db1": {"settings": {"engine": "thanos"}}, "db2": {"settings": {"engine": "victoriametrics"}}}
    }
    done = run("check", "-c", write(None, role))
    assert done.code == 2
    assert "roles.storage.machines.db2.settings.engine: is victoriametrics here and thanos on db1" in done.err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"engine": "victoria"}, 'settings.engine: "victoria" is no engine'),
        ({"mode": "copy"}, 'settings.mode: "copy" is no mode'),
        ({"replicas": "2"}, "settings.replicas: must be a number from 1"),
        ({"replicas": True}, "settings.replicas: must be a number from 1"),
        ({"port": 0}, "settings.port: invalid port 0"),
        ({"replicsa": 2}, "settings.replicsa: unknown setting, ignored"),
        ({"replicas": 3}, "replicas: 3 copies need 3 nodes, and there are 2"),
    ],
)
def test_wrong_settings_of_the_role(settings: Json, said: str, write: Write, run: Run) -> None:
    role: Json = {"machines": {"db1": {}, "db2": {}}, "settings": settings}
    done = run("check", "-c", write(None, role))
    assert said in done.err
    assert done.code == (0 if "ignored" in said else 2)


PAIR: Final[Json] = {"machines": {"monitor": {}, "db3": {}}}


def test_two_servers_are_told_apart(write: Write, run: Run) -> None:
    """By a label where the engine removes it; by a time in VictoriaMetrics, which has to be told."""
    storage: Json = {"engine": "thanos", "nodes": ["db1", "db2"]}
    found = json.loads(run("show", "-c", write(storage, servers=PAIR, server="db3"), "--format", "storage").out)
    flags = {each["program"]: each["flags"] for each in found["programs"]}
    assert found["external_labels"] == {"replica": "db3"}
    assert "--deduplication.func=chain" not in flags["thanos query"]
    assert "target_label: replica\n        replacement: db3\n" in found["files"]["remote-write"]
    done = run("check", "-c", write(storage, servers=PAIR))
    assert "set `server`: the HA label is its name" in done.err
    done = run("check", "-c", write({"nodes": ["db1", "db2"]}, servers=PAIR))
    assert "set storage.dedup_interval to the scrape interval" in done.err
    done = run("check", "-c", write({"nodes": ["db1", "db2"], "dedup_interval": "1m"}, servers=PAIR))
    assert "dedup_interval" not in done.err


@pytest.mark.parametrize(
    ("replicas", "said"),
    [
        (1, "with one replica, the samples of a node are lost with it"),
        (2, "each node has a part of the series"),
        (3, "`mode: shard` with as many replicas as nodes writes every sample to each node (remove `mode`"),
    ],
)
def test_shards_are_warned_of(replicas: int, said: str, write: Write, run: Run) -> None:
    """By what is lost or in vain."""
    done = run("check", "-c", write({"nodes": NODES, "mode": "shard", "replicas": replicas}))
    assert (done.code, said in done.err) == (0, True), done.err


def test_the_table_has_the_engines_and_modes_of_the_config() -> None:
    """Nix reads the table, and type checkers read the model."""
    known = known_storage()
    assert {*get_args(StorageEngine)} == known.engines.keys()
    assert get_args(StorageMode) == known.modes


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ({"engine": "thanos", "nodes": ["db1", "db2"]}, "no address of db1, db2 is set"),
        ({"engine": "thanos", "nodes": {"db1": {"address": "10.0.0.1"}, "db2": None}}, "no address of db2 is set"),
        ({"mode": "shard", "nodes": NODES}, "vmagent's choice of nodes depends on the addresses of the nodes"),
    ],
)
def test_addresses_that_are_hashed_are_asked_for(storage: Json, said: str, write: Write, run: Run) -> None:
    """Each machine may see a node at another address."""
    done = run("check", "-c", write(storage))
    assert (done.code, said in done.err) == (0, True), done.err


@pytest.mark.parametrize(
    "storage",
    [{"nodes": NODES}, {"engine": "thanos", "nodes": {"db1": {"address": "10.0.0.1"}}}],
)
def test_addresses_that_are_not_hashed_or_set_are_not_asked_for(storage: Json, write: Write, run: Run) -> None:
    """Each sample goes to every node, or each machine has the same list."""
    done = run("check", "-c", write(storage))
    assert (done.code, "addresses of the nodes" in done.err) == (0, False), done.err


def test_the_bounds_of_the_table_are_those_of_the_config(write: Write, run: Run) -> None:
    """Nix reads the table."""
    bounds = known_storage().dedup_interval
    for interval in (bounds.least, bounds.most):
        assert run("check", "-c", write({"nodes": NODES, "dedup_interval": interval})).code == 0
    done = run("check", "-c", write({"nodes": NODES, "dedup_interval": f"{bounds.most}1ms"}))
    assert f"must be between {bounds.least} and {bounds.most}" in done.err


def test_mimir_refuses_what_it_would_lose(write: Write, run: Run) -> None:
    """Its HA tracker keeps the samples of one server: those of the other shards would be dropped."""
    storage: Json = {"engine": "remote-write", "nodes": ["db1"], "cluster": "home"}
    sharded: Json = {"machines": {"monitor": {}, "db3": {}}, "settings": {"sharding": "hashmod"}}
    done = run("check", "-c", write(storage, servers=sharded))
    assert done.code == 2
    assert "Mimir keeps the samples of one server of a cluster at a time" in done.err
    whole: Json = {"machines": {"monitor": {}, "db3": {}}, "settings": {"sharding": "none"}}
    assert run("check", "-c", write(storage, servers=whole)).code == 0
    shard: dict[str, Json] = {"members": ["monitor", "db3"], "member": "db3", "replicas": 1}
    assert run("check", "-c", write(storage, shard=shard)).code == 2
    files = run("show", "-c", write(storage, shard={**shard, "replicas": 2}), "--format", "remote-write")
    assert "target_label: __replica__\n        replacement: db3\n" in files.out


def test_one_node_at_an_ipv6_address_is_enough_for_the_flag(write: Write, run: Run) -> None:
    """Programs of VictoriaMetrics use no IPv6 without it."""
    nodes: Json = {"db1": {"address": "10.0.0.1"}, "db2": {"address": "fd00::2"}}
    done = run("show", "-c", write({"nodes": nodes}), "--format", "storage")
    programs = json.loads(done.out)["programs"]
    assert programs
    assert all("-enableTCP6" in program["flags"] for program in programs)


def test_without_storage_there_is_nothing_to_print(write: Write, run: Run) -> None:
    done = run("show", "-c", write(None), "--format", "vmauth")
    assert (done.code, done.out) == (2, "")
    assert "add `storage` to the config" in done.err


NAMES: Final = st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True), min_size=1, unique=True)
KINDS: Final = st.sampled_from(
    [
        ("victoriametrics", "replicate"),
        ("victoriametrics", "shard"),
        ("victoriametrics-cluster", "replicate"),
        ("thanos", "replicate"),
        ("remote-write", "replicate"),
    ]
)


@given(NAMES, KINDS)
def test_every_node_is_in_every_list(names: list[str], kind: tuple[StorageEngine, StorageMode]) -> None:
    """Also a node that no backend sees; and every file can be parsed."""
    nodes = tuple(StorageNode(name=name, port=1000, read_port=2000) for name in names)
    storage = Storage(engine=kind[0], nodes=nodes, replicas=len(names), mode=kind[1])
    found = located_storage(storage, lambda _: "")
    assert [node.host for node in found.nodes] == [f"{name}.invalid" for name in names]
    assert len(list(unusable_nodes(found))) == len(names)
    document = json.loads(json.dumps(storage_document(found)))
    for text in document["files"].values():
        parse_yaml(text, most=100_000)
    flags = [flag for each in document["programs"] for flag in each["flags"]]
    hosts = json.dumps([flags, document["files"]])
    assert all(f"{name}.invalid:" in hosts for name in names)
