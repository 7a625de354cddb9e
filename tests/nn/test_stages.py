"""Reading words, gates, and the pictures' sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


def test_divergence_is_that_of_gaussians():
    mean, log_variance = jnp.array([[0.5, -1.0]]), jnp.array([[0.2, -0.4]])
    variance = np.exp([0.2, -0.4])
    want = 0.5 * (variance + np.array([0.25, 1.0]) - 1 - np.array([0.2, -0.4])).mean()
    assert stages.divergence(mean, log_variance) == pytest.approx(want, rel=1e-5)
    assert stages.divergence(jnp.zeros((2, 3)), jnp.zeros((2, 3))) == 0


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
    module = stages.FirstStage(8, resolution)
    x = (jnp.zeros((2, 5)), jnp.zeros((2, 7)))
    out, variables = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), *x))
    assert out.shape == (2, resolution, resolution, 8)
    assert variables["params"]["fc"]["kernel"].shape == (12, 32 * channels)
