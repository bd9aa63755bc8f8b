"""Check the layout rules of the package, and its complexity limits, which may only be lowered."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import clan_discovery

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PACKAGE = Path(clan_discovery.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# Lower these numbers whenever the package gets below them; never raise one.
MOST_COMPLEXITY: Final = 12
MOST_FUNCTIONS_OVER_IT: Final = 0
MOST_DECISIONS_PER_100_LINES: Final = 26.2
MOST_TERNARIES_PER_1000_LINES: Final = 12.5

LEVELS: Final = (
    ("model", "errors", "syntax", "reading", "elapsed", "threads", "deadline", "garbage"),
    ("config", "inventory", "localapi", "dnsclient"),
    ("backends", "resolve", "emit", "publish", "verify", "web"),
    ("memory",),
    ("round",),
    ("assemble", "resident", "doctor", "gates"),
    ("cli",),
    ("", "__main__", "api"),
)
"""A package imports only from lower levels. Packages of the lowest level may import each other."""
WINGS: Final = ("inventory", "backends", "resolve", "emit", "publish", "verify", "web")
"""Packages that do not import each other, whatever their levels."""

# Known violations. An entry that is no longer needed fails the test, as does a violation that is not listed.
FORBIDDEN_IMPORTS_LEFT: Final[set[tuple[str, str]]] = set()
CIRCLES_LEFT: Final[set[frozenset[str]]] = set()
REPEATED_CLASSES_LEFT: Final[set[str]] = set()


def name_of(file: Path) -> str:
    """Return the module's name within the package: `inventory.wire`."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES: Final = {name_of(file): ast.parse(file.read_text()) for file in FILES}


def package_of(module: str) -> str:
    """Return the top-level package or module of a module: `inventory`."""
    return module.partition(".")[0]


def named_by(node: ast.AST) -> list[str]:
    """Return every name that an import statement may load a module by."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module is not None:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


IMPORTS: Final = {
    module: {name for node in ast.walk(tree) for name in named_by(node)} for module, tree in TREES.items()
}
"""Every module that a module imports: at the top, in a function, for types alone."""


def without_types(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree without the blocks that only type checkers read."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from without_types(child)


def imported_modules(node: ast.AST) -> Iterator[str]:
    """Yield the modules of this package that an import statement names, as `name_of` writes them."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.startswith("clan_discovery."):
                yield alias.name.removeprefix("clan_discovery.")
    elif isinstance(node, ast.ImportFrom) and node.module is not None and package_of(node.module) == "clan_discovery":
        source = node.module.removeprefix("clan_discovery").removeprefix(".")
        for alias in node.names:
            submodule = f"{source}.{alias.name}".removeprefix(".")
            if submodule in TREES:
                yield submodule
            elif alias.name != "__version__":  # a constant of the top-level package, which depends on nothing
                yield source


def level_of(package: str) -> int:
    """Return the level of a package; an unknown one fails the test."""
    for number, packages in enumerate(LEVELS):
        if package in packages:
            return number
    pytest.fail(f"{package} is in no level: add it to LEVELS, where the design has it")


def may_import(importer: str, imported: str) -> bool:
    """Tell whether the layout allows a package to import another."""
    if importer == imported:
        return True
    if importer in WINGS and imported in WINGS:
        return False
    if level_of(importer) == level_of(imported) == 0:
        return True
    return level_of(importer) > level_of(imported)


