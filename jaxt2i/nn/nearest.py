"""Nearest neighbours: which pixel becomes which, and a gradient without scattered sums.

The gradient of a gather adds to places all over an array, one after the other. Here places are
sorted: the pixels that a pixel became lie side by side, and its gradient is a sum of a few gathers.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def nearest_index(out: int, size: int) -> np.ndarray:
    """Source index [out] of every pixel: floor(i * size / out), PyTorch's rule.

    `jax.image.resize` counts from pixel centres instead: 128 -> 224 differs at 64 places.
    """
    return np.arange(out) * size // out


def centre_index(out: int, size: int) -> np.ndarray:
    """Source index [out] of every pixel's centre: PyTorch's "nearest-exact"."""
    return (2 * np.arange(out) + 1) * size // (2 * out)


def pillow_index(out: int, size: int) -> np.ndarray:
    """`centre_index` as Pillow counts, adding step to step: a centre on a border may fall short."""
    step = size / out
    return np.cumsum([step / 2, *[step] * (out - 1)]).astype(int)


def resize_nearest(x: jax.Array, out: int) -> jax.Array:
    """[B, H, W, C] to [B, out, out, C] by PyTorch's nearest rule."""
    for axis in (1, 2):
        size = x.shape[axis]
        if out % size == 0:
            x = jnp.repeat(x, out // size, axis)
        else:
            x = taken(x, nearest_index(out, size), axis)
    return x


def taken(x: jax.Array, index: np.ndarray, axis: int) -> jax.Array:
    """`jnp.take` by sorted places [n] that are there: n of them along the axis."""
    return _taken(x, axis, tuple(index.tolist()), x.shape[axis])


def _at(x: jax.Array, index: np.ndarray, axis: int) -> jax.Array:
    return jnp.take(x, index, axis, mode="clip")  # otherwise NaNs are held ready for other places


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _taken(x: jax.Array, axis: int, index: tuple[int, ...], size: int) -> jax.Array:
    return _at(x, np.array(index), axis)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _returned(g: jax.Array, axis: int, index: tuple[int, ...], size: int) -> jax.Array:
    # For each of `size` places, the sum of what was taken from it.
    first = np.searchsorted(index, np.arange(size))
    count = np.bincount(index, minlength=size)
    total = jnp.zeros((), g.dtype)
    for number in range(count.max()):
        part = _at(g, np.minimum(first + number, len(index) - 1), axis)
        there = np.expand_dims(count > number, [n for n in range(g.ndim) if n != axis % g.ndim])
        total = total + (part if there.all() else jnp.where(there, part, 0))
    return total


# Each is the gradient of the other.
_taken.defvjp(
    lambda x, *how: (_taken(x, *how), None),
    lambda axis, index, size, _, g: (_returned(g, axis, index, size),),
)
_returned.defvjp(
    lambda g, *how: (_returned(g, *how), None),
    lambda axis, index, size, _, c: (_taken(c, axis, index, size),),
)
