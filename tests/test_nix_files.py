"""Every Nix file of the repository, written or generated: Nix parses it and nixfmt changes nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(
    file for file in ROOT.rglob("*.nix") if not any(part.startswith(".") for part in file.relative_to(ROOT).parts)
)


def test_nix_files_parse(nix: str) -> None:
    """Without a store and without NIX_PATH."""
    done = subprocess.run(
        [nix, "--parse", "--store", "dummy://", *FILES],
        capture_output=True, text=True, check=False, env={**os.environ, "NIX_PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_nix_files_are_formatted(nixfmt: str) -> None:
    """By the rules of RFC 166."""
    done = subprocess.run([nixfmt, "--check", *FILES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_directories_are_searched() -> None:
    """The library and the examples are found."""
    names = {str(file.relative_to(ROOT)) for file in FILES}
    assert {"nix/lib/default.nix", "examples/homelab/expected/targets.nix"} <= names
