"""Three VictoriaMetrics nodes, set up by what `show` prints alone: one ends in the middle, and no sample is lost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest

from tests.stack.storage import (
    SERIES,
    WAIT_S,
    Server,
    Shown,
    Vmagent,
    exported,
    post,
    recent_times,
    running,
    vmauth,
    vmauth_program,
)
from tests.support.nix import at, listed
from tests.support.programs import eventually, free_port, get, get_json, scraper_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done
    from tests.stack.storage import Sample

    Run = Callable[..., Done]

NAMES: Final = ("db1", "db2", "db3")
_BEFORE, _DURING, _AFTER = slice(0, 10), slice(10, 20), slice(20, 30)


class Node(Server):
    """A single-node VictoriaMetrics."""

    def __init__(self, place: Path, name: str, port: int, flags: Iterable[str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        command = [scraper_program("victoria-metrics", "newer"), f"-httpListenAddr=127.0.0.1:{port}"]
        command += [f"-storageDataPath={place}/{name}", "-memory.allowedBytes=64MB", *flags]
        super().__init__(command, f"{self.url}/health", place / f"{name}.log")

    def samples(self) -> set[Sample]:
        """Return the samples that it has."""
        return exported(self.url)


def nodes_of(shown: Shown, place: Path, ports: dict[str, int], program: str = "victoria-metrics") -> dict[str, Node]:
    """Return the nodes, with the flags of the storage."""
    return {name: Node(place, name, port, shown.flags(program, name)) for name, port in ports.items()}


def new_ports() -> dict[str, int]:
    """Return a port for each node."""
    return {name: free_port() for name in NAMES}


def given(ports: dict[str, int]) -> Json:
    """Return the nodes of a config."""
    return {name: {"address": "127.0.0.1", "port": port} for name, port in ports.items()}


def merged(nodes: Iterable[Node]) -> set[Sample]:
    """Return the samples that at least one of the nodes has."""
    return {sample for node in nodes for sample in node.samples()}


def wait_for(node: Node, least: set[Sample], most: set[Sample]) -> None:
    """Wait until a node has at least these samples, and none beside the others."""
    eventually(f"{node.url} has every sample", lambda: least <= node.samples() <= most, WAIT_S)


def wait_for_series(node: Node, wanted: Json) -> None:
    """Wait until `up` of a node is one series with these labels."""

    def is_there() -> bool:
        match get_json(f"{node.url}/api/v1/series?match[]=up"):
            case {"data": [found]}:
                assert found == wanted
                return True
            case _:
                return False

    eventually(f"{node.url} has the series", is_there, WAIT_S)


def test_two_copies_survive_the_loss_of_a_node(run: Run, tmp_path: Path) -> None:
    """With `mode: shard` and a power cut: what one node has lost, another one has."""
    ports, times = new_ports(), recent_times(30)
    shown = Shown(run, tmp_path, {"nodes": given(ports), "mode": "shard", "replicas": 2})
    nodes = nodes_of(shown, tmp_path, ports)
    vmagent = Vmagent(scraper_program("vmagent", "newer"), tmp_path, shown.flags("vmagent"))
    with running(*nodes.values(), vmagent):
        written = vmagent.write(times[_BEFORE])
        eventually("each sample is on some node", lambda: merged(nodes.values()) == written, WAIT_S)
        nodes["db2"].kill()
        alive = [nodes["db1"], nodes["db3"]]
        written |= vmagent.write(times[_DURING])
        eventually("the other nodes have every sample", lambda: merged(alive) == written, WAIT_S)
        nodes["db2"].start()
        later = vmagent.write(times[_AFTER])
        written |= later
        complete = {sample for sample in written if sample[1] >= times[_DURING][0]}

        def copies() -> list[int]:
            found = [node.samples() for node in nodes.values()]
            return [sum(sample in own for own in found) for sample in complete]

        eventually("each later sample is on two nodes", lambda: set(copies()) == {2}, WAIT_S)
        found = {name: node.samples() for name, node in nodes.items()}
        assert set().union(*found.values()) == written
        assert len(written) == 30 * SERIES
        # Each node has some of the series, and none has all.
        assert all(0 < len({series for series, _ in own}) < SERIES for own in found.values())


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_readers_do_not_notice_the_loss_of_a_node(how: str, run: Run, tmp_path: Path) -> None:
    """With `mode: replicate`, and the node that vmauth asks first.

    One that is stopped and started again becomes complete. After a power cut, it lacks what it had not written to its
    disk; the others have it.
    """
    ports, times, port = new_ports(), recent_times(30), free_port()
    shown = Shown(run, tmp_path, {"nodes": given(ports)})
    nodes = nodes_of(shown, tmp_path, ports)
    vmagent = Vmagent(scraper_program("vmagent", "newer"), tmp_path, shown.flags("vmagent"))
    proxy = vmauth(vmauth_program(), tmp_path, shown.file("vmauth", tmp_path), shown.flags("vmauth"), port)
    front = f"http://127.0.0.1:{port}"
    with running(*nodes.values(), vmagent, proxy):
        before = vmagent.write(times[_BEFORE])
        for node in nodes.values():
            wait_for(node, before, before)
        assert exported(front) == before
        assert post(f"{front}/api/v1/import/prometheus", "sample 1\n") == 400  # it would reach one node alone
        (nodes["db1"].stop if how == "stopped" else nodes["db1"].kill)()
        written = set(before)
        for at in times[_DURING]:
            written |= vmagent.write([at])
            assert before <= exported(front) <= written
        eventually("vmauth reads what is written during the outage", lambda: exported(front) == written, WAIT_S)
        nodes["db1"].start()
        written |= vmagent.write(times[_AFTER])
        for name in ("db2", "db3"):
            wait_for(nodes[name], written, written)
        kept = written if how == "stopped" else written - before
        wait_for(nodes["db1"], kept, written)
        eventually("vmauth reads db1 again", lambda: exported(front) == nodes["db1"].samples(), WAIT_S)
        assert len(written) == 30 * SERIES


def test_vmalert_keeps_its_state_in_every_node(run: Run, tmp_path: Path) -> None:
    """It writes to vmagent and reads from vmauth, as the NixOS module sets it up: a restart begins nothing anew."""
    ports, port, own = new_ports(), free_port(), free_port()
    shown = Shown(run, tmp_path, {"nodes": given(ports)})
    flags = [*shown.flags("victoria-metrics", "db1"), "-search.latencyOffset=0s"]
    nodes = [Node(tmp_path, name, node_port, flags) for name, node_port in ports.items()]
    vmagent = Vmagent(scraper_program("vmagent", "newer"), tmp_path, shown.flags("vmagent"))
    proxy = vmauth(vmauth_program(), tmp_path, shown.file("vmauth", tmp_path), shown.flags("vmauth"), port)
    rule: Json = {"alert": "Waits", "expr": 'vector(1) or sample{series="s1"}', "for": "1d"}
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "a", "interval": "1s", "rules": [rule]}]}))
    front, url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{own}"
    command = [scraper_program("vmalert", "newer"), f"-rule={tmp_path}/rules.json", f"-httpListenAddr=127.0.0.1:{own}"]
    command += [f"-datasource.url={front}", f"-remoteRead.url={front}", f"-remoteWrite.url={vmagent.url}"]
    vmalert = Server([*command, "-notifier.blackhole"], f"{url}/health", tmp_path / "vmalert.log")

    def began() -> set[str]:
        match get_json(f"{url}/api/v1/alerts"):
            case {"data": {"alerts": [{"activeAt": str(time)}]}}:
                return {time}
            case _:
                return set()

    def state(of: str) -> Json:
        found = get_json(f"{of}/api/v1/query?query=ALERTS_FOR_STATE")
        return [at(one, "metric") for one in listed(found, "data", "result")]

    wanted: Json = [{"__name__": "ALERTS_FOR_STATE", "alertname": "Waits", "alertgroup": "a"}]
    with running(*nodes, vmagent, proxy, vmalert):
        for of in (*(node.url for node in nodes), front):
            eventually(f"{of} has the state", lambda of=of: state(of) == wanted, WAIT_S)  # type: ignore[misc]
        first = began()
        assert first
        vmalert.stop()
        vmalert.start()
        eventually("vmalert has the alert again", lambda: began() == first, WAIT_S)


def test_a_browser_gets_the_pages_of_a_node(run: Run, tmp_path: Path) -> None:
    """Through vmauth, at the paths that a browser asks; and nothing else of the node."""
    ports, port = {"db1": free_port()}, free_port()
    shown = Shown(run, tmp_path, {"nodes": given(ports)})
    proxy = vmauth(vmauth_program(), tmp_path, shown.file("vmauth", tmp_path), shown.flags("vmauth"), port)
    front = f"http://127.0.0.1:{port}"
    with running(*nodes_of(shown, tmp_path, ports).values(), proxy):
        for path in ("/", "/vmui", "/vmui/", "/vmui/config.json", "/graph", "/graph/"):
            assert get(f"{front}{path}"), path
        for path in ("/vmuix", "/write", "/api/v1/admin/tsdb/delete_series"):
            assert post(f"{front}{path}", "") == 400, path


def test_prometheus_writes_to_each_store_of_the_list(run: Run, tmp_path: Path) -> None:
    """With the labels of Mimir, by which it keeps the samples of one server of a pair."""
    ports = {name: free_port() for name in ("one", "two")}
    storage: Json = {"engine": "remote-write", "nodes": given(ports), "cluster": "home"}
    shown = Shown(run, tmp_path, storage, server="mon1")
    nodes = {name: Node(tmp_path, name, port, ["-search.latencyOffset=0s"]) for name, port in ports.items()}
    port = free_port()
    config = shown.file("remote-write", tmp_path)
    target: Json = {"job_name": "own", "scrape_interval": "1s", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    config.write_text(f"{config.read_text()}scrape_configs: {json.dumps([target])}\n")
    command = [scraper_program("prometheus", "newer"), f"--config.file={config}"]
    command += [f"--storage.tsdb.path={tmp_path}/tsdb", f"--web.listen-address=127.0.0.1:{port}"]
    server = Server(command, f"http://127.0.0.1:{port}/-/ready", tmp_path / "prometheus.log")
    with running(*nodes.values(), server):
        wanted: Json = {
            "__name__": "up",
            "job": "own",
            "instance": f"127.0.0.1:{port}",
            "cluster": "home",
            "__replica__": "mon1",
        }
        for node in nodes.values():
            wait_for_series(node, wanted)
