"""The shipped rules in real Prometheus servers, which read what they should scrape from real `run` processes.

Two servers share the targets. One reads the metrics from the listener of `run`, the other through node exporter.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest
import yaml

from tests.stack.exporters import Answers, node_metrics, serving
from tests.support.fleet import inventory
from tests.support.programs import eventually, free_port, get, get_json, program, running
from tests.support.rules import shipped, write_group
from tests.test_run import log_of, resident

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

LONGEST_S: Final = 150.0
HOSTS: Final = {f"m{number}": f"127.0.0.{number + 11}" for number in range(8)}


@dataclass
class Server:
    """A server: its `run`, and its Prometheus with the shipped rules, which wait for nothing.

    `jobs` are the scrape configs that `show` prints, `own` is where Prometheus reads the metrics of `run`.
    """

    place: Path
    number: int
    node: int
    port: int
    own: str
    process: subprocess.Popen[bytes]
    jobs: list[dict[str, Json]] = field(default_factory=list[dict[str, "Json"]])

    @property
    def name(self) -> str:
        """The name of its machine."""
        return f"monitor{self.number}"

    def write(self, jobs: Sequence[Mapping[str, Json]]) -> None:
        """Write the config of Prometheus with these jobs."""
        labels = {"instance": self.name, "machine": self.name}
        own: Json = {"job_name": "own", "static_configs": [{"targets": [self.own], "labels": labels}]}
        timing: Json = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        document: Json = {"global": timing, "rule_files": ["rules.json"], "scrape_configs": [own, *jobs]}
        (self.place / "prometheus.json").write_text(json.dumps(document))

    def scrape(self, jobs: Sequence[Mapping[str, Json]]) -> None:
        """Let Prometheus scrape these jobs from now on."""
        self.write(jobs)
        self.process.send_signal(signal.SIGHUP)

    def api(self, path: str) -> Json:
        """Return the data of an answer of Prometheus."""
        match get_json(f"http://127.0.0.1:{self.port}/api/v1/{path}"):
            case {"data": data}:
                return data
            case other:
                raise AssertionError(other)

    def active(self) -> set[str]:
        """Return the machines of job node that it scrapes."""
        match self.api("targets?state=active"):
            case {"activeTargets": [*targets]}:
                found = [target["labels"] for target in targets if isinstance(target, dict)]
                return {
                    str(labels["machine"]) for labels in found if isinstance(labels, dict) and labels["job"] == "node"
                }
            case other:
                raise AssertionError(other)

    def expected(self) -> set[str]:
        """Return the machines of `clan:expected`."""
        match self.api("query?query=clan:expected"):
            case {"result": [*samples]}:
                found = [sample["metric"] for sample in samples if isinstance(sample, dict)]
                return {str(labels["machine"]) for labels in found if isinstance(labels, dict)}
            case other:
                raise AssertionError(other)

    def waits_for(self, alerts: set[tuple[str, ...]], *others: Server) -> None:
        """Wait until these alerts fire, and no others; meanwhile, the other servers alert on none of its targets.

        Without their waits, alerts also fire for a moment where a busy machine answers a scrape late.
        """
        own = down(*self.active())

        def fire() -> bool:
            assert [one.alerts() & own for one in others] == [set() for _ in others]
            return self.alerts() == alerts

        eventually(f"{sorted(alerts)} fire at {self.name}", fire, LONGEST_S)

    def expects_targets(self) -> bool:
        """Tell whether it knows what it should scrape."""
        return bool(self.expected())

    def has_its_share(self) -> bool:
        """Tell whether it scrapes targets, and expects the same."""
        return bool(self.active()) and self.expected() == self.active()

    def alerts(self) -> set[tuple[str, ...]]:
        """Return the firing alerts: the name, and the labels job, instance and machine."""
        match self.api("alerts"):
            case {"alerts": [*alerts]}:
                firing = [alert["labels"] for alert in alerts if isinstance(alert, dict) and alert["state"] == "firing"]
                names = ("alertname", "job", "instance", "machine")
                return {
                    tuple(str(labels.get(name, "-")) for name in names) for labels in firing if isinstance(labels, dict)
                }
            case other:
                raise AssertionError(other)


def down(*machines: str) -> set[tuple[str, ...]]:
    """Return the alerts on targets that are down."""
    return {("TargetDown", "node", machine, machine) for machine in machines}


def write_rules(place: Path) -> None:
    """Write the shipped rules without what they wait for."""
    write_group(place / "rules.json", shipped())


def write_config(place: Path, node: int, **settings: Json) -> Path:
    """Write a config whose machines have a node exporter at this port; return it."""
    document = inventory([*HOSTS])
    match document:
        case {"instances": {"monitoring": {"roles": {"server": dict(role)}}}}:
            role["machines"] = {"m0": {"settings": {"scrapeServers": False}}}
        case other:
            raise AssertionError(other)
    (place / "inventory.json").write_text(json.dumps(document))
    config: Json = {
        "inventory": {"file": "inventory.json"},
        "backends": {"static": {"lab": {"machines": HOSTS}}},
        "exporters": {"node": {"port": node}},
        "output": {"directory": "targets"},
        **settings,
    }
    (place / "config.yaml").write_text(json.dumps(config))
    return place / "config.yaml"


def share(number: int) -> Json:
    """Return `jobs` of a config with which a server scrapes its share of two."""
    hashed: Json = {
        "source_labels": ["job", "instance"],
        "modulus": 2,
        "target_label": "__tmp_shard",
        "action": "hashmod",
    }
    kept: Json = {"source_labels": ["__tmp_shard"], "regex": str(number), "action": "keep"}
    return {"node": {"relabel_configs": [hashed, kept]}}


@contextlib.contextmanager
def server(
    place: Path,
    run: Callable[..., Done],
    node: int,
    number: int,
    *,
    textfile: bool,
    words: Sequence[str] = (),
    **settings: Json,
) -> Generator[Server]:
    """Run a server."""
    place.mkdir()
    port, own = free_port(), free_port()
    verify: Json = {"scrapers": {"prometheus": {"url": f"http://127.0.0.1:{port}"}}}
    config = write_config(place, node, verify=verify, **settings)
    write_rules(place)
    done = run("show", "-c", config, "--format", "scrape-config")
    assert done.code == 0, done.err
    jobs = yaml.safe_load(done.out)["scrape_configs"]
    with contextlib.ExitStack() as stack:
        if textfile:
            metrics = ["--metrics-file", f"{place}/text/clan.prom"]
            (place / "text").mkdir()
            exporter = [program("prometheus-node-exporter"), "--collector.disable-defaults", "--collector.textfile"]
            exporter += [f"--collector.textfile.directory={place}/text", f"--web.listen-address=127.0.0.1:{own}"]
            stack.enter_context(running(exporter, place / "node-exporter.log"))
        else:
            metrics = ["--metrics-listen", f"127.0.0.1:{own}"]
        stack.enter_context(resident(config, "--interval", "1s", *metrics, *words))
        eventually("the targets are written", (place / "targets/node.json").exists, LONGEST_S)
        made = Server(place, number, node, port, f"127.0.0.1:{own}", stack.enter_context(prometheus(place, port)), jobs)
        yield made


@contextlib.contextmanager
def prometheus(place: Path, port: int) -> Generator[subprocess.Popen[bytes]]:
    """Run a Prometheus, which has no jobs yet."""
    (place / "prometheus.json").write_text("{}")
    command = [program("prometheus"), f"--config.file={place}/prometheus.json", f"--storage.tsdb.path={place}/tsdb"]
    with running([*command, f"--web.listen-address=127.0.0.1:{port}"], place / "prometheus.log") as process:
        eventually("Prometheus answers", lambda: bool(get(f"http://127.0.0.1:{port}/-/ready")), LONGEST_S)
        yield process


class Exporters:
    """The exporters of all machines, and what they answer."""

    def __init__(self, port: int, stack: contextlib.ExitStack) -> None:
        self.port = port
        self.answers: dict[str, Answers] = {}
        for machine, host in HOSTS.items():
            answers = Answers(body=node_metrics(machine))
            self.answers[machine] = stack.enter_context(serving(host, port, answers))


@pytest.fixture
def exporters() -> Generator[Exporters]:
    """Run an exporter on each machine."""
    with contextlib.ExitStack() as stack:
        yield Exporters(free_port(), stack)


def test_each_server_alerts_on_its_own_targets_alone(
    tmp_path: Path, run: Callable[..., Done], exporters: Exporters
) -> None:
    """First no target is read, then each one is up, then one of each share is down."""
    with (
        server(tmp_path / "a", run, exporters.port, 0, textfile=False, jobs=share(0)) as a,
        server(tmp_path / "b", run, exporters.port, 1, textfile=True, jobs=share(1)) as b,
    ):
        for one in (a, b):
            one.scrape([])
            eventually("it expects its share", one.expects_targets, LONGEST_S)
            one.waits_for(down(*one.expected()))
        for one in (a, b):
            one.scrape(one.jobs)
            eventually("it expects what it scrapes", one.has_its_share, LONGEST_S)
            one.waits_for(set())
        assert a.active() | b.active() == set(HOSTS)
        assert not a.active() & b.active()
        for one, other in ((a, b), (b, a)):
            machine = min(one.active())
            exporters.answers[machine].status = 503
            one.waits_for(down(machine), other)
            other.waits_for(set(), one)
            exporters.answers[machine].status = 200
            one.waits_for(set(), other)


def test_findings_of_verify_are_alerts(tmp_path: Path, run: Callable[..., Done], exporters: Exporters) -> None:
    """A job is not in Prometheus's config, and another machine answers at an address: each has its own alert."""
    static: Json = {"lab": {"machines": HOSTS, "targets": {"lamps": ["127.0.0.1:1"]}}}
    exporters.answers["m1"].body = node_metrics("attic")
    words = ("--verify-interval", "10s")
    with server(tmp_path / "a", run, exporters.port, 0, textfile=True, words=words, backends={"static": static}) as a:
        a.scrape([job for job in a.jobs if job["job_name"] == "node"])
        alerts: set[tuple[str, ...]] = {
            ("JobNotRead", "lamps", a.name, "-"),
            ("TargetDown", "lamps", "127.0.0.1", "127.0.0.1"),
            ("IdentityMismatch", "node", "m1", "m1"),
        }
        a.waits_for(alerts)
        exporters.answers["m1"].body = node_metrics("m1")
        a.waits_for({alert for alert in alerts if alert[0] != "IdentityMismatch"})
        # Each is logged when it begins and when it ends, which a busy machine can make happen twice.
        log = log_of(a.place / "config.yaml")
        for finding, left in (("wrong_machine job=node instance=m1", 0), ("not_read job=lamps", 1)):
            begun, ended = (log.count(f"msg={what} verdict={finding}") for what in ("finding", '"finding ended"'))
            assert begun > 0
            assert begun - ended == left


def rounds(listener: str) -> float:
    """Return how many refresh cycles were published."""
    lines = get(f"http://{listener}/metrics").decode().splitlines()
    (value,) = (line for line in lines if line.startswith("clan_discovery_rounds_total"))
    return float(value.split()[1])


def test_scraper_that_hangs_delays_no_cycle(tmp_path: Path, exporters: Exporters) -> None:
    """It accepts connections and never answers. `run` does not wait for it when it stops."""
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        verify: Json = {"scrapers": {"hanging": {"url": url}}, "timeout": "10m"}
        config = write_config(tmp_path, exporters.port, verify=verify)
        own = f"127.0.0.1:{free_port()}"
        words = ("--interval", "1s", "--metrics-listen", own, "--verify-interval", "10s")
        with resident(config, *words) as process:
            hanging.settimeout(LONGEST_S)
            connection, _ = hanging.accept()
            with connection:
                before = rounds(own)
                eventually("cycles go on", lambda: rounds(own) >= before + 3)
                assert b"clan_discovery_verify_last_timestamp_seconds" not in get(f"http://{own}/metrics")
                process.send_signal(signal.SIGTERM)
                assert process.wait(LONGEST_S) == 0
