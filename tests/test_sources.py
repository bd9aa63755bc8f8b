"""Every command works with each source alone, and with all of them together."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jsonschema
import pytest
import yaml

from clan_discovery.assemble import make_plan, watched_files
from clan_discovery.cli.commands.schema import schema
from clan_discovery.config.load import load_config
from tests.support.fleet import inventory
from tests.support.programs import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

MANIFEST: Json = {
    "services": {
        "media": {
            "enable": True,
            "hostname": "nas",
            "ip": "10.0.0.5/24",
            "depends_on": ["db"],
            "interface": {
                "proxy": {"domain": "films.example.org", "path": "/", "upstream": "10.0.0.5:8096"},
                "health": {"liveness": "systemctl is-active --quiet jellyfin"},
            },
        },
        "db": {"enable": True, "hostname": "db", "ip": "10.0.0.6"},
        "mail": {"enable": False, "hostname": "mail", "ip": "10.0.0.7"},
    }
}
EXPOSED: Json = {
    "machines": {
        "nas": {"expose": {"photos": {"port": 2283, "front": {"domain": "photos.example.org"}}}, "adopted": []}
    }
}
COMPOSE = """\
services:
  redis:
    image: redis
    ports: ["10.0.0.5:9121:9121", "8001:8001"]
    labels:
      prometheus.io/scrape: "true"
      prometheus.io/port: "9121"
      traefik.enable: "true"
      traefik.http.routers.cache.rule: Host(`cache.example.org`)
      traefik.http.services.cache.loadbalancer.server.port: "8001"
