"""The import rule: arrows point down, and the heavy libraries come in late."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jaxt2i"
# Who may import which part of jaxt2i, itself always included. `config` (settings and their errors)
# and `places` (paths) are below everything; sample, train and the other command lines above it.
MAY = {
    "nn": {"config"},
    "losses": {"config"},
    "convert": {"places"},
    "metrics": {"nn", "losses", "places"},
    "encoders": {"config", "nn", "losses", "convert", "places"},
    "data": {"config", "configs.common", "convert.unpickle", "places"},
    "engine": {"config", "nn"},
    "systems": {
        "config",
        "nn",
        "losses",
        "encoders",
        "metrics",
        "engine",
        "data",
        "convert",
    },
    "run": {
        *("config", "configs.common", "engine", "data", "encoders", "metrics", "nn", "places"),
        "version",
    },
    "planning": {"config", "engine", "data", "run", "places"},
    "verify": {"config", "nn", "losses", "encoders", "engine", "convert"},
    "evaluation": {
        *("config", "configs.common", "nn", "metrics", "encoders", "convert", "data", "engine"),
        *("run", "api", "recognise", "places"),
    },
    "studio_page": {"config", "data", "run", "api"},
}
FLAX_FREE = ("data",)
# Libraries that a function may import for itself: they are slow to import, large, optional, or
# read the environment when they are imported.
HEAVY = {
    *(
        "PIL",
        "apache_beam",
        "array_record",
        "clu",
        "emoji",
        "fontTools",
        "ftfy",
        "google",
        "h5py",
        "huggingface_hub",
        "jax",
    ),
    *("instant_clip_tokenizer", "matplotlib", "pillow_heif", "pooch", "pyarrow", "pycocotools"),
    *("rich", "scipy"),
    *("tensorflow", "tensorflow_datasets", "tokenizers", "tqdm", "transformers"),
}
# Of the standard library, what configurations need.
PLAIN = {"dataclasses", "typing"}
# What still breaks a rule here. These lists only become shorter: an entry that is no longer true
# fails the test too.
KNOWN_ARROWS: set[tuple[str, str]] = set()
KNOWN_CIRCLES: set[frozenset[str]] = set()
KNOWN_HIDDEN: set[tuple[str, str]] = set()


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


@functools.cache
def imports(path):
    """(what is imported, whether only when a function is called) of every import of a file."""
    return tuple(imports_in(path, ast.parse(path.read_text()), False))


def imports_in(path, tree, inside):
    """`imports` of a part of a file."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            yield from ((f"{node.module}.{alias.name}", inside) for alias in node.names)
        else:
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports_in(path, node, inside or function)


def imported_modules(name):
    """The modules of jaxt2i that importing module `name` imports, now or when it is called."""
    for target, _ in imports(MODULES[name]):
        while target and target not in MODULES:
            target = target.rpartition(".")[0]
        if target and target != name:
            yield target


def command_line(path):
    return path.parent == PACKAGE or path.name == "__main__.py"


@pytest.mark.parametrize("part", MAY)
def test_arrows_point_down(part):
    broken = set()
    for path in (PACKAGE / part).rglob("*.py"):
        for name, _ in imports(path):
            # Command lines see everything, and so do the cases that check what is above them.
            free = command_line(path) or "goldens" in path.name
            if name.startswith("jaxt2i.") and not free:
                inner = name.removeprefix("jaxt2i.")
                allowed = {part, *MAY[part]}
                if not any(f"{inner}.".startswith(f"{a}.") for a in allowed):
                    broken.add((str(path.relative_to(PACKAGE)), inner.partition(".")[0]))
            if part in FLAX_FREE:
                assert not name.startswith("flax"), f"{path}: {name}"
    assert broken == {arrow for arrow in KNOWN_ARROWS if arrow[0].startswith(f"{part}/")}


def circles(graph):
    """Sets of nodes that reach each other: Tarjan's strongly connected components, without ones."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for near in graph[node]:
            if near not in index:
                visit(near)
                low[node] = min(low[node], low[near])
            elif near in stack:
                low[node] = min(low[node], index[near])
        if low[node] == index[node]:
            at = stack.index(node)
            component, stack[at:] = frozenset(stack[at:]), []
            if len(component) > 1:
                found.append(component)

    for node in graph:
        if node not in index:
            visit(node)
    return set(found)


def test_circles_are_found():
    graph = {"a": "b", "b": "c", "c": "ad", "d": "e", "e": "", "f": "g", "g": "f"}
    assert circles(graph) == {frozenset("abc"), frozenset("fg")}


def test_modules_import_each_other_in_no_circle_not_even_inside_of_functions():
    assert circles({name: set(imported_modules(name)) for name in MODULES}) == KNOWN_CIRCLES


def test_functions_import_heavy_libraries_alone():
    # Command lines may be late: they read their arguments, or set the environment, before.
    hidden = {
        (str(path.relative_to(PACKAGE)), name)
        for path in MODULES.values()
        for name, inside in imports(path)
        if inside
        and name.partition(".")[0] not in HEAVY
        and not (command_line(path) and name.startswith("jaxt2i."))
    }
    assert hidden == KNOWN_HIDDEN


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.stem)
def test_configs_import_settings_classes_alone(path):
    """Of the package: Adam, and Model and Optim of the one system that the file is about."""
    system = f"jaxt2i.systems.{path.stem}.method"
    settings = {"jaxt2i.nn.optim.Adam", f"{system}.Model", f"{system}.Optim"}
    for name, _ in imports(path):
        known = name.split(".")[0] in {"ml_collections", "collections", *PLAIN}
        known = known or name.startswith("jaxt2i.configs.")
        assert known or name in settings, f"{path}: {name}"


def test_importing_is_light():
    """The package brings nothing before a function is asked for; then no heavy library comes, and
    no backend starts, since XLA's flags and the other processes come after the configuration.
    """
    code = (
        "import importlib, sys, jaxt2i; assert not {'jax', 'numpy'} & set(sys.modules);"
        "jaxt2i.load, jaxt2i.presets, jaxt2i.train, jaxt2i.evaluate, jaxt2i.export;"
        "import jaxt2i.configs.stylegan_t as c, jax._src.xla_bridge as b; c.get_config();"
        "assert not b.backends_are_initialized();"
        "late = lambda: [m for m in ('tensorflow', 'torch') if m in sys.modules];"
        "names = 'jaxt2i.train', 'jaxt2i.sample', 'jaxt2i.run.open';"
        "print({n: f for n in names if importlib.import_module(n) and (f := late())})"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (out.stdout.strip(), out.returncode) == ("{}", 0), out.stderr


def test_functions_stay_readable():
    """60 lines at most, with what their docstrings say."""
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                assert lines <= 60, f"{path}:{node.lineno}: {node.name} has {lines} lines"


def test_files_stay_readable():
    for path in [*(ROOT / "jaxt2i").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 700, path
        assert path.name != "utils.py", path
