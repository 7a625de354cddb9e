"""Nearest neighbours are PyTorch's, and their gradients those of a gather."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.nn import nearest


@pytest.mark.parametrize(
    ("size", "out"), [(7, 8), (14, 16), (8, 32), (128, 224), (256, 224), (512, 224), (5, 3)]
)
def test_nearest_is_pytorchs(size, out):
    """PyTorch multiplies by the float32 ratio and rounds down."""
    at = np.floor(np.arange(out, dtype=np.float32) * np.float32(size / out)).astype(int)
    x = np.arange(size * size, dtype=np.float32).reshape(1, size, size, 1)
    got = nearest.resize_nearest(jnp.asarray(x), out)
    np.testing.assert_array_equal(got[0, :, :, 0], x[0, :, :, 0][at][:, at])


@pytest.mark.parametrize("axis", [1, -2])
@pytest.mark.parametrize(("size", "out"), [(4, 7), (7, 4), (3, 10), (5, 5), (1, 3)])
def test_gradients_of_both_orders_are_those_of_a_gather(size, out, axis):
    index = nearest.nearest_index(out, size)
    x = jax.random.normal(jax.random.key(0), (2, size, size, 3))
    ways = (
        lambda x: nearest.taken(x, index, axis),
        lambda x: jnp.take(x, jnp.asarray(index), axis),
    )
    found = []
    for way in ways:
        y, pull = jax.vjp(way, x)
        g = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
        second = jax.grad(lambda x: (jax.grad(lambda x: (way(x) ** 3 * g).sum())(x) ** 2).sum())  # noqa: B023
        found.append((y, *pull(g), second(x)))
    for own, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-5, atol=1e-5)


def test_gradients_scatter_nothing():
    step = jax.jit(jax.grad(lambda x: (nearest.resize_nearest(x, 7) ** 2).sum()))
    assert "scatter" not in step.lower(jnp.zeros((1, 4, 4, 2))).as_text()
