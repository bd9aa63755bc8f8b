"""docs/migrating.md, step by step: its commands and configs, with the programs that it mentions.

What changes on the machines of a clan (steps 1 and 3) is in tests/nix/clan-tests.nix.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.builds import NoGoError, NotBuiltError, tailscalesd
from tests.support.fleet import inventory, node, status
from tests.support.localapi import Behaviour, localapi
from tests.support.nix import ROOT, nixpkgs_lib, text
from tests.support.pages import blocks, documents
from tests.support.programs import (
    absent,
    checkout,
    eventually,
    free_port,
    get_json,
    nix_program,
    program,
    running,
    scraper_program,
)
from tests.support.resolving import tried
from tests.support.scraper import prometheus, vmagent

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from clan_discovery.model import Json
    from tests.conftest import Done
    from tests.support.scraper import Scraper, Target

    Run = Callable[..., Done]
    Job = dict[str, Json]

PAGE = "migrating.md"
PROGRAM = Path(sys.executable).with_name("clan-discovery")


def section(heading: str) -> list[Json]:
    """Return the YAML blocks below a heading of the page."""
    return documents(PAGE, heading)


def scrape_configs(document: Json, *changes: tuple[str, str]) -> list[Job]:
    """Return the jobs of a config of the page, with some texts replaced."""
    written = json.dumps(document)
    for old, new in changes:
        assert old in written, old
        written = written.replace(old, new)
    found: list[Job] = json.loads(written)["scrape_configs"]
    return found


# From today's clan module

NIXPKGS = """{ outputs = _: { }; }"""
FLAKE = """{
  inputs.nixpkgs.url = "path:PLACE/nixpkgs";
  inputs.nixpkgs-lib = { url = "path:NIXPKGS_LIB"; flake = false; };
  inputs.clan-core = { url = "path:CLAN_CORE"; flake = false; };
  STEP
  outputs = inputs: import "${inputs.clan-discovery}/tests/nix/service.nix" {
    nixpkgsLib = "${inputs.nixpkgs-lib}";
    clanCore = "${inputs.clan-core}";
    directory = "${./.}";
    whole = true;
    documented = true;
    server = { discoveryMethod = "tailscale"; };
    exporter = { exporterType = "node"; };
    MODULE
  };
}
"""


@pytest.fixture
def _on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the program to PATH."""
    monkeypatch.setenv("PATH", f"{PROGRAM.parent}:{os.environ['PATH']}")


