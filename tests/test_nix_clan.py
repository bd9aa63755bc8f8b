"""Our clan service through clan-core's own code: what comes out is loaded by real scrapers, and is Python's truth."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest

from tests.support import clan
from tests.support.nix import ROOT, nixpkgs_lib, stored, text, value
from tests.support.programs import checkout, eventually, free_port, get_json, program, running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

OPEN = 'firewallInterfaces = [ "wg0" ];'
EXPORTERS = f"exporter = {{ {OPEN} }}; systemd = {{ {OPEN} }};"


def demo(tmp_path: Path, arguments: str) -> dict[str, Json]:
    """Evaluate the clan of tests/nix/service.nix with these settings."""
    clan_core = checkout("CLAN_CORE")
    found = value(
        f"""import {ROOT}/tests/nix/service.nix {{
          nixpkgsLib = {text(nixpkgs_lib())}; clanCore = {text(clan_core)}; directory = {text(str(tmp_path / "clan"))};
          {arguments}
        }}"""
    )
    assert isinstance(found, dict)
    return found


def machine(found: dict[str, Json], name: str) -> clan.Seen:
    """Return what one of its machines has."""
    machines = found["machines"]
    assert isinstance(machines, dict)
    return clan.seen(machines[name])


def raw_jobs(found: dict[str, Json], name: str) -> list[Json]:
    """Return the scrape configs as NixOS would write them."""
    match found["machines"]:
        case {**machines}:
            match machines[name]:
                case {"jobs": [*jobs]}:
                    return [_without_nulls(job) for job in jobs]
                case other:
                    raise AssertionError(other)
        case other:
            raise AssertionError(other)


def _without_nulls(document: Json) -> Json:
    if isinstance(document, Mapping):
        return {name: _without_nulls(inner) for name, inner in document.items() if inner is not None}
    if isinstance(document, list):
        return [_without_nulls(item) for item in document]
    return document


def groups_of(jobs: list[Json]) -> dict[str, list[str]]:
    """Return the groups that stand in jobs, by job, each as one text."""
    found: dict[str, list[str]] = {}
    for job in jobs:
        match job:
            case {"job_name": str(name), "static_configs": [*groups]}:
                found[name] = sorted(json.dumps(group, sort_keys=True) for group in groups)
            case other:
                raise AssertionError(other)
    return found


def files_of(directory: Path) -> dict[str, list[str]]:
    """Return the groups of target files in the same form."""
    return {
        file.stem: sorted(json.dumps(group, sort_keys=True) for group in json.loads(file.read_bytes()))
        for file in directory.glob("*.json")
    }


def refreshed(place: Path, run: Run, config: dict[str, Json]) -> dict[str, list[str]]:
    """Publish the targets of a config, and read them."""
    place.mkdir()
    (place / "config.json").write_text(json.dumps({**config, "output": {"directory": "targets"}, "state": "state"}))
    done = run("refresh", "-q", "-c", place / "config.json")
    assert done.code in (0, 3), done.err
    return files_of(place / "targets")


def test_one_truth_at_evaluation_and_at_run_time(tmp_path: Path, run: Run) -> None:
    """The jobs that clan-core's own evaluation gives hold the targets that Python finds in the same inventory."""
    found = demo(tmp_path, f'server = {{ {OPEN} staticTargets.nas = [ "nas:9100" ]; }}; {EXPORTERS}')
    for name in ("monitor", "backup"):
        assert machine(found, name).failed == []
    for part in ("inventory", "settings", "exports"):
        (tmp_path / f"{part}.json").write_text(json.dumps(found[part]))
    source: Json = {part: str(tmp_path / f"{part}.json") for part in ("settings", "exports")}
    assert isinstance(source, dict)
    config: dict[str, Json] = {"inventory": {"file": str(tmp_path / "inventory.json"), **source}, "server": "monitor"}
    at_evaluation = groups_of(raw_jobs(found, "monitor"))
    assert sorted(at_evaluation) == ["blackbox", "nas", "node", "postgres", "prometheus", "systemd"]
    assert refreshed(tmp_path / "python", run, config) == at_evaluation
    assert machine(found, "monitor").addresses("node") == [
        "backup.home.arpa:9100",
        "[fd00::5]:9100",
        "monitor.home.arpa:9100",
        "web.wg:9100",
    ]


