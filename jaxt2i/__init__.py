"""jaxt2i: text-to-image synthesis in JAX.

    import jaxt2i
    jaxt2i.presets()
    run = jaxt2i.train("stylegan_t")
    jaxt2i.load(run).sample(["a red rose"], num=4).save("drawn")
    jaxt2i.evaluate(run)
    jaxt2i.export(run, "weights")

`load` draws with a run, an export, a model of the hub or converted weights; see `jaxt2i.api`.
`train`, `evaluate` and `export` do what the command lines of those names do.
"""

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING, Any

from jaxt2i.version import VERSION as __version__

if TYPE_CHECKING:
    from jaxt2i.api import load, load_weights
    from jaxt2i.evaluate import evaluate
    from jaxt2i.export import export
    from jaxt2i.run.settings import presets
    from jaxt2i.train import train

# Where a store's own library is installed, etils.epath goes through it; else through TensorFlow,
# which reaches gs:// alone. It looks once, at its first path.
if any(map(importlib.util.find_spec, ("gcsfs", "s3fs", "adlfs"))):
    os.environ.setdefault("EPATH_USE_TF", "0")

# Modules of the same name, which can be called.
COMMANDS = ("evaluate", "export", "train")
FUNCTIONS = {"load": "api", "load_weights": "api", "presets": "run.settings"}
__all__ = [
    "__version__",
    "evaluate",
    "export",
    "load",
    "load_weights",
    "presets",
    "train",
]


def __getattr__(name: str) -> Any:
    """The functions, whose libraries are read when the first is asked for."""
    if name in COMMANDS:
        return importlib.import_module(f"jaxt2i.{name}")
    if name in FUNCTIONS:
        return getattr(importlib.import_module(f"jaxt2i.{FUNCTIONS[name]}"), name)
    raise AttributeError(f"module 'jaxt2i' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
