"""Check the documentation: links resolve, commands parse, configs pass `check`, and no phrase is banned."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import yaml

from clan_discovery.cli.parser import COMMANDS, command_parser, load_command
from clan_discovery.config.load import load_config
from clan_discovery.errors import InputError
from tests.support.pages import PAGES, ROOT, SHELL, blocks_of, commands_in, prose_of, typed
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Done

    Run = Callable[..., Done]

NAMES: Final = [str(page.relative_to(ROOT)) for page in PAGES]


# Links


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)", prose_of(page), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        repeated = sum(one == slug or re.fullmatch(rf"{re.escape(slug)}-\d+", one) is not None for one in found)
        found.add(f"{slug}-{repeated}" if repeated else slug)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_links_resolve(name: str) -> None:
    """Each relative link names a file or directory of the repository, and each anchor a heading of its page."""
    page = ROOT / name
    links = re.findall(r"\]\(([^)\s]+)\)", prose_of(page)) + re.findall(r'(?:src|href)="([^"]+)"', prose_of(page))
    dead: list[str] = []
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_every_page_is_reached_from_the_readme() -> None:
    """Following links from README.md leads to every page; a link to a directory leads to the pages in it."""
    reached: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        for link in re.findall(r"\]\(([^)\s#:]+)", prose_of(page)):
            target = (page.parent / link).resolve()
            pages = target.glob("*.md") if target.is_dir() else [target]
            todo += [one for one in pages if one in PAGES and one not in reached]
    assert [name for name in NAMES if ROOT / name not in reached] == []


# Command lines


def documented_commands(page: Path) -> Iterator[tuple[int, list[str]]]:
    """Return the arguments of every call of clan-discovery on a page, with the line of its block (0: in a sentence)."""
    for block in blocks_of(page):
        lines: list[str] = []
        if block.language in SHELL:
            lines = [line for line, _ in typed(block)]
        elif block.language == "ini":
            lines = re.findall(r"^ExecStart=(.*)", block.text, re.MULTILINE)
        elif page.name == "cli.md":  # the examples of each command's help
            lines = re.findall(r"^  (\S*clan-discovery .*)", block.text, re.MULTILINE)
        for line in lines:
            if "clan-discovery" in line:
                yield from ((block.line, words) for words in commands_in(line))
    for code in re.findall(r"`([^`\n]+)`", prose_of(page)):
        if "clan-discovery " in code and "..." not in code:
            # Without arguments it is the name of a command in a sentence.
            yield from ((0, words if len(words) > 1 else [*words, "--help"]) for words in commands_in(code))


@pytest.mark.parametrize("name", NAMES)
def test_documented_commands_parse(name: str) -> None:
    """The parser accepts every clan-discovery command line on the page."""
    refused: list[str] = []
    for line, words in documented_commands(ROOT / name):
        if not words or words[0] in ("COMMAND", "--version", "--help") or "--help" in words:
            continue
        try:
            command_parser(words[0], load_command(words[0])).parse(words[1:])
        except InputError as error:
            refused.append(f"{name}:{line}: {' '.join(words)}: {error}")
    assert refused == []


@pytest.mark.parametrize("name", NAMES)
def test_named_options_exist(name: str, run: Run) -> None:
    """`refresh --quiet` in a sentence: the command has the option."""
    unknown: list[str] = []
    for code in re.findall(r"`([^`\n]+)`", prose_of(ROOT / name)):
        words = code.split()
        if words[0] in COMMANDS:
            options = re.findall(r"(?<!\S)--[\w-]+", code)
            known = run(words[0], "--help").out if options else ""
            unknown += [code for option in options if option not in known]
    assert unknown == []


# Configs


def yaml_blocks() -> Iterator[tuple[str, str, object]]:
    """Return where each YAML block of the docs is, its text, and what it says."""
    for name in NAMES:
        for block in blocks_of(ROOT / name):
            if block.language == "yaml":
                yield f"{name}:{block.line}", block.text, yaml.safe_load(block.text)


def is_for_prometheus(document: object) -> bool:
    """Tell whether a block is a part of prometheus.yml, and not of our config."""
    return isinstance(document, dict) and not document.keys().isdisjoint(("scrape_configs", "rule_files"))


def is_for_another_program(document: object) -> bool:
    """Tell whether a block is a part of a Compose file or of Traefik's own config."""
    return isinstance(document, dict) and not document.keys().isdisjoint(("services", "providers"))


def test_configs_of_the_docs_load(tmp_path: Path) -> None:
    """Every YAML block is of another program, or a config or a part of one, which must load."""
    refused: list[str] = []
    for number, (where, text, document) in enumerate(yaml_blocks()):
        if is_for_prometheus(document) or is_for_another_program(document):
            continue
        file = tmp_path / f"{number}.yaml"
        file.write_text(text)
        try:
            load_config(file)
        except InputError as error:
            refused.append(f"{where}: {error}")
    assert refused == []


def test_promtool_accepts_the_scrape_configs_of_the_docs(tmp_path: Path) -> None:
    """As prometheus.yml, without the files that they name."""
    files: list[str] = []
    for where, text, document in yaml_blocks():
        if is_for_prometheus(document):
            files.append(str(tmp_path / f"{where.replace('/', '_')}.yml"))
            Path(files[-1]).write_text(text)
    done = subprocess.run(
        [program("promtool"), "check", "config", "--syntax-only", *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# Phrases

PHRASES: Final = (
    "and nobody else",
    "asks nobody",
    "bad night",
    "belongs to nobody",
    "by the letter",
    "by the word of",
    "could not be found out",
    "could not find out",
    "for ever",
    "for it goes",
    "good answer stands",
    "good answers stand",
    "in vain",
    "its old file stands",
    "lets networks in",
    "nobody can",
    "nobody is asked",
    "not found out",
    "of one mind",
    "of which a",
    "rounds for",
    "somebody says",
    "stand as they",
    "stands as",
    "stands at",
    "stands in",
    "stands where",
    "that is none",
    "the luck of",
    "the old one stands",
    "what becomes of",
    "what is none",
    "what strangers",
    "whatever it is",
    "who is who",
)
"""Phrases that are hard to read: use the usual technical words."""


def literals(file: Path) -> str:
    """Return the texts of a module: docstrings, errors, logs and helps; an inserted value is `{}`."""
    found: list[str] = []
    for item in ast.walk(ast.parse(file.read_text())):
        if isinstance(item, ast.JoinedStr):
            found.append("".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in item.values))
        elif isinstance(item, ast.Constant) and isinstance(item.value, str):
            found.append(item.value)
    return "\n".join(found)


def what_users_read() -> Iterator[tuple[str, str]]:
    """Return every file with text for users: pages, the program's own texts, Nix, examples."""
    for page in PAGES:
        yield str(page.relative_to(ROOT)), page.read_text()
    for file in sorted((ROOT / "clan_discovery").rglob("*.py")):
        yield str(file.relative_to(ROOT)), literals(file)
    for suffix in ("nix/**/*.nix", "examples/**/*.y*ml"):
        for file in sorted(ROOT.glob(suffix)):
            yield str(file.relative_to(ROOT)), file.read_text()


def test_texts_have_no_banned_phrases() -> None:
    """Pages, messages, help, docstrings and descriptions of options are searched."""
    wanted = re.compile(rf"\b({'|'.join(map(re.escape, PHRASES))})\b", re.IGNORECASE)
    found: set[tuple[str, str]] = set()
    for name, text in what_users_read():
        found |= {(phrase.lower(), name) for phrase in wanted.findall(re.sub(r"[\s#]+", " ", text))}
    assert sorted(found) == []
