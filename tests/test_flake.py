"""The flake as another one's input, by the real `nix eval`: nothing of it needs nixpkgs but packages and checks."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import textwrap
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.nix import ROOT, text, value

if TYPE_CHECKING:
    from clan_discovery.model import Json

# What a clan that takes the service has as its nixpkgs; packages are never looked at.
NIXPKGS = """{
  outputs = _: {
    lib.genAttrs = names: f: builtins.listToAttrs (map (name: { inherit name; value = f name; }) names);
    legacyPackages = throw "no package is needed to take the service";
  };
}
"""
CONSUMER = """{
  inputs.nixpkgs.url = "path:PLACE/nixpkgs";
  inputs.clan-discovery.url = "path:PLACE/clan-discovery";
  inputs.clan-discovery.inputs.nixpkgs.follows = "nixpkgs";
  outputs = { clan-discovery, ... }: {
    found = {
      outputs = builtins.attrNames clan-discovery;
      modules = builtins.mapAttrs (_: builtins.pathExists) clan-discovery.clan.modules;
      nixos = builtins.mapAttrs (_: builtins.pathExists) clan-discovery.nixosModules;
      port = clan-discovery.lib.exporters.postgres.port;
      packages = builtins.mapAttrs (_: builtins.attrNames) clan-discovery.packages;
      checks = builtins.mapAttrs (_: builtins.attrNames) clan-discovery.checks;
    };
  };
}
"""


@pytest.fixture
def consumer(tmp_path: Path) -> Path:
    """Return a flake that has ours as its input; ours is a copy of what a checkout holds for Nix."""
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


def test_another_flake_takes_it(nix: str, consumer: Path) -> None:
    """`clan.modules`, the NixOS module and the library, without a word to clan-core or to packages."""
    program = Path(nix).with_name("nix")
    words = [str(program), "--extra-experimental-features", "nix-command flakes", "--store", str(consumer / "store")]
    words += ["--offline", "eval", "--json", "--no-write-lock-file", f"path:{consumer}#found"]
    environment = {**os.environ, "HOME": str(consumer), "XDG_CACHE_HOME": str(consumer / "cache"), "NIX_PATH": ""}
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"checks", "clan", "formatter", "lib", "nixosModules", "overlays", "packages"} <= set(found["outputs"])
    assert found["modules"] == {"prometheus": True}
    assert found["nixos"] == {"clan-discovery": True, "default": True}
    assert found["port"] == 9187
    assert set(found["checks"]["x86_64-linux"]) == {"format", "lib", "package", "static", "vm"}


def test_the_package_asks_for_what_python_asks_for() -> None:
    """The name that nixpkgs has for each dependency, the version that the package has, and files that are there."""
    expression = f"""(import {ROOT}/nix/package.nix {{
      installShellFiles = null;
      stdenv = throw "only postInstall asks whether the program runs in the build";
      python3Packages = {{
        buildPythonApplication = builtins.intersectAttrs {{ pname = 1; version = 1; names = 1; dependencies = 1; }};
        hatchling = "hatchling";
      }} // builtins.listToAttrs (map (name: {{ inherit name; value = name; }}) {json_list(dependencies())});
      lib = {{
        sourceByRegex = path: _: path;
        escapeShellArg = word: word;
        licenses.mit = "MIT";
        platforms.unix = [ ];
        inherit (builtins) head filter concatLists;
        splitString = _: text: builtins.filter builtins.isString (builtins.split "\\n" text);
      }};
    }})"""
    found = value(expression)
    version = re.search(r'^__version__ = "(.+)"$', (ROOT / "clan_discovery/__init__.py").read_text(), re.MULTILINE)
    assert version is not None
    assert found == {"pname": "clan-discovery", "version": version[1], "dependencies": dependencies()}


def dependencies() -> list[str]:
    """Return the names of the dependencies, as pyproject.toml gives them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return sorted(re.split(r"[^A-Za-z0-9-]", name)[0] for name in project["dependencies"])


def json_list(names: list[str]) -> str:
    """Write names as a list of Nix."""
    return f"[ {' '.join(text(name) for name in names)} ]"


def test_the_vm_test_is_a_program() -> None:
    """It was not run; its script is at least Python, and its machines are what it speaks of."""
    found: Json = value(
        f"let t = import {ROOT}/nix/vm-test.nix {{ module = {{ }}; }}; in [ t.testScript (builtins.attrNames t.nodes) ]"
    )
    match found:
        case [str(script), ["db", "monitor"]]:
            ast.parse(textwrap.dedent(script))
        case other:
            raise AssertionError(other)
