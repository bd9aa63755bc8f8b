"""The flake's packages, checks and shells on the real nixpkgs, and its clan of checks on the real clan-core."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

import pytest

from tests.support.nix import ROOT, at, listed

if TYPE_CHECKING:
    from clan_discovery.model import Json
    from tests.support.nixos import Real

FLAKE = f"""
  inherit (t) lib;
  inherit (t.flakes) nixpkgs' flake;
  # The checkout lacks Haskell's packages, of which nixfmt and shellcheck are two.
  overlay = final: _: {{
    nixfmt = final.hello;
    nixfmt-tree = final.hello;
    shellcheck = final.hello // {{ compiler.bootstrapAvailable = false; }};
    shellcheck-minimal = final.shellcheck;
  }};
  nixpkgs = nixpkgs' // {{
    legacyPackages = lib.genAttrs [ "aarch64-darwin" "x86_64-linux" ] (
      system: import nixpkgs'.outPath {{ inherit system; overlays = [ overlay ]; }}
    );
  }};
  ours = flake {ROOT} {{ inherit nixpkgs; }};
  drv = lib.mapAttrs (_: one: one.drvPath);
"""


@pytest.fixture(scope="module")
def answer(real: Real) -> Json:
    """Return what the tests ask of the flake, from one evaluation."""
    return real(f"""
      let
        {FLAKE}
        package = ours.packages.x86_64-linux.default;
        outputs = system: {{
          packages = drv ours.packages.${{system}};
          devShells = drv ours.devShells.${{system}};
          formatter = ours.formatter.${{system}}.drvPath;
        }};
      in {{
        outputs = lib.mapAttrs (system: _: outputs system) nixpkgs.legacyPackages;
        checks = drv ours.checks.x86_64-linux;
        darwinChecks = drv ours.checks.aarch64-darwin;
        program = package.meta.mainProgram;
        tests = package.enabledTestPaths;
        dependencies = map (one: [ one.pname one.version ]) package.dependencies;
      }}
    """)


def names(document: Json, *path: str) -> list[str]:
    """Return the names of the attributes at a path."""
    found = at(document, *path)
    assert isinstance(found, dict)
    return sorted(found)


def test_linux_and_macos_have_a_package_a_shell_and_a_formatter(answer: Json) -> None:
    """Up to their derivations, with nixpkgs's Python and the inputs of the tests."""
    assert names(answer, "outputs") == ["aarch64-darwin", "x86_64-linux"]
    # `nix run` starts it.
    assert at(answer, "program") == "clan-discovery"


def test_the_checks_evaluate(answer: Json) -> None:
    """Up to their derivations; macOS has those that need no NixOS."""
    assert names(answer, "checks") == ["format", "lib", "package", "static", "vm"]
    assert names(answer, "darwinChecks") == ["format", "lib", "package"]


def test_the_package_has_the_dependencies_of_pyproject(answer: Json) -> None:
    """At least in the versions that pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {
        found[1]: found[2] for text in project["dependencies"] if (found := re.match(r"([\w-]+)>=([\d.]+)", text))
    }
    given = {str(name): str(version) for name, version in map(pair, listed(answer, "dependencies"))}
    assert given.keys() == wanted.keys()
    assert [name for name in wanted if number(given[name]) < number(wanted[name])] == []


def pair(document: Json) -> tuple[Json, Json]:
    """Return a list of two."""
    assert isinstance(document, list)
    first, second = document
    return first, second


def number(version: str) -> tuple[int, ...]:
    """Return a version that can be compared."""
    return tuple(int(part) for part in version.split("."))


def test_the_package_runs_tests_that_exist(answer: Json) -> None:
    """Their files, and those that they import."""
    files = [ROOT / str(path) for path in listed(answer, "tests")]
    modules = {file.stem for file in files}
    imported = {
        name for file in files for name in re.findall(r"^from tests\.(test_\w+) ", file.read_text(), re.MULTILINE)
    }
    assert imported <= modules
    assert len(modules) > 15


def test_the_clan_of_checks_evaluates(real: Real) -> None:
    """tests/clan/flake.nix with the real clan-core: no assertion fails, and each check has a derivation."""
    answer = real(f"""
      let
        inherit (t) lib;
        inherit (t.flakes) clan-core discovery flake;
        ours = flake {ROOT}/tests/clan {{ inherit clan-core; clan-discovery = discovery; }};
      in {{
        checks = lib.mapAttrs (_: one: one.drvPath) ours.checks.x86_64-linux;
        failed = lib.mapAttrs (_: one: t.failed one.config) ours.nixosConfigurations;
      }}
    """)
    assert names(answer, "checks") == ["db", "monitor"]
    assert at(answer, "failed") == {"db": [], "monitor": []}
