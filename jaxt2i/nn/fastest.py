"""Which of several equal implementations of an operation a platform uses."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import jax
from jax.sharding import NamedSharding

# Fastest variant of each operation, by the platform that a program is compiled for: "cpu" as
# benchmarks/ops.py measures it (forward and backward), "tpu" by the TPU compiler's cost model;
# "default", any other platform, follows the TPU until it is measured, or is what all have.
FASTEST = {
    "upfirdn": {"cpu": "matmul", "tpu": "matmul", "default": "matmul"},
    # As benchmarks/results/up_conv_cpu.json and up_conv_v5e.json have it.
    "up_conv": {"cpu": "dilated", "tpu": "folded", "default": "folded"},
    # The sum of a kernel's squares over its places, as benchmarks/results/power_cpu.json has it.
    "power": {"cpu": "added", "tpu": "reduced", "default": "reduced"},
    "up_nearest_conv": {"cpu": "phases", "tpu": "rows", "default": "resize"},
    "translate": {"cpu": "slice", "tpu": "matmul", "default": "matmul"},
    # As benchmarks/results/conv_cpu.json has it.
    "weight_gradient": {"cpu": "products", "tpu": "conv", "default": "conv"},
    # As benchmarks/results/colours_cpu.json has it.
    "colours": {"cpu": "summed", "tpu": "conv", "default": "conv"},
    "input_gradient": {"cpu": "phases", "tpu": "conv", "default": "conv"},
    # As benchmarks/results/max_pool_cpu.json and average_pool_cpu.json have it.
    "pool": {"cpu": "slices", "tpu": "windows", "default": "windows"},
    # The gradient of its largest pixels.
    "max_pool": {"cpu": "phases", "tpu": "selected", "default": "selected"},
    # By the traffic of benchmarks/results/latency_v5e.json; that of cuDNN is not yet seen.
    "attention": {"cpu": "plain", "tpu": "flash", "cuda": "cudnn", "default": "plain"},
}
_ROWS: contextvars.ContextVar[NamedSharding | None] = contextvars.ContextVar("rows", default=None)


@contextlib.contextmanager
def split_like(rows: NamedSharding | None) -> Iterator[None]:
    """Says how the rows of batches are split over devices, in programs that are traced within it.

    A kernel, unlike XLA's operations, has to be told. None: nothing is said. Rows that `jax.vmap`
    takes apart are not split within it; its spmd_axis_name says how they are outside.
    """
    token = _ROWS.set(rows)
    try:
        yield
    finally:
        _ROWS.reset(token)


def rows_are_split() -> NamedSharding | None:
    """How the rows of batches are split over devices; None: nobody said, so no kernel may run."""
    return _ROWS.get()


def by_platform(
    operation: str, variant: str, variants: dict[str, Callable[..., jax.Array]], *args: jax.Array
) -> jax.Array:
    """Calls one of several equal implementations.

    "auto" is settled when the program is lowered, by the platform it is lowered for: compiling
    for a TPU on a machine without one picks the TPU's variant.

    Args:
      operation: key of `FASTEST`.
      variant: key of `variants`, or "auto".
      variants: the implementations; the first one stands in where the fastest does not apply.
      *args: arrays they take.

    Raises:
      ValueError: for an unknown variant; names the known ones.
    """
    if variant != "auto":
        if variant not in variants:
            raise ValueError(
                f"{operation} has no variant {variant!r} here; choose from "
                f"auto, {', '.join(variants)}"
            )
        return variants[variant](*args)
    first = next(iter(variants.values()))
    table = {k: variants.get(v, first) for k, v in FASTEST[operation].items()}
    if len(set(table.values())) == 1:
        return table["default"](*args)
    return jax.lax.platform_dependent(*args, **table)
