"""Pools and their gradients equal XLA's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.nn import pooling


@pytest.mark.parametrize("shape", [(2, 9, 7, 3), (2, 8, 10, 3), (1, 3, 3, 2), (1, 4, 3, 1)])
@pytest.mark.parametrize("levels", [3, 10**6])  # few levels: windows with several largest pixels
def test_the_gradient_is_that_of_xla(shape, levels):
    random = np.random.RandomState(0)
    x = jnp.asarray(random.randint(levels, size=shape), jnp.float32)
    value, pull = jax.vjp(pooling.max_pool, x)
    expected, other = jax.vjp(lambda x: nn.max_pool(x, (3, 3), (2, 2)), x)
    np.testing.assert_array_equal(value, expected)
    g = jnp.asarray(random.randint(-9, 9, value.shape), jnp.float32)  # whole: sums are exact
    np.testing.assert_array_equal(pull(g)[0], other(g)[0])


def test_accelerators_keep_the_gradient_of_xla():
    step = jax.jit(jax.grad(lambda x: pooling.max_pool(x).sum()))
    x = jnp.zeros((1, 9, 9, 2))
    text = {p: step.trace(x).lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "tpu")}
    assert "select_and_scatter" in text["tpu"]
    assert "select_and_scatter" not in text["cpu"]


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (1, 1, 4, 2), (2, 2, 1, 1)])
def test_averages_and_their_gradients_of_two_orders_are_those_of_flax(shape, padded):
    x = jax.random.normal(jax.random.key(0), shape)
    g = jax.random.normal(jax.random.key(1), shape)

    def theirs(x):
        return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=padded)

    found = []
    for pool in (lambda x: pooling.average_pool(x, padded), theirs):
        value, pull = jax.vjp(pool, x)
        penalty = jax.grad(lambda x: (jax.grad(lambda x: (pool(x) ** 2 * g).sum())(x) ** 3).sum())  # noqa: B023
        found.append((value, *pull(g), penalty(x)))
    for own, other in zip(*found, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-5)


def test_accelerators_keep_the_windows_of_xla():
    x = jnp.zeros((1, 9, 9, 2))
    for pool in (pooling.max_pool, lambda x: pooling.average_pool(x, True)):
        step = jax.jit(pool)
        text = {p: step.trace(x).lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "tpu")}
        assert "reduce_window" in text["tpu"]
        assert "reduce_window" not in text["cpu"]
