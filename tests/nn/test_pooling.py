"""Max pooling's own gradient equals XLA's."""

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
