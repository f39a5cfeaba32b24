"""Which part may import which: `web -> initializer -> nothing of ours`; no import hides in a function."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("initializer", "web")
SOURCES = sorted(
    path
    for package in OURS
    for path in (ROOT / package).rglob("*.py")
    if "templates" not in path.relative_to(ROOT).parts
)

MAY_IMPORT = {
    "initializer.errors": set(),
    "initializer.cancellation": set(),
    "initializer.background": set(),
    "initializer.syncing": set(),
    "initializer.model": {"initializer.errors"},
    "initializer.redis_client": {"initializer.errors", "initializer.cancellation"},
    "initializer.journal": {
        "initializer.errors",
        "initializer.model",
        "initializer.redis_client",
        "initializer.syncing",
        "initializer.background",
        "initializer.cancellation",
    },
    "initializer.projects": {"initializer.errors", "initializer.model"},
    "initializer.engines": {
        "initializer.errors",
        "initializer.model",
        "initializer.journal",
        "initializer.projects",
        "initializer.redis_client",
        "initializer.cancellation",
        "initializer.background",
    },
    "initializer.forges": {
        "initializer.errors",
        "initializer.model",
        "initializer.processes",
        "initializer.syncing",
    },
    "initializer.running": {
        "initializer.errors",
        "initializer.model",
        "initializer.journal",
        "initializer.projects",
        "initializer.engines",
        "initializer.forges",
        "initializer.steps",
        "initializer.processes",
        "initializer.redis_client",
        "initializer.cancellation",
    },
}
"""Parts with rules of their own; whatever else is in `initializer` may import all of it."""


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree: ast.AST) -> Iterator[str]:
    """The names of our own modules that a file imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their module in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in OURS)


def modules_imported(path: Path) -> set[str]:
    """The same, each cut to the module that there is."""
    modules = {module_of(source) for source in SOURCES}
    found = set()
    for name in imports_of(ast.parse(path.read_text())):
        while name not in modules:
            name = name.rpartition(".")[0]  # noqa: PLW2901 - from a thing in a module to the module
            assert name, f"{path} imports what is not there"
        found.add(name)
    return found - {"initializer", "web"}


def part_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_a_module_imports_only_what_stands_below_it(path: Path) -> None:
    module = module_of(path)
    imported = modules_imported(path)
    if module.startswith("initializer"):
        assert not {name for name in imported if name.startswith("web")}
    allowed = MAY_IMPORT.get(part_of(module))
    if allowed is not None:
        parts = {part_of(name) for name in imported} - {part_of(module)}
        assert parts <= allowed


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_no_import_hides_in_a_function(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inner = [it for it in ast.walk(node) if isinstance(it, ast.Import | ast.ImportFrom)]
            assert not inner, f"line {inner[0].lineno}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module_of(path): modules_imported(path) - {module_of(path)} for path in SOURCES}
    while free := {module for module, below in graph.items() if not below}:
        graph = {module: below - free for module, below in graph.items() if module not in free}
    assert not graph


def test_the_values_and_rules_do_no_input_or_output() -> None:
    forbidden = {"asyncio", "os", "io", "socket", "subprocess", "pathlib", "time", "threading", "sqlite3"}
    for path in (ROOT / "initializer" / "model").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not {name.split(".")[0] for name in names} & forbidden, path
