"""`init`: `check` accepts the config for anything that is found, and each example in it is valid."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest
import yaml

from clan_discovery.cli.commands import init
from clan_discovery.cli.commands.schema import schema
from clan_discovery.cli.surroundings import Surroundings, look
from tests.support.fleet import fleet, inventory
from tests.support.localapi import Behaviour, localapi

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

PROMETHEUS = """\
scrape_configs:
  - job_name: node
    file_sd_configs: [{files: [/nonsense/*.yml, %s/*.json]}]
  - job_name: other
    static_configs: [{targets: [x]}]
"""


@pytest.fixture
def here(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty directory of a machine without tailscaled or Prometheus; return it."""
    # A test's own directory has a long name, and the path of a socket has at most 107 bytes.
    place = tmp_path_factory.mktemp("init")
    root, here = place / "root", place / "here"
    root.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(init, "_ROOT", root)
    monkeypatch.setattr(init, "_PATIENCE_S", 30)
    return here


def add_inventory(here: Path, file: str = "inventory.json") -> None:
    """Write an inventory of two machines."""
    (here / file).parent.mkdir(exist_ok=True)
    (here / file).write_text(json.dumps(inventory(["monitor", "db"])))


def add_prometheus(root: Path, directory: Path) -> None:
    """Write a config of Prometheus that reads target files from a directory."""
    (root / "etc/prometheus").mkdir(parents=True)
    (root / "etc/prometheus/prometheus.yml").write_text(PROMETHEUS % directory)


def add_socket(root: Path) -> Path:
    """Create the directory of tailscaled's socket."""
    (root / "run/tailscale").mkdir(parents=True)
    return root / "run/tailscale/tailscaled.sock"


def in_use(text: str) -> str:
    """Return the config with the examples uncommented."""
    return re.sub(r"^( *)#(?=\S|  )", r"\1", text, flags=re.MULTILINE)


MACHINE = os.uname().nodename.partition(".")[0]
THINGS = ("inventory", "tailnet", "prometheus")


@pytest.mark.parametrize("present", [c for n in range(4) for c in itertools.combinations(THINGS, n)], ids="+".join)
def test_check_accepts_the_written_config(here: Path, run: Run, present: tuple[str, ...]) -> None:
    """For any combination of findings; the schema accepts it, too."""
    root = here.parent / "root"
    if "inventory" in present:
        add_inventory(here)
    if "prometheus" in present:
        add_prometheus(root, here / "sd")
    if "tailnet" in present:
        add_socket(root).touch()  # a socket without a listener
    done = run("init")
    assert (done.code, done.out) == (0, "")
    checked = run("check")
    assert (checked.code, checked.err) == (0, "")
    text = (here / "clan-discovery.yaml").read_text()
    jsonschema.validate(yaml.safe_load(text), schema("config"), cls=jsonschema.Draft202012Validator)
    assert text.startswith("# yaml-language-server: $schema=")


def test_findings_are_used(here: Path, run: Run) -> None:
    """The files of a dump, tailscaled, and the directory that Prometheus reads."""
    root = here.parent / "root"
    add_inventory(here, "clan/inventory.json")
    (here / "clan/exports.json").write_text("{}")
    add_prometheus(root, here / "sd")
    with localapi(add_socket(root), Behaviour(body=json.dumps(fleet(["monitor", "db"])).encode())):
        done = run("init")
    config = yaml.safe_load((here / "clan-discovery.yaml").read_text())
    assert config == {
        "inventory": {"file": "clan/inventory.json", "exports": "clan/exports.json"},
        "backends": {"tailscale": {"tailnet": {}}},
        "output": {"directory": "sd"},
    }
    assert f"inventory {here}/clan/inventory.json (2 machines, 2 targets)" in done.err
    assert "tailscaled (Running, 1 other node)" in done.err
    assert f"scraper config {root}/etc/prometheus/prometheus.yml" in done.err
    assert f"next: clan-discovery check; clan-discovery show; `refresh` will write to {here}/sd" in done.err
    assert done.err.count("\n") == 3


@pytest.mark.parametrize("labels", [{}, {"prometheus.io/scrape": "true", "prometheus.io/port": "9121"}])
def test_compose_files_and_manifests_are_used(here: Path, run: Run, labels: dict[str, str]) -> None:
    """Alone and together. A Compose file may declare no target: `check` accepts the config all the same."""
    compose: Json = {"services": {"redis": {"image": "redis", "ports": ["10.0.0.5:9121:9121"], "labels": labels}}}
    (here / "compose.yml").write_text(json.dumps(compose))
    done = run("init")
    assert f"Compose file {here}/compose.yml, as that of the machine {MACHINE}" in done.err
    config = yaml.safe_load((here / "clan-discovery.yaml").read_text())
    assert config["inventory"] == {"compose": {MACHINE: {"files": ["compose.yml"]}}}
    assert run("check").code == 0
    (here / "service-manifest.json").write_text('{"services": {"media": {"enable": true, "ip": "10.0.0.5"}}}')
    add_inventory(here)
    assert f"service manifest {here}/service-manifest.json" in run("init", "--force").err
    config = yaml.safe_load((here / "clan-discovery.yaml").read_text())
    assert set(config["inventory"]) == {"file", "manifest", "compose"}
    assert run("check").code == 0
    assert "media" in run("machines").out.split()


def test_a_flake_is_used_only_if_it_mentions_clan(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """And if Nix is installed. Nothing is evaluated."""
    (here / "flake.nix").write_text("{ }")
    assert "flake.nix: it does not mention clan" in run("init", "--output", "-").err
    (here / "flake.nix").write_text("{ inputs.clan-core.url = 1; }")
    bin_ = here.parent / "bin"
    bin_.mkdir()
    monkeypatch.setenv("PATH", str(bin_))
    done = run("init", "--output", "-")
    assert "flake.nix: nix is not on PATH" in done.err
    assert "inventory" not in yaml.safe_load(done.out)
    shutil.copy("/bin/true", bin_ / "nix")
    assert yaml.safe_load(run("init", "--output", "-").out)["inventory"] == {"flake": "."}


def test_a_config_elsewhere_has_absolute_paths(here: Path, run: Run) -> None:
    """Paths are relative to the config, not to the working directory."""
    add_inventory(here)
    (here.parent / "etc").mkdir()
    file = here.parent / "etc/c.yaml"
    done = run("-c", file, "init")
    assert yaml.safe_load(file.read_text())["inventory"] == {"file": f"{here}/inventory.json"}
    assert f"clan-discovery check --config {file}" in done.err
    assert run("check", "-c", file).code == 0


def test_every_example_is_valid(here: Path, run: Run) -> None:
    """Uncommented, the text matches the schema; each has a comment that says its purpose."""
    for text in (run("init", "--output", "-").out, _with_inventory(here, run)):
        used = yaml.safe_load(in_use(text).replace("  flake: .   # instead", "  #"))
        assert {"inventory", "backends", "exporters", "output", "policy", "labels"} == set(used)
        assert {"tailscale", "dns", "static"} == set(used["backends"])
        jsonschema.validate(used, schema("config"), cls=jsonschema.Draft202012Validator)


def _with_inventory(here: Path, run: Run) -> str:
    add_inventory(here)
    return run("init", "--output", "-").out


def test_nothing_is_overwritten_without_force(here: Path, run: Run) -> None:
    """Neither a file nor a symlink. The error names a missing directory."""
    file = here / "clan-discovery.yaml"
    file.write_text("mine")
    done = run("init")
    assert done.code == 2
    assert "clan-discovery.yaml: exists (choose another file with --output, or overwrite it with --force)" in done.err
    assert file.read_text() == "mine"
    assert run("init", "--force").code == 0
    assert "yaml-language-server" in file.read_text()
    done = run("init", "--output", "gone/c.yaml")
    assert done.code == 5
    assert "cannot write gone/c.yaml" in done.err


def test_a_daemon_that_hangs_does_not_hang_init(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket exists, so it is asked; the message says that it gave no answer."""
    monkeypatch.setattr(init, "_PATIENCE_S", 0.3)
    root = here.parent / "root"
    started = time.monotonic()
    with localapi(add_socket(root), Behaviour(hang=True)):
        done = run("init")
    assert time.monotonic() - started < 50
    assert done.code == 0
    assert "tailscaled, which does not answer: no complete response" in done.err
    assert "tailscale" in yaml.safe_load((here / "clan-discovery.yaml").read_text())["backends"]


def test_an_invalid_inventory_is_reported_and_not_used(here: Path, run: Run) -> None:
    """The same for a file beside it."""
    (here / "inventory.json").write_text("[]")
    done = run("init")
    assert "an inventory is an object, not a list" in done.err
    assert run("check").code == 0
    add_inventory(here)
    (here / "settings.json").write_text("[")
    assert f"not used: {here}/settings.json" in run("init", "--force").err
    assert run("check").code == 0


def test_scraper_configs_are_found_by_their_units(tmp_path: Path) -> None:
    """As NixOS and VictoriaMetrics's package name them.

    Invalid YAML gives no directories.
    """
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    (tmp_path / "p.yml").write_text(PROMETHEUS % "/var/lib/sd")
    for option in ("--config.file=/p.yml", '-promscrape.config="/p.yml"', "--config.file /p.yml"):
        (units / "vmagent.service").write_text(f"[Service]\nExecStart=/bin/x --a=b {option} --c\n")
        scraper = look(tmp_path, tmp_path, 0.1).scraper
        assert scraper is not None
        assert scraper.directories == (Path("/var/lib/sd"),)
    (tmp_path / "p.yml").write_text("a: [\n")
    scraper = look(tmp_path, tmp_path, 0.1).scraper
    assert scraper is not None
    assert scraper.directories == ()


def test_a_directory_with_other_files_is_not_for_target_files(here: Path, run: Run) -> None:
    """Such a directory is not used as output."""
    add_prometheus(here.parent / "root", here / "sd")
    (here / "sd").mkdir()
    assert yaml.safe_load(run("init", "--output", "-").out)["output"] == {"directory": "sd"}
    (here / "sd/mine.json").touch()
    assert yaml.safe_load(run("init", "--output", "-").out)["output"] != {"directory": "sd"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_an_inventory_of_another_user_is_not_used(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """In /tmp another user can create an inventory or a flake: it is reported, and commented out in the config."""

    def found(command: str) -> str:
        return f"/bin/{command}"

    monkeypatch.setattr(shutil, "which", found)
    add_inventory(here)
    (here / "flake.nix").write_text("{ outputs = _: { clan = 1; }; }")
    for name in ("inventory.json", "flake.nix"):
        os.chown(here / name, 1, 1)
    done = run("init", "--output", "-")
    assert done.code == 0
    assert len(re.findall("not used: .*(?:inventory.json|flake.nix): it belongs to user", done.err)) == 2
    assert "#inventory:" in done.out.splitlines()


@pytest.mark.parametrize("name", ["/a\\0b/x.json", f"/{'a' * 300}/x.json"])
def test_an_invalid_path_in_a_scraper_config_is_ignored(here: Path, run: Run, name: str) -> None:
    """With a NUL or a too long name, the default directory is used."""
    (here.parent / "root/etc/prometheus").mkdir(parents=True)
    config = f'scrape_configs: [{{file_sd_configs: [{{files: ["{name}"]}}]}}]'
    (here.parent / "root/etc/prometheus/prometheus.yml").write_text(config)
    done = run("init", "--output", "-")
    assert (done.code, "directory: /var/lib" in done.out or "directory: targets" in done.out) == (0, True)


def test_init_without_findings(tmp_path: Path) -> None:
    """It succeeds."""
    assert look(tmp_path, tmp_path, 0.1) == Surroundings()
