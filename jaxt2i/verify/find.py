"""Who computes a case: golden files say so themselves, and are found by their names.

A golden file is a `goldens.py`, or a `*_goldens.py`, anywhere in the package. It has

* `SERVES`: patterns of "folder/case", such as "galip/*"; where several files' patterns match, the
  longest one wins;
* `CASES`: {pattern of a case's name: function of (Golden, Case) that returns {output: array}}, the
  first match wins.

Where a case is a list of worked examples that several systems share, `examples` is its runner; the
golden file of each system then has

* `EXAMPLES`: {name of the folder: {name of an input that such an example alone has: function of the
  example that returns {"out_X": value}}}.
"""

import fnmatch
import functools
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import jaxt2i
from jaxt2i.config import preset_files
from jaxt2i.verify.golden import Case, Golden, GoldenError

Runner = Callable[[Golden, Case], dict]


@functools.cache
def modules() -> tuple[ModuleType, ...]:
    """All golden files, by name.

    Raises:
      GoldenError: for one that does not say what it serves.
    """
    root = Path(jaxt2i.__file__).parent
    found = []
    for file in sorted(root.rglob("*goldens.py")):
        name = ".".join(("jaxt2i", *file.relative_to(root).with_suffix("").parts))
        module = importlib.import_module(name)
        if not getattr(module, "SERVES", ()) or not hasattr(module, "CASES"):
            raise GoldenError(
                f"{file}: a golden file needs SERVES, the patterns of its folders and cases, "
                'such as ("galip/*",), and CASES, its runners'
            )
        found.append(module)
    return tuple(found)


def serving(folder: str, case: str) -> ModuleType | None:
    """The golden file of a case, None where there is none.

    Raises:
      GoldenError: where two files claim it with patterns of one length.
    """
    name = f"{folder}/{case}"
    claims = [
        (len(pattern), module)
        for module in modules()
        for pattern in module.SERVES
        if fnmatch.fnmatchcase(name, pattern)
    ]
    best = max((length for length, _ in claims), default=0)
    able = {module.__name__: module for length, module in claims if length == best}
    if len(able) > 1:
        raise GoldenError(f"{name}: {' and '.join(able)} both serve it; make one pattern longer")
    return next(iter(able.values()), None)


def runner(folder: str, case: str) -> Runner | None:
    """The function that computes a case, None where nobody wrote one; raises as `serving` does."""
    module = serving(folder, case)
    cases = module.CASES.items() if module else ()
    return next((run for pattern, run in cases if fnmatch.fnmatchcase(case, pattern)), None)


def training_products(folder: str, case: str) -> str:
    """config.matmul_precision under which the system of a case is trained.

    That of its published presets; "default" where a case belongs to no such system, as those of
    encoders do, which are trained by nobody here.

    Raises:
      GoldenError: where the presets differ, so that there is no one answer.
    """
    module = serving(folder, case)
    system = re.fullmatch(r"jaxt2i\.systems\.(\w+)\..*", module.__name__ if module else "")
    if not system or system[1] not in preset_files():
        return "default"
    presets = importlib.import_module(f"jaxt2i.configs.{system[1]}").PRESETS.values()
    asked = {make().matmul_precision for make in presets if getattr(make, "published", False)}
    if len(asked) > 1:
        raise GoldenError(
            f"published presets of {system[1]} multiply in {', '.join(sorted(asked))}"
        )
    return next(iter(asked), "default")


def examples(folder: str) -> Runner:
    """The runner of JSON cases {"cases": [example, ...]} whose examples several golden files know.

    Args:
      folder: key of their `EXAMPLES`.
    """

    def known() -> dict[str, Callable[[dict], dict]]:
        tables = (getattr(module, "EXAMPLES", {}).get(folder, {}) for module in modules())
        return {name: function for table in tables for name, function in table.items()}

    def run(golden: Golden, case: Case) -> dict:
        by_input, made = known(), []
        for example in case.data["cases"]:
            function = next((f for name, f in by_input.items() if name in example), None)
            if function is None:
                raise GoldenError(
                    f"{folder}/{case.name}: nobody computes {example.get('name')!r}; an example "
                    f"holds one of {', '.join(by_input)}"
                )
            made.append(example | plain(function(example)))
        return {"*": {**case.data, "cases": made}}

    return run


def plain(value: Any) -> Any:
    """Arrays as nested lists, wherever they lie in dicts."""
    if isinstance(value, dict):
        return {key: plain(x) for key, x in value.items()}
    return value if isinstance(value, list) else np.asarray(value).tolist()
