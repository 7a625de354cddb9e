"""Resampling: every variant against a direct reference, borders and gradients included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxt2i.nn import fastest, resample

FIR = resample.setup_filter((1, 3, 3, 1))
RANDOM = np.random.RandomState(0)


def normal(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def direct_upfirdn(x, f, up, down, pad):
    """Zero-insert, pad or crop, convolve, decimate: one plane [H, W], literally."""
    h, w = x.shape
    z = np.zeros((h * up, w * up))
    z[::up, ::up] = x
    x0, x1, y0, y1 = pad
    z = np.pad(z, ((max(y0, 0), max(y1, 0)), (max(x0, 0), max(x1, 0))))
    z = z[max(-y0, 0) : z.shape[0] - max(-y1, 0), max(-x0, 0) : z.shape[1] - max(-x1, 0)]
    f = f[::-1, ::-1]
    fh, fw = f.shape
    rows, cols = range(z.shape[0] - fh + 1), range(z.shape[1] - fw + 1)
    y = np.array([[(z[i : i + fh, j : j + fw] * f).sum() for j in cols] for i in rows])
    return y[::down, ::down]


@settings(max_examples=12, deadline=None)
@given(
    up=st.integers(1, 3),
    down=st.integers(1, 2),
    pad=st.tuples(*[st.integers(-1, 3)] * 4),
    taps=st.sampled_from([(1, 3, 3, 1), (1, 2, 5), (1, 1)]),
    variant=st.sampled_from(["dilated", "matmul"]),
)
def test_upfirdn_is_its_definition(up, down, pad, taps, variant):
    x, f = normal(6, 5), np.outer(taps, taps).astype(np.float32)
    kw = {"up": up, "down": down, "padding": pad}
    y = resample.upfirdn2d(x[None, :, :, None], f, variant=variant, **kw)[0, :, :, 0]
    want = direct_upfirdn(x, f, up, down, pad)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-4)


def test_a_filter_that_is_no_product_has_no_matrix_form():
    f = resample.setup_filter([[1, 2, 3], [4, 5, 6]])
    with pytest.raises(ValueError, match=r"no variant 'matmul'.*dilated"):
        resample.upfirdn2d(jnp.zeros((1, 4, 4, 1)), f, variant="matmul")
    assert resample.separate(np.outer([1, 2], [-3, 4])) is not None


@pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 2, 5), (1, 1)])
@pytest.mark.parametrize("flip", [False, True])
def test_up_convolutions_agree_to_the_border_with_gradients(taps, flip):
    f, x, kernel = resample.setup_filter(taps), normal(2, 5, 4, 3), normal(3, 3, 3, 2)
    weight = normal(2, 10, 8, 2)

    def run(variant):
        def loss(x, kernel):
            y = resample.up_conv(x, kernel, f, flip=flip, variant=variant)
            return (y * weight).sum(), y

        grads, y = jax.grad(loss, (0, 1), has_aux=True)(x, kernel)
        return (y, *grads)

    reference = run("dilated")
    for variant in ("folded", "resize"):
        for mine, want in zip(run(variant), reference, strict=True):
            np.testing.assert_allclose(mine, want, rtol=1e-5, atol=2e-4)


def test_doubling_and_convolving_at_once_agrees_to_the_border_with_gradients():
    x, kernel, weight = normal(2, 13, 10, 3), normal(3, 3, 3, 2), normal(2, 26, 20, 2)

    def run(variant):
        def loss(x, kernel):
            y = resample.up_nearest_conv(x, kernel, variant)
            return (y * weight).sum(), y

        grads, y = jax.grad(loss, (0, 1), has_aux=True)(x, kernel)
        return (y, *grads)

    for variant in ("phases", "rows"):
        for mine, want in zip(run(variant), run("resize"), strict=True):
            np.testing.assert_allclose(mine, want, rtol=1e-5, atol=2e-4)


def test_small_pictures_are_doubled_and_convolved_one_after_the_other():
    kernel = normal(3, 3, 3, 2)
    for shape, split in (((4, 7, 7, 3), False), ((4, 8, 8, 3), True)):
        program = jax.jit(resample.up_nearest_conv).lower(normal(*shape), kernel).as_text()
        assert ("2x2x3x8" in program) == split
    with pytest.raises(ValueError, match="no variant 'phases' here"):
        resample.up_nearest_conv(normal(1, 4, 4, 3), kernel, "phases")


def test_the_platform_is_settled_at_lowering(monkeypatch):
    # Different choices: the program for a CPU holds one of them, and no branch.
    table = {"cpu": "matmul", "tpu": "dilated", "default": "dilated"}
    monkeypatch.setitem(fastest.FASTEST, "upfirdn", table)
    step = jax.jit(jax.grad(lambda x: jnp.square(resample.upsample2d(x, FIR)).sum()))
    text = step.lower(jnp.ones((1, 4, 4, 2))).compile().as_text()
    assert " dot(" in text
    assert "convolution" not in text
    assert "conditional" not in text


def test_area_matrix_averages_the_pixels_it_covers():
    for out, size in ((3, 7), (7, 3), (4, 8)):
        matrix = resample.area_matrix(out, size)
        for i in range(out):
            first, last = i * size // out, -(-(i + 1) * size // out)
            want = np.zeros(size)
            want[first:last] = 1 / (last - first)
            np.testing.assert_allclose(matrix[i], want, rtol=1e-6)


@pytest.mark.parametrize("make", [resample.bilinear_matrix, resample.bicubic_matrix])
def test_interpolation_keeps_constants_and_ramps(make):
    matrix = make(12, 6)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-6)
    inside = slice(4, 8)  # far enough from the border, where taps repeat its pixel
    if make is resample.bilinear_matrix:  # a = -0.75 does not reproduce ramps exactly
        want = (np.arange(12) + 0.5) / 2 - 0.5
        np.testing.assert_allclose((matrix @ np.arange(6))[inside], want[inside], rtol=1e-6)
    np.testing.assert_allclose(make(6, 6), np.eye(6), atol=1e-7)


def test_each_group_gets_its_own_view():
    x = normal(4, 6, 6, 2)
    rows = resample.crop_matrix(jnp.array([1, 3]), 3, 6)
    cols = resample.crop_matrix(jnp.array([0, 2]), 3, 6)
    y = resample.apply_matrices(x, rows, cols)
    np.testing.assert_array_equal(y[:2], x[:2, 1:4, 0:3])
    np.testing.assert_array_equal(y[2:], x[2:, 3:6, 2:5])


def test_blur_takes_a_traced_sigma():
    make = jax.jit(lambda sigma: resample.blur_matrix(sigma, 9, max_sigma=4.0))
    np.testing.assert_array_equal(make(0.0), np.eye(9))
    np.testing.assert_array_equal(make(0.33), np.eye(9))
    taps = 2.0 ** -((np.arange(-3, 4) / 1.0) ** 2)
    np.testing.assert_allclose(make(1.0)[4, 1:8], taps / taps.sum(), rtol=1e-6)
    assert make._cache_size() == 1
    # A kernel wider than the image loses what falls outside: zeros, not renormalised.
    assert float(make(4.0)[4].sum()) < 0.95


@settings(max_examples=3, deadline=None)
@given(
    size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    out=st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
@pytest.mark.parametrize("kind", ["bilinear", "bicubic", "lanczos", "box", "nearest"])
def test_bytes_are_pillows_to_the_level(kind, size, out):
    x = RANDOM.randint(0, 256, (*size, 3)).astype(np.uint8)
    want = Image.fromarray(x).resize(out[::-1], Image.Resampling[kind.upper()])
    np.testing.assert_array_equal(resample.resize_bytes(x[None], out, kind)[0], want)


def test_an_unknown_kernel_is_refused_by_name():
    with pytest.raises(ValueError, match=r"no kernel 'cubic'; choose from tf1_bilinear.*nearest"):
        resample.resize(jnp.zeros((1, 4, 4, 1)), (2, 2), "cubic")


def test_long_reductions_stay_exact():
    """Sixteen to one in bicubic has 64 taps, the most whose sums float32 holds exactly."""
    x = RANDOM.randint(0, 256, (512, 512, 1)).astype(np.uint8)
    want = Image.fromarray(x[..., 0]).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(
        resample.resize_bytes(x[None], (32, 32), "bicubic")[0, ..., 0], want
    )