def test_what_the_service_hands_to_python(tmp_path: Path, run: Run) -> None:
    """With somebody to ask: the same targets in files, of the jobs that the server reads, found at their addresses."""
    server = f'server = {{ {OPEN} discoveryMethod = "tailscale"; }}; {EXPORTERS}'
    at_run_time = demo(tmp_path, server)
    match at_run_time["rendered"]:
        case {
            "monitor": {"settings": {"inventory": {"file": str(inventory), "exports": str(exports)}, "server": name}}
        }:
            assert name == "monitor"
        case other:
            raise AssertionError(other)
    (tmp_path / "inventory.json").write_text(json.dumps(stored(inventory)))
    (tmp_path / "exports.json").write_text(json.dumps(stored(exports)))
    config: dict[str, Json] = {
        "inventory": {"file": str(tmp_path / "inventory.json"), "exports": str(tmp_path / "exports.json")},
        "server": "monitor",
    }
    files = refreshed(tmp_path / "unseen", run, config)
    jobs = machine(at_run_time, "monitor").jobs
    assert sorted(files) == sorted(job.job_name for job in jobs)
    assert {job.file_sd_configs[0].files[0].rsplit("/", 1)[1] for job in jobs} == {f"{name}.json" for name in files}
    # Nobody could be asked: what stands in the files is what an evaluation would have put into the jobs.
    nobody = demo(tmp_path, f"server = {{ {OPEN} }}; {EXPORTERS}")
    assert files == groups_of(raw_jobs(nobody, "monitor"))


