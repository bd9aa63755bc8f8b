"""Asks Nix for an inventory. The only file that runs Nix; it looks at the exit status before it parses.

Nix writes the first part of its answer before it fails, so an answer without an exit status of 0 is none
(seen with 2.8.0).
"""

from __future__ import annotations

import shutil
import subprocess
from typing import Final

from clan_discovery.errors import InputError
from clan_discovery.model import Problem

ATTRIBUTE: Final = "clanInternals.inventoryClass.inventorySerialization"
_TIMEOUT_S: Final = 300.0


def eval_inventory(reference: str) -> bytes:
    """Return the inventory JSON of a flake, given as the reference before the `#` (a path, a URL).

    Raises:
        InputError: Nix is not there, fails, or takes more than five minutes.
    """
    nix = shutil.which("nix")
    if nix is None:
        raise _wrong(reference, "nix is not on PATH", "evaluate elsewhere, and give the JSON with --file")
    installable = reference if "#" in reference else f"{reference}#{ATTRIBUTE}"
    features = ["--extra-experimental-features", "nix-command flakes"]
    command = [nix, *features, "eval", "--json", installable]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_TIMEOUT_S)  # noqa: S603 - the user's nix on the user's flake
    except subprocess.TimeoutExpired:
        raise _wrong(reference, f"nix eval took more than {_TIMEOUT_S:.0f} s", None) from None
    except OSError as error:
        raise _wrong(reference, f"nix cannot be run: {error.strerror}", None) from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if line.startswith("error:")), lines[-1] if lines else "")
        what = f"nix eval exited with {done.returncode}: {said.removeprefix('error:').strip()}"
        raise _wrong(reference, what, f"see: nix eval --json {installable}")
    return done.stdout


def _wrong(reference: str, what: str, hint: str | None) -> InputError:
    return InputError([Problem(where=f"flake {reference}", what=what, hint=hint)])
