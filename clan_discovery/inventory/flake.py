"""Asks Nix what a clan says. The only file that runs Nix; it looks at the exit status before anybody parses.

Nix writes the first part of its answer before it fails, so an answer without an exit status of 0 is none
(seen with 2.8.0). What is asked stands here alone: a part of it is internal to clan and may be renamed.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from clan_discovery.errors import InputError
from clan_discovery.model import Problem

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT_S: Final = 300.0
_FEATURES: Final = ("--extra-experimental-features", "nix-command flakes")
_PLAIN: Final = re.compile(r"[\w@%+=:,./-]+(?:#[\w.-]*)?", re.ASCII)
_MISSING: Final = re.compile(
    r"does not provide attribute|attribute '.*' missing|No such file or directory|does not exist|not tracked by Git"
)
_GIT_ADD: Final = "uncommitted new files are invisible to a git flake: git add them"
_WARNING: Final = re.compile(r"(?:evaluation )?warning:\s*(.+)")
_WARNINGS_MOST: Final = 5
_PLACE: Final = re.compile(r"at .+:\d+:\d+:")
_SAID_MOST: Final = 500


@dataclass(frozen=True, slots=True)
class Query:
    """What a clan is asked: an attribute, and what is applied to it where the whole of it is no JSON."""

    name: str
    attribute: str
    apply: str | None = None

    def words(self, reference: str | Path) -> list[str]:
        """Return the arguments of `nix eval --json` that ask it; a reference with a `#` names the attribute itself."""
        if not isinstance(reference, str):
            words = ["--file", str(reference), self.attribute]
        else:
            words = [reference if "#" in reference else f"{reference}#{self.attribute}"]
        return words if self.apply is None else [*words, "--apply", self.apply]

    def command(self, reference: str | Path = ".") -> str:
        """Return the command that asks it, for a shell."""
        # `#` begins a comment only at the beginning of a word.
        quoted = (word if _PLAIN.fullmatch(word) else shlex.quote(word) for word in self.words(reference))
        return f"nix eval --json {' '.join(quoted)}"


INVENTORY: Final = Query("inventory", "clanInternals.inventoryClass.inventorySerialization")
SETTINGS: Final = Query(
    "settings",
    "clan._services.allServices",
    "a: builtins.mapAttrs (_: s: builtins.mapAttrs (_: i: builtins.mapAttrs (_: r: builtins.mapAttrs (_: m: "
    "m.finalSettings.config) (r.machines or {})) i.roles) s.instances) a",
)
# One value that is not generated yet would fail all of the exports: what throws is null, and the rest is told.
EXPORTS: Final = Query(
    "exports",
    "clan.exports",
    "e: builtins.mapAttrs (_: v: let safe = x: let t = builtins.tryEval (builtins.deepSeq x x); in if t.success then "
    "t.value else null; in { peer = safe (v.peer or null); networking = safe (v.networking or null); }) e",
)


def evaluate(reference: str | Path, query: Query) -> bytes:
    """Return Nix's answer as JSON, of a flake (what stands before the `#`) or of a plain Nix file (a path).

    Raises:
        InputError: Nix is not there, fails, or takes more than five minutes. With its warnings: what stands in one is
            often why there is an error.
    """
    import shutil  # noqa: PLC0415 - only where Nix is run
    import subprocess  # noqa: PLC0415

    where = named(reference)
    nix = shutil.which("nix")
    if nix is None:
        raise _wrong(where, "nix is not on PATH", "evaluate elsewhere, and give the JSON with --file")
    command = [nix, *_FEATURES, "eval", "--json", *query.words(reference)]
    try:
        done = subprocess.run(  # noqa: S603 - the user's nix on the user's flake
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise _wrong(where, f"nix eval took more than {_TIMEOUT_S:.0f} s", None) from None
    except OSError as error:
        raise _wrong(where, f"nix cannot be run: {error.strerror}", None) from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        said, hint = _said(lines), f"see: {query.command(reference)}"
        if _MISSING.search(said) and _is_git(reference):
            hint = f"{_GIT_ADD}; {hint}"
        what = f"nix eval exited with {done.returncode}: {said}"
        raise _wrong(where, what, hint, _warnings(lines))
    return done.stdout


def named(reference: str | Path) -> str:
    """Name what is evaluated, as complaints about it do."""
    return f"flake {reference}" if isinstance(reference, str) else str(reference)


def _is_git(reference: str | Path) -> bool:
    """Tell whether a reference may be a repository on this machine, of which Nix sees what git knows."""
    if not isinstance(reference, str):
        return False
    return reference.startswith("git+file:") or ":" not in reference.partition("?")[0]


def _said(lines: list[str]) -> str:
    """Return what Nix says is wrong: its last `error:` and what belongs to it, with the place where it tells one."""
    first = max((i for i, line in enumerate(lines) if line.startswith("error:")), default=len(lines) - 1)
    parts: list[str] = []
    for line in lines[first:]:
        if parts and line.startswith("(use '--show-trace'"):
            break
        parts.append(line.removeprefix("error:").strip())
        if _PLACE.fullmatch(line):  # beneath it are lines of the source
            break
    said = " ".join(part for part in parts if part).removesuffix(":")
    return said if len(said) <= _SAID_MOST else said[: _SAID_MOST - 3] + "..."


def _warnings(lines: list[str]) -> list[str]:
    """Return what Nix warns of, each once, and not for ever."""
    return list(dict.fromkeys(found[1] for line in lines if (found := _WARNING.match(line))))[:_WARNINGS_MOST]


def _wrong(where: str, what: str, hint: str | None, warnings: list[str] | None = None) -> InputError:
    told = [Problem(where=where, what=warning, severity="warning") for warning in warnings or ()]
    return InputError([*told, Problem(where=where, what=what, hint=hint)])
