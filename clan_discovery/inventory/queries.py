"""Build the Nix expressions and commands that ask for a clan's data. Pure.

Some of these attributes are internal to clan and may be renamed: they are written only here.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.syntax.secret import hide_in_urls

if TYPE_CHECKING:
    from pathlib import Path

_PLAIN: Final = re.compile(r"[\w@%+=:,./-]+(?:#[\w.-]*)?", re.ASCII)


class NixQuery(msgspec.Struct, frozen=True):
    """An attribute to evaluate.

    `apply` is a function for values that cannot be written as JSON.
    """

    name: str
    attribute: str
    apply: str | None = None

    def words(self, reference: str | Path) -> list[str]:
        """Return the arguments of `nix eval --json`.

        A reference with a `#` contains the attribute itself.
        """
        if not isinstance(reference, str):
            # For Nix, `-` is standard input.
            file = f"./{reference}" if str(reference).startswith("-") else str(reference)
            words = ["--file", file, self.attribute]
        elif "#" in reference:
            words = [reference]
        else:
            words = [f"{reference}#{self.attribute}"]
        if self.apply is not None:
            words += ["--apply", self.apply]
        return words

    def command(self, reference: str | Path = ".") -> str:
        """Return the command as a person types it in a shell."""
        # `#` begins a comment only at the beginning of a word.
        words = map(hide_in_urls, self.words(reference))
        quoted = (word if _PLAIN.fullmatch(word) else shlex.quote(word) for word in words)
        return f"nix eval --json {' '.join(quoted)}"


INVENTORY: Final = NixQuery("inventory", "clanInternals.inventoryClass.inventorySerialization")
# tryEval around each, so that one service that throws does not fail the others. toJSON instead of deepSeq, because a
# package becomes its store path in JSON; deepSeq would evaluate all its attributes, which may throw.
SETTINGS: Final = NixQuery(
    "settings",
    "clan._services.allServices",
    "a: let safe = x: let t = builtins.tryEval (builtins.toJSON x); in if t.success then x else null; in "
    "builtins.mapAttrs (_: s: builtins.mapAttrs (_: i: builtins.mapAttrs (_: r: builtins.mapAttrs (_: m: "
    "safe m.finalSettings.config) (r.machines or {})) i.roles) s.instances) a",
)
# A value that is not generated yet throws, and would fail all exports, so it becomes null. A host by `var` (tor) is
# left out: it is not an address, and contains the flake's store path, which changes with every commit.
EXPORTS: Final = NixQuery(
    "exports",
    "clan.exports",
    "e: builtins.mapAttrs (_: v: let safe = x: let t = builtins.tryEval (builtins.deepSeq x x); in if t.success then "
    "t.value else null; plain = p: if p == null then null else p // { hosts = builtins.filter (h: h ? plain) (p.hosts "
    "or [ ]); }; in { peer = plain (safe (v.peer or null)); networking = safe (v.networking or null); }) e",
)
# Only these options of each machine are evaluated: what it exposes, its tags, and whether it is an agent, with a
# vlagent. Keys of a scrape config that are not adopted are named without their values, which may be secrets.
# nix/lib/exposed.nix does the same.
_EXPOSED_OF: Final = (
    "machines: let safe = x: let t = builtins.tryEval (builtins.toJSON x); in if t.success then x else null; "
    "isSet = v: !builtins.elem v [ null [ ] { } ]; "
    'isRead = n: builtins.elem n [ "job_name" "static_configs" "metrics_path" "scheme" "params" "relabel_configs" ]; '
    "reduced = c: builtins.mapAttrs (n: v: if isRead n then v else true) (removeAttrs c (builtins.filter (n: !isSet "
    "c.${n}) (builtins.attrNames c))); in builtins.mapAttrs (_: m: let s = m.config.services.clan-discovery or { }; "
    "a = s.agent or { }; isAgent = a.enable or false; "
    'sendsLogs = isAgent && a.logs.enable or false && a.logs.backend or "" == "victorialogs"; in '
    "safe ({ expose = s.expose or { }; adopted = map reduced (s.adoptScrapeConfigs or [ ]); } // "
    "(if isAgent then { agent = true; } else { }) // (if sendsLogs then { agent_logs = true; } else { }) // "
    "(if s.tags or [ ] == [ ] then { } else { inherit (s) tags; }))) machines"
)
EXPOSED: Final = (
    NixQuery("exposed", "nixosConfigurations", _EXPOSED_OF),
    NixQuery("exposed", "darwinConfigurations", _EXPOSED_OF),
)
"""What the machines of a flake expose; a flake may lack one of the two attributes."""

DUMP: Final = "clan-discovery dump --flake . --output DIR"
"""The command that asks all three questions."""

WRITE_INVENTORY: Final = f"write it with: {INVENTORY.command()}"
WRITE_DUMP: Final = f"write it with: {DUMP}"
WRITE_EXPOSED: Final = "write it with: clan-discovery dump --exposed --flake . --output DIR"
"""Hints for a file that is missing or broken."""
