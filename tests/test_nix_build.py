"""Static targets built by Nix: the same files as `refresh`, and an unlisted job fails the build."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.nix import ROOT, nixpkgs_lib, text
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Done

    Run = Callable[..., Done]
    Build = Callable[[str], subprocess.CompletedProcess[str]]

PROGRAM = Path(sys.executable).with_name("clan-discovery")
INSTANCES = """instances.m = {
  server.monitor = { discoveryMethod = "static"; staticTargets.caddy = [ "web:2019" ]; firewallInterfaces = [ ]; };
  exporter.db = { port = 9200; };
  exporter.web.exporters = { node = { }; systemd = { }; blackbox.params.target = "https://example.org"; };
};
exports = { "wg:lan:peer:web".peer.hosts = [ { plain = "fd00::5"; } { var.file = "none"; } ]; };"""


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Return a function that builds the targets of tests/nix/build.nix in the test's own store."""
    program_ = program("nix-build")
    library = nixpkgs_lib()
    environment = {
        **os.environ,
        "NIX_PATH": "",
        "NIX_REMOTE": "local",
        "NIX_STORE_DIR": f"{tmp_path}/nix/store",
        "NIX_STATE_DIR": f"{tmp_path}/nix/state",
        "NIX_LOG_DIR": f"{tmp_path}/nix/log",
        "NIX_CONF_DIR": f"{tmp_path}/nix/conf",
        "NIX_CONFIG": "substituters =\nsandbox = false\nbuild-users-group =",
        "HOME": f"{tmp_path}/home",
    }

    def call(arguments: str) -> subprocess.CompletedProcess[str]:
        stand_in = f"nixpkgsLib = {library}; program = {text(str(PROGRAM))};"
        expression = f"(import {ROOT}/tests/nix/build.nix {{ {stand_in} {arguments} }}).targets"
        words = [program_, "--no-out-link", "-E", expression]
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=300, env=environment)

    return call


def files(directory: Path) -> dict[str, bytes]:
    """Return every file of a directory."""
    return {file.name: file.read_bytes() for file in directory.glob("[!.]*")}


def test_built_files_are_those_of_refresh(build: Build, tmp_path: Path, run: Run) -> None:
    """Byte by byte, with the config in /etc and with the clan's exports."""
    done = build(INSTANCES)
    assert done.returncode == 0, done.stderr
    targets = Path(done.stdout.strip())
    (config,) = (tmp_path / "nix/store").glob("*-clan-discovery-config.json")
    document = json.loads(config.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({**document, "state": str(tmp_path / "state")}))
    assert run("refresh", "-q", "-c", tmp_path / "config.json", "--output", tmp_path / "targets").code == 0
    assert files(targets) == files(tmp_path / "targets")
    names = ["blackbox", "caddy", "nas", "node", "prometheus", "systemd"]
    assert sorted(files(targets)) == [f"{name}.json" for name in names]
    assert [group["targets"] for group in json.loads(files(targets)["node.json"])] == [
        ["db.home.arpa:9200"],
        ["[fd00::5]:9100"],
    ]


def test_a_job_that_is_not_listed_fails_the_build(build: Build) -> None:
    """The error names the unlisted and the listed jobs."""
    done = build(f'{INSTANCES} jobs = [ "node" "prometheus" "blackbox" "caddy" ];')
    assert done.returncode != 0
    assert (
        "clan-discovery: render: job 'systemd' is not in the list of jobs (blackbox, caddy, nas, node, prometheus): "
        "no scrape config would read systemd.json (add `--job systemd`; on NixOS, services.clan-discovery.jobs)"
    ) in done.stderr


def test_a_listed_job_without_targets_is_an_empty_file(build: Build) -> None:
    """The jobs are an upper bound."""
    jobs = ["blackbox", "caddy", "nas", "nginx", "node", "prometheus", "systemd"]
    done = build(f"{INSTANCES} jobs = [ {' '.join(map(text, jobs))} ];")
    assert done.returncode == 0, done.stderr
    assert files(Path(done.stdout.strip()))["nginx.json"] == b"[]\n"


@pytest.mark.parametrize(("policy", "jobs"), [("exclude", set[str]()), ("include", {"nginx"})])
def test_an_exporter_of_a_darwin_machine_is_a_job_by_policy(build: Build, policy: str, jobs: set[str]) -> None:
    """Only if `policy.darwin` includes its NixOS exporters."""
    mac = 'machines.mac = { tags = [ "all" ]; machineClass = "darwin"; };'
    instances = INSTANCES.replace('discoveryMethod = "static";', f'policy.darwin = "{policy}";')
    done = build(f'{instances} {mac} instances.n.exporter.mac.exporterType = "nginx";')
    assert done.returncode == 0, done.stderr
    names = {name.removesuffix(".json") for name in files(Path(done.stdout.strip()))}
    assert names == {"blackbox", "caddy", "nas", "node", "prometheus", "systemd"} | jobs


def test_an_empty_list_of_jobs_fails_the_build(build: Build) -> None:
    """An empty list is complete, so nothing would be scraped."""
    done = build(f"{INSTANCES} noJobs = true;")
    assert done.returncode != 0
    assert "job 'systemd' is not in the list of jobs (none)" in done.stderr
