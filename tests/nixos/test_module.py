"""The NixOS module alone on a real NixOS: every mode, its units in a real systemd, and its config."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.fleet import fleet, inventory
from tests.support.nix import ROOT, at, listed, text
from tests.support.programs import eventually, program
from tests.support.systemd import booted, with_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done
    from tests.support.nixos import Real

    Run = Callable[..., Done]

MODES = ("resident", "static", "timer")


@pytest.fixture(scope="module")
def answer(real: Real) -> Json:
    """Return what the tests ask of a machine in each mode and with a snapshot, from one evaluation."""
    declared = text(json.dumps(inventory(["db", "monitor", "web"])))
    asked = """{
      failed = t.failed config;
      inherit (config) warnings;
      units = builtins.mapAttrs (_: unit: unit.text) (t.lib.filterAttrs
        (name: _: t.lib.hasPrefix "clan-discovery" name) config.systemd.units);
      jobs = map (t.lib.filterAttrsRecursive (_: value: value != null)) config.services.clan-discovery.scrapeConfigs;
      config = (config.environment.etc."clan-discovery/config.json" or { source = ""; }).source.drvPath or "";
      toplevel = t.toplevel config;
    }"""
    return real(f"""
      let
        ask = config: {asked};
        scraper = {{ config, ... }}: {{
          services.prometheus.enable = true;
          # It reads the metrics of a timer.
          services.prometheus.exporters.node.enable = config.services.clan-discovery.mode == "timer";
          services.prometheus.scrapeConfigs = config.services.clan-discovery.scrapeConfigs;
        }};
        machine = mode: ask (t.nixos [ scraper {{
          services.clan-discovery = {{
            enable = true;
            inherit mode;
            jobs = [ "node" ];
            settings.inventory.file = builtins.toFile "inventory.json" {declared};
            settings.backends.tailscale = t.lib.mkIf (mode != "static") {{ tailnet = {{ }}; }};
          }};
        }} ]);
      in {{
        resident = machine "resident";
        static = machine "static";
        timer = machine "timer";
        snapshot = ask (t.nixos [ scraper {{
          services.clan-discovery.snapshot = {ROOT}/examples/homelab/expected/targets.nix;
        }} ]);
      }}
    """)


@pytest.mark.parametrize("mode", [*MODES, "snapshot"])
def test_each_mode_is_a_whole_system(mode: str, answer: Json) -> None:
    """No assertion fails, only a snapshot's additional scrape configs warn, and the system has a derivation."""
    assert at(answer, mode, "failed") == []
    warnings = [str(warning) for warning in listed(answer, mode, "warnings")]
    assert [warning for warning in warnings if "has the additional scrape config" not in warning] == []
    assert str(at(answer, mode, "toplevel")).endswith(".drv")


def test_only_modes_that_ask_have_units(answer: Json) -> None:
    """A service, and a timer if it is asked for."""
    units = {mode: sorted(dict_of(at(answer, mode, "units"))) for mode in (*MODES, "snapshot")}
    assert units == {
        "resident": ["clan-discovery.service"],
        "static": [],
        "timer": ["clan-discovery.service", "clan-discovery.timer"],
        "snapshot": [],
    }


def dict_of(document: Json) -> dict[str, Json]:
    """Return an object of JSON."""
    assert isinstance(document, dict)
    return document


def config_of(real: Real, answer: Json, mode: str) -> dict[str, Json]:
    """Return the config that the build writes in a mode."""
    path = str(at(answer, mode, "config"))
    derivation = real.derivation(path)
    raw = [name for name in dict_of(at(derivation, "inputDrvs")) if name.endswith("clan-discovery-config.json.drv")]
    return dict_of(real.document(raw[0] if raw else path))


@pytest.mark.parametrize("mode", MODES)
def test_the_program_accepts_the_config(mode: str, answer: Json, real: Real, tmp_path: Path, run: Run) -> None:
    """`check` on the config of the build, with the inventory of the store."""
    config = config_of(real, answer, mode)
    source = dict_of(config["inventory"])
    assert re.fullmatch(r"/nix/store/\w{32}-inventory\.json", str(source["file"]))
    source["file"] = "inventory.json"
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["db", "monitor", "web"])))
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = run("check", "-c", tmp_path / "config.json")
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("mode", [*MODES, "snapshot"])
def test_promtool_accepts_the_scrape_configs(mode: str, answer: Json, tmp_path: Path) -> None:
    """As they are, with the job node."""
    jobs = at(answer, mode, "jobs")
    assert "node" in [at(job, "job_name") for job in jobs] if isinstance(jobs, list) else False
    (tmp_path / "prometheus.json").write_text(json.dumps({"scrape_configs": jobs}))
    done = subprocess.run(
        [program("promtool"), "check", "config", str(tmp_path / "prometheus.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mode", ["resident", "timer"])
def test_systemd_accepts_the_units_of_nixpkgs(mode: str, answer: Json, tmp_path: Path) -> None:
    """`systemd-analyze verify` prints nothing."""
    for name, unit in dict_of(at(answer, mode, "units")).items():
        (tmp_path / name).write_text(with_program(str(unit), f"{sys.prefix}/bin/clan-discovery", "/etc/config.json"))
    done = subprocess.run(
        [program("systemd-analyze"), "verify", "--man=no", *map(str, tmp_path.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_of_nixpkgs_runs(answer: Json, real: Real) -> None:
    """A real systemd runs the resident mode with the config of the build."""
    units = {
        name: with_program(str(unit), "/opt/share/clan-discovery", "/opt/share/config.json")
        for name, unit in dict_of(at(answer, "resident", "units")).items()
    }
    config = config_of(real, answer, "resident")
    dict_of(config["inventory"])["file"] = "/opt/share/inventory.json"
    with booted(units) as machine:
        (machine.share / "config.json").write_text(json.dumps(config))
        (machine.share / "inventory.json").write_text(json.dumps(inventory(["db", "monitor", "web"])))
        (machine.share / "status.json").write_text(json.dumps(fleet(["db", "monitor", "web"])))
        machine.ctl("start", "clan-discovery.service")
        file = "/var/lib/clan-discovery/targets/node.json"
        eventually("a target file", lambda: "db" in machine.command("cat", file).stdout)
        assert machine.show("clan-discovery.service", "ActiveState") == "active"
