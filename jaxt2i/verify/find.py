"""Who computes a case: golden files say so themselves, and are found by their names.

A golden file is a `goldens.py`, or a `*_goldens.py`, anywhere in the package. It has

* `SERVES`: patterns of "folder/case", such as "galip/*"; where several files' patterns match, the
  longest one wins;
* `CASES`: {pattern of a case's name: function of (Golden, Case) that returns {output: array}}, the
  first match wins.
"""

import fnmatch
import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import jaxt2i
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


def runner(folder: str, case: str) -> Runner | None:
    """The function that computes a case, None where nobody wrote one.

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
    for module in able.values():
        for pattern, run in module.CASES.items():
            if fnmatch.fnmatchcase(case, pattern):
                return run
    return None
