"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from clan_discovery.errors import Exit

Level: TypeAlias = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked: how it is, how to fix it, and the exit code that it causes."""

    level: Level
    about: str
    what: str
    fix: str = ""
    code: Exit = Exit.OK

    def document(self) -> dict[str, str | int]:
        """Return the finding as `doctor --format json` prints it."""
        return {
            "level": self.level,
            "about": self.about,
            "what": self.what,
            "mend": self.fix,
            "code": self.code.value,
        }
