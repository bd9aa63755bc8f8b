"""Asks Nix what a clan says. The only file that runs Nix; it looks at the exit status before anybody parses.

Nix writes the first part of its answer before it fails, so an answer without an exit status of 0 is none
(seen with 2.8.0). What is asked stands here alone: a part of it is internal to clan and may be renamed.
"""

from __future__ import annotations

import re
import shlex
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from clan_discovery.errors import InputError
from clan_discovery.model import Problem

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT_S: Final = 300.0
_OUTPUT_MOST: Final = 256 * 1024 * 1024  # as of a file (MAX_INVENTORY)
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
# Of all services: one that throws must not fail the others. As JSON, and not deeply, for a package in the settings is
# its path there and a world of attributes, some of which throw, elsewhere.
SETTINGS: Final = Query(
    "settings",
    "clan._services.allServices",
    "a: let safe = x: let t = builtins.tryEval (builtins.toJSON x); in if t.success then x else null; in "
    "builtins.mapAttrs (_: s: builtins.mapAttrs (_: i: builtins.mapAttrs (_: r: builtins.mapAttrs (_: m: "
    "safe m.finalSettings.config) (r.machines or {})) i.roles) s.instances) a",
)
# One value that is not generated yet would fail all of the exports: what throws is null, and the rest is told. A host
# by `var` (tor) goes: it is no address, and names the flake's own place in the store, another one at every commit.
EXPORTS: Final = Query(
    "exports",
    "clan.exports",
    "e: builtins.mapAttrs (_: v: let safe = x: let t = builtins.tryEval (builtins.deepSeq x x); in if t.success then "
    "t.value else null; plain = p: if p == null then null else p // { hosts = builtins.filter (h: h ? plain) (p.hosts "
    "or [ ]); }; in { peer = plain (safe (v.peer or null)); networking = safe (v.networking or null); }) e",
)

DUMP: Final = "clan-discovery dump --flake . --output DIR"
"""The command that asks all of them: what a complaint about a file of theirs tells a person to type."""


def evaluate(reference: str | Path, query: Query) -> bytes:
    """Return Nix's answer as JSON, of a flake (what stands before the `#`) or of a plain Nix file (a path).

    Raises:
        InputError: Nix is not there, fails, is killed, prints more than 256 MiB or takes more than five minutes. With
            its warnings: what stands in one is often why there is an error.
    """
    import shutil  # noqa: PLC0415 - only where Nix is run

    from clan_discovery.inventory import process  # noqa: PLC0415 - as above

    where = named(reference)
    nix = shutil.which("nix")
    if nix is None:
        raise _wrong(where, "nix is not on PATH", "evaluate elsewhere, and give the JSON with --file")
    see = f"see: {query.command(reference)}"
    try:
        command = [nix, *_FEATURES, "eval", "--json", *query.words(reference)]
        code, out, err = process.run(command, seconds=_TIMEOUT_S, most=_OUTPUT_MOST)
    except TimeoutError:
        hint = f"is it still at work, or waiting for a network? {see}"
        raise _wrong(where, f"nix eval took more than {_TIMEOUT_S:.0f} s", hint) from None
    except process.EndedError as error:  # where the process has an end of its own
        raise _wrong(where, f"nix eval was ended by {_signal_name(error.number)}", None) from None
    except process.TooMuchError:
        raise _wrong(where, f"nix eval printed more than {_OUTPUT_MOST >> 20} MiB, and was ended", see) from None
    except ValueError:  # UnicodeError is one
        raise _wrong(where, "holds NUL or half of a surrogate pair, which no command takes", None) from None
    except OSError as error:
        raise _wrong(where, f"nix cannot be run: {error.strerror}", None) from error
    if code == 0:
        return out
    lines = [line.strip() for line in err.decode("utf-8", "replace").splitlines() if line.strip()]
    said, ended = _said(lines), f"exited with {code}" if code > 0 else f"was killed by {_signal_name(-code)}"
    if code == -signal.SIGKILL:
        see = f"was there too little memory? the kernel's log says so; {see}"
    elif _MISSING.search(said) and _is_git(reference):
        see = f"{_GIT_ADD}; {see}"
    raise _wrong(where, f"nix eval {ended}: {said}" if said else f"nix eval {ended}", see, _warnings(lines))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


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
