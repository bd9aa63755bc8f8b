"""nix/lib through real Nix, without nixpkgs, store or network: Python's targets in every scraper's form."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from clan_discovery.inventory.exporters import known_exporters
from clan_discovery.resolve.express import label_safe
from tests.support.nix import ROOT, ask, nixpkgs_lib, quoted
from tests.support.nix import value as value_of
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

EXAMPLE = ROOT / "examples/homelab/config.yaml"


def evaluated(nix: str, expression: str) -> subprocess.CompletedProcess[str]:
    """Evaluate an expression in which `cd` is the library."""
    return ask(f"let cd = import {ROOT}/nix/lib; in {expression}", nix)


def value(nix: str, expression: str) -> Json:
    """Return the value of an expression in which `cd` is the library."""
    return value_of(f"let cd = import {ROOT}/nix/lib; in {expression}", nix)


def test_the_exporters_are_pythons(nix: str) -> None:
    """One data file, and the same one added by hand: port, path, kind, whether NixOS has it, parameters."""
    expected = {
        name: {"port": e.port, "path": e.path, "kind": e.kind, "nixos": e.nixos, "params": dict(e.params)}
        for name, e in known_exporters().items()
    }
    assert value(nix, "cd.exporters") == expected


def test_the_targets_are_pythons(nix: str, tmp_path: Path, run: Run) -> None:
    """`show --format nix` and `json` give the same jobs, and these the targets of the files; promtool accepts them."""
    for format_ in ("nix", "json"):
        (tmp_path / f"targets.{format_}").write_text(run("show", "-c", EXAMPLE, "--format", format_).out)
    assert run("refresh", "-q", "-c", EXAMPLE, "--output", tmp_path / "targets").code == 0
    files = {file.stem: json.loads(file.read_bytes()) for file in (tmp_path / "targets").glob("*.json")}
    expected = [{"job_name": job, "static_configs": files[job]} for job in sorted(files) if files[job]]
    sources = (
        f"import {tmp_path}/targets.nix",
        f"builtins.fromJSON (builtins.readFile {tmp_path}/targets.json)",
        quoted(files),
    )
    for source in sources:
        jobs = value(nix, f"cd.staticJobs ({source})")
        assert by_target(jobs) == by_target(expected)
    config = tmp_path / "prometheus.yml"
    config.write_text(json.dumps({"scrape_configs": value(nix, f"cd.prometheus (cd.staticJobs ({sources[0]}))")}))
    done = subprocess.run([program("promtool"), "check", "config", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def by_target(jobs: Json) -> list[str]:
    """Return each target of these jobs as one text, sorted."""
    found: list[str] = []
    for job in jobs if isinstance(jobs, list) else []:
        match job:
            case {"job_name": str(name), "static_configs": [*groups]}:
                found += [json.dumps([name, group], sort_keys=True) for group in groups]
            case other:
                raise AssertionError(other)
    return sorted(found)


def test_jobs_of_files(nix: str) -> None:
    """A job for each file; the interval only where it is given."""
    assert value(nix, 'cd.fileSdJobs { directory = "/d"; jobs = [ "node" ]; }') == [
        {"job_name": "node", "file_sd_configs": [{"files": ["/d/node.json"]}]}
    ]
    jobs = 'cd.fileSdJobs { directory = "/d"; jobs = { a = [ ]; b = [ ]; }; refreshInterval = "1m"; }'
    found = value(nix, f"map (j: j.job_name + (builtins.head j.file_sd_configs).refresh_interval) ({jobs})")
    assert found == ["a1m", "b1m"]


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ('[ { job_name = "a"; } { job_name = "a"; } ]', "'a' is the name of more than one scrape config"),
        ("[ { } ]", "without a job_name"),
        (
            '[ { job_name = "a"; static_configs = [ { targets = [ "fd00::1:1" ]; } ]; } ]',
            "'a: fd00::1:1' is no address",
        ),
        ('[ { job_name = "a"; static_configs = [ { targets = [ "db:0" ]; } ]; } ]', "'a: db:0' is no address"),
        ('[ { job_name = "a"; static_configs = [ { targets = [ "db:65536" ]; } ]; } ]', "is no address"),
        (
            '[ { job_name = "a"; static_configs = [ { targets = [ ]; labels."a-b" = "x"; } ]; } ]',
            "'a: a-b' is no label",
        ),
        ('[ { job_name = "a"; static_configs = [ { targets = [ ]; labels.x = 1; } ]; } ]', "'a: x' is no label"),
    ],
)
def test_what_prometheus_would_refuse(nix: str, jobs: str, said: str) -> None:
    """As data for a module's assertions, and thrown where somebody wants the jobs."""
    messages = value(nix, f"map (p: p.message) (builtins.filter (p: !p.assertion) (cd.problemsOf {jobs}))")
    assert isinstance(messages, list)
    assert len(messages) == 1
    assert said in str(messages[0])
    assert said in evaluated(nix, f"cd.checked {jobs}").stderr


