"""The house: what may import what, how long things are, and what mypy says."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pot_semidiscrete"
# a module imports those of floors below, and of its own folder
FLOORS = [
    ("backend",),
    ("runs",),
    ("costs",),
    ("kernels",),
    ("problem",),
    ("samplers",),
    ("optim",),
    ("inference",),
    ("diagnostics",),
    ("plan",),
    ("functional",),
    ("result",),
    ("solver",),
    ("solve",),
    ("applications",),
    ("generators", "metrics", "datasets", "plot"),
    ("generative",),
    ("__init__",),
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}


def module(path):
    """Parts of the name of a module, the package's left out."""
    return path.relative_to(PACKAGE).with_suffix("").parts


def imported(path):
    """Parts of the names of the modules of the package that a module imports, anywhere in it."""
    here = module(path)[:-1]
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level + 1]
            name = (*base, *(node.module.split(".") if node.module else ()))
            for alias in node.names:
                whole = PACKAGE.joinpath(*name, alias.name)
                is_module = whole.with_suffix(".py").exists() or whole.is_dir()
                yield (*name, alias.name) if is_module or not name else name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    here = module(path)[0]
    for name in imported(path):
        assert name[0] == here or FLOOR[name[0]] < FLOOR[here], f"imports {'.'.join(name)}"


def test_no_folder_has_a_circle():
    """Faces included: what a folder's `__init__` gathers does not ask for it."""
    graph = {}
    for path in FILES:
        name = module(path)
        name = name[:-1] if name[-1] == "__init__" else name
        graph[name] = {other for other in imported(path) if other != name}
    seen, done = [], set()

    def visit(name):
        assert name not in seen, " -> ".join(".".join(n) for n in [*seen[seen.index(name) :], name])
        if name in done or name not in graph:
            return
        seen.append(name)
        for other in graph[name]:
            visit(other)
        done.add(seen.pop())

    for name in graph:
        visit(name)


def statements(node):
    """Lines of code of a function, without its docstring."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_too_long(path):
    assert len(path.read_text().splitlines()) <= 400
    for node in ast.walk(TREES[path]):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert statements(node) <= 60, node.name
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno - node.lineno + 1 <= 200, node.name


def test_there_are_few_constants():
    """Numbers of the package, each named once."""
    names = []
    for tree in TREES.values():
        for node in tree.body:
            if isinstance(node, ast.Assign) and not isinstance(
                node.value, (ast.List, ast.Dict, ast.Set)
            ):
                targets = [e for t in node.targets for e in getattr(t, "elts", [t])]
                names += [e.id for e in targets if isinstance(e, ast.Name) and e.id.strip("_").isupper()]
    assert len(names) <= 80, "a number that is used once needs no name"
    assert sorted(set(names)) == sorted(names)


def test_the_name_of_a_backend_is_read_where_backends_are_told_apart():
    found = [path for path in FILES if "nx.__name__" in path.read_text()]
    assert {path.relative_to(PACKAGE).as_posix() for path in found} == {
        "backend/capabilities.py",
        "kernels/base.py",
    }


def test_the_page_of_the_design_names_every_floor():
    page = (ROOT / "doc" / "design.rst").read_text()
    picture = (ROOT / "doc" / "_static" / "design.svg").read_text()
    for name in FLOOR.keys() - {"__init__"}:
        name += "/" if (PACKAGE / name).is_dir() else ".py"
        assert f"``{name}" in page, name
        assert name in picture, name


def test_files_that_the_page_of_the_design_names_are_there():
    page = (ROOT / "doc" / "design.rst").read_text()
    there = {path.relative_to(ROOT).as_posix() for path in (*FILES, *(ROOT / "tests").glob("*.py"))}
    for name in re.findall(r"``([\w/]+\.py)``", page):
        assert any(f"/{path}".endswith(f"/{name}") for path in there), name


def test_files_that_are_left_out_without_a_library_are_there():
    """One that was moved would be collected, and imported without what it needs."""
    tree = ast.parse((ROOT / "conftest.py").read_text())
    (needs,) = (n.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "NEEDS")
    paths = [path for paths in ast.literal_eval(needs).values() for path in paths]
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists()] == []
