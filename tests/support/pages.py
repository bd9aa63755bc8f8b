"""The pages that people read: their blocks, links and command lines, so that a test tries what a reader would."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clan_discovery.model import Json

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PAGES: Final = sorted([ROOT / "README.md", *ROOT.glob("CONTRIBUTING.md"), *(ROOT / "docs").rglob("*.md")])
SHELL: Final = ("console", "sh", "bash")


@dataclass(frozen=True)
class Block:
    """A fenced block: its text without indentation, its language, and the headings that it is under."""

    line: int
    headings: tuple[str, ...]
    language: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    """Return every fenced block of a page, in its order."""
    found: list[Block] = []
    headings: dict[int, str] = {}
    lines = iter(enumerate(page.read_text().splitlines(), 1))
    for number, line in lines:
        if heading := re.match(r"(#+) (.*)", line):
            headings = {level: text for level, text in headings.items() if level < len(heading[1])}
            headings[len(heading[1])] = heading[2]
        elif fence := re.match(r"( *)```(\w*)", line):
            text = "".join(f"{inner[len(fence[1]) :]}\n" for inner in _until_fence(lines))
            found.append(Block(number, tuple(headings.values()), fence[2], text))
    return found


def _until_fence(lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    for _, line in lines:
        if line.lstrip().startswith("```"):
            return
        yield line


def prose_of(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def blocks(page: str, under: str, language: str) -> list[str]:
    """Return the blocks of a language beneath a heading of a page in docs/, those beneath its own headings too."""
    found = [b.text for b in blocks_of(ROOT / "docs" / page) if under in b.headings and b.language == language]
    assert found, f"{page} has no {language} under '{under}'"
    return found


def documents(page: str, under: str) -> list[Json]:
    """Return what the blocks of YAML beneath a heading say."""
    found: list[Json] = [yaml.safe_load(text) for text in blocks(page, under, "yaml")]
    return found


def typed(block: Block) -> list[tuple[str, str]]:
    """Return the lines to type of a block for a shell, each with the output shown below it."""
    text = block.text.replace("\\\n", " ")
    if not re.search(r"^\$ ", text, re.MULTILINE):
        return [(line, "") for line in text.splitlines()]
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts]


_PROGRAM: Final = re.compile(r"(\S*bin/)?clan-discovery")


def commands_in(line: str) -> list[list[str]]:
    """Return the arguments of each call of clan-discovery in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    simple: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("();<>|&"):
            simple.append([])
        else:
            simple[-1].append(word)
    return [call for words in simple if (call := _call(words)) is not None]


def _call(words: Sequence[str]) -> list[str] | None:
    """Return the arguments of clan-discovery if the words of a simple command call it."""
    rest = list(words)
    while rest and (re.fullmatch(r"\w+=\S*", rest[0]) or rest[0] == "sudo"):
        rest = rest[3:] if rest[:2] == ["sudo", "-u"] else rest[1:]
    if rest[:2] == ["nix", "run"] and "--" in rest:
        return rest[rest.index("--") + 1 :]
    if rest and _PROGRAM.fullmatch(rest[0]):
        return rest[1:]
    return None
