"""Max pooling, with the gradient that each platform computes best."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxt2i.nn.fastest import by_platform

WINDOW, STEPS = (3, 3), (2, 2)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """The largest of 3 x 3 pixels, by steps of two: [B, H, W, C] to [B, H', W', C], unpadded.

    Of equal pixels the first one gets the gradient, as in PyTorch. XLA's gradient is slow on CPUs;
    there each phase of the pixels is a sum of its own (benchmarks/results/max_pool_cpu.json).
    """
    return nn.max_pool(x, WINDOW, STEPS)


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
