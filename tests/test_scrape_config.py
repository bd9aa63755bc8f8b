"""`jobs` in the config: what goes into targets and into prometheus.yml, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clan_discovery.emit.scrape_config import render_scrape_config
from clan_discovery.syntax.target_file import Split
from clan_discovery.syntax.tree import parse_yaml
from clan_discovery.syntax.yaml_text import yaml_text
from tests.support.fleet import fleet, inventory
from tests.support.nix import ROOT, quoted, value
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

HERE: Final = Path(__file__).resolve().parent / "data/scrape_config"
ADDITIONAL: Final[Json] = [{"static_configs": [{"targets": ["10.0.0.9:80"]}], "job_name": "mine: a"}]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a config with `jobs`, an inventory with two exporters, and a tailnet of two nodes."""
    exporters: dict[str, Json] = {"node": {}, "systemd": {"params": {"own": "inventory"}}}
    document = inventory(
        ["monitor", "db"],
        exporter={"exporters": exporters},
        server={"additionalScrapeConfigs": ADDITIONAL, "scrapeServers": False},
    )
    (tmp_path / "inventory.json").write_text(json.dumps(document))
    (tmp_path / "status.json").write_text(json.dumps(fleet(["monitor", "db"])))
    return Path(shutil.copy(HERE / "config.yaml", tmp_path))


def test_the_jobs_as_yaml(config: Path, run: Run) -> None:
    """Byte by byte; relative paths start at the config's directory."""
    done = run("show", "-c", config, "--format", "scrape-config")
    assert done.code == 0
    assert done.out.replace(str(config.parent), "/etc/clan-discovery") == (HERE / "expected.yml").read_text()


def test_prometheus_and_vmagent_accept_the_jobs(config: Path, tmp_path: Path, run: Run) -> None:
    """Without options newer than Debian's releases; they read the CA file."""
    text = config.read_text().replace("    http_headers: {X-Site: {values: [home]}}\n", "")
    config.write_text(text.replace("ca_file: /etc/ssl/ca.pem, ", ""))
    text = run("show", "-c", config, "--format", "scrape-config").out
    (tmp_path / "password").write_text("hunter2")
    (tmp_path / "prometheus.yml").write_text(text)
    # Debian's vmagent has `max_scrape_size` instead.
    (tmp_path / "vmagent.yml").write_text(text.replace('    body_size_limit: "10MB"\n', ""))
    for words in (
        [program("promtool"), "check", "config", "--syntax-only", f"{tmp_path}/prometheus.yml"],
        [
            program("vmagent"),
            "-dryRun",
            f"-promscrape.config={tmp_path}/vmagent.yml",
            "-remoteWrite.url=http://[::1]:9",
        ],
    ):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_jobs_are_those_of_nix_lib() -> None:
    """Without settings, compared with `fileSdJobs`."""
    jobs = ["node", "systemd"]
    directory = "/var/lib/clan-discovery/targets"
    tree = parse_yaml(render_scrape_config(jobs, Path(directory), {}, [], Split()), most=1000)
    names = " ".join(map(json.dumps, jobs))
    nix = f'(import {ROOT}/nix/lib).fileSdJobs {{ directory = "{directory}"; jobs = [ {names} ]; }}'
    assert tree.value == {"scrape_configs": value(nix)}


def test_nix_merges_the_same_settings() -> None:
    """`configured` of nix/lib leaves out what `jobs` puts into the target files, and nothing else."""
    match parse_yaml((HERE / "config.yaml").read_text(), most=1000).value:
        case {"jobs": dict(settings)}:
            said = quoted(settings).replace('\\"password\\"', '\\"/etc/clan-discovery/password\\"')
        case other:
            raise AssertionError(other)
    directory = "/var/lib/clan-discovery/targets"
    files = f'cd.fileSdJobs {{ directory = "{directory}"; jobs = [ "node" "systemd" ]; }}'
    found = value(f"let cd = import {ROOT}/nix/lib; in cd.configured {said} ({files})")
    match parse_yaml((HERE / "expected.yml").read_text(), most=1000).value:
        case {"scrape_configs": [node, systemd, _]}:
            assert found == [node, systemd]
        case other:
            raise AssertionError(other)


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.text(st.characters(codec="utf-8"), max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5).filter(lambda k: k != "<<"), inner)
    ),
    max_leaves=8,
)
WORDS: Final = st.sampled_from(["yes", "~", "0x1", "1e3", "1:30", "2026-01-01", "a: b", "- a", "# a", "30s", "=", "<<"])


