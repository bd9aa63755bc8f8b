"""Evaluate expressions with real Nix, without a store, a network or a daemon; find checkouts."""

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
    # A cycle of modules could recurse without end.
    return subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=300, env={**os.environ, "NIX_PATH": ""}
    )


def value(expression: str, nix: str | None = None) -> Json:
    """Return the value of an expression; check the status first, because a failing Nix prints a part of its answer."""
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
    """Return the `lib` of the checkout in NIXPKGS_LIB; skip the test without it."""
    library = Path(checkout("NIXPKGS_LIB"))
    return str(next(p for p in (library / "lib", library) if (p / "modules.nix").is_file()))


def failing(file: str, nix: str | None = None) -> Json:
    """Return the failing tests of a file of tests/nix, with what was expected."""
    library = nixpkgs_lib()
    return value(f"(import {library}).runTests (import {ROOT}/tests/nix/{file} {{ nixpkgsLib = {library}; }})", nix)


def machine(expression: str) -> Json:
    """Return the value of an expression in which `t` is tests/nix/machine.nix."""
    library = nixpkgs_lib()
    return value(f"let t = import {ROOT}/tests/nix/machine.nix {{ nixpkgsLib = {library}; }}; in {expression}")


def stored(reference: str) -> Json:
    """Return the value given to the stub of `formats.json.generate`, which follows the name."""
    found: Json = json.loads(reference.split("?", 1)[1])
    return found


def at(document: Json, *path: str) -> Json:
    """Return the value at a path of a document."""
    for name in path:
        assert isinstance(document, dict)
        document = document[name]
    return document


def listed(document: Json, *path: str) -> list[Json]:
    """Return the list at a path of a document."""
    found = at(document, *path)
    assert isinstance(found, list)
    return found


def without_nulls(document: Json) -> Json:
    """Remove unset options, as NixOS does."""
    if isinstance(document, dict):
        return {name: without_nulls(inner) for name, inner in document.items() if inner is not None}
    if isinstance(document, list):
        return [without_nulls(item) for item in document]
    return document
