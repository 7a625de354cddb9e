"""Every system is read on its own: what two of them share lies below them, as functions."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SYSTEMS = sorted(p.parent for p in (ROOT / "jaxt2i" / "systems").glob("*/method.py"))
PARTS = [p for folder in SYSTEMS for p in folder.glob("*.py") if not p.stem.startswith("goldens")]


def imported(path):
    """Dotted names of everything that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_there_are_systems():
    assert len(SYSTEMS) >= 9


@pytest.mark.parametrize("path", [p for p in PARTS if p.stem != "names"], ids=str)
def test_no_system_imports_another(path):
    own = f"jaxt2i.systems.{path.parent.name}"
    others = [
        name
        for name in imported(path)
        if name.startswith("jaxt2i.systems") and not f"{name}.".startswith(f"{own}.")
    ]
    assert others == []


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda p: p.name)
def test_no_class_of_a_system_inherits_from_one_that_adds_to_it(path):
    """Bases are flax modules: settings and losses are written out."""
    for node in ast.walk(ast.parse((path / "method.py").read_text())):
        if isinstance(node, ast.ClassDef):
            assert [ast.unparse(base) for base in node.bases] in ([], ["nn.Module"]), node.name


def classes(path):
    return [
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)
    ]


SOURCES = [*(p for p in PARTS if p.stem != "names"), *(ROOT / "jaxt2i" / "nn").glob("[a-z]*.py")]
NETWORKS = {
    node.name
    for path in SOURCES
    for node in classes(path)
    if {ast.unparse(base) for base in node.bases} & {"nn.Module", "Spectral"}
}
TESTS = [p for part in ("systems", "nn", "losses") for p in (ROOT / "tests" / part).glob("*.py")]


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=lambda p: str(p.relative_to(ROOT)))
def test_networks_are_built_with_keywords(path):
    """A layer's features and window may go without: Conv(64, 3, stride=2)."""
    found = [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).rpartition(".")[2] in NETWORKS
        and not ast.unparse(node.func).startswith("nn.")
        and (len(node.args) > 2 or any(isinstance(a, ast.Starred) for a in node.args))
    ]
    assert found == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_group_dtype_and_remat_reach_every_module_in_one_way(path):
    """The last three fields, in this order, each where it has a meaning."""
    common = ["group", "dtype", "remat"]
    for node in classes(path):
        if node.name in NETWORKS:
            fields = [s.target.id for s in node.body if isinstance(s, ast.AnnAssign)]
            there = [name for name in common if name in fields]
            assert fields[len(fields) - len(there) :] == there, node.name
