"""Reading words, gates, and the pictures' sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.config import ConfigError
from jaxt2i.nn import stages

LENGTHS = np.array([4, 1, 2])


def inputs():
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((3, 2, 2, 5)).astype(np.float32)
    mask = np.arange(4) < LENGTHS[:, None]
    words = rng.standard_normal((3, 4, 5)).astype(np.float32) * mask[..., None]
    return queries, words, mask


@pytest.mark.parametrize("rule", stages.MASKS)
def test_every_pixel_reads_the_words_that_its_mask_allows(rule):
    queries, words, mask = inputs()
    read, attention = stages.read_words(queries, words, words, mask, rule)
    for b in range(3):
        for q in range(4):
            row, column = divmod(q, 2)
            owner = b if rule == "own" else (b * 4 + q) % 3
            scores = words[b] @ queries[b, row, column]
            e = np.exp(np.where(mask[owner], scores, -np.inf))
            share = e / e.sum()
            np.testing.assert_allclose(attention[b, :, row, column], share, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(read[b, row, column], share @ words[b], rtol=1e-4, atol=1e-5)


def test_only_the_published_mask_lets_a_picture_depend_on_its_neighbours():
    queries, words, mask = inputs()
    for rule, same in (("own", True), ("tiled", False)):
        together = stages.read_words(queries, words, words, mask, rule)[0][:1]
        alone = stages.read_words(queries[:1], words[:1], words[:1], mask[:1], rule)[0]
        assert np.allclose(together, alone, atol=1e-6) == same


def test_augmentation_draws_around_the_mean():
    module = stages.ConditioningAugmentation(3)
    sentence = jax.random.normal(jax.random.key(0), (2, 6))
    variables = module.init(jax.random.key(1), sentence, jnp.zeros((2, 3)))
    cond, mean, log_variance = module.apply(variables, sentence, jnp.zeros((2, 3)))
    np.testing.assert_array_equal(cond, mean)
    cond, _, _ = module.apply(variables, sentence, jnp.full((2, 3), 2.0))
    np.testing.assert_allclose(cond - mean, 2 * jnp.exp(log_variance / 2), rtol=1e-4)
    assert not np.any(variables["params"]["fc"]["bias"])


@pytest.mark.parametrize(("resolution", "channels"), [(8, 16), (16, 32), (64, 128)])
def test_first_stage_starts_wide_and_ends_at_its_base(resolution, channels):
    module = stages.FirstStage(base=8, resolution=resolution)
    x = (jnp.zeros((2, 5)), jnp.zeros((2, 7)))
    out, variables = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), *x))
    assert out.shape == (2, resolution, resolution, 8)
    assert variables["params"]["fc"]["kernel"].shape == (12, 32 * channels)


def test_sizes_double_up_to_the_last_and_start_at_eight_pixels():
    assert stages.sizes_of(256, 3) == (64, 128, 256)
    assert stages.sizes_of(16, 2) == (8, 16)
    for resolution in (16, 48):
        with pytest.raises(ConfigError, match=rf"resolution={resolution}: 3 stages .* from 32 on"):
            stages.sizes_of(resolution, 3)


def test_a_pyramid_keeps_the_largest_picture_and_averages_the_others():
    image = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    small, large = stages.pyramid(jnp.asarray(image), (8, 16))
    np.testing.assert_array_equal(large, image)
    assert small.shape == (2, 8, 8, 3)
    np.testing.assert_allclose(small.mean((1, 2)), image.mean((1, 2)), atol=3)
    flat = stages.pyramid(jnp.full((1, 16, 16, 3), 9, jnp.uint8), (8,))
    np.testing.assert_array_equal(flat[0], jnp.full((1, 8, 8, 3), 9.0))
