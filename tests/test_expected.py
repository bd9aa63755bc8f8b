"""`clan_discovery_expected`: a series for each target, scraped or pushed; and the series of `verify`."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import msgspec
import pytest

from clan_discovery.emit.metrics import render
from clan_discovery.model import Counters, InputStatus, Report, Verdict, Verification, Verified
from tests.support.answering import resolution_of, target_of
from tests.support.fleet import inventory
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

STATIC: Json = {"lab": {"targets": {"node": ["10.0.0.7:9100", "10.0.0.8:9100"]}, "machines": {"db": ["10.0.0.5"]}}}


@pytest.fixture
def series(tmp_path: Path, run: Callable[..., Done]) -> Callable[..., list[str]]:
    """Return a function that returns the series of `refresh`, whose config has these `jobs`; promtool accepts them."""

    def call(jobs: Json, static: Json = STATIC) -> list[str]:
        config: Json = {
            "inventory": {"file": "inventory.json"},
            "backends": {"tailscale": {}, "static": static},
            "jobs": jobs,
            "output": {"directory": "targets"},
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "inventory.json").write_text(json.dumps(inventory(["db", "web"])))
        done = run("refresh", "-q", "-c", tmp_path / "config.json", "--metrics-file", tmp_path / "m.prom")
        assert done.code == 0, done.err
        return lines(checked((tmp_path / "m.prom").read_bytes()), "clan_discovery_expected{")

    return call


def checked(body: bytes) -> bytes:
    """Return metrics that promtool accepts."""
    promtool = [program("promtool"), "check", "metrics"]
    done = subprocess.run(promtool, input=body, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    return body


def lines(body: bytes, start: str) -> list[str]:
    """Return the series of a metric, without its name."""
    return [line.removeprefix(start) for line in body.decode().splitlines() if line.startswith(start)]


def expected(*targets: tuple[str, str, str]) -> list[str]:
    """Return the series of targets that this server scrapes: job, instance and machine of each."""
    return [
        f'delivery="pull",machine="{m}",patience="always",target_instance="{i}",target_job="{j}"}} 1.0'
        for j, i, m in targets
    ]


def test_each_target_has_a_series(series: Callable[..., list[str]]) -> None:
    """Seen or not, declared or listed."""
    hosts = ["10.0.0.7", "10.0.0.8", "db", "web"]
    assert series({}) == expected(*(("node", name, name) for name in hosts))


def test_series_have_the_labels_after_relabelling(series: Callable[..., list[str]]) -> None:
    """A rule may change job and instance. The machine is that of the inventory."""
    rules: Json = [
        {"source_labels": ["machine"], "regex": "10.*", "action": "drop"},
        {"source_labels": ["__meta_clan_exporter", "__scheme__", "__metrics_path__"], "target_label": "job"},
        {"source_labels": ["__address__"], "regex": "(.+):.*", "target_label": "instance"},
        {"source_labels": ["machine"], "target_label": "site"},
    ]
    first, second = series({"node": {"relabel_configs": rules}})
    assert [first] == expected(("node;http;/metrics", "10.0.0.5", "db"))
    assert 'machine="web"' in second


def test_target_without_instance_has_its_address(series: Callable[..., list[str]]) -> None:
    """As in Prometheus. One without an address is not scraped."""
    rules: Json = [
        {"regex": "instance", "action": "labeldrop"},
        {"source_labels": ["machine"], "regex": "web|10.*", "target_label": "__address__", "replacement": ""},
    ]
    assert series({"node": {"relabel_configs": rules}}) == expected(("node", "10.0.0.5:9100", "db"))


def test_two_targets_with_one_series(series: Callable[..., list[str]]) -> None:
    """A series that is written twice would cost node exporter all metrics of the file."""
    static: Json = {"lab": {"targets": {"node": ["10.0.0.7:9100", "10.0.0.7:9200"]}}}
    rules: Json = [{"target_label": "instance", "source_labels": ["machine"]}]
    found = series({"node": {"relabel_configs": rules}}, static)
    assert found == expected(("node", "10.0.0.7", "10.0.0.7"), ("node", "db", "db"), ("node", "web", "web"))


def test_shares_of_servers_are_disjoint_and_complete(series: Callable[..., list[str]]) -> None:
    shares: list[list[str]] = []
    for number in range(3):
        rules: Json = [
            {"source_labels": ["job", "instance"], "modulus": 3, "target_label": "__tmp", "action": "hashmod"},
            {"source_labels": ["__tmp"], "regex": str(number), "action": "keep"},
        ]
        shares.append(series({"node": {"relabel_configs": rules}}))
    assert sorted(line for share in shares for line in share) == series({})
    assert len([share for share in shares if share]) > 1


def test_expression_that_prometheus_cannot_read(tmp_path: Path, run: Callable[..., Done]) -> None:
    (tmp_path / "config.yaml").write_text("jobs: {node: {relabel_configs: [{regex: 'a(', action: drop}]}}\n")
    done = run("check", "-c", tmp_path / "config.yaml")
    assert done.code == 2
    assert "config.yaml:1:33: jobs.node.relabel_configs.0: invalid expression 'a(': missing ): a(" in done.err


def test_pushed_targets_have_series_that_no_rule_changes() -> None:
    """The rules belong to the scrape config of this server. The machine comes and goes."""
    target = target_of("node", 'di"no', "127.0.0.1:9100", instance='di"no')
    pushed = msgspec.structs.replace(target, delivery="push", patience="roaming")
    resolution = msgspec.structs.replace(resolution_of([target_of("node", "web", "10.0.0.1:9100")]), pushed=(pushed,))
    report = msgspec.structs.replace(
        REPORT, resolution=resolution, relabel={"node": [{"regex": ".*", "action": "drop", "source_labels": ["a"]}]}
    )
    body = checked(render(report))
    assert lines(body, "clan_discovery_expected{") == [
        'delivery="push",machine="di\\"no",patience="roaming",target_instance="di\\"no",target_job="node"} 1.0'
    ]
    assert lines(body, "clan_discovery_pushed_targets{") == ['job="node"} 1.0']
    assert lines(body, "clan_discovery_targets{") == ['job="node"} 1.0']


REPORT = Report(
    resolution=resolution_of(()),
    answered_at={},
    durations={},
    counters=Counters(),
    declared=0,
    version="1",
    now=0.0,
    config=InputStatus(ok=True, succeeded_at=0.0),
    inventory=InputStatus(ok=True, succeeded_at=0.0),
)


def verified(job: str, name: str, verdict: Verdict) -> Verified:
    return Verified(job=job, machine=name, instance=f"{name}:1", address="10.0.0.1:1", verdict=verdict)


def test_series_of_verify() -> None:
    """Each verdict is counted, also with 0. Only findings have a series of their own."""
    targets = (verified("node", 'd"b', Verdict.WRONG_MACHINE), verified("node", "web", Verdict.UP))
    found = Verification(at=7.0, targets=(*targets, targets[0], verified("blackbox", "web", Verdict.PENDING)))
    body = checked(render(msgspec.structs.replace(REPORT, verification=found, verify_interval=300.0)))
    counts = dict(line.split("} ") for line in lines(body, "clan_discovery_verify_targets{verdict="))
    assert {verdict: float(count) for verdict, count in counts.items() if float(count)} == {
        '"pending"': 1,
        '"up"': 1,
        '"wrong_machine"': 2,
    }
    assert len(counts) == len(Verdict)
    assert lines(body, "clan_discovery_verify_finding{") == [
        'machine="d\\"b",target_instance="d\\"b:1",target_job="node",verdict="wrong_machine"} 1.0'
    ]
    assert lines(body, "clan_discovery_verify_last_timestamp_seconds ") == ["7.0"]
    assert lines(body, "clan_discovery_verify_interval_seconds ") == ["300.0"]


def test_series_of_findings_are_bounded() -> None:
    """At most 100 of one verdict and job, of at most 1,000 such pairs. All are counted."""
    targets = [verified("node", f"m{number}", Verdict.NOT_READ) for number in range(1000)]
    targets += [verified(f"job{number}", "web", Verdict.DROPPED) for number in range(1500)]
    found = Verification(at=7.0, targets=tuple(targets))
    body = render(msgspec.structs.replace(REPORT, verification=found))
    findings = lines(body, "clan_discovery_verify_finding{")
    assert len([line for line in findings if 'target_job="node"' in line]) == 100
    assert len(findings) == 100 + 999
    assert 'verdict="not_read"} 1000.0' in body.decode()


def test_without_verify_there_are_no_series_of_it() -> None:
    assert b"verify" not in render(REPORT)
