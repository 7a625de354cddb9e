"""DiffAugment: draws in range, applications that are what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.nn import augment


def images(batch, size):
    return np.random.RandomState(0).uniform(-1, 1, (batch, size, size, 3)).astype(np.float32)


@pytest.mark.parametrize("size", [24, 29])
def test_draws_cover_their_range(size):
    draws = augment.draw(jax.random.key(0), 4000, size)
    shift, last = augment.max_shift(size), size - augment.cutout_size(size) % 2
    for name in ("shift_row", "shift_col"):
        assert set(np.asarray(draws[name])) == set(range(-shift, shift + 1))
    for name in ("cut_row", "cut_col"):
        assert set(np.asarray(draws[name])) == set(range(last + 1))
    assert 0 <= float(draws["contrast"].min()) < 0.01 < 0.99 < float(draws["contrast"].max()) < 1
    assert not np.array_equal(draws["shift_row"], draws["shift_col"])


def test_policies():
    key = jax.random.key(0)
    assert augment.draw(key, 2, 16, "") == {}
    only = augment.draw(key, 2, 16, "cutout")
    assert set(only) == {"cut_row", "cut_col"}
    # A step's draws do not depend on which other steps there are.
    np.testing.assert_array_equal(only["cut_row"], augment.draw(key, 2, 16)["cut_row"])
    with pytest.raises(ValueError, match=r"'colour'.*color,translation,cutout"):
        augment.draw(key, 2, 16, "colour")


@pytest.mark.parametrize("variant", ["matmul", "slice", "auto"])
def test_translation_moves_pixels_exactly(variant):
    x, rows, cols = images(3, 16), np.array([2, -1, 0]), np.array([0, 1, -2])
    y = augment.translate(x, jnp.array(rows), jnp.array(cols), variant=variant)
    for i, (dr, dc) in enumerate(zip(rows, cols, strict=True)):
        padded = np.pad(x[i], ((2, 2), (2, 2), (0, 0)))
        np.testing.assert_array_equal(y[i], padded[2 + dr : 18 + dr, 2 + dc : 18 + dc])


def test_cutout_is_clipped_at_the_border():
    x = np.ones((2, 20, 20, 1), np.float32)
    y = np.asarray(augment.cutout(x, jnp.array([0, 10]), jnp.array([20, 10])))
    assert (y[1] == 0).sum() == 16  # side 4
    assert (y[0] == 0).sum() == 4  # a quarter of it is inside


def test_neutral_colour_draws_change_nothing():
    x = images(2, 8)
    half = jnp.full(2, 0.5)
    y = augment.apply(x, {"brightness": half, "saturation": half, "contrast": half})
    np.testing.assert_allclose(y, x, atol=1e-6)


def test_gradients_reach_every_pixel_that_stays():
    x = images(2, 16)
    draws = augment.draw(jax.random.key(1), 2, 16, "translation,cutout")
    grad = jax.grad(lambda x: augment.apply(x, draws).sum())(x)
    kept = augment.apply(jnp.ones_like(x), draws).sum((1, 2, 3))
    np.testing.assert_allclose(grad.sum((1, 2, 3)), kept)
    assert set(np.unique(grad)) == {0.0, 1.0}


def test_turning_and_mirroring():
    x = images(2, 6)
    turned = augment.rotate(jnp.asarray(x), jnp.array([90.0, 0.0]))
    np.testing.assert_array_equal(turned[0], np.rot90(x[0]))
    np.testing.assert_array_equal(turned[1], x[1])
    corner = augment.rotate(jnp.asarray(x), jnp.array([45.0, -45.0]))[:, 0, 0]
    np.testing.assert_array_equal(corner, np.full((2, 3), -1))
    mirrored = augment.mirror(jnp.asarray(x), jnp.array([True, False]))
    np.testing.assert_array_equal(mirrored[0], x[0][:, ::-1])
    np.testing.assert_array_equal(mirrored[1], x[1])
