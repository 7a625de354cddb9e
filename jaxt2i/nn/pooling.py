"""Pools over 3 x 3 pixels, as each platform computes them best.

XLA's windows are slow on CPUs, forward and backward; there slices are compared and added
(benchmarks/results/max_pool_cpu.json, average_pool_cpu.json). Accelerators keep the windows.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.nn.fastest import by_platform

WINDOW, STEPS = (3, 3), (2, 2)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """The largest of 3 x 3 pixels, by steps of two: [B, H, W, C] to [B, H', W', C], unpadded.

    Of equal pixels the first one gets the gradient, as in PyTorch.
    """

    def slices(x: jax.Array) -> jax.Array:
        for axis in (1, 2):
            last = x.shape[axis] - 2
            parts = (jax.lax.slice_in_dim(x, i, last + i, 2, axis) for i in range(3))
            x = functools.reduce(jnp.maximum, parts)
        return x

    variants = {"windows": lambda x: nn.max_pool(x, WINDOW, STEPS), "slices": slices}
    return by_platform("pool", "auto", variants, x)


def _kept(x):
    y = max_pool(x)
    return y, (x, y)


def _back(kept, g):
    variants = {"selected": _selected, "phases": _phases}
    return (by_platform("max_pool", "auto", variants, *kept, g),)


max_pool.defvjp(_kept, _back)


def _selected(x: jax.Array, y: jax.Array, g: jax.Array) -> jax.Array:
    """The gradient as XLA has it."""
    return jax.vjp(lambda x: nn.max_pool(x, WINDOW, STEPS), x)[1](g)[0]


def _phases(x: jax.Array, y: jax.Array, g: jax.Array) -> jax.Array:
    """The same: a pixel of an even row is the first or last of a window's, else the middle one."""
    (height, width), out = x.shape[1:3], y.shape[1:3]
    free, parts = jnp.ones(y.shape, bool), {}
    for i in range(3):
        for j in range(3):
            seen = x[:, i : i + 2 * out[0] - 1 : 2, j : j + 2 * out[1] - 1 : 2]
            hit = free & (seen == y)
            parts[i, j] = jnp.where(hit, g, 0)
            free &= ~hit
    columns = [_woven(*(parts[i, j] for j in range(3)), axis=2, size=width) for i in range(3)]
    return _woven(*columns, axis=1, size=height)


def _woven(first: jax.Array, middle: jax.Array, last: jax.Array, axis: int, size: int) -> jax.Array:
    """Along one axis, what the windows give to their first, middle and last pixels, summed up."""
    length = (size + 1) // 2

    def placed(part: jax.Array, begin: int) -> jax.Array:
        pads = [(0, 0)] * part.ndim
        pads[axis] = (begin, length - begin - part.shape[axis])
        return jnp.pad(part, pads)

    both = jnp.stack([placed(first, 0) + placed(last, 1), placed(middle, 0)], axis + 1)
    both = both.reshape(*both.shape[:axis], 2 * length, *both.shape[axis + 2 :])
    return jax.lax.slice_in_dim(both, 0, size, axis=axis)


def average_pool(x: jax.Array, padded: bool) -> jax.Array:
    """Means of 3 x 3 pixels, of the size of x: [B, H, W, C].

    Args:
      x: features.
      padded: zeros at the borders count, as in PyTorch by default; else the pixels that are there.
    """
    if padded:
        return sums(x) / 9
    rows, columns = (3 - sum(jnp.arange(n) == end for end in (0, n - 1)) for n in x.shape[1:3])
    return sums(x) / (rows[:, None] * columns)[:, :, None]


@jax.custom_vjp
def sums(x: jax.Array) -> jax.Array:
    """Sums of 3 x 3 pixels, of the size of x: their gradient is the same of the gradient."""

    def slices(x: jax.Array) -> jax.Array:
        for axis in (1, 2):
            pads = [(1, 1) if axis == n else (0, 0) for n in range(x.ndim)]
            wide, size = jnp.pad(x, pads), x.shape[axis]
            x = sum(jax.lax.slice_in_dim(wide, i, size + i, axis=axis) for i in range(3))
        return x

    def windows(x: jax.Array) -> jax.Array:
        whole = (1, *WINDOW, 1), (1, 1, 1, 1), "SAME"
        return jax.lax.reduce_window(x, jnp.zeros((), x.dtype), jax.lax.add, *whole)

    return by_platform("pool", "auto", {"windows": windows, "slices": slices}, x)


sums.defvjp(lambda x: (sums(x), None), lambda _, g: (sums(g),))
