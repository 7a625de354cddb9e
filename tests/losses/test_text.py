"""Losses between images and text."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxt2i.losses import text


def test_spherical_distance_is_the_squared_angle():
    a = jnp.array([[2.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
    b = jnp.array([[0.0, 5.0], [-1.0, 1e-3], [1.0, 1.0]])
    want = np.array([np.pi / 2, np.pi - 1e-3, np.pi / 4]) ** 2
    np.testing.assert_allclose(text.spherical_distance(a, b), want, rtol=1e-3)


def test_the_clamp_keeps_the_gradient_finite_where_vectors_agree():
    a = jnp.array([[0.6, 0.8]])
    grad = jax.grad(lambda a: text.spherical_distance(a, jnp.array([[0.6, 0.8]]), 0.999).sum())
    assert np.isfinite(grad(a)).all()


def features(batch):
    key = jax.random.key(0)
    return jax.random.normal(key, (2, batch, 8))


def test_contrastive_loss_is_the_symmetric_cross_entropy():
    image, words = features(5)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    logits = 7 * unit(np.asarray(image)) @ unit(np.asarray(words)).T
    rows = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    cols = np.exp(logits) / np.exp(logits).sum(0, keepdims=True)
    want = -(np.log(np.diag(rows)).mean() + np.log(np.diag(cols)).mean()) / 2
    np.testing.assert_allclose(text.contrastive(image, words, 7.0), want, rtol=1e-5)


def test_masked_rows_count_neither_as_queries_nor_as_negatives():
    image, words = features(6)
    mask = jnp.array([True, True, False, True, True, False])
    keep = np.flatnonzero(mask)
    loss = lambda i, t: text.contrastive(i, t, 5.0, mask)  # noqa: E731
    want = text.contrastive(image[keep], words[keep], 5.0)
    value, grad = jax.jit(jax.value_and_grad(loss))(image, words)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    assert np.isfinite(grad).all()
    np.testing.assert_array_equal(np.abs(grad).sum(1) > 0, mask)


def test_alignment_leaves_out_what_is_no_object():
    rng = np.random.default_rng(0)
    regions, said = (rng.normal(size=(5, 4)).astype(np.float32) for _ in range(2))
    mask = np.array([1, 0, 1, 1, 0], bool)
    score = 10 * regions[mask] @ said[mask].T
    score /= np.linalg.norm(regions[mask], axis=1)[:, None] * np.linalg.norm(said[mask], axis=1)
    share = [np.log(np.exp(score).sum(axis)) - np.diag(score) for axis in (0, 1)]
    regions[~mask] = 0  # where a norm has no gradient of its own
    got, gradient = jax.value_and_grad(text.alignment)(regions, said, mask)
    np.testing.assert_allclose(got, np.mean(share, 1).sum(), rtol=1e-5)
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient)[~mask].any()
