"""Every Nix file of the repository, written by hand or by the program: Nix parses it, nixfmt has nothing to change."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(
    file for file in ROOT.rglob("*.nix") if not any(part.startswith(".") for part in file.relative_to(ROOT).parts)
)


def test_they_parse(nix: str) -> None:
    """Without a store, without NIX_PATH."""
    done = subprocess.run(
        [nix, "--parse", "--store", "dummy://", *FILES],
        capture_output=True, text=True, check=False, env={**os.environ, "NIX_PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_they_are_formatted(nixfmt: str) -> None:
    """By the rules of RFC 166."""
    done = subprocess.run([nixfmt, "--check", *FILES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_none_is_missed() -> None:
    """The library, and what the examples show."""
    names = {str(file.relative_to(ROOT)) for file in FILES}
    assert {"nix/lib/default.nix", "examples/homelab/expected/targets.nix"} <= names
