"""Modulated convolution against its definition, one kernel an example."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.nn import modulated, resample

FIR = resample.setup_filter((1, 3, 3, 1))


def normal(*shape, seed=0):
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def by_definition(x, kernel, s, demodulate, **kw):
    """Scale each example's kernel, normalise it, convolve that example alone."""
    out = []
    for i in range(len(x)):
        w = kernel * s[i][:, None]
        if demodulate:
            w = w / np.sqrt((w**2).sum((0, 1, 2)) + 1e-8)
        convolve = resample.up_conv if kw.get("f") is not None else resample.conv2d
        out.append(convolve(x[i : i + 1], jnp.asarray(w), **kw)[0])
    return np.stack(out)


@pytest.mark.parametrize("demodulate", [True, False])
def test_scaling_input_and_output_is_a_kernel_for_each_example(demodulate):
    x, kernel, s = normal(3, 6, 6, 4), normal(3, 3, 4, 5), normal(3, 4, seed=1)
    want = by_definition(x, kernel, s, demodulate)
    y = modulated.modulated_conv(x, kernel, s, demodulate=demodulate)
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)


def test_up_convolution_is_modulated_alike():
    x, kernel, s = normal(2, 4, 4, 3), normal(3, 3, 3, 2), normal(2, 3, seed=1)
    y = modulated.modulated_conv(x, kernel, s, up=2, f=FIR, flip=True)
    want = by_definition(x, kernel, s, True, f=FIR, flip=True)
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)


def test_half_precision_survives_large_weights():
    # Without normalising beforehand, the sums pass float16's 65504.
    x, kernel, s = normal(2, 6, 6, 64), 300 * normal(3, 3, 64, 8), 40 * normal(2, 64, seed=1)
    want = modulated.modulated_conv(x, kernel, s)
    y = modulated.modulated_conv(x.astype(np.float16), kernel, s)
    assert y.dtype == jnp.float16
    np.testing.assert_allclose(y.astype(np.float32), want, atol=0.02 * np.abs(want).max())


def test_to_rgb_accumulates_in_float32():
    x, kernel, s = normal(1, 4, 4, 512), normal(1, 1, 512, 3), normal(1, 512, seed=1)
    y = modulated.to_rgb(jnp.asarray(x, jnp.bfloat16), kernel, s)
    assert y.dtype == jnp.float32
    want = np.einsum("bhwi,io->bhwo", x * s[:, None, None], kernel[0, 0])
    np.testing.assert_allclose(y, want, atol=0.02 * np.abs(want).max())
