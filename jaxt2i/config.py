"""Settings classes from sections of a configuration, and the error of an impossible one."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxt2i import configs

# config.accumulate, where the number of micro-batches is still to be chosen.
AUTO = "auto"


class ConfigError(ValueError):
    """The configuration asks for something impossible; the message names the line and the fix."""


def nearest(name: str, known: Iterable[str], form: str = "{}") -> str:
    """What to say of a name that does not exist: the nearest that does, or all of them.

    Args:
      name: what was given.
      known: what there is.
      form: how one of them is written, such as "config.{}".
    """
    known = [form.format(k) for k in known]
    near = difflib.get_close_matches(form.format(name), known, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known) or 'none'}"


def micro_batches(config: Mapping[str, Any]) -> int:
    """config.accumulate as a number; 1 where it is "auto" and not yet chosen.

    Raises:
      ConfigError: for anything else.
    """
    value = config.get("accumulate", 1)
    if value == AUTO:
        return 1
    if type(value) is not int or value < 1:
        raise ConfigError(
            f"config.accumulate={value!r}; expected a number of micro-batches from 1 on, or "
            f"{AUTO!r}: as many as the devices' memory asks for"
        )
    return value


# Types of values, as a person is asked for them.
WANTED = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}


def preset_files() -> dict[str, Path]:
    """{name: file} of the configurations that come with the package."""
    found = sorted(Path(configs.__path__[0]).glob("[a-z]*.py"))
    return {path.stem: path for path in found if path.stem != "common"}


def preset_file(name: str) -> str:
    """The file behind a --config FILE or NAME.

    Args:
      name: a file that is there is itself; else `NAME`, `NAME.py` and `configs/NAME.py` are the
        configuration of that name that comes with the package.

    Raises:
      ConfigError: where there is neither.
    """
    path, known = Path(name), preset_files()
    if path.is_file():
        return name
    if path.suffix in ("", ".py") and str(path.parent) in (".", "configs") and path.stem in known:
        return str(known[path.stem])
    raise ConfigError(
        f"--config {name}: no such file, and no presets of that name; {nearest(path.stem, known)}"
    )


def alike(value: Any, default: Any) -> bool:
    """Whether a value is of the kind of a setting's default; a whole number may be any number."""
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    for kind, allowed in KINDS.items():
        if isinstance(default, kind):
            return isinstance(value, allowed)
    return True


def kind_of(default: Any) -> str:
    """What a setting of this default holds, for a person."""
    if isinstance(default, bool):
        return "true or false"
    return next((NAMES[kind] for kind in KINDS if isinstance(default, kind)), "another value")


def at_least(least: int, default: Any) -> Any:
    """A field of a settings class that holds numbers from `least` on; see `least_of`."""
    return dataclasses.field(default=default, metadata={"least": least})


def least_of(field: dataclasses.Field) -> int | None:
    """The smallest number that a setting, or an element of it, should be; None: any.

    `at_least` says it. Else it is 1 for whole numbers whose default is no less, as sizes and counts
    are, and 0 for other numbers, but for negative defaults.
    """
    first = _first(field)
    if isinstance(first, bool) or not isinstance(first, int | float) or first < 0:
        return field.metadata.get("least")
    return field.metadata.get("least", int(isinstance(first, int) and first > 0))


def too_small(value: Any, least: int | None) -> bool:
    """Whether a number, or one of several, is below a limit."""
    several = value if isinstance(value, tuple | list) else [value]
    return least is not None and any(isinstance(x, int | float) and x < least for x in several)


def wanted(value: Any, field: dataclasses.Field) -> str:
    """What to say of a number that is too small."""
    whole = "whole " if isinstance(_first(field), int) else ""
    what = f"{whole}numbers" if isinstance(field.default, tuple | list) else f"a {whole}number"
    return f"is {value!r}; expected {what} from {least_of(field)} on"


def _first(field: dataclasses.Field) -> Any:
    several = isinstance(field.default, tuple | list) and field.default
    return field.default[0] if several else field.default


# Kinds of settings, those that may stand for them, and their names.
KINDS = {int: int, float: (int, float), str: str, (tuple, list): (tuple, list)}
NAMES = {int: "a whole number", float: "a number", str: "a text", (tuple, list): "a list"}


def fields(cls: type, mapping: Mapping[str, Any], where: str) -> Any:
    """Builds a dataclass from a config section, refusing keys that it does not have.

    Args:
      cls: a dataclass.
      mapping: the section.
      where: the section's name in messages, such as "config.model".

    Raises:
      ConfigError: names the unknown key and the nearest valid one, the missing ones, a value of
        another kind, or a size or count below 0.
    """
    known = {f.name: f for f in dataclasses.fields(cls)}
    for key in mapping:
        if key not in known:
            hint = nearest(key, known, where + ".{}")
            raise ConfigError(f"{where}.{key} is not a setting of {cls.__name__}; {hint}")
        if not alike(mapping[key], known[key].default):
            expected = kind_of(known[key].default)
            raise ConfigError(f"{where}.{key} is {mapping[key]!r}; expected {expected}")
        least, whole = least_of(known[key]), isinstance(_first(known[key]), int)
        if whole and least is not None and too_small(mapping[key], min(least, 0)):
            raise ConfigError(f"{where}.{key} {wanted(mapping[key], known[key])}")
    missing = [
        n
        for n, f in known.items()
        if n not in mapping
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}, which {cls.__name__} needs")
    return cls(**mapping)
