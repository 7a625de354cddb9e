"""The convolution with gradients of its own equals XLA's, in values and gradients of two orders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.nn import convolution

CASES = [
    # kernel, strides, padding
    ((3, 3), (1, 1), "SAME"),
    ((4, 4), (2, 2), ((1, 1), (1, 1))),
    ((3, 3), (2, 2), "SAME"),
    ((1, 1), (1, 1), "VALID"),
    ((3, 2), (1, 1), ((2, 0), (0, 1))),
    ((2, 2), (1, 1), ((1, 1), (1, 1))),
]


def penalty(conv, x, kernel, g):
    """A gradient penalty, whose own gradients ask for the second order."""
    dx, dk = jax.grad(lambda x, k: (conv(x, k) * g).sum(), (0, 1))(x, kernel)
    return (dx**2 * (1 + x)).sum() + (dk**2 * (1 + kernel)).sum()


@pytest.mark.parametrize(("pictures", "inputs", "outputs"), [(2, 3, 5), (1, 6, 3)])
@pytest.mark.parametrize(("size", "strides", "padding"), CASES)
def test_gradients_of_both_orders_are_those_of_xla(
    size, strides, padding, pictures, inputs, outputs, monkeypatch
):
    x = jax.random.normal(jax.random.key(0), (pictures, 6, 8, inputs))
    kernel = jax.random.normal(jax.random.key(1), (*size, inputs, outputs))
    monkeypatch.setattr(convolution, "TALL", 2)
    dims, found = ("NHWC", "HWIO", "NHWC"), []
    for conv in (
        lambda x, k: convolution.convolve(x, k, strides, padding),
        lambda x, k: jax.lax.conv_general_dilated(x, k, strides, padding, dimension_numbers=dims),
    ):
        y, vjp = jax.vjp(jax.jit(conv), x, kernel)
        g = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
        second = jax.jit(jax.grad(lambda x, k: penalty(conv, x, k, g), (0, 1)))  # noqa: B023
        found.append((y, *vjp(g), *second(x, kernel)))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(abs(theirs).max()))


def test_a_transposed_convolution_is_that_of_a_picture_with_zeros_between():
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 5))
    dims, edges, found = ("NHWC", "HWIO", "NHWC"), ((2, 2), (2, 2)), []
    for conv in (
        convolution.transposed,
        lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), edges, (2, 2), None, dims),
    ):
        y, vjp = jax.vjp(jax.jit(conv), x, kernel)
        assert y.shape == (2, 11, 9, 5)
        g = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
        second = jax.jit(jax.grad(lambda x, k: penalty(conv, x, k, g), (0, 1)))  # noqa: B023
        found.append((y, *vjp(g), *second(x, kernel)))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(abs(theirs).max()))


def test_small_windows_go_by_products():
    x = jnp.zeros((1, 4, 4, 8))
    for size, by_products in zip((2, 3), (True, False), strict=True):
        kernel = jnp.zeros((size, size, 8, 8))
        step = jax.grad(lambda k: convolution.convolve(x, k, (1, 1), ((1, 1), (1, 1))).sum())
        text = jax.jit(step).lower(kernel).as_text()
        assert ("dot_general" in text) == by_products


@pytest.mark.parametrize("shape", [(2, 2, 8, 8), (3, 3, 8, 3)])
def test_other_platforms_keep_the_convolution(shape):
    x, kernel = jnp.zeros((1, 4, 4, 8)), jnp.zeros(shape)
    step = jax.jit(jax.value_and_grad(lambda k: convolution.convolve(x, k, (1, 1), "SAME").sum()))
    lowered = {
        p: step.trace(kernel).lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "tpu")
    }
    assert "dot_general" in lowered["cpu"]
    assert "dot_general" not in lowered["tpu"]


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("pictures", "outputs"), [(1, 3), (1, 5), (2, 3)])
def test_one_pictures_colours_are_a_product(pictures, outputs, padding):
    kernel = jnp.zeros((3, 3, 8, outputs))
    step = jax.jit(lambda x: convolution.convolve(x, kernel, (1, 1), padding))
    text = step.lower(jnp.zeros((pictures, 4, 4, 8))).as_text()
    product = (pictures, outputs, padding) == (1, 3, "SAME")
    assert ("dot_general" in text) == product
    assert ("stablehlo.convolution" in text) != product


@pytest.mark.parametrize(("shape", "patch"), [((2, 24, 16, 3), 8), ((3, 4, 4, 5), 1)])
def test_patches_are_the_convolution_whose_windows_lie_side_by_side(shape, patch):
    random = np.random.RandomState(0)
    x = jnp.asarray(random.standard_normal(shape), jnp.float32)
    kernel = jnp.asarray(random.standard_normal((patch, patch, shape[-1], 6)), jnp.float32)
    how = convolution.Place((patch, patch), ((0, 0), (0, 0)))
    functions = convolution.patches, lambda x, kernel: convolution.plain(x, kernel, how)
    (value, pull), (expected, other) = (jax.vjp(f, x, kernel) for f in functions)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    along = jnp.asarray(random.standard_normal(value.shape), jnp.float32)
    for own, theirs in zip(pull(along), other(along), strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-5, atol=1e-5)