def test_vmagent_takes_the_jobs(nix: str, tmp_path: Path, run: Run) -> None:
    """As it would at a start."""
    (tmp_path / "targets.nix").write_text(run("show", "-c", EXAMPLE, "--format", "nix").out)
    config = tmp_path / "vmagent.yml"
    config.write_text(json.dumps(value(nix, f"cd.victoriametrics (cd.staticJobs (import {tmp_path}/targets.nix))")))
    words = [f"-promscrape.config={config}", "-dryRun", "-promscrape.config.strictParse=true"]
    words += ["-remoteWrite.url=http://127.0.0.1:9/", f"-remoteWrite.tmpDataPath={tmp_path}/vm"]
    done = subprocess.run([program("vmagent"), *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_victoriametrics_expands_nothing_of_ours(nix: str) -> None:
    """`%{NAME}` would be replaced from its environment, anywhere in the file."""
    assert value(nix, 'cd.victoriametrics [ { job_name = "a"; } ]') == {"scrape_configs": [{"job_name": "a"}]}
    done = evaluated(nix, 'cd.victoriametrics [ { job_name = "a"; static_configs = [ { labels.x = "%{HOME}"; } ]; } ]')
    assert "holds '%{'" in done.stderr


def test_the_librarys_own_tests(nix: str) -> None:
    """`lib.runTests` names those that fail; and it does name one that does."""
    lib = f"import {nixpkgs_lib()}"
    assert value_of(f"import {ROOT}/nix/lib/tests.nix {{ lib = {lib}; }}", nix) == []
    wrong = f"let lib = {lib}; in lib.runTests {{ test_x = {{ expr = 1; expected = 2; }}; }}"
    assert value_of(wrong, nix) == [{"name": "test_x", "expected": 2, "result": 1}]


def test_a_fragment_for_alloy(nix: str) -> None:
    """A discovery.file and a prometheus.scrape for each job, under names that Alloy takes."""
    call = 'cd.alloy { directory = "/d"; jobs = [ "node-x" ]; forwardTo = "prometheus.remote_write.mimir.receiver"; }'
    assert value(nix, call) == (
        'discovery.file "clan_node_x" {\n  files = ["/d/node-x.json"]\n}\n\n'
        'prometheus.scrape "clan_node_x" {\n  targets    = discovery.file.clan_node_x.targets\n'
        '  job_name   = "node-x"\n  forward_to = [prometheus.remote_write.mimir.receiver]\n}\n'
    )


def test_words_that_are_written_as_python_writes_them(nix: str) -> None:
    """Label names, addresses, unknown types."""
    for text in ("a-b.c", "x", "", "ä", "1"):
        mine = value(nix, f"cd.labelSafe {json.dumps(text, ensure_ascii=False)}")
        assert len(str(mine)) >= len(label_safe(text))
        assert set(str(mine)) - {"_"} == set(label_safe(text)) - {"_"}
    assert value(nix, 'cd.splitAddress "[fd00::1]:9100"') == {"host": "fd00::1", "port": 9100}
    assert value(nix, 'map cd.splitAddress [ "db.x:1" "db" "a b:1" "[x]:1" "http://a:1" ]') == [
        {"host": "db.x", "port": 1},
        None,
        None,
        None,
        None,
    ]
    assert "unknown exporter type 'nod'" in evaluated(nix, 'cd.exporter "nod"').stderr
