"""Settings classes from sections of a configuration, and the error of an impossible one."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any


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


def fields(cls: type, mapping: Mapping[str, Any], where: str) -> Any:
    """Builds a dataclass from a config section, refusing keys that it does not have.

    Args:
      cls: a dataclass.
      mapping: the section.
      where: the section's name in messages, such as "config.model".

    Raises:
      ConfigError: names the unknown key and the nearest valid one, or the missing ones.
    """
    known = {f.name: f for f in dataclasses.fields(cls)}
    for key in mapping:
        if key not in known:
            hint = nearest(key, known, where + ".{}")
            raise ConfigError(f"{where}.{key} is not a setting of {cls.__name__}; {hint}")
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