def test_prometheus_loads_what_comes_out(tmp_path: Path) -> None:
    """Checked by promtool, started, and its targets are those of the jobs."""
    found = demo(tmp_path, f"server = {{ {OPEN} }}; {EXPORTERS}")
    jobs = raw_jobs(found, "monitor")
    config = tmp_path / "prometheus.yml"
    config.write_text(json.dumps({"scrape_configs": jobs}))
    done = subprocess.run(
        [program("promtool"), "check", "config", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert active(config, tmp_path / "one") == sorted(
        (name, json.loads(group)["labels"]["instance"]) for name, groups in groups_of(jobs).items() for group in groups
    )


def active(config: Path, place: Path) -> list[tuple[str, str]]:
    """Start a Prometheus with a config, and return job and instance of each of its targets."""
    place.mkdir()
    port = free_port()
    words = [program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={place}/data"]
    words.append(f"--web.listen-address=127.0.0.1:{port}")
    with running(words, place / "log"):

        def targets() -> list[tuple[str, str]]:
            match get_json(f"http://127.0.0.1:{port}/api/v1/targets?state=active"):
                case {"data": {"activeTargets": [*found]}}:
                    labels = [target["labels"] for target in found if isinstance(target, dict)]
                    return sorted((str(of["job"]), str(of["instance"])) for of in labels if isinstance(of, dict))
                case other:
                    raise AssertionError(other)

        eventually("prometheus has targets", lambda: bool(targets()), 60)
        return targets()


def test_two_servers_share_the_targets(tmp_path: Path) -> None:
    """Each target at exactly one of two real Prometheus, but for the servers' own metrics, which are at both."""
    found = demo(tmp_path, f'server = {{ {OPEN} sharding = "hashmod"; }}; {EXPORTERS}')
    everything = sorted(
        (name, json.loads(group)["labels"]["instance"])
        for name, groups in groups_of(
            raw_jobs(demo(tmp_path, f"server = {{ {OPEN} }}; {EXPORTERS}"), "monitor")
        ).items()
        for group in groups
    )
    shares: list[list[tuple[str, str]]] = []
    for name in ("backup", "monitor"):
        config = tmp_path / f"{name}.yml"
        config.write_text(json.dumps({"scrape_configs": raw_jobs(found, name)}))
        shares.append(active(config, tmp_path / name))
    own = [target for target in everything if target[0] == "prometheus"]
    first, second = ([target for target in share if target not in own] for share in shares)
    assert [target for target in shares[0] if target in own] == own == [t for t in shares[1] if t in own]
    assert sorted([*first, *second, *own]) == everything
    assert first
    assert second


@pytest.mark.parametrize("backend", ["victoriametrics", "vmagent"])
def test_vmagent_takes_what_comes_out(backend: str, tmp_path: Path) -> None:
    """As VictoriaMetrics and vmagent read it, strictly."""
    more = 'remoteWrite = [ { url = "http://127.0.0.1:9/w"; } ];' if backend == "vmagent" else ""
    found = demo(tmp_path, f'server = {{ {OPEN} backend = "{backend}"; sharding = "hashmod"; {more} }}; {EXPORTERS}')
    assert machine(found, "monitor").failed == []
    match found[backend]:
        case {"monitor": {"prometheusConfig": document}} | {"monitor": document}:
            pass
        case other:
            raise AssertionError(other)
    config = tmp_path / "vmagent.yml"
    config.write_text(json.dumps(document))
    words = [program("vmagent"), f"-promscrape.config={config}", "-dryRun", "-promscrape.config.strictParse=true"]
    words += ["-remoteWrite.url=http://127.0.0.1:9/", f"-remoteWrite.tmpDataPath={tmp_path}/vm"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, env={**os.environ})
    assert done.returncode == 0, done.stdout + done.stderr


def test_vmagent_scrapes_where_overlays_are(tmp_path: Path) -> None:
    """With the flags that the service gives: an address of IPv6 is scraped, which vmagent leaves alone otherwise."""
    server = f'server = {{ {OPEN} backend = "vmagent"; remoteWrite = [ {{ url = "http://127.0.0.1:9/w"; }} ]; }};'
    match demo(tmp_path, f"{server} {EXPORTERS}")["vmagent"]:
        case {"monitor": {"extraArgs": [*flags]}}:
            pass
        case other:
            raise AssertionError(other)
    port, own = free_port(), free_port()
    config = tmp_path / "vmagent.yml"
    targets = [f"[::1]:{port}"]
    job: Json = {"job_name": "six", "scrape_interval": "1s", "static_configs": [{"targets": targets}]}
    config.write_text(json.dumps({"scrape_configs": [job]}))
    exporter = [program("prometheus-node-exporter"), f"--web.listen-address=[::1]:{port}"]
    agent = [program("vmagent"), f"-promscrape.config={config}", f"-httpListenAddr=127.0.0.1:{own}", *map(str, flags)]
    agent += ["-remoteWrite.url=http://127.0.0.1:9/w", f"-remoteWrite.tmpDataPath={tmp_path}/vm"]
    with running(exporter, tmp_path / "exporter.log"), running(agent, tmp_path / "vmagent.log"):

        def health() -> Json:
            match get_json(f"http://127.0.0.1:{own}/api/v1/targets"):
                case {"data": {"activeTargets": [{"health": found}]}}:
                    return found
                case _:
                    return None

        eventually("vmagent scrapes it", lambda: health() == "up", 30)


def test_todays_inventory_without_a_change(tmp_path: Path) -> None:
    """The inventory of today's service's own documentation, with its settings as they stand there."""
    server = """server = { enableAutoDiscovery = true; discoveryMethod = "tailscale"; port = 9090;
      retentionTime = "30d"; rules = [ ]; additionalScrapeConfigs = [ { job_name = "external-service";
        static_configs = [ { targets = [ "api.example.com:9090" ]; } ]; } ]; };"""
    exporter = """exporter = { exporterType = "node"; port = 9100;
      enabledCollectors = [ "systemd" "cpu" "memory" "disk" "network" ]; };"""
    found = demo(tmp_path, f"{server} {exporter} documented = true;")
    for name in ("backup", "db", "monitor", "web"):
        assert machine(found, name).failed == []
        assert machine(found, name).exporters["node"].port == 9100
    assert machine(found, "monitor").names() == ["prometheus", "node", "systemd", "external-service"]
    assert machine(found, "monitor").ports() == {"tailscale0": [9090, 9100]}
    assert machine(found, "monitor").everywhere == []


def test_what_clan_core_says_of_the_service(tmp_path: Path) -> None:
    """Its interfaces become JSON schemas, its checks are empty; a darwin machine is refused where it is built."""
    found = demo(tmp_path, f"server = {{ {OPEN} }}; {EXPORTERS}")
    assert (found["checks"], found["darwin"]) == ([], [])
    match found["schemas"]:
        case {"clan-discovery-prometheus": schemas}:
            assert schemas == ["exporter", "server"]
        case other:
            raise AssertionError(other)
    everywhere = demo(
        tmp_path, f"server = {{ {OPEN} }}; {EXPORTERS} inventory.instances.monitoring.roles.exporter.tags.all = {{ }};"
    )
    match everywhere["darwin"]:
        case [str(said)]:
            assert "the darwin machine mac" in said
        case other:
            raise AssertionError(other)
