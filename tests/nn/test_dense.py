"""Equalised dense layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.nn import dense


def test_activation_gains_keep_the_second_moment():
    x = np.random.RandomState(0).standard_normal(200_000).astype(np.float32)
    for name in ("linear", "relu", "lrelu"):
        moment = float(jnp.square(dense.bias_act(x, None, name)).mean())
        assert 0.98 < moment < 1.06, name


def test_clamp_comes_after_the_gain():
    y = dense.bias_act(jnp.array([-10.0, 10.0]), None, "lrelu", gain=2.0, clamp=3.0)
    np.testing.assert_array_equal(y, [-3, 3])


def test_an_unknown_activation_is_named():
    with pytest.raises(ValueError, match=r"'gelu' is not an activation.*lrelu"):
        dense.bias_act(jnp.zeros(2), None, "gelu")


def test_learning_rate_multiplier_changes_the_step_not_the_function():
    x = jnp.ones((1, 64))
    steps, outputs = {}, {}
    for lr_mult in (1.0, 0.01):
        layer = dense.FullyConnected(32, lr_mult=lr_mult, bias_init=0.5)
        params = layer.init(jax.random.key(0), x)
        outputs[lr_mult] = layer.apply(params, x)
        grads = jax.grad(lambda p, layer=layer: layer.apply(p, x).sum())(params)
        moved = jax.tree.map(lambda p, g: p + 0.1 * g, params, grads)
        steps[lr_mult] = (layer.apply(moved, x) - outputs[lr_mult]).mean()
    np.testing.assert_allclose(outputs[1.0], outputs[0.01], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(steps[0.01], 1e-4 * steps[1.0], rtol=0.05)


def test_equalised_output_has_unit_variance():
    x = jax.random.normal(jax.random.key(1), (64, 256))
    layer = dense.FullyConnected(256)
    y = layer.apply(layer.init(jax.random.key(0), x), x)
    assert 0.9 < float(y.var()) < 1.1


def test_styles_are_second_order():
    split = dense.StyleSplit(3)
    w = jnp.zeros((2, 5))
    variables = split.init(jax.random.key(0), w)
    np.testing.assert_allclose(split.apply(variables, w), 2)  # biases start at one: 1 * 1 + 1
    bias = jnp.array([2.0, 2, 2, 3, 3, 3, 4, 4, 4])
    variables["params"]["proj"]["bias"] = bias
    np.testing.assert_allclose(split.apply(variables, w), 10)


def test_second_moment_is_normalised():
    y = dense.normalize_2nd_moment(jnp.array([[3.0, 4.0]]))
    np.testing.assert_allclose(jnp.square(y).mean(), 1, rtol=1e-6)
