"""Every setting of a configuration, with its value and what it means.

The texts stand where the defaults stand: in the "Attributes:" of the settings classes, and for the
settings of every run in the comments of `jaxt2i.configs.common`. They are read, not repeated.
"""

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

COMMON = "jaxt2i.configs.common"
WIDTH = 100
ENTRY = re.compile(r"  (\w+(?:, \w+)*): (.*)")


def describe(config: ConfigDict) -> str:
    """A line "config.KEY = VALUE" for every setting, its meaning indented below it.

    Args:
      config: a configuration; `config.method` names the system whose classes explain `config.model`
        and `config.optim`.
    """
    meanings = comments(common_source())
    classes = settings_classes(config.method) if config.method else []
    for name in ("model", "optim"):
        meanings |= of_classes(config.get(name, {}), classes, name)
    lines = []
    for key, value in leaves(config):
        lines.append(f"config.{key} = {value!r}")
        lines += textwrap.wrap(
            meanings.get(key, ""), WIDTH, initial_indent="    ", subsequent_indent="    "
        )
    return "\n".join(lines)


def leaves(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("a.b", value) of every setting, sorted."""
    for key, value in section.items():
        if isinstance(value, Mapping | ConfigDict) and len(value):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def common_source() -> str:
    """The text of the settings that every run has; "" where the configurations are not at hand."""
    try:
        found = importlib.util.find_spec(COMMON)
    except ModuleNotFoundError:
        return ""
    return Path(found.origin).read_text() if found else ""


def comments(source: str) -> dict[str, str]:
    """{"data.crop": text} of the comments directly above settings.

    Args:
      source: of a module that says `c.KEY = VALUE`, or `c.KEY = ConfigDict({KEY: VALUE, ...})`.
    """
    lines, out = source.splitlines(), {}

    def note(key: str, row: int) -> None:
        text = []
        while row > 1 and lines[row - 2].strip().startswith("#"):
            row -= 1
            text.insert(0, lines[row - 1].strip().removeprefix("#").strip())
        if text:
            out[key] = " ".join(text)

    def inside(value: ast.expr, prefix: str) -> None:
        if isinstance(value, ast.Call) and value.args and isinstance(value.args[0], ast.Dict):
            for key, inner in zip(value.args[0].keys, value.args[0].values, strict=True):
                note(f"{prefix}.{key.value}", key.lineno)
                inside(inner, f"{prefix}.{key.value}")

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            key = ast.unparse(node.targets[0]).partition(".")[2]
            note(key, node.lineno)
            inside(node.value, key)
    return out


def settings_classes(method: str) -> list[type]:
    """The dataclasses that a system's module has or imports.

    Args:
      method: dotted path of the module, or of the folder with its `method.py`.
    """
    module = importlib.import_module(method)
    if not hasattr(module, "build"):
        module = importlib.import_module(f"{method}.method")
    return [c for c in vars(module).values() if isinstance(c, type) and dataclasses.is_dataclass(c)]


def owners(
    section: Mapping[str, Any], classes: Iterable[type], name: str
) -> Iterator[tuple[str, Mapping[str, Any], type]]:
    """(its name, the section, the class that has its keys as fields), of it or of those in it.

    Args:
      section: settings, or sections of them.
      classes: where to look; of several that fit, the one with the fewest fields.
      name: of the section.
    """
    fitting = [
        c for c in classes if section and set(section) <= {f.name for f in dataclasses.fields(c)}
    ]
    if fitting:
        yield name, section, min(fitting, key=lambda c: len(dataclasses.fields(c)))
        return
    for key, value in section.items():
        if isinstance(value, Mapping | ConfigDict):
            yield from owners(value, classes, f"{name}.{key}")


def of_classes(section: Mapping[str, Any], classes: Iterable[type], name: str) -> dict[str, str]:
    """{"NAME.KEY": text} from the classes of `owners`, which says what it takes."""
    found = owners(section, classes, name)
    return {f"{at}.{key}": text for at, _, cls in found for key, text in attributes(cls).items()}


def attributes(cls: type) -> dict[str, str]:
    """{field: text} of a docstring's "Attributes:"; "a, b: TEXT" explains both."""
    _, _, after = (inspect.getdoc(cls) or "").partition("Attributes:\n")
    out, names = {}, []
    for line in after.splitlines():
        entry = ENTRY.fullmatch(line)
        if entry:
            names = entry[1].split(", ")
            out |= dict.fromkeys(names, entry[2])
        elif line.startswith("    ") and names:
            out |= {n: f"{out[n]} {line.strip()}" for n in names}
        else:
            names = []
    return out
