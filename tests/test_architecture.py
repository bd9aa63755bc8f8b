"""The import rules of the design, and the ratchets that only tighten."""

from __future__ import annotations

import ast
import graphlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import clan_discovery

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(clan_discovery.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
WINGS = ("inventory", "backends", "resolve", "emit", "publish")


def name_of(file: Path) -> str:
    """Return the module's name within the package: `inventory.wire`."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path) -> Iterator[str]:
    """Yield every module that a file imports, wherever in it: at the top, in a function, for types alone."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(file: Path) -> set[str]:
    """Return the modules of the package that a file imports."""
    return {i.removeprefix("clan_discovery.") for i in imports(file) if i.startswith("clan_discovery.")}


def room(module: str) -> str:
    """Return the room of a module: its first part."""
    return module.partition(".")[0]


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_wings_do_not_import_each_other(file: Path) -> None:
    """Inventory, backends, resolve, emit and publish are wings of one floor."""
    here = room(name_of(file))
    if here in WINGS:
        others = {i for i in ours(file) if room(i) in WINGS and room(i) != here}
        assert not others


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_config_is_imported_by_assemble_and_the_command_line_alone(file: Path) -> None:
    """Nobody else knows that there is a config; the front door and the schemas name it."""
    allowed = {"assemble", "cli", "config", "schema", ""}
    if room(name_of(file)) not in allowed:
        assert not {i for i in ours(file) if room(i) == "config"}


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("dns", {"dnsclient.decoder"}),
        ("idna", {"dnsclient.names"}),
        ("httpx", {"localapi.transport"}),
        ("httpcore", {"localapi.transport", "dnsclient.https"}),
        ("yaml", {"config.load"}),
        ("pydantic", {"config.load", "config.models", "schema"}),
        ("pydantic_core", {"config.load"}),
        ("rich", {"emit.table"}),
        ("prometheus_client", {"emit.metrics"}),
        ("subprocess", {"inventory.process"}),
        ("argparse", {"cli"}),
    ],
)
def test_a_library_lives_in_one_place(library: str, homes: set[str]) -> None:
    """Leaving a library means opening one file."""
    users = {name_of(file) for file in FILES if any(i.split(".")[0] == library for i in imports(file))}
    assert {u for u in users if u not in homes and room(u) not in homes} == set()
    assert users


def test_the_dns_client_stands_alone_and_has_no_import_cycle() -> None:
    """It imports errors and syntax only; no module imports one that leads back to it, also not in a function."""
    users = {name_of(file): ours(file) for file in FILES if room(name_of(file)) == "dnsclient"}
    assert {room(i) for found in users.values() for i in found} <= {"dnsclient", "errors", "syntax"}
    order = graphlib.TopologicalSorter({user: found & users.keys() for user, found in users.items()})
    assert set(order.static_order()) >= {"dnsclient.names", "dnsclient.decoder"}


@pytest.mark.parametrize("wing", ["inventory", "resolve", "emit"])
def test_what_interprets_does_no_io(wing: str) -> None:
    """Bytes in, values out: no clock, no socket, no process, no environment, no open file."""
    banned = {"socket", "time", "subprocess", "os", "asyncio", "threading", "tempfile"}
    for file in sorted((PACKAGE / wing).rglob("*.py")):
        if file.name != "process.py":  # runs Nix, for nix.py
            assert not {i for i in imports(file) if i.split(".")[0] in banned}, file


def test_only_the_command_line_reads_the_clock() -> None:
    """Time is an argument."""
    readers = {name_of(file) for file in FILES if re.search(r"datetime\.now|time\.time\(", file.read_text())}
    assert readers == {"", "cli.common", "resident.loop"}  # the front door's is an example in its docstring


def test_the_front_door_is_small_and_opens() -> None:
    """At most 18 names, each of which is there."""
    assert len(clan_discovery.__all__) <= 18
    for name in clan_discovery.__all__:
        assert getattr(clan_discovery, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = clan_discovery.nonsense


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("Any", r"\bAny\b"),
        ("cast", r"\bcast\("),
        ("type: ignore", r"type:\s*ignore"),
        ("pyright: ignore", r"pyright:\s*ignore"),
        ("no cover", r"no\s*cover"),
    ],
)
def test_ratchets_stand_at_zero(what: str, pattern: str) -> None:
    """Nothing of the package escapes the type checkers or the coverage."""
    found = [f"{name_of(f)}: {what}" for f in FILES if re.search(pattern, f.read_text())]
    assert found == []


def test_functions_are_short() -> None:
    """At most 40 lines of code, the docstring not counted."""
    long: list[str] = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
                lines = (node.end_lineno or 0) - first.lineno + 1
                if lines > 40:
                    long.append(f"{name_of(file)}.{node.name}: {lines}")
    assert long == []


def test_every_file_states_its_law() -> None:
    """A module's first line says what it is."""
    assert [name_of(f) for f in FILES if not ast.get_docstring(ast.parse(f.read_text()))] == []
