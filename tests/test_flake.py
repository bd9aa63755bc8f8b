"""The flake as an input of another one, with the real `nix eval`; only packages and checks need nixpkgs."""

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

# A stand-in for the clan's nixpkgs; its packages are never evaluated.
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
    """`clan.modules`, the NixOS module and the library, without clan-core and without packages."""
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


def test_the_package_has_the_dependencies_of_pyproject() -> None:
    """With the names in nixpkgs, the version of the package, and existing files."""
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
    """Return the names of the dependencies in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return sorted(re.split(r"[^A-Za-z0-9-]", name)[0] for name in project["dependencies"])


def json_list(names: list[str]) -> str:
    """Write names as a Nix list."""
    return f"[ {' '.join(text(name) for name in names)} ]"


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
