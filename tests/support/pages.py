"""What stands in a page of docs/ to be copied: its blocks, so that a test tries what a reader would."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

if TYPE_CHECKING:
    from clan_discovery.model import Json

_DOCS: Final = Path(__file__).resolve().parent.parent.parent / "docs"


def blocks(page: str, under: str, language: str) -> list[str]:
    """Return the blocks of a language beneath a heading, those beneath its own headings too."""
    found: list[str] = []
    level, fence = 0, None
    for line in (_DOCS / page).read_text().splitlines(keepends=True):
        if fence is not None:
            if line.startswith("```"):
                fence = None
            elif level and fence == language:
                found[-1] += line
        elif line.startswith("```"):
            fence = line.strip().removeprefix("```")
            if level and fence == language:
                found.append("")
        elif heading := re.match(r"(#+) (.*)", line):
            deeper = level and len(heading[1]) > level
            level = level if deeper else len(heading[1]) * (heading[2] == under)
    assert found, f"{page} has no {language} under '{under}'"
    return found


def documents(page: str, under: str) -> list[Json]:
    """Return what the blocks of YAML beneath a heading say."""
    found: list[Json] = [yaml.safe_load(text) for text in blocks(page, under, "yaml")]
    return found
