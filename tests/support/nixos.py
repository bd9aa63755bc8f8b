"""Evaluate whole NixOS systems, darwin systems and clans, with a newer Nix and a store of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.nix import ROOT, at
from tests.support.programs import checkout, nix_program

if TYPE_CHECKING:
    from pathlib import Path

    from clan_discovery.model import Json


@dataclass(frozen=True)
class Real:
    """Evaluates expressions in which `t` is tests/nixos/real.nix."""

    home: Path
    """A directory for the store and for Nix's caches."""

    def ready(self) -> None:
        """Skip the test without a newer Nix or without the checkouts."""
        nix_program("nix", "newer")
        for variable in ("NIXPKGS", "CLAN_CORE", "CLAN_INPUTS"):
            checkout(variable)

    def __call__(self, expression: str) -> Json:
        """Return the value of an expression."""
        done = self.ask(expression)
        assert done.returncode == 0, done.stderr[-4000:]
        found: Json = json.loads(done.stdout)
        return found

    def ask(self, expression: str) -> subprocess.CompletedProcess[str]:
        """Evaluate an expression, which may fail."""
        names = {"nixpkgs": "NIXPKGS", "clanCore": "CLAN_CORE", "inputs": "CLAN_INPUTS"}
        given = " ".join(f"{name} = {checkout(variable)};" for name, variable in names.items())
        whole = f"let t = import {ROOT}/tests/nixos/real.nix {{ {given} }}; in {expression}"
        program = nix_program("nix-instantiate", "newer")
        # A cycle of modules could recurse without end.
        # Writes derivations, so that their text can be read.
        return subprocess.run(
            [program, "--eval", "--read-write-mode", "--strict", "--json", "-E", whole],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            env=self.environment(),
        )

    def derivation(self, path: str) -> Json:
        """Return a derivation of the store as JSON."""
        done = subprocess.run(
            [nix_program("nix", "newer"), "derivation", "show", path],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=self.environment(),
        )
        assert done.returncode == 0, done.stderr[-4000:]
        (found,) = json.loads(done.stdout).values()
        answer: Json = found
        return answer

    def document(self, path: str) -> Json:
        """Return the value that a derivation of nixpkgs's `formats.json` writes (pkgs/pkgs-lib/formats.nix)."""
        attributes: Json = json.loads(str(at(self.derivation(path), "env", "__json")))
        return at(attributes, "value")

    def environment(self) -> dict[str, str]:
        """Return an environment in which Nix builds, fetches and substitutes nothing."""
        settings = {
            "extra-experimental-features": "nix-command flakes",
            "store": f"local?root={self.home}/root",
            "substituters": "",
            "max-jobs": "0",
            "sandbox": "false",
            "build-users-group": "",
            "flake-registry": "",
        }
        return {
            **os.environ,
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "NIX_PATH": "",
            "NIX_REMOTE": "",
            "NIX_CONFIG": "\n".join(f"{name} = {value}" for name, value in settings.items()),
        }
