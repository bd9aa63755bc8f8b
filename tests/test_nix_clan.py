"""Our clan service with real clan-core (tests/nix/clan-tests.nix), and real programs that read its results."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support.nix import ROOT, at, listed, nixpkgs_lib, stored, text, value, without_nulls
from tests.support.programs import checkout, eventually, free_port, get_json, program, running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

LINKED = "/etc/clan-discovery/targets"


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Json:
    """Evaluate all clans in one process."""
    library = nixpkgs_lib()
    arguments = f"nixpkgsLib = {text(library)}; clanCore = {text(checkout('CLAN_CORE'))};"
    directory = text(str(tmp_path_factory.mktemp("clan")))
    clans = f"import {ROOT}/tests/nix/clan-tests.nix {{ {arguments} directory = {directory}; }}"
    return value(f"let c = {clans}; in {{ failed = (import {library}).runTests c.tests; inherit (c) data; }}")


@pytest.fixture
def data(evaluated: Json) -> Json:
    """Return the data of clan-tests.nix for programs."""
    return at(evaluated, "data")


def place(discovery: Json, directory: Path) -> Path:
    """Write a server's config and the files that it names into a new directory; return it."""
    directory.mkdir()
    for name, option in (("inventory", "file"), ("exports", "exports")):
        source = stored(str(at(discovery, "settings", "inventory", option)))
        (directory / f"{name}.json").write_text(json.dumps(source))
    inventory: Json = {"file": "inventory.json", "exports": "exports.json"}
    server = at(discovery, "settings", "server")
    config: Json = {"inventory": inventory, "server": server, "output": {"directory": "targets"}}
    (directory / "config.json").write_text(json.dumps(config))
    return directory / "config.json"


def files_of(directory: Path) -> dict[str, bytes]:
    """Return the target files of a directory, by job."""
    return {file.stem: file.read_bytes() for file in directory.glob("*.json")}


def rendered(discovery: Json, directory: Path, run: Run) -> dict[str, bytes]:
    """Render as the build does; return the files."""
    words = [word for job in listed(discovery, "jobs") for word in ("--job", job)]
    done = run("render", "-c", place(discovery, directory), "--output", directory / "rendered", *words)
    assert (done.code, done.err) == (0, "")
    return files_of(directory / "rendered")


def test_the_configuration_of_each_machine(evaluated: Json) -> None:
    """Jobs, ports, assertions, inventories of today's service, and the steps of docs/migrating.md."""
    assert at(evaluated, "failed") == []


