"""The import rule: arrows point down, and the heavy libraries come in late."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Who may import which part of jaxt2i, itself always included.
MAY = {
    "nn": set(),
    "losses": set(),
    "metrics": {"nn", "losses"},
    "encoders": {"nn", "convert"},
    "data": {"convert.unpickle"},
    "engine": {"nn", "run"},
    "run": {"engine", "data", "encoders", "nn", "planning"},
    "convert": set(),
    "systems": {
        "nn",
        "losses",
        "encoders",
        "metrics",
        "engine",
        "data",
        "convert",
        "verify",
    },
}
FLAX_FREE = ("data",)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("part", MAY)
def test_arrows_point_down(part):
    for path in (ROOT / "jaxt2i" / part).rglob("*.py"):
        for name in imports(path):
            # Command lines see everything, and so do the cases that check what is above them.
            free = path.name == "__main__.py" or "goldens" in path.name
            if name.startswith("jaxt2i.") and not free:
                inner = name.removeprefix("jaxt2i.")
                allowed = {part, *MAY[part]}
                assert any(f"{inner}.".startswith(f"{a}.") for a in allowed), f"{path}: {name}"
            if part in FLAX_FREE:
                assert not name.startswith("flax"), f"{path}: {name}"


def test_configs_import_nothing_of_the_package():
    for path in (ROOT / "configs").glob("*.py"):
        for name in imports(path):
            assert name.split(".")[0] in {"ml_collections", "configs", "collections"}, (
                f"{path}: {name}"
            )


@pytest.mark.parametrize("module", ["jaxt2i", "jaxt2i.train", "jaxt2i.sample", "jaxt2i.run.open"])
def test_heavy_libraries_come_in_late(module):
    code = f"import sys, {module}; print([m for m in ('tensorflow', 'torch') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_files_stay_readable():
    for path in [*(ROOT / "jaxt2i").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 700, path
        assert path.name != "utils.py", path
