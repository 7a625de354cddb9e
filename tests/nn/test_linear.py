"""Dense layers and convolutions: values, and PyTorch's initial range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.nn.linear import Conv, Linear


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("size", "stride", "pad"), [(3, 1, None), (4, 2, 1), (4, 1, 0), (1, 1, 0)])
def test_conv_slides_a_window_over_zero_padding(size, stride, pad):
    x = draw(2, 8, 8, 3)
    module = Conv(5, size, stride=stride, pad=pad)
    variables = module.init(jax.random.key(0), x)
    kernel, bias = (np.array(variables["params"][k]) for k in ("kernel", "bias"))
    edge = size // 2 if pad is None else pad
    padded = np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (1, 2))
    want = np.einsum("bhwikl,klio->bhwo", seen[:, ::stride, ::stride], kernel) + bias
    np.testing.assert_allclose(module.apply(variables, x), want, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "x", "fan_in"), [(Conv(64), draw(1, 4, 4, 8), 72), (Linear(512), draw(1, 25), 25)]
)
def test_initial_values_are_uniform_within_the_fan_in(module, x, fan_in):
    params = module.init(jax.random.key(0), x)["params"]
    for leaf in params.values():
        assert jnp.abs(leaf).max() <= fan_in**-0.5
        assert jnp.abs(leaf).max() > 0.9 * fan_in**-0.5
        assert jnp.std(leaf) == pytest.approx((fan_in * 3) ** -0.5, rel=0.15)


def test_without_bias_there_is_none():
    assert set(Conv(2, use_bias=False).init(jax.random.key(0), draw(1, 4, 4, 1))["params"]) == {
        "kernel"
    }
