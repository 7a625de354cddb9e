"""Modules that are functions too: `jaxt2i.train` is a command line, and trains when called."""

import inspect
import sys
import types
from collections.abc import Callable
from typing import Any


def as_function(module: str, function: Callable[..., Any]) -> None:
    """Makes calling a module the same as calling one of its functions.

    Args:
      module: its `__name__`.
      function: what the call does; `help(module)` and `inspect.signature(module)` know of it.
    """

    class Called(types.ModuleType):
        __call__ = staticmethod(function)

    sys.modules[module].__class__ = Called
    sys.modules[module].__signature__ = inspect.signature(function)