def test_build_and_refresh_give_the_same_files(data: Json, tmp_path: Path, run: Run) -> None:
    """For the reduced inventory of the service and the full one of clan-core."""
    for name in ("inventory", "settings", "exports"):
        (tmp_path / f"{name}.json").write_text(json.dumps(at(data, name)))
    source: Json = {"file": "inventory.json", "settings": "settings.json", "exports": "exports.json"}
    config: Json = {"inventory": source, "server": "monitor", "output": {"directory": "targets"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert run("refresh", "-q", "-c", tmp_path / "config.json").code == 0
    files = rendered(at(data, "rendered", "listed"), tmp_path / "build", run)
    assert files == files_of(tmp_path / "targets")
    assert sorted(files) == ["blackbox", "nas", "node", "postgres", "prometheus", "systemd"]
    assert [group["targets"] for group in json.loads(files["node"])] == [
        ["backup.home.arpa:9100"],
        ["[fd00::5]:9100"],
        ["monitor.home.arpa:9100"],
        ["web.wg:9100"],
    ]


def test_a_unit_without_tailscaled_gives_the_files_of_a_build(data: Json, tmp_path: Path, run: Run) -> None:
    """The same targets in the files of the same jobs."""
    config = place(at(data, "rendered", "tailscale"), tmp_path / "unit")
    assert run("refresh", "-q", "-c", config).code == 3
    assert files_of(config.parent / "targets") == rendered(at(data, "rendered", "none"), tmp_path / "build", run)
    jobs = [str(at(job, "job_name")) for job in listed(data, "jobs", "tailscale", "monitor")]
    assert sorted(jobs) == sorted(files_of(config.parent / "targets"))


def scraped(jobs: list[Json], directory: Path, config: Path) -> Path:
    """Write the jobs as Prometheus reads them, with a directory for the link in /etc; return the file."""
    written = json.dumps({"scrape_configs": [without_nulls(job) for job in jobs]})
    assert LINKED in written
    config.write_text(written.replace(LINKED, str(directory)))
    return config


def instances(files: dict[str, bytes]) -> list[tuple[str, str]]:
    """Return job and instance of every target."""
    return sorted((job, group["labels"]["instance"]) for job in files for group in json.loads(files[job]))


def active(config: Path, place: Path) -> list[tuple[str, str]]:
    """Start Prometheus with a config; return job and instance of each of its targets."""
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

        eventually("prometheus has targets", lambda: bool(targets()))
        return targets()


def test_prometheus_loads_the_scrape_config(data: Json, tmp_path: Path, run: Run) -> None:
    """It passes promtool, and the targets are those of the rendered files."""
    files = rendered(at(data, "rendered", "none"), tmp_path / "build", run)
    config = scraped(listed(data, "jobs", "none", "monitor"), tmp_path / "build/rendered", tmp_path / "prometheus.yml")
    done = subprocess.run(
        [program("promtool"), "check", "config", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert active(config, tmp_path / "one") == instances(files)


def test_two_servers_share_the_targets(data: Json, tmp_path: Path, run: Run) -> None:
    """Each target is at one of two real Prometheus; the servers' own metrics are at both."""
    everything = instances(rendered(at(data, "rendered", "none"), tmp_path / "build", run))
    servers = ("backup", "monitor")
    configs = [
        scraped(listed(data, "jobs", "sharded", name), tmp_path / "build/rendered", tmp_path / f"{name}.yml")
        for name in servers
    ]
    with ThreadPoolExecutor() as pool:
        shares = list(pool.map(active, configs, [tmp_path / name for name in servers]))
    own = [target for target in everything if target[0] == "prometheus"]
    first, second = ([target for target in share if target not in own] for share in shares)
    assert [target for target in shares[0] if target in own] == own == [t for t in shares[1] if t in own]
    assert sorted([*first, *second, *own]) == everything
    assert first
    assert second


@pytest.mark.parametrize("backend", ["victoriametrics", "vmagent"])
def test_vmagent_accepts_the_scrape_config(backend: str, data: Json, tmp_path: Path) -> None:
    """As VictoriaMetrics and vmagent read it in strict mode."""
    config = tmp_path / "vmagent.yml"
    config.write_text(json.dumps(at(data, backend)))
    words = [program("vmagent"), f"-promscrape.config={config}", "-dryRun", "-promscrape.config.strictParse=true"]
    words += ["-remoteWrite.url=http://127.0.0.1:9/", f"-remoteWrite.tmpDataPath={tmp_path}/vm"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_vmagent_scrapes_ipv6_with_the_flags_of_the_service(data: Json, tmp_path: Path) -> None:
    """Without them it skips IPv6 addresses."""
    port, own = free_port(), free_port()
    config = tmp_path / "vmagent.yml"
    targets = [f"[::1]:{port}"]
    job: Json = {"job_name": "six", "scrape_interval": "1s", "static_configs": [{"targets": targets}]}
    config.write_text(json.dumps({"scrape_configs": [job]}))
    exporter = [program("prometheus-node-exporter"), f"--web.listen-address=[::1]:{port}"]
    agent = [
        program("vmagent"),
        f"-promscrape.config={config}",
        f"-httpListenAddr=127.0.0.1:{own}",
        *map(str, listed(data, "flags")),
    ]
    agent += ["-remoteWrite.url=http://127.0.0.1:9/w", f"-remoteWrite.tmpDataPath={tmp_path}/vm"]
    with running(exporter, tmp_path / "exporter.log"), running(agent, tmp_path / "vmagent.log"):

        def health() -> Json:
            match get_json(f"http://127.0.0.1:{own}/api/v1/targets"):
                case {"data": {"activeTargets": [{"health": found}]}}:
                    return found
                case _:
                    return None

        eventually("vmagent scrapes it", lambda: health() == "up")
