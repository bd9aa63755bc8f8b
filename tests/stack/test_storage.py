"""Three VictoriaMetrics nodes, set up by what `show` prints alone: one ends in the middle, and no sample is lost."""

from __future__ import annotations

import contextlib
import json
import math
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlencode

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
Scraped: TypeAlias = tuple[frozenset[tuple[str, str]], int]
"""The labels of a series, and a time in milliseconds."""
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


def prometheus(place: Path, name: str, port: int, config: Path, *flags: str) -> Server:
    """Return a Prometheus with a config."""
    command = [scraper_program("prometheus", "newer"), f"--config.file={config}", *flags]
    command += [f"--storage.tsdb.path={place}/{name}", f"--web.listen-address=127.0.0.1:{port}"]
    return Server(command, f"http://127.0.0.1:{port}/-/ready", place / f"{name}.log")


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


def read(url: str, **labels: str) -> dict[Scraped, float]:
    """Return all samples of the job `own`, with further labels. NaN is left out, as VictoriaMetrics does."""
    words = urlencode({"query": '{job="own"}[1h]'})
    found: dict[Scraped, float] = {}
    for each in listed(get_json(f"{url}/api/v1/query?{words}"), "data", "result"):
        series = frozenset({**plain(at(each, "metric")), **labels}.items())
        for sample in listed(each, "values"):
            assert isinstance(sample, list)
            time, value = (float(str(part)) for part in sample)
            if not math.isnan(value):
                found[series, round(time * 1000)] = value
    return found


def missing(written: dict[Scraped, float], url: str) -> list[tuple[Scraped, float, float | None]]:
    """Return the samples that a store lacks or has with another value: what was written, and what is there.

    VictoriaMetrics keeps fewer digits of a small value if a series has large ones, too.
    """
    found = read(url)
    return [
        (sample, value, found.get(sample))
        for sample, value in written.items()
        if not math.isclose(found.get(sample, math.nan), value, rel_tol=1e-6, abs_tol=1e-9)
    ]


def is_complete(written: dict[Scraped, float], url: str) -> bool:
    """Tell whether a store has every sample."""
    return not missing(written, url)


def plain(labels: Json) -> dict[str, str]:
    """Return labels as text."""
    assert isinstance(labels, dict)
    return {name: str(value) for name, value in labels.items()}


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

    def has_state(of: str) -> bool:
        found = get_json(f"{of}/api/v1/query?query=ALERTS_FOR_STATE")
        return [at(one, "metric") for one in listed(found, "data", "result")] == wanted

    wanted: Json = [{"__name__": "ALERTS_FOR_STATE", "alertname": "Waits", "alertgroup": "a"}]
    with running(*nodes, vmagent, proxy, vmalert):
        for of in (*(node.url for node in nodes), front):
            eventually(f"{of} has the state", partial(has_state, of), WAIT_S)
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


def test_prometheus_writes_every_sample_to_each_store(run: Run, tmp_path: Path) -> None:
    """With the labels of Mimir, to another Prometheus, which is killed meanwhile, and to VictoriaMetrics."""
    ports = {name: free_port() for name in ("one", "two")}
    storage: Json = {"engine": "remote-write", "nodes": given(ports), "cluster": "home"}
    shown = Shown(run, tmp_path, storage, server="mon1")
    port = free_port()
    config = shown.file("remote-write", tmp_path)
    target: Json = {"job_name": "own", "scrape_interval": "1s", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    config.write_text(f"{config.read_text()}scrape_configs: {json.dumps([target])}\n")
    empty = tmp_path / "empty.yml"
    empty.write_text("{}")
    one = prometheus(tmp_path, "one", ports["one"], empty, "--web.enable-remote-write-receiver")
    two = Node(tmp_path, "two", ports["two"], ["-search.latencyOffset=0s"])
    server = prometheus(tmp_path, "server", port, config)
    url, labels = f"http://127.0.0.1:{port}", {"cluster": "home", "__replica__": "mon1"}
    stores = [f"http://127.0.0.1:{own}" for own in ports.values()]

    def scrapes() -> int:
        return sum(("__name__", "up") in series for series, _ in read(url))

    def wait_for_scrapes(count: int) -> None:
        most = scrapes() + count
        eventually(f"{count} scrapes", lambda: scrapes() >= most, WAIT_S)

    def wait_for_samples(*urls: str) -> None:
        written = read(url, **labels)
        for store in urls:
            with contextlib.suppress(pytest.fail.Exception):
                eventually("it has every sample", partial(is_complete, written, store), WAIT_S)
            assert missing(written, store)[:3] == []

    with running(one, two, server):
        wait_for_scrapes(5)
        wait_for_samples(*stores)
        one.kill()
        wait_for_scrapes(5)
        wait_for_samples(stores[1])
        one.start()
        wait_for_scrapes(5)
        wait_for_samples(*stores)
        found = [read(store).keys() for store in stores]
        written = read(url, **labels).keys()
        assert all(samples <= written for samples in found)
