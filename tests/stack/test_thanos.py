"""Three Thanos receivers, set up by what `show` prints alone: one is killed, and the query reads every sample."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import pytest

from tests.stack.storage import SERIES, WAIT_S, Server, Shown, Vmagent, recent_times, running, vmauth, vmauth_program
from tests.support.builds import NotBuiltError, thanos
from tests.support.programs import absent, eventually, free_port, get_json, scraper_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done
    from tests.stack.storage import Sample

    Run = Callable[..., Done]

NAMES: Final = ("db1", "db2", "db3")
_BEFORE, _DURING, _AFTER = slice(0, 10), slice(10, 20), slice(20, 30)
_QUERY_S: Final = 3600


def thanos_program() -> str:
    """Return thanos, from the environment or the pinned build, or skip the test."""
    variable = "CLAN_DISCOVERY_THANOS"
    found = os.environ.get(variable)
    if found == "":
        absent(variable, "empty (the path of thanos)", required=False)
    try:
        return found or str(thanos())
    except NotBuiltError as error:
        absent(variable, f"not set, and {error}", required=False)


class Receivers:
    """The storage of a config with three receivers, and the vmauth that passes writes to them."""

    def __init__(self, place: Path, run: Run, **others: Json) -> None:
        self._path = thanos_program()
        ports = {name: (free_port(), free_port()) for name in NAMES}
        self._run = run
        self._place = place
        self._port = free_port()
        self._nodes: Json = {
            name: {"address": "127.0.0.1", "port": write, "read_port": read} for name, (write, read) in ports.items()
        }
        shown = self.shown(**others)
        hashring = shown.file("thanos-hashring", place)
        self.nodes = {name: self._receiver(shown, hashring, name, *ports[name]) for name in NAMES}
        config = shown.file("vmauth", place)
        self.proxy = vmauth(vmauth_program(), place, config, shown.flags("vmauth"), self._port)
        self._query_port = free_port()
        command = [self._path, "query", f"--http-address=127.0.0.1:{self._query_port}"]
        command += [f"--grpc-address=127.0.0.1:{free_port()}", *shown.flags("thanos query")]
        self.query = Server(command, f"http://127.0.0.1:{self._query_port}/-/ready", place / "query.log")

    def shown(self, **others: Json) -> Shown:
        """Return what `show` prints of the storage, with other keys of the config."""
        url = f"http://127.0.0.1:{self._port}/api/v1/receive"
        storage: Json = {"engine": "thanos", "nodes": self._nodes, "write_url": url}
        return Shown(self._run, self._place, storage, **others)

    def _receiver(self, shown: Shown, hashring: Path, name: str, write: int, read: int) -> Server:
        port = free_port()
        command = [self._path, "receive", f"--tsdb.path={self._place}/{name}"]
        command += [f"--http-address=127.0.0.1:{port}", f"--grpc-address=127.0.0.1:{read}"]
        command += [f"--remote-write.address=127.0.0.1:{write}", f"--receive.capnproto-address=127.0.0.1:{free_port()}"]
        command += [f"--receive.hashrings-file={hashring}", *shown.flags("thanos receive", name)]
        return Server(command, f"http://127.0.0.1:{port}/-/ready", self._place / f"{name}.log")

    def ask(self, query: str, *, dedup: bool = True) -> list[dict[str, Json]]:
        """Return the series that the query gives."""
        words = urlencode({"query": query, "dedup": str(dedup).lower()})
        match get_json(f"http://127.0.0.1:{self._query_port}/api/v1/query?{words}"):
            case {"data": {"result": list(found)}}:
                return [series for series in found if isinstance(series, dict)]
            case other:
                raise AssertionError(other)

    def replicas(self, name: str, *, dedup: bool) -> set[str]:
        """Return the label `replica` of each series of a metric; empty for one that lacks it."""
        found: set[str] = set()
        for each in self.ask(name, dedup=dedup):
            match each:
                case {"metric": dict(labels)}:
                    assert (labels["__name__"], labels["job"]) == (name, "target")
                    found.add(str(labels.get("replica", "")))
                case other:
                    raise AssertionError(other)
        return found

    def scrapes(self) -> int:
        """Return how many samples `up` has, read as one series."""
        match self.ask(f"count_over_time(up[{_QUERY_S}s])"):
            case [{"value": [_, str(count)]}]:
                return int(count)
            case other:
                raise AssertionError(other)

    def samples(self, *, dedup: bool = True) -> list[Sample]:
        """Return the samples that the query gives, sorted; a sample that it gives twice is there twice."""
        found: list[Sample] = []
        for each in self.ask(f"sample[{_QUERY_S}s]", dedup=dedup):
            match each:
                case {"metric": {"series": str(series)}, "values": list(values)}:
                    times = [value[0] for value in values if isinstance(value, list)]
                    found += [(series, round(float(str(at)))) for at in times]
                case other:
                    raise AssertionError(other)
        return sorted(found)

    def copies(self, samples: set[Sample]) -> list[int]:
        """Return how often each of these samples is stored."""
        found = Counter(self.samples(dedup=False))
        return [found[sample] for sample in samples]


@pytest.fixture
def receivers(run: Run, tmp_path: Path) -> Receivers:
    """Return three receivers of one server."""
    return Receivers(tmp_path, run, server="mon1")


def test_three_copies_survive_the_loss_of_a_receiver(receivers: Receivers, tmp_path: Path) -> None:
    """At every moment: each sample that was read once stays readable, and is there once."""
    times = recent_times(30)
    flags = receivers.shown(server="mon1").flags("vmagent")
    vmagent = Vmagent(scraper_program("vmagent", "newer"), tmp_path, flags)
    with running(*receivers.nodes.values(), receivers.proxy, receivers.query, vmagent):
        written = vmagent.write(times[_BEFORE])
        eventually("the query reads every sample", lambda: receivers.samples() == sorted(written), WAIT_S)
        # A write succeeds once two of three receivers have it. A third one may miss it for good: on a busy machine,
        # one that answers /-/ready still refuses the first samples ("TSDB not ready").
        eventually("two copies of each", lambda: min(receivers.copies(written)) >= 2, WAIT_S)
        before = set(written)
        receivers.nodes["db1"].kill()
        written |= vmagent.write(times[_DURING])
        eventually("without one receiver, too: stored", lambda: set(receivers.samples(dedup=False)) == written, WAIT_S)
        eventually("without one receiver, too: read", lambda: receivers.samples() == sorted(written), WAIT_S)
        receivers.nodes["db1"].start()
        assert before <= set(receivers.samples())
        written |= vmagent.write(times[_AFTER])
        eventually("and with it again: stored", lambda: set(receivers.samples(dedup=False)) == written, WAIT_S)
        eventually("and with it again: read", lambda: receivers.samples() == sorted(written), WAIT_S)
        assert len(written) == 30 * SERIES


def test_a_pair_of_servers_is_read_as_one(run: Run, tmp_path: Path) -> None:
    """Prometheus and vmagent scrape the same target and write the label `replica`, which the query removes."""
    names = ("mon1", "mon2")
    shard: dict[str, Json] = {"members": [*names], "replicas": 2}
    receivers = Receivers(tmp_path, run, shard={**shard, "member": "mon1"})
    port = free_port()
    targets: Json = [{"targets": [f"127.0.0.1:{port}"]}]
    job: Json = {"job_name": "target", "scrape_interval": "1s", "static_configs": targets}
    config = receivers.shown(shard={**shard, "member": "mon1"}).file("remote-write", tmp_path)
    config.write_text(f"{config.read_text()}scrape_configs: {json.dumps([job])}\n")
    command = [scraper_program("prometheus", "newer"), f"--config.file={config}"]
    command += [f"--storage.tsdb.path={tmp_path}/tsdb", f"--web.listen-address=127.0.0.1:{port}"]
    prometheus = Server(command, f"http://127.0.0.1:{port}/-/ready", tmp_path / "prometheus.log")
    shown = receivers.shown(shard={**shard, "member": "mon2"})
    own: Json = {"global": {"external_labels": shown.external_labels}, "scrape_configs": [job]}
    (tmp_path / "scrape.yml").write_text(json.dumps(own))
    flags = [f"-promscrape.config={tmp_path}/scrape.yml", *shown.flags("vmagent")]
    vmagent = Vmagent(scraper_program("vmagent", "newer"), tmp_path, flags)
    with running(*receivers.nodes.values(), receivers.proxy, receivers.query, prometheus, vmagent):
        eventually("both servers write", lambda: receivers.replicas("up", dedup=False) == {*names}, WAIT_S)
        # It has labels before and behind those of the target: each program sorts them.
        metric = "prometheus_build_info"
        eventually("all labels pass", lambda: receivers.replicas(metric, dedup=False) == {*names}, WAIT_S)
        eventually("they are read as one", lambda: receivers.replicas("up", dedup=True) == {""}, WAIT_S)
        assert len(receivers.ask("up")) == 1
        prometheus.kill()
        written = receivers.scrapes()
        eventually("the series goes on", lambda: receivers.scrapes() > written + 2, WAIT_S)
        assert len(receivers.ask("up")) == 1
