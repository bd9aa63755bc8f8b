"""Real Nix, without a store, a network or a daemon: expressions in, JSON out; and the checkouts that some want."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.programs import checkout, program

if TYPE_CHECKING:
    from clan_discovery.model import Json

ROOT = Path(__file__).resolve().parent.parent.parent
NEWER = "CLAN_DISCOVERY_NIX_NEWER"


def ask(expression: str, nix: str | None = None) -> subprocess.CompletedProcess[str]:
    """Evaluate an expression."""
    words = [nix or program("nix-instantiate"), "--eval", "--strict", "--json", "--store", "dummy://", "-E", expression]
    # `key` of a module or a `_module.args` cycle would recurse for ever: Nix stops at its own limit, and this at ours.
    return subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=300, env={**os.environ, "NIX_PATH": ""}
    )


def value(expression: str, nix: str | None = None) -> Json:
    """Return the value of an expression; Nix prints part of an answer before it fails, so its status comes first."""
    done = ask(expression, nix)
    assert done.returncode == 0, done.stderr[-4000:]
    found: Json = json.loads(done.stdout)
    return found


def quoted(document: Json) -> str:
    """Write a document as an expression."""
    return f"(builtins.fromJSON {text(json.dumps(document))})"


def text(string: str) -> str:
    """Write a string as an expression."""
    return json.dumps(string, ensure_ascii=False).replace("${", "\\${")


def nixpkgs_lib() -> str:
    """Return the `lib` of the checkout that NIXPKGS_LIB names; without it the test is skipped."""
    library = Path(checkout("NIXPKGS_LIB"))
    return str(next(p for p in (library / "lib", library) if (p / "modules.nix").is_file()))


def failing(file: str, nix: str | None = None) -> Json:
    """Return the tests of a file of tests/nix that fail, with what was expected; all in one process."""
    library = nixpkgs_lib()
    return value(f"(import {library}).runTests (import {ROOT}/tests/nix/{file} {{ nixpkgsLib = {library}; }})", nix)


def machine(expression: str) -> Json:
    """Return the value of an expression in which `t` is tests/nix/machine.nix."""
    library = nixpkgs_lib()
    return value(f"let t = import {ROOT}/tests/nix/machine.nix {{ nixpkgsLib = {library}; }}; in {expression}")


def stored(reference: str) -> Json:
    """Return what a stub of `formats.json.generate` was given: it stands behind the name."""
    found: Json = json.loads(reference.split("?", 1)[1])
    return found