"""
KEYS: dict[str, Json] = {
    "clan": {"file": "inventory.json"},
    "manifest": {"manifest": {"file": "service-manifest.json"}},
    "exposed": {"exposed": "exposed.json"},
    "compose": {"compose": {"nas": {"files": ["compose.yaml"]}}},
}
"""The keys of `inventory` by source."""
FILES = {
    "clan": "inventory.json",
    "manifest": "service-manifest.json",
    "exposed": "exposed.json",
    "compose": "compose.yaml",
}
JOBS = {"clan": {"node"}, "manifest": {"node"}, "exposed": {"photos"}, "compose": {"redis"}}
SERVICES = {"manifest": ("media", "films.example.org"), "exposed": ("photos", "photos.example.org")}
SERVICES["compose"] = ("redis", "cache.example.org")
"""A service of each source, and the domain of its front."""
ALL = tuple(KEYS)
TOGETHER = [*((source,) for source in ALL), ALL]
Case = tuple[tuple[str, ...], "Path"]


def written(directory: Path, sources: Iterable[str]) -> Path:
    """Write the files of these sources and a config; return the config."""
    directory.mkdir(exist_ok=True)
    (directory / "inventory.json").write_text(json.dumps(inventory(["nas", "monitor"])))
    (directory / "service-manifest.json").write_text(json.dumps(MANIFEST))
    (directory / "exposed.json").write_text(json.dumps(EXPOSED))
    (directory / "compose.yaml").write_text(COMPOSE)
    given: dict[str, Json] = {}
    for source in sources:
        keys = KEYS[source]
        assert isinstance(keys, dict)
        given |= keys
    config: Json = {
        "inventory": given,
        "output": {"directory": "targets"},
        "verify": {"scrapers": {"none": {"url": f"http://127.0.0.1:{free_port()}"}}},
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return directory / "config.yaml"


@pytest.fixture(params=TOGETHER, ids="+".join)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    """Return names of sources, and a config with them."""
    sources: tuple[str, ...] = request.param
    return sources, written(tmp_path / "here", sources)


def jobs_of(sources: Iterable[str]) -> set[str]:
    """Return the jobs that these sources declare."""
    return {job for source in sources for job in JOBS[source]}


def test_commands_that_write(case: Case, run: Run) -> None:
    """`check` accepts the sources, `refresh` writes them once, and `diff`, `doctor` and `history` agree."""
    sources, config = case
    checked = run("check", "-c", config)
    assert (checked.code, checked.err) == (0, "")
    assert run("refresh", "-c", config).code == 0
    assert {file.stem for file in (config.parent / "targets").glob("*.json")} == jobs_of(sources)
    assert "0 files written" in run("refresh", "-c", config).out
    assert run("diff", "--exit-code", "-c", config).out == "nothing would change\n"
    examined = run("doctor", "-c", config)
    assert (examined.code, "FAIL" in examined.out, "WARN" in examined.out) == (0, False, False)
    assert run("history", "-c", config).code == 0
    for format_ in ("json", "nix"):
        assert run("snapshot", "--output", config.parent / f"t.{format_}", "-c", config).code == 0
    assert run("render", "--output", config.parent / "rendered", "-c", config).code == 0
    for file in (config.parent / "targets").glob("*.json"):
        assert (config.parent / "rendered" / file.name).read_bytes() == file.read_bytes()


def test_commands_that_print(case: Case, run: Run) -> None:
    """The documents are as their schemas, and every target is at its declared address."""
    sources, config = case
    for name, words in (
        ("resolution", ["show", "-f", "json"]),
        ("inventory", ["inventory"]),
        ("explain", ["explain", "nas", "-f", "json"]),
    ):
        done = run(*words, "-c", config)
        assert (done.code, done.err) == (0, "")
        jsonschema.validate(json.loads(done.out), schema(name), cls=jsonschema.Draft202012Validator)
    found = json.loads(run("show", "-f", "json", "-c", config).out)
    assert {target["job"] for target in found["targets"]} == jobs_of(sources)
    assert {target["asked"] for target in found["targets"]} == {False}
    for options in (["-f", "file-sd"], ["-f", "nix"], ["-f", "scrape-config"], ["--by", "machine"], ["nas"]):
        done = run("show", *options, "-c", config)
        assert (done.code, "nas" in done.out or options == ["-f", "scrape-config"]) == (0, True)
    assert "nas" in run("machines", "-c", config).out.split()
    verified = run("verify", "-f", "json", "-c", config)
    assert verified.code == 3
    jsonschema.validate(json.loads(verified.out), schema("verify"), cls=jsonschema.Draft202012Validator)


def test_services_and_fronts_of_every_source(case: Case, run: Run) -> None:
    """They are explained with file and line, listed, completed, and written for each proxy."""
    sources, config = case
    names = run("completion", "names", "-c", config).out.split()
    fronts = run("show", "--by", "front", "-c", config).out
    proxies = [run("show", "-f", kind, "-c", config) for kind in ("caddy", "nginx", "traefik")]
    for source in sources:
        assert source not in SERVICES or set(SERVICES[source]) <= set(names)
    for source in set(sources) & SERVICES.keys():
        service, domain = SERVICES[source]
        for word in (service, domain, f"https://{domain}/x"):
            told = run("explain", word, "-c", config).out
            assert told.startswith("nas\n")
            assert f"front: {domain}/ of service" in told
            assert f"{config.parent / FILES[source]}:" in told
        assert domain in fronts
        for done in proxies:
            assert done.code == 0
            assert domain in done.out


def test_every_file_is_watched(case: Case) -> None:
    """So that `run` reads it again when it changes."""
    sources, config = case
    loaded = load_config(config)
    make_plan(loaded)  # Compose files name others
    watched = {file.name for file, _ in watched_files(loaded)}
    assert watched >= {FILES[source] for source in sources}


def test_the_order_of_sources_does_not_matter(tmp_path: Path, run: Run) -> None:
    """Neither for what is declared nor for the targets."""
    outputs: list[list[str]] = []
    for sources in (ALL, ALL[::-1]):
        config = written(tmp_path / "here", sources)
        outputs.append([run(*words, "-c", config).out for words in (["inventory"], ["show"], ["explain", "nas"])])
    assert outputs[0] == outputs[1]


def test_several_sources_declare_one_machine(tmp_path: Path, run: Run) -> None:
    """Its targets are those of all, each once, at the address that one of them knows."""
    config = written(tmp_path / "here", ALL)
    found = json.loads(run("show", "nas", "-f", "json", "-c", config).out)
    rows = {(target["job"], target["address"], target["because"].partition(":")[0]) for target in found["targets"]}
    assert rows == {
        ("node", "10.0.0.5:9100", "inventory"),
        ("photos", "10.0.0.5:2283", "exposed"),
        ("redis", "10.0.0.5:9121", "compose"),
    }


@pytest.mark.parametrize(("sources", "domain"), [(ALL, "home.arpa"), (("exposed", "compose", "manifest"), "lan.arpa")])
def test_names_are_below_the_domain_that_a_source_knows(
    tmp_path: Path, run: Run, sources: tuple[str, ...], domain: str
) -> None:
    """That of the clan comes first; a source without one does not count."""
    config = written(tmp_path / "here", sources)
    (tmp_path / "here/service-manifest.json").write_text(
        json.dumps({"network": {"domain": "lan.arpa"}, "services": {"db": {"enable": True}}})
    )
    found = json.loads(run("show", "db", "--job", "node", "-f", "json", "-c", config).out)
    assert [target["address"] for target in found["targets"]] == [f"db.{domain}:9100"]


def test_a_server_that_is_no_machine_loses_targets_on_loopback(tmp_path: Path, run: Run) -> None:
    """A typo must not remove targets without a word."""
    config = written(tmp_path, ["exposed"])
    machines: Json = {"nas": {"expose": {"photos": {"port": 2283, "loopback": True}, "node": {"port": 9100}}}}
    (tmp_path / "exposed.json").write_text(json.dumps({"machines": machines}))
    text = config.read_text()
    config.write_text(f"{text}server: NAS\n")
    assert run("check", "-c", config).err == ""
    config.write_text(f"{text}server: nsa\n")
    said = "server: there is no machine 'nsa': 1 target on loopback cannot be scraped (did you mean 'nas'?)"
    assert said in run("check", "-c", config).err


@pytest.mark.parametrize(
    ("service", "why"),
    [
        ("{image: app, ports: ['80']}", 'no service has the label `prometheus.io/scrape: "true"`'),
        (
            "{image: app, labels: {prometheus.io/scrape: 'true', prometheus.io/port: '9121'}}",
            "nas: compose: services.app of nas: it does not publish port 9121 (publish it on one address",
        ),
    ],
)
def test_compose_files_without_a_target_say_why(tmp_path: Path, run: Run, service: str, why: str) -> None:
    config = written(tmp_path, ["compose"])
    (tmp_path / "compose.yaml").write_text(f"services: {{app: {service}}}\n")
    done = run("show", "-c", config)
    assert (done.code, why in done.err) == (2, True), done.err


def test_names_in_dns_need_a_domain(tmp_path: Path, run: Run) -> None:
    """A Compose file has none."""
    config = written(tmp_path, ["compose"])
    text = config.read_text()
    config.write_text(f"{text}backends: {{dns: {{lan: {{}}}}}}\n")
    said = "backends.dns.lan: no source gives the domain of the machines (write `domain: lan.example.org`)"
    assert said in run("check", "-c", config).err


def test_a_disabled_service_is_explained(tmp_path: Path, run: Run) -> None:
    """By the words of its source."""
    done = run("explain", "mail", "-c", written(tmp_path / "here", ["manifest"]))
    assert "disabled" in done.out
    assert "services.mail" in done.out


def test_an_exposed_service_that_is_excluded_is_explained(tmp_path: Path, run: Run) -> None:
    """By its name, although it has no target and no front."""
    config = written(tmp_path, ["exposed"])
    machines: Json = {"nas": {"expose": {"redis": {"port": 9121, "loopback": True}, "node": {"port": 9100}}}}
    (tmp_path / "exposed.json").write_text(json.dumps({"machines": machines}))
    done = run("explain", "-c", config, "redis")
    assert done.code == 0
    assert "excluded (redis): loopback: redis listens on loopback" in done.out
