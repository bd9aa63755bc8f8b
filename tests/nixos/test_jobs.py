"""The setting `jobs` of a server on a real NixOS: the same scrape config for three scrapers, and what is refused."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.nix import at, listed, without_nulls
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done
    from tests.support.nixos import Real

    Run = Callable[..., Done]

WHERE = "clan-discovery: instances.monitoring.roles.server.machines.wrong.settings.jobs"


@pytest.fixture(scope="module")
def answer(real: Real) -> Json:
    """Return what the tests ask of five machines, of which `wrong` has mistakes."""
    return real("""
      let
        module = { name = "prometheus"; input = "clan-discovery"; };
        clan = t.clan {
          inventory = {
            machines = t.lib.genAttrs [ "agent" "db" "monitor" "victoria" "wrong" ] (_: { });
            instances.monitoring = {
              inherit module;
              roles.server.settings = {
                firewallInterfaces = [ ];
                jobs.node = {
                  scheme = "https";
                  metrics_path = "/node";
                  params.module = "short";
                  params."collect[]" = [ "cpu" "meminfo" ];
                  scrape_interval = "30s";
                  tls_config.server_name = "node";
                  relabel_configs = [
                    { source_labels = [ "__meta_clan_machine_tags" ]; target_label = "tags"; }
                  ];
                };
                jobs.systemd.sample_limit = 5000;
              };
              roles.server.machines = {
                monitor = { };
                victoria.settings.backend = "victoriametrics";
                agent.settings = { backend = "vmagent"; remoteWrite = [ { url = "http://victoria:8428/w"; } ]; };
                wrong.settings.jobs = {
                  node = { job_name = "x"; static_configs = [ ]; consul_sd_configs = [ ]; };
                  node.tls_config = { ca_file = "/nix/store/ca"; key_file = "/nix/store/key"; };
                  systemd.basic_auth = { username = "x"; password = "hunter2"; };
                  systemdd = { };
                  unheard-of = { };
                };
              };
              roles.exporter.machines.db.settings.firewallInterfaces = [ ];
            };
            # Its jobs are known to the servers of the other instance.
            instances.second = {
              inherit module;
              roles.exporter.machines.db.settings = { exporterType = "systemd"; firewallInterfaces = [ ]; };
            };
          };
          machines.monitor.services.clan-discovery.settings.jobs = {
            node.scrape_timeout = "5s";
            systemd.sample_limit = 9000;
            redis.scrape_interval = "1m";
            syystemd = { };
          };
        };
        inherit (t.configs clan) agent db monitor victoria wrong;
        discovery = monitor.services.clan-discovery.settings;
      in {
        scraped = {
          prometheus = t.jobs monitor;
          victoriametrics = victoria.services.victoriametrics.prometheusConfig.scrape_configs;
          vmagent = agent.services.vmagent.prometheusConfig.scrape_configs;
        };
        failed = t.lib.mapAttrs (_: t.failed) { inherit agent db monitor victoria wrong; };
        warnings = monitor.warnings;
        inherit (discovery) jobs;
        inventory = discovery.inventory.file.value;
      }
    """)


def jobs(answer: Json, scraper: str) -> list[Json]:
    """Return the jobs of a scraper, without options that are not set."""
    return [without_nulls(job) for job in listed(answer, "scraped", scraper)]


def named(found: list[Json]) -> dict[str, dict[str, Json]]:
    """Return jobs by name, without their target files."""
    jobs = [job for job in found if isinstance(job, dict)]
    return {str(job["job_name"]): {key: job[key] for key in sorted(job.keys() - _OF_THE_FILE)} for job in jobs}


_OF_THE_FILE = {"job_name", "file_sd_configs"}


def test_every_scraper_has_the_same_jobs(answer: Json) -> None:
    """What the machine itself sets wins."""
    expected: dict[str, dict[str, Json]] = {
        "prometheus": {},
        "node": {
            "params": {"collect[]": ["cpu", "meminfo"]},
            "relabel_configs": [{"source_labels": ["__meta_clan_machine_tags"], "target_label": "tags"}],
            "scrape_interval": "30s",
            "tls_config": {"server_name": "node"},
        },
        "systemd": {"sample_limit": 5000},
    }
    assert named(jobs(answer, "victoriametrics")) == expected
    assert jobs(answer, "vmagent") == jobs(answer, "victoriametrics")
    expected["node"] |= {"scrape_timeout": "5s"}
    expected["systemd"] = {"sample_limit": 9000}
    assert named(jobs(answer, "prometheus")) == expected


def test_every_scraper_loads_its_jobs(answer: Json, tmp_path: Path) -> None:
    """As in the build of each NixOS module."""
    for scraper in ("prometheus", "victoriametrics", "vmagent"):
        (tmp_path / scraper).write_text(json.dumps({"scrape_configs": jobs(answer, scraper)}))
    strict = ["-dryRun", "-promscrape.config.strictParse=true"]
    succeeds(program("promtool"), "check", "config", str(tmp_path / "prometheus"))
    succeeds(program("victoria-metrics"), f"-promscrape.config={tmp_path}/victoriametrics", *strict)
    written = ["-remoteWrite.url=http://127.0.0.1:9/", f"-remoteWrite.tmpDataPath={tmp_path}/data"]
    succeeds(program("vmagent"), f"-promscrape.config={tmp_path}/vmagent", *strict, *written)


def succeeds(*words: str) -> None:
    """Run a program that must succeed."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_target_files_have_the_scheme_the_path_and_the_parameter(answer: Json, tmp_path: Path, run: Run) -> None:
    """Not the scrape config, so that `explain` and `verify` know them."""
    (tmp_path / "inventory.json").write_text(json.dumps(at(answer, "inventory")))
    given = at(answer, "jobs")
    assert isinstance(given, dict)
    config = {"inventory": {"file": "inventory.json"}, "jobs": {type_: given[type_] for type_ in ("node", "systemd")}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = run("render", "-c", tmp_path / "config.json", "--output", tmp_path / "targets")
    assert (done.code, done.err) == (0, "")
    (group,) = json.loads((tmp_path / "targets/node.json").read_bytes())
    assert group["targets"] == ["db.home.arpa:9100"]
    expected = {"__metrics_path__": "/node", "__param_module": "short", "__scheme__": "https"}
    assert expected.items() <= group["labels"].items()


def test_wrong_settings_are_refused_on_that_server_alone(answer: Json) -> None:
    """With the place, the reason and the fix; a job that another instance declares is known."""
    failed = at(answer, "failed")
    assert isinstance(failed, dict)
    assert [failed[name] for name in ("agent", "db", "victoria")] == [[], [], []]
    targets = "cannot be set, because the targets of the job are those of its target file: remove it, and use "
    targets += "`staticTargets` or a scrape config of your own for more targets"
    exposed = "is a secret, and everybody can read the store: put it in a file, and set `basic_auth.password_file`"
    stored = "/nix/store/key is, or would be copied, in the Nix store, which everybody can read: write a path on the "
    stored += 'machine as a string, for example "/run/secrets/node"'
    assert failed["wrong"] == [
        f"{WHERE}.node.consul_sd_configs: {targets}",
        f"{WHERE}.node.job_name: cannot be set, because the name of the job is its exporter type: remove it",
        f"{WHERE}.node.static_configs: {targets}",
        f"{WHERE}.node.tls_config.key_file: {stored}",
        f"{WHERE}.systemd.basic_auth.password: {exposed}",
        f"{WHERE}.systemdd: this server has no job 'systemdd': did you mean 'systemd'?",
        f"{WHERE}.unheard-of: this server has no job 'unheard-of': its jobs are node, prometheus, systemd",
    ]


def test_settings_of_the_machine_are_checked(answer: Json) -> None:
    """A typo is refused; an exporter type that no machine has is a warning."""
    where = "clan-discovery: services.clan-discovery.settings.jobs"
    typo = f"{where}.syystemd: this server has no job 'syystemd': did you mean 'systemd'?"
    assert at(answer, "failed", "monitor") == [typo]
    unused = f"{where}.redis: no machine has an exporter 'redis': this scrape config is not used"
    assert at(answer, "warnings") == [unused]