def test_packages_import_from_lower_levels_only() -> None:
    """Imports in functions and for types count, too."""
    found = {
        (module, imported)
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        for imported in imported_modules(node)
        if not may_import(package_of(module), package_of(imported))
    }
    assert found == FORBIDDEN_IMPORTS_LEFT


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """Return every module that a module imports, directly or through others."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for module in graph[waiting.pop()] - found:
            found.add(module)
            waiting.append(module)
    return found


def circles(graph: Mapping[str, set[str]]) -> set[frozenset[str]]:
    """Return the groups of modules that import each other in a cycle."""
    below = {module: reachable(graph, module) for module in graph}
    return {
        frozenset(other for other in below[module] if module in below[other])
        for module in graph
        if module in below[module]
    }


def test_import_cycle_is_found() -> None:
    """Test the search itself, on a graph with one cycle and a module that leads into it."""
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set[str]()}
    assert circles(graph) == {frozenset({"b", "c"})}


def test_modules_have_no_import_cycle() -> None:
    """Imports in functions count; those for type checkers do not."""
    graph = {
        module: {imported for node in without_types(tree) for imported in imported_modules(node)} - {module}
        for module, tree in TREES.items()
    }
    assert circles(graph) == CIRCLES_LEFT


def test_only_assemble_and_cli_import_config() -> None:
    """The public package and the schemas are the exceptions."""
    allowed = {"assemble", "cli", "config", ""}
    users = {module for module, names in IMPORTS.items() if any(i.startswith("clan_discovery.config") for i in names)}
    assert {package_of(user) for user in users} <= allowed


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("dns", {"dnsclient.decoder"}),
        ("idna", {"syntax.hosts"}),
        ("httpx", {"localapi.transport"}),
        ("httpcore", {"dnsclient.https"}),
        ("yaml", {"syntax.nodes", "syntax.tree"}),
        ("re2", {"syntax.relabel"}),
        ("pydantic", {"config.load", "config.models", "config.scrape", "config.values"}),
        ("pydantic_core", {"config.words"}),
        ("prometheus_client", {"emit.metrics"}),
        ("waitress", {"web.server"}),
        ("werkzeug", {"web.app"}),
        ("subprocess", {"inventory.process"}),
        ("argparse", {"cli"}),
        ("jinja2", {"web.pages"}),
        ("markdown_it", {"gates.checklist"}),
    ],
)
def test_each_library_is_imported_by_one_module(library: str, homes: set[str]) -> None:
    """So that replacing a library means editing one file."""
    users = {module for module, names in IMPORTS.items() if any(package_of(name) == library for name in names)}
    assert {u for u in users if u not in homes and package_of(u) not in homes} == set()
    assert users


def test_dns_client_imports_only_common_modules() -> None:
    """It does not depend on targets, backends or the inventory."""
    used = {
        package_of(imported)
        for module, tree in TREES.items()
        if package_of(module) == "dnsclient"
        for node in ast.walk(tree)
        for imported in imported_modules(node)
    }
    assert used <= {"dnsclient", "elapsed", "errors", "syntax", "threads"}


@pytest.mark.parametrize("wing", ["inventory", "resolve", "emit"])
def test_pure_modules_do_no_io(wing: str) -> None:
    """No clock, socket, process, environment or file is used."""
    banned = {"socket", "time", "subprocess", "os", "asyncio", "threading", "tempfile"}
    for module, imported in IMPORTS.items():
        if package_of(module) == wing and module != "inventory.process":  # runs Nix, for inventory.nix
            assert not {i for i in imported if package_of(i) in banned}, module


def test_only_the_cli_reads_the_clock() -> None:
    """Other packages get the time as an argument."""
    readers = {name_of(file) for file in FILES if re.search(r"datetime\.now|time\.time\(", file.read_text())}
    assert readers == {"", "cli.cycle", "resident.loop"}  # the front door's is an example in its docstring


def test_public_names_are_few_and_importable() -> None:
    """At most 18 names."""
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
def test_forbidden_patterns_are_absent(what: str, pattern: str) -> None:
    """No code bypasses the type checkers or the coverage."""
    found = [f"{name_of(f)}: {what}" for f in FILES if re.search(pattern, f.read_text())]
    assert found == []


def test_every_module_has_a_docstring() -> None:
    """Also empty `__init__` modules."""
    assert [name for name, tree in TREES.items() if not ast.get_docstring(tree)] == []


def test_class_names_are_unique() -> None:
    """So that a search for a class name finds one definition."""
    places: defaultdict[str, set[str]] = defaultdict(set)
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].add(module)
    assert {name for name, modules in places.items() if len(modules) > 1} == REPEATED_CLASSES_LEFT


@dataclass(frozen=True)
class Function:
    """A function, and how many decisions it makes."""

    name: str
    decisions: int


def own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """Walk a function without the functions and classes inside it, which count by themselves."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield child
            yield from own_nodes(child)


def decisions_at(node: ast.AST) -> int:
    """Return how many decisions one node of a syntax tree adds."""
    match node:
        case ast.BoolOp():
            return len(node.values) - 1
        case ast.comprehension():
            return 1 + len(node.ifs)
        case ast.If() | ast.IfExp() | ast.For() | ast.AsyncFor() | ast.While():
            return 1
        case ast.ExceptHandler() | ast.Assert() | ast.match_case():
            return 1
        case _:
            return 0


def functions() -> list[Function]:
    """Return every function of the package."""
    found: list[Function] = []
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                decisions = sum(decisions_at(own) for own in own_nodes(node))
                found.append(Function(f"{module}.{node.name}", decisions))
    return found


def lines_of_code() -> int:
    """Count the package's lines that are neither blank, nor a comment, nor part of a docstring."""
    found = 0
    for file in FILES:
        lines = [line.strip() for line in file.read_text().splitlines()]
        found += sum(1 for line in lines if line and not line.startswith("#"))
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = node.body[0] if ast.get_docstring(node) is not None else None
                if docstring is not None and docstring.end_lineno is not None:
                    found -= docstring.end_lineno - docstring.lineno + 1
    return found


def test_complexity_stays_below_its_limit() -> None:
    """The complexity of a function is the number of its decisions plus one."""
    over = [function for function in functions() if function.decisions + 1 > MOST_COMPLEXITY]
    assert len(over) <= MOST_FUNCTIONS_OVER_IT, sorted(over, key=lambda function: function.decisions)


def test_number_of_decisions_stays_below_its_limit() -> None:
    """Splitting a function does not change this number."""
    decisions = sum(function.decisions for function in functions())
    assert 100 * decisions / lines_of_code() <= MOST_DECISIONS_PER_100_LINES


def test_number_of_ternaries_stays_below_its_limit() -> None:
    """An if statement is easier to read."""
    ternaries = sum(isinstance(node, ast.IfExp) for tree in TREES.values() for node in ast.walk(tree))
    assert 1000 * ternaries / lines_of_code() <= MOST_TERNARIES_PER_1000_LINES