@given(st.lists(JSON | WORDS, max_size=3))
def test_yaml_keeps_every_string(values: list[Json]) -> None:
    """Also one that YAML would read as a number, a date, a boolean or a comment."""
    text = render_scrape_config([], Path("/x"), {}, [{"job_name": "a", "values": values}], Split())
    assert all(line.isprintable() for line in text.splitlines())
    assert parse_yaml(text, most=10_000).value == {"scrape_configs": [{"job_name": "a", "values": values}]}


@given(st.text(st.characters(codec="utf-8"), max_size=9).filter(lambda text: text != "<<") | WORDS.filter("<<".__ne__))
@example("no")
@example("github:clan/core")
@example(".5")
@example("x:")
@example("\U0001f600")
def test_a_hint_in_brackets_is_read_as_it_was_meant(text: str) -> None:
    """As `aliases: {desktop-pc: desktop}`, whatever the name is."""
    word = yaml_text(text)
    assert parse_yaml(f"a: [{{{word}: {word}}}, {word}]", most=10_000).value == {"a": [{text: text}, text]}


def labels_of(run: Run, config: Path, machine: str) -> dict[str, dict[str, str]]:
    """Return the URL labels of each job."""
    found: dict[str, dict[str, str]] = {}
    for group in json.loads(run("show", "-c", config, "--format", "file-sd").out):
        labels: dict[str, str] = group["labels"]
        if labels["machine"] == machine:
            of_url = ("__scheme__", "__metrics_path__", "__param_")
            found[labels["job"]] = {name: text for name, text in labels.items() if name.startswith(of_url)}
    return found


def test_the_most_specific_setting_counts(config: Path, run: Run) -> None:
    """The inventory, then `exporters`, then `jobs`, then the default of the type."""
    assert labels_of(run, config, "db") == {
        "node": {"__scheme__": "https", "__param_collect": "cpu"},
        "systemd": {"__metrics_path__": "/own", "__param_shared": "exporters", "__param_own": "inventory"},
    }
    config.write_text(config.read_text().replace("path: /own, params: {shared: exporters}", ""))
    assert labels_of(run, config, "db")["systemd"] == {
        "__metrics_path__": "/jobs",
        "__param_shared": "jobs",
        "__param_own": "inventory",
    }


def test_plain_http_wins_over_the_scrape_config(config: Path, run: Run) -> None:
    """No printed job overrides an exporter's `scheme: http`."""
    config.write_text(config.read_text().replace("exporters:\n", "exporters:\n  node: {scheme: http}\n"))
    assert labels_of(run, config, "db")["node"] == {"__param_collect": "cpu"}
    assert "scheme:" not in run("show", "-c", config, "--format", "scrape-config").out


STATIC: Final = 'backends: {static: {lab: {targets: {node: ["a:1"]}}}}\n'


