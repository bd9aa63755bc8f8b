"""The flake as an input of another one, with the real `nix eval`. tests/nixos/test_packaging.py has its packages."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.nix import ROOT, value

if TYPE_CHECKING:
    from clan_discovery.model import Json

# Nothing of the clan's nixpkgs is evaluated.
NIXPKGS = '{ outputs = _: throw "no nixpkgs is needed to take the service"; }'
CONSUMER = """{
  inputs.nixpkgs.url = "path:PLACE/nixpkgs";
  inputs.clan-discovery.url = "path:PLACE/clan-discovery";
  inputs.clan-discovery.inputs.nixpkgs.follows = "nixpkgs";
  outputs = { clan-discovery, ... }: {
    found = {
      outputs = builtins.attrNames clan-discovery;
      modules = builtins.mapAttrs (_: builtins.pathExists) clan-discovery.clan.modules;
      nixos = builtins.mapAttrs (_: builtins.pathExists) clan-discovery.nixosModules;
      overlays = builtins.mapAttrs (
        _: overlay: builtins.mapAttrs (_: builtins.pathExists) (overlay { callPackage = path: _: path; } { })
      ) clan-discovery.overlays;
      port = clan-discovery.lib.exporters.postgres.port;
    };
  };
}
"""


@pytest.fixture
def consumer(tmp_path: Path) -> Path:
    """Return a flake with ours as its input; ours is a copy of the files that Nix needs."""
    ours = tmp_path / "clan-discovery"
    ours.mkdir()
    for name in ("flake.nix", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, ours)
    for name in ("nix", "clan_discovery/data"):
        shutil.copytree(ROOT / name, ours / name)
    (tmp_path / "nixpkgs").mkdir()
    (tmp_path / "nixpkgs/flake.nix").write_text(NIXPKGS)
    (tmp_path / "consumer").mkdir()
    (tmp_path / "consumer/flake.nix").write_text(CONSUMER.replace("PLACE", str(tmp_path)))
    return tmp_path / "consumer"


def test_another_flake_can_use_it(nix: str, consumer: Path) -> None:
    """The clan service, the NixOS module, the overlay and the library, without clan-core and nixpkgs."""
    program = Path(nix).with_name("nix")
    words = [str(program), "--extra-experimental-features", "nix-command flakes", "--store", str(consumer / "store")]
    words += ["--offline", "eval", "--json", "--no-write-lock-file", f"path:{consumer}#found"]
    environment = {**os.environ, "HOME": str(consumer), "XDG_CACHE_HOME": str(consumer / "cache"), "NIX_PATH": ""}
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    outputs = {"checks", "clan", "devShells", "formatter", "lib", "nixosModules", "overlays", "packages"}
    assert outputs <= set(found["outputs"])
    assert found["modules"] == {"prometheus": True}
    assert found["nixos"] == {"clan-discovery": True, "default": True, "expose": True}
    assert found["overlays"] == {"default": {"clan-discovery": True}}
    assert found["port"] == 9187


def test_the_vm_test_is_valid() -> None:
    """It is not run here.

    Its script is valid Python, and its machines are those that the script uses.
    """
    found: Json = value(
        f"let t = import {ROOT}/nix/vm-test.nix {{ module = {{ }}; }}; in [ t.testScript (builtins.attrNames t.nodes) ]"
    )
    match found:
        case [str(script), ["db", "monitor"]]:
            ast.parse(textwrap.dedent(script))
        case other:
            raise AssertionError(other)