@pytest.fixture
def store(tmp_path: Path, _on_path: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give Nix its own store and HOME; return their directory."""
    monkeypatch.setenv("NIX_REMOTE", str(tmp_path / "store"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home/.cache"))
    monkeypatch.setenv("NIX_CONFIG", "substituters =\nsandbox = false\nbuild-users-group =")
    return tmp_path


def flake(place: Path, form: str) -> Path:
    """Write a clan that uses our flake as the page says; stubs replace its other inputs."""
    inputs, own, named = blocks(PAGE, "1. The flake", "nix")
    ours = place / "ours"
    shutil.copytree(ROOT / "nix", ours / "nix")
    shutil.copytree(ROOT / "tests/nix", ours / "tests/nix")
    shutil.copytree(ROOT / "clan_discovery/data", ours / "clan_discovery/data")
    for name in ("flake.nix", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, ours)
    (place / "nixpkgs").mkdir()
    (place / "nixpkgs/flake.nix").write_text(NIXPKGS)
    if form == "self":
        module = f'service = {{ {own} }}.clan.modules.prometheus; input = "self";'
    else:
        said = f"{{ {named} }}.inventory.instances"
        module = f"service = inputs.clan-discovery.clan.modules.prometheus; input = {said}.systemd.module.input;"
    found = FLAKE.replace("STEP", inputs.replace('"..."', text(f"path:{ours}"))).replace("MODULE", module)
    found = found.replace("CLAN_CORE", checkout("CLAN_CORE")).replace("NIXPKGS_LIB", nixpkgs_lib())
    clan = place / "clan"
    clan.mkdir()
    (clan / "flake.nix").write_text(found.replace("PLACE", str(place)))
    subprocess.run([program("git"), "init", "-q"], cwd=clan, check=True)
    return clan


def shell(script: str, place: Path) -> str:
    """Run commands, each of which must succeed; return their output."""
    done = subprocess.run(
        ["sh", "-eu", "-c", script], cwd=place, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("form", ["self", "clan-discovery"])
@pytest.mark.parametrize("nix_", ["debian", "newer"])
def test_steps_1_and_2(form: str, nix_: str, store: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flake with real clan-core uses the service, `dump` evaluates it, and `show` prints the targets."""
    monkeypatch.setenv("PATH", f"{Path(nix_program('nix', nix_)).parent}:{os.environ['PATH']}")
    clan = flake(store, form)
    commands, _ = blocks(PAGE, "2. Look before you leap", "console")
    assert shell(commands, clan).splitlines() == [
        *(f"D/{name}.json  written" for name in ("inventory", "settings", "exports")),
        *("backup", "db", "monitor", "web"),
        "db",
    ]
    assert f"{form}-prometheus" in json.loads((clan / "D/settings.json").read_text())
    (look,) = section("2. Look before you leap")
    assert isinstance(look, dict)
    seen = status([node(1, "monitor"), node(2, "db"), node(3, "pixel", OS="android", Tags=None)])
    backends: Json = {"tailscale": {"tailnet": {"socket": str(store / "s")}}}
    (clan / "look.yaml").write_text(json.dumps({**look, "backends": backends}))
    with localapi(store / "s", Behaviour(body=json.dumps(seen).encode())):
        done = run("show", "--config", clan / "look.yaml")
    assert done.code == 0, done.err
    assert [line.split()[:3] for line in done.out.splitlines()[1:8]] == [
        ["node", "backup", "backup.tail1a2b3.ts.net:9100"],
        ["node", "db", "100.64.0.2:9100"],
        ["node", "monitor", "100.64.0.1:9100"],
        ["node", "web", "web.wg:9100"],
        ["prometheus", "backup", "backup.tail1a2b3.ts.net:9090"],
        ["prometheus", "monitor", "100.64.0.1:9090"],
        ["systemd", "db", "100.64.0.2:9558"],
    ]
    assert "excluded: 1 phone or TV: pixel" in done.out
    assert not (clan / "look").exists()


def test_settings_dumped_before_step_1_have_the_old_defaults(tmp_path: Path, run: Run) -> None:
    """The interface of today's module gives every exporter the port 9100, which then wins."""
    instances: Json = {"systemd": {"module": {"name": "prometheus", "input": "self"}, "roles": {"exporter": {
        "machines": {"db": {"settings": {"exporterType": "systemd"}}}}}}}  # fmt: skip
    (tmp_path / "inventory.json").write_text(json.dumps({"machines": {"db": {}}, "instances": instances}))
    merged: Json = {"enabledCollectors": [], "exporterType": "systemd", "port": 9100}
    (tmp_path / "settings.json").write_text(
        json.dumps({"self-prometheus": {"systemd": {"exporter": {"db": merged}, "server": {}}}})
    )
    words = ("inventory", "--file", tmp_path / "inventory.json")
    answers = [run(*words, *more).out for more in ((), ("--settings", tmp_path / "settings.json"))]
    assert [json.loads(answer)["exporters"][0]["port"] for answer in answers] == [9558, 9100]


def test_the_search_for_job_and_instance_names(tmp_path: Path) -> None:
    """The command below the table finds rules and dashboards."""
    (command,) = blocks(PAGE, "3. What changes", "console")
    (tmp_path / "rules.nix").write_text("expr = ''up{job=\"tailscale-systemd-exporter\"} == 0'';\nname = \"node\";\n")
    (tmp_path / "board.json").write_text(json.dumps({"a": 'up{job="lan-dns"}', "dm-dns": "x"}, indent=1))
    (tmp_path / "rules.yaml").write_text('expr: up{instance=~"100.64.*"}\nsystemd-dns: x\n')
    assert sorted(shell(command, tmp_path).splitlines()) == [
        r"""./board.json:2: "a": "up{job=\"lan-dns\"}",""",
        """./rules.nix:1:expr = ''up{job="tailscale-systemd-exporter"} == 0'';""",
        """./rules.yaml:1:expr: up{instance=~"100.64.*"}""",
    ]


# From tailscalesd

FLEET = (
    node(1, "monitor"),
    node(2, "db", Online=False, Tags=["tag:server", "tag:edge-1"]),
    node(3, "web", HostName="Web Server"),
    node(4, "nas", Tags=None),
    node(5, "pixel", OS="android", Tags=None),
    node(6, "relay", DNSName="", HostName="funnel-ingress-node", Tags=None),
)
SERVERS = ["100.64.0.1:9100", "100.64.0.2:9100", "100.64.0.3:9100"]
BEFORE, CONFIG, AFTER = section("From tailscalesd")
# The first of these tests builds tailscalesd, with all its modules.
FIRST_BUILD = pytest.mark.timeout(600)


@pytest.fixture
def peer(tmp_path: Path) -> Generator[str]:
    """Run the real tailscalesd against our LocalAPI; return its URL."""
    try:
        path = tailscalesd()
    except NoGoError as error:
        absent("tailscalesd", str(error), required=False)
    except NotBuiltError as error:
        absent("tailscalesd", str(error))
    port = free_port()
    command = [str(path), "--localapi", f"--localapi_socket={tmp_path}/s", f"--address=127.0.0.1:{port}", "--poll=1s"]
    with (
        localapi(tmp_path / "s", Behaviour(body=json.dumps(status(FLEET)).encode())),
        running(command, tmp_path / "tailscalesd.log"),
    ):
        url = f"http://127.0.0.1:{port}/"
        eventually("tailscalesd answers", lambda: get_json(url) is not None)
        yield url


def ours(place: Path, config: Json) -> Path:
    """Write a config of the page with the directory and socket of the test; return it."""
    assert isinstance(config, dict)
    said: Job = {**config, "output": {"directory": "targets"}}
    match config["backends"]:
        case {"tailscale": {"tailnet": {}}}:
            said["backends"] = {"tailscale": {"tailnet": {"socket": f"{place}/s"}}}
        case _:
            pass
    (place / "config.yaml").write_text(json.dumps(said))
    return place / "config.yaml"


def by_files(place: Path, document: Json) -> list[Job]:
    """Return the jobs of a config of the page that reads target files."""
    return scrape_configs(document, ("/var/lib/clan-discovery/targets", f"{place}/targets"))


def rules(job: Job) -> list[Json]:
    """Return the relabel rules of a job."""
    found = job["relabel_configs"]
    assert isinstance(found, list)
    return found


@FIRST_BUILD
def test_the_labels_of_tailscalesd(tmp_path: Path, peer: str, run: Run) -> None:
    """They have the same values, except those in the first table."""
    theirs = {group["targets"][0]: group["labels"] for group in json.loads(json.dumps(get_json(peer)))}
    assert run("refresh", "-q", "-c", ours(tmp_path, CONFIG)).code == 0
    written = json.loads((tmp_path / "targets/node.json").read_text())
    found = {group["targets"][0]: group["labels"] for group in written}
    assert sorted(found) == SERVERS
    more = ("__meta_tailscale_device_name", "__meta_tailscale_tailnet", "__meta_tailscale_device_tags")
    for address, labels in found.items():
        peers = theirs[address.removesuffix(":9100")]
        online = peers.pop("__meta_tailscale_device_online")
        assert online == ("false" if labels["instance"] == "db" else "true")
        extra = {name: labels.pop(name) for name in more}
        assert extra["__meta_tailscale_device_name"] == f"{labels['instance']}.tail1a2b3.ts.net"
        assert {name: value for name, value in labels.items() if name.startswith("__meta_tailscale_")} == peers
        assert labels["instance"] == labels["machine"]
    assert sorted(set(theirs) - {address.removesuffix(":9100") for address in found}) == [
        "100.64.0.4", "100.64.0.5", "100.64.0.6",
    ]  # fmt: skip


@pytest.mark.usefixtures("_on_path")
@pytest.mark.parametrize("which", ["debian", "newer"])
@FIRST_BUILD
def test_from_tailscalesd(which: str, tmp_path: Path, peer: str) -> None:
    """After publish, `show` and reload: the same machines at their addresses, and never one fewer."""
    for tool in ("curl", "jq"):
        program(tool)
    config = ours(tmp_path, CONFIG)
    (tmp_path / "look.yaml").symlink_to(config)
    before = scrape_configs(BEFORE, ("http://localhost:9242/", peer))
    with prometheus(tmp_path, before, scraper_program("prometheus", which)) as scraper:
        old = scraper.until("tailscalesd's machines", lambda found: len(found) == 3)[-1]
        assert [target.address for target in old] == SERVERS
        assert [target.instance for target in old] == ["monitor", "db", "Web Server"]
        assert "written" in shell(f"clan-discovery refresh --config {config}", tmp_path)
        _, look = blocks(PAGE, "2. Look before you leap", "console")
        assert "<" not in shell(look.replace("localhost:9090", f"127.0.0.1:{scraper.port}"), tmp_path)
        scraper.change(by_files(tmp_path, AFTER), post=True)
        seen = scraper.until("the file took over", lambda found: all("machine" in t.labels for t in found))
        assert [[target.address for target in found] for found in seen] == [SERVERS] * len(seen)
        assert [target.labels for target in seen[-1]] == [
            {"instance": name, "job": "node", "machine": name, "os": "linux"} for name in ("monitor", "db", "web")
        ]


@FIRST_BUILD
def test_kept_relabel_rules_give_the_same_labels(tmp_path: Path, peer: str, run: Run) -> None:
    """Except for the two rules that must be removed."""
    (before,) = scrape_configs(BEFORE, ("http://localhost:9242/", peer))
    (after,) = by_files(tmp_path, AFTER)
    path = scraper_program("prometheus", "debian")
    tag: Json = {"source_labels": ["__meta_tailscale_device_tag_edge_1"], "target_label": "edge"}
    mine: list[Json] = [*rules(before), tag]
    kept: list[Json] = [rule for rule in mine if "'target_label': '__address__'" not in str(rule)]
    assert len(kept) == len(mine) - 1
    assert run("refresh", "-q", "-c", ours(tmp_path, CONFIG)).code == 0
    with prometheus(tmp_path, [{**before, "relabel_configs": mine}], path) as scraper:
        old = scraper.until("tailscalesd's machines", lambda found: len(found) == 3)[-1]
        scraper.change([{**after, "relabel_configs": kept}])
        new = scraper.until("the file took over", lambda found: all("machine" in t.labels for t in found))[-1]
        assert [without_machine(target) for target in new] == [target.labels for target in old]
        assert [target.labels.get("edge") for target in new] == [None, "1", None]
        scraper.change([{**after, "relabel_configs": mine}])
        scraper.until("a port too many", lambda found: "100.64.0.1:9100:9100" in str(found))
        online: Json = {"source_labels": ["__meta_tailscale_device_online"], "regex": "true", "action": "keep"}
        scraper.change([{**after, "relabel_configs": [online]}])
        scraper.until("nobody is online", lambda found: found == [])


def without_machine(target: Target) -> dict[str, str]:
    """Return the labels without `machine`, which tailscalesd does not have."""
    return {name: value for name, value in target.labels.items() if name != "machine"}


@FIRST_BUILD
def test_todays_jobs_on_tailscalesd(tmp_path: Path, peer: str) -> None:
    """As in the table: every device in two jobs, by address, and the server once more in each."""

    def job(name: str, port: int) -> Job:
        sd: Json = [{"url": peer}]
        relabel: Json = [
            {"source_labels": ["__address__"], "target_label": "__address__", "replacement": f"$1:{port}"},
            {"source_labels": ["__meta_tailscale_device_name"], "target_label": "instance"},
        ]
        labels: Json = {"__meta_tailscale_device_name": "monitor"}
        own: Json = [{"targets": ["localhost"], "labels": labels}]
        return {"job_name": name, "http_sd_configs": sd, "static_configs": own, "relabel_configs": relabel}

    jobs = [job("tailscale-node-exporter", 9100), job("tailscale-systemd-exporter", 9558)]
    with prometheus(tmp_path, jobs, scraper_program("prometheus", "debian")) as scraper:
        found = scraper.until("every device", lambda found: len(found) == 2 * (len(FLEET) + 1))[-1]
    for target in found:
        assert target.instance == ("monitor" if target.address.startswith("localhost:") else target.address)


@pytest.mark.parametrize("which", ["debian", "newer"])
def test_prometheus_2_keeps_targets_of_a_job_with_empty_discovery(which: str, tmp_path: Path) -> None:
    """If the job keeps its name. Later versions do not."""
    path = scraper_program("prometheus", which)
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    keeps = "version 2." in said
    (tmp_path / "empty.json").write_text("[]")
    files: Job = {"file_sd_configs": [{"files": [f"{tmp_path}/empty.json"]}]}
    static: Job = {"job_name": "node", "static_configs": [{"targets": ["10.0.0.5:9100"]}]}
    with prometheus(tmp_path, [static], path) as scraper:
        scraper.until("the old one", lambda found: len(found) == 1)
        scraper.change([{"job_name": "node", **files}])
        if keeps:
            assert [target.address for target in scraper.settled()] == ["10.0.0.5:9100"]
        else:
            scraper.until("gone", lambda found: found == [])
        scraper.change([{"job_name": "other", **files}])
        scraper.until("gone", lambda found: found == [])


@pytest.mark.parametrize("which", ["debian", "newer"])
@FIRST_BUILD
def test_vmagent_needs_a_new_job_name(which: str, tmp_path: Path, peer: str, run: Run) -> None:
    """With a new name the old targets are removed; with the old name they may stay, and the log says so."""
    (before,) = scrape_configs(BEFORE, ("http://localhost:9242/", peer))
    (after,) = by_files(tmp_path, AFTER)
    assert run("refresh", "-q", "-c", ours(tmp_path, CONFIG)).code == 0
    path = scraper_program("vmagent", which)
    for name in ("node", "node-file"):
        with vmagent(tmp_path, [before], path) as scraper:
            scraper.until("tailscalesd's machines", lambda found: len(found) == 3)
            scraper.change([{**after, "job_name": name}])
            scraper.until("ours", lambda found: len(by_machine(found)) == 3)
            scraper.settled(3)

            def is_settled(found: Sequence[Target], name: str = name, scraper: Scraper = scraper) -> bool:
                stale = [target for target in found if "machine" not in target.labels]
                preserved = "preserving the previous http_sd_config targets for job_name=node " in scraper.log()
                wanted = 3 if name == "node" and preserved else 0
                return (len(by_machine(found)), len(stale)) == (3, wanted)

            scraper.until("the old ones are gone, or preserved", is_settled)


def by_machine(targets: Sequence[Target]) -> list[str]:
    """Return the machine of each target that is ours."""
    return [target.labels["machine"] for target in targets if "machine" in target.labels]


# From dns_sd

ZONE = """\
db A 10.0.0.5
many A 10.0.1.2
many A 10.0.1.1
six AAAA fd00::6
_web._tcp SRV 0 5 8080 db
_web._tcp SRV 10 0 8081 six
_gone._tcp SRV 0 0 0 .
_zero._tcp SRV 0 0 0 db
"""


@pytest.mark.parametrize("which", ["debian", "newer"])
def test_from_dns_sd(which: str, tmp_path: Path) -> None:
    """With the configs of the page: the same addresses and dns_sd labels, and names as instances."""
    before, config, after = section("From dns_sd")
    ours(tmp_path, config)
    path = scraper_program("prometheus", which)
    seen = tried(tmp_path, path, ZONE, scrape_configs(before), by_files(tmp_path, after), counts=(5, 5))
    assert (seen.fewest, "5 targets in 2 jobs; 5 seen" in seen.said) == (5, True)
    old, new = seen.before, seen.after
    assert [target.address for target in old] == [
        "10.0.0.5:9100", "10.0.1.1:9100", "10.0.1.2:9100", "db.lan.example:8080", "six.lan.example:8081",
    ]  # fmt: skip
    assert [target.instance for target in old] == [target.address for target in old]
    assert [target.address for target in new] == [
        "10.0.0.5:9100", "10.0.1.1:9100", "10.0.1.2:9100", "10.0.0.5:8080", "[fd00::6]:8081",
    ]  # fmt: skip
    assert [target.instance for target in new] == [
        "db.lan.example", "10.0.1.1", "10.0.1.2", "db.lan.example", "six.lan.example",
    ]  # fmt: skip
    assert [target.meta("__meta_dns_") for target in new] == [target.meta("__meta_dns_") for target in old]
    assert old[4].meta("__meta_dns_") == {
        "__meta_dns_name": "_web._tcp.lan.example",
        "__meta_dns_srv_record_target": "six.lan.example.",
        "__meta_dns_srv_record_port": "8081",
    }


@pytest.mark.parametrize("which", ["debian", "newer"])
def test_names_that_dns_sd_does_not_resolve(which: str, tmp_path: Path) -> None:
    """A wildcard, a name for the search list, a withdrawn service, and port 0."""

    def listed(**jobs: str) -> list[Job]:
        types: dict[str, Json] = {"node": "A", "short": "A"}
        more = {job: {"type": types[job], "port": 9100} if job in types else {} for job in jobs}
        return [{"job_name": job, "dns_sd_configs": [{"names": [name], **more[job]}]} for job, name in jobs.items()]

    before = listed(node="*.lan.example", short="db", gone="_gone._tcp.lan.example", zero="_zero._tcp.lan.example")
    names = {"node": "node", "short": "short", "withdrawn": "gone", "zero": "zero"}
    after: list[Job] = [
        {"job_name": job, "file_sd_configs": [{"files": [f"{tmp_path}/targets/{file}.json"]}]}
        for job, file in names.items()
    ]
    star: Json = {"node": {"names": ["*.lan.example"], "type": "A", "port": 9100}}
    server: dict[str, Json] = {"discoveryMethod": "dns", "dnsDiscovery": star}
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["attic", "db", "monitor", "many"], server=server)))
    dns: Json = {
        "short": {"names": ["db"], "type": "A", "port": 9100, "job": "short", "search": True},
        "gone": {"names": ["_gone._tcp.lan.example"], "job": "gone"},
        "zero": {"names": ["_zero._tcp.lan.example"], "job": "zero", "port": 9300},
    }
    ours(tmp_path, {"inventory": {"file": "inventory.json"}, "backends": {"dns": dns}})
    seen = tried(tmp_path, scraper_program("prometheus", which), ZONE, before, after, counts=(3, 6))
    assert {target.labels["job"]: target.address for target in seen.before} == {
        "short": "10.0.0.5:9100", "gone": ":0", "zero": "db.lan.example:0",
    }  # fmt: skip
    assert "excluded: 1 withdrawn" in seen.said
    assert [(target.labels["job"], target.instance, target.address) for target in seen.after] == [
        ("node", "db", "10.0.0.5:9100"),
        ("node", "many", "10.0.1.1:9100"),
        ("node", "attic", "attic.home.arpa:9100"),
        ("node", "monitor", "monitor.home.arpa:9100"),
        ("short", "db.lan.example", "10.0.0.5:9100"),
        ("zero", "db.lan.example", "10.0.0.5:9300"),
    ]
    names_asked = [target.meta("__meta_dns_name").get("__meta_dns_name") for target in seen.after]
    assert names_asked == ["db.lan.example", "many.lan.example", None, None, "db", "_zero._tcp.lan.example"]
