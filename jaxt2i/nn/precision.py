"""The precision policy: parameters, statistics and losses in float32, activations as configured."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def compute_dtype(precision: str, platform: str) -> jnp.dtype:
    """The dtype of activations.

    bfloat16 has float32's exponents, so no loss scaling is needed anywhere.

    Args:
      precision: "float32", "bfloat16", or "auto": bfloat16 where the platform has units for it.
      platform: "cpu", "gpu" or "tpu".

    Raises:
      ValueError: for another name.
    """
    if precision == "auto":
        precision = "float32" if platform == "cpu" else "bfloat16"
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"config.precision={precision!r}: give 'float32', 'bfloat16' or 'auto'")
    return jnp.dtype(precision)


def perception_dtype(config: Any) -> jnp.dtype:
    """The dtype of a system's frozen networks: config.perception_precision, else its precision."""
    name = config.get("perception_precision", "") or config.precision
    return compute_dtype(name, jax.default_backend())


def exact(function: Callable) -> Callable:
    """Traces a function with float32 products, and gives its gradients the same.

    Accelerators otherwise multiply float32 arrays in bfloat16 or TF32, which shows in the third
    digit of published scores.
    """

    @functools.wraps(function)
    def run(*args, **kw):
        with jax.default_matmul_precision("highest"):
            return function(*args, **kw)

    return run
