"""The result of one check of `doctor`."""

from __future__ import annotations

from typing import Literal

import msgspec

from clan_discovery.errors import Exit


class Finding(msgspec.Struct, frozen=True):
    """The result of one check: what was found, how to fix it, and its exit code."""

    level: Literal["ok", "warning", "error"]
    about: str
    what: str
    fix: str = ""
    code: Exit = Exit.OK
