"""jaxt2i: text-to-image synthesis in JAX.

    import jaxt2i
    jaxt2i.load("runs/stylegan_t-default").sample(["a red rose"], num=4).save("drawn")

`load` draws with a trained run, `load_weights` with converted weights; see `jaxt2i.api`.
"""

import importlib.util
import os

# Where a store's own library is installed, etils.epath goes through it; else through TensorFlow,
# which reaches gs:// alone. It looks once, at its first path.
if any(map(importlib.util.find_spec, ("gcsfs", "s3fs", "adlfs"))):
    os.environ.setdefault("EPATH_USE_TF", "0")

__version__ = "0.1.0"
__all__ = ["load", "load_weights"]


def __getattr__(name: str):
    """Functions of `jaxt2i.api`, whose libraries are read when the first is asked for."""
    if name in __all__:
        from jaxt2i import api

        return getattr(api, name)
    raise AttributeError(f"module 'jaxt2i' has no attribute {name!r}")