def check(run: Run, tmp_path: Path, job: str, of: str = "node") -> Done:
    """Check a config with this scrape config."""
    (tmp_path / "c.yaml").write_text(f"{STATIC}jobs:\n  {of}: {job}\n")
    return run("check", "-c", tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("{job_name: x}", "c.yaml:3:10: jobs.node.job_name: cannot be set: the name of the job is its exporter type"),
        ("{static_configs: []}", "static_configs: cannot be set: the targets of this job are those of its target"),
        ("{file_sd_configs: []}", "jobs.node.file_sd_configs: cannot be set: the targets of this job"),
        ("{kubernetes_sd_configs: []}", "cannot be set: the targets of this job"),
        ("{basic_auth: {password: hunter2}}", "jobs.node.basic_auth.password: is a secret"),
        ("{basic_auth: {password: hunter2}}", "and write `password_file`"),
        ("{authorization: {credentials: hunter2}}", "and write `credentials_file`"),
        ("{oauth2: {client_secret: hunter2, client_id: a, token_url: 'http://a'}}", "write `client_secret_file`"),
        ("{tls_config: {key: hunter2}}", "and write `key_file`"),
        ("{bearer_token: hunter2}", "and write `authorization: {credentials_file: ...}`"),
        ("{http_headers: {X-Key: {secrets: [hunter2]}}}", "and write `files`"),
        ("{proxy_url: 'http://me:hunter2@p:1'}", "jobs.node.proxy_url: the URL holds a password"),
        ("{proxy_url: 'me:hunter2@p:1'}", "jobs.node.proxy_url: *** is not a URL: write http://host:port"),
        ("{basic_auth: 'me:hunter2'}", "jobs.node.basic_auth: must be a mapping, not ***"),
        ("{authorization: {type: Bearer hunter2}}", "has a `type` that is not one word"),
        ("{http_headers: {Authorization: {values: [hunter2]}}}", "is refused by Prometheus: write `basic_auth` or"),
        ("{http_headers: {user-agent: {values: [a]}}}", "is a header that Prometheus sets itself"),
        ('{http_headers: {"X: y": {values: [a]}}}', "'X: y' is no name of a header"),
        ('{proxy_url: "http://p/\\tme:hunter2@p"}', "the URL holds a space or a control character"),
        ("{proxy_url: 'p:1'}", "'p:1' is not a URL: write http://host:port"),
        ("{authorization: {type: Basic}}", "has the type Basic: write `basic_auth` instead of `authorization`"),
        ("{basic_auth: {}, authorization: {}}", "takes one of `basic_auth`, `authorization`"),
        ("{basic_auth: {username: a, username_file: b}}", "takes `username` or `username_file`, not both"),
        ("{tls_config: {cert_file: a}}", "needs `cert_file` and `key_file` together"),
        ("{scrape_intervall: 1m}", "jobs.node.scrape_intervall: unknown key (did you mean 'scrape_interval'?)"),
        ("{scrape_interval: 30}", "c.yaml:3:27: jobs.node.scrape_interval: invalid duration 30"),
        ("{scrape_interval: 10s, scrape_timeout: 20s}", "`scrape_timeout` is longer than `scrape_interval`"),
        ("{metrics_path: metrics}", "'metrics' is no path: a path starts with a slash"),
        ("{sample_limit: -1}", "jobs.node.sample_limit: must be at least 0, not -1"),
        ("{body_size_limit: 10 mb}", "invalid size '10 mb' (write a size such as 512KB, 10MB or 1GiB)"),
        ("{relabel_configs: [{action: keepp}]}", "(did you mean 'keep'?)"),
        ("{relabel_configs: [{source_labels: [a]}]}", "the action replace needs `target_label`"),
        ("{relabel_configs: [{action: hashmod, target_label: a}]}", "the action hashmod needs `modulus`"),
        ("{relabel_configs: {action: drop}}", "must be a list, not a mapping (write each entry on a line"),
        ("{params: {a: {b: c}}}", "jobs.node.params.a: must be a list, not a mapping"),
        ("30s", "jobs.node: must be a mapping, not '30s' (write `{scrape_interval: 30s}`)"),
    ],
)
def test_invalid_scrape_configs_are_refused(tmp_path: Path, run: Run, job: str, said: str) -> None:
    """With position, reason and fix; no secret is shown."""
    done = check(run, tmp_path, job)
    assert done.code == 2
    assert said in done.err
    assert "c.yaml:3:" in done.err
    assert "hunter2" not in done.err


def test_an_unknown_type_is_an_error(tmp_path: Path, run: Run) -> None:
    """As in `exporters`, it is a typo."""
    done = check(run, tmp_path, "{scrape_interval: 30s}", of="nodee")
    assert done.code == 2
    assert "jobs.nodee: unknown exporter type 'nodee', and nothing uses it (did you mean 'node'?)" in done.err


def test_a_type_that_no_target_has_is_a_warning(tmp_path: Path, run: Run) -> None:
    """The inventory may declare it later."""
    done = check(run, tmp_path, "{scrape_interval: 30s}", of="systemd")
    assert done.code == 0
    expected = (
        "jobs.systemd: no target has the exporter type 'systemd': this scrape config is not used (jobs are: node)"
    )
    assert expected in done.err


def test_a_token_among_the_parameters_is_a_warning(tmp_path: Path, run: Run) -> None:
    """All users can read target files."""
    done = check(run, tmp_path, "{params: {api_token: hunter2}}")
    assert done.code == 0
    assert "jobs.node.params.api_token: looks like a secret" in done.err
    assert "hunter2" not in done.err
