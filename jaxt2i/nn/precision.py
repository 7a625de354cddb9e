"""The precision policy: parameters, statistics and losses in float32, activations as configured."""

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
