"""Scores of sets of logits, features and pairs: Inception Score, KID, CMMD, CLIP, R-precision."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxt2i.config import ConfigError
from jaxt2i.metrics import diversity, inception_score, kernel, retrieval
from jaxt2i.metrics.score import CountError, FeatureError, MetricError
from jaxt2i.nn import pixels


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# --- Inception Score ---------------------------------------------------------------------------


def score(logits, **kw):
    return inception_score.inception_score(np.asarray(logits, np.float64), **kw)


def test_inception_score_of_known_sets():
    certain = 1000 * np.eye(7)[np.arange(70) % 7]
    assert score(certain, splits=1).value == pytest.approx(7)
    assert score(np.zeros((70, 7))).value == pytest.approx(1)
    assert score(np.tile(normal(7), (70, 1))).value == pytest.approx(1)
    # Written class by class: every split then sees one class.
    grouped = certain[np.argsort(np.arange(70) % 7, kind="stable")]
    assert score(grouped, splits=7).value == pytest.approx(1)
    assert score(grouped, splits=7, order="shuffled").value > 3


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.integers(2, 12), st.integers(10, 60))
def test_inception_score_lies_between_one_and_the_classes(seed, classes, count):
    logits = 4 * normal(count, classes, seed=seed)
    found = score(logits)
    assert 1 <= found.value <= classes
    shift = normal(count, 1, seed=seed + 1)
    assert score(logits + shift).value == pytest.approx(found.value)
    shuffle = np.random.default_rng(seed).permutation(count)
    one = score(logits, splits=1).value
    assert score(logits[shuffle], splits=1).value == pytest.approx(one)


def test_inception_score_splits():
    assert inception_score.bounds(205, 10)[:2] == [(0, 20), (20, 41)]
    assert inception_score.bounds(205, 10)[-1] == (184, 205)
    assert inception_score.bounds(11, split_size=5) == [(0, 5), (5, 10), (10, 11)]
    logits = normal(110, 5)
    found = score(logits, split_size=50)
    assert found.facts["splits"] == 3
    parts = [score(logits[a:b], splits=1).value for a, b in ((0, 50), (50, 100), (100, 110))]
    assert found.value == pytest.approx(np.mean(parts))
    assert found.spread == pytest.approx(np.std(parts))
    # Whole batches of 64, once the images are in their order.
    order = np.random.RandomState(2020).permutation(110)
    found = score(logits, order="shuffled", whole_batches=64)
    assert found.value == score(logits[order[:64]]).value
    assert found.facts["generated"] == 64
    assert score(logits[:60], whole_batches=64).facts["generated"] == 60


def test_inception_score_without_the_background_class():
    logits = normal(60, 6)
    louder = np.concatenate([normal(60, 1, seed=1) + 50, logits], 1)
    assert score(louder, first=1).value == pytest.approx(score(logits).value)
    assert score(louder).value == pytest.approx(1, abs=1e-6)
    assert score(louder, first=1).facts["classes"] == 6


def test_unbiased_logits_leave_the_bias_out():
    features, head = normal(20, 4), normal(4, 9, seed=1)
    np.testing.assert_allclose(inception_score.unbiased_logits(features, head), features @ head)


def test_inception_score_refuses():
    with pytest.raises(CountError, match="logits of the generated images: 9 examples, at least 10"):
        score(normal(9, 4))
    with pytest.raises(FeatureError, match="not finite in 1 of 20 rows, first in row 3"):
        score(np.where(np.arange(20)[:, None] == 3, np.inf, 0.0) * np.ones(4))
    with pytest.raises(FeatureError, match="order='file_name'; known: file, shuffled"):
        score(normal(20, 4), order="file_name")
    with pytest.raises(CountError, match="at least two must remain"):
        score(normal(20, 2), first=1)


# --- KID and CMMD ------------------------------------------------------------------------------


def test_mmd2_is_its_definition():
    x, y = normal(7, 3), normal(7, 3, seed=1)

    def k(a, b):
        return (a @ b / 3 + 1) ** 3

    pairs = [(i, j) for i in range(7) for j in range(7)]
    off = [(i, j) for i, j in pairs if i != j]
    want = (
        np.mean([k(x[i], x[j]) for i, j in off])
        + np.mean([k(y[i], y[j]) for i, j in off])
        - 2 * np.mean([k(x[i], y[j]) for i, j in pairs])
    )
    assert kernel.mmd2_unbiased(x, y) == pytest.approx(want, rel=1e-12)
    assert kernel.mmd2_unbiased(y, x) == pytest.approx(want, rel=1e-12)
    turn = np.linalg.qr(normal(3, 3, seed=2))[0]
    assert kernel.mmd2_unbiased(x @ turn, y @ turn) == pytest.approx(want, rel=1e-9)


def test_kid_has_no_bias():
    # Many small draws from one distribution: the mean is 0 within its own error, on either side.
    found = [
        kernel.mmd2_unbiased(normal(20, 6, seed=2 * i), normal(20, 6, seed=2 * i + 1))
        for i in range(400)
    ]
    assert min(found) < 0 < max(found)
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(400)


def test_kid_tells_sets_apart_and_is_reproducible():
    real, fake = normal(400, 8), normal(300, 8, seed=1)
    near = kernel.kid(fake, real, subsets=20, size=100)
    far = kernel.kid(fake + 0.5, real, subsets=20, size=100)
    assert abs(near.value) < near.spread
    assert far.value > 5 * far.spread
    assert kernel.kid(fake, real, subsets=20, size=100) == near
    assert kernel.kid(fake, real, subsets=20, size=100, seed=1).value != near.value
    assert near.facts["subsets"] == "20 of 100, seed 2020"


def test_kid_refuses():
    with pytest.raises(CountError, match="generated images: 300 examples, at least 1000"):
        kernel.kid(normal(300, 4), normal(2000, 4))
    with pytest.raises(FeatureError, match="4 wide and those they are compared with 5"):
        kernel.kid(normal(30, 4), normal(30, 5), size=10)
    with pytest.raises(CountError, match="size=1"):
        kernel.kid(normal(30, 4), normal(30, 4), size=1)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_cmmd_blocks_symmetry_and_zero(monkeypatch):
    x, y = unit(normal(70, 16)), unit(normal(50, 16, seed=1) + 0.3)
    value = kernel.cmmd(x, y).value
    far = [kernel.squared_distances(a, b) for a, b in ((x, x), (y, y), (x, y))]
    means = [np.exp(-d / 200).mean() for d in far]
    assert value == pytest.approx(1000 * (means[0] + means[1] - 2 * means[2]), rel=1e-9)
    assert kernel.cmmd(y, x).value == pytest.approx(value, rel=1e-12)
    assert kernel.cmmd(x, x[::-1]).value == pytest.approx(0, abs=1e-10)
    monkeypatch.setattr(kernel, "BLOCK", 16)
    assert kernel.cmmd(x, y).value == pytest.approx(value, rel=1e-12)


def test_cmmd_wants_embeddings_of_length_one():
    with pytest.raises(FeatureError, match=r"generated images have lengths from .* expected 1"):
        kernel.cmmd(normal(10, 4), unit(normal(10, 4)))


# --- Images and captions -----------------------------------------------------------------------


def test_clip_scores_on_three_scales():
    image, text = np.array([[2.0, 0], [0, 3], [1, 1]]), np.array([[1.0, 0], [0, -1], [1, 0]])
    cosine = np.array([1, -1, np.sqrt(0.5)])
    assert retrieval.clip_score(image, text).value == pytest.approx(cosine.mean())
    percent = retrieval.clip_score(image, text, scale="percent")
    assert percent.value == pytest.approx(100 * cosine.mean())
    assert retrieval.clip_score(image, -text, scale="percent").value == 0
    clip = retrieval.clip_score(image, text, scale="clipscore")
    assert clip.value == pytest.approx(2.5 * (1 + np.sqrt(0.5)) / 3)
    assert clip.facts == {"generated": 3, "scale": "clipscore"}
    with pytest.raises(MetricError, match="scale='x100'; known: cosine, percent, clipscore"):
        retrieval.clip_score(image, text, scale="x100")
    with pytest.raises(CountError, match="3 and 2 rows"):
        retrieval.clip_score(image, text[:2])
    with pytest.raises(FeatureError, match="text features: row 1 is all zeros"):
        retrieval.clip_score(image, text * [[1], [0], [1]])


@settings(max_examples=20)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=40), st.integers(1, 30), st.integers(0, 99))
def test_negatives_are_of_other_classes_and_fixed(labels, count, seed):
    labels = np.array([*labels, 5])
    found = retrieval.negatives(labels, count, seed)
    assert found.shape == (len(labels), count)
    assert (labels[found] != labels[:, None]).all()
    np.testing.assert_array_equal(found, retrieval.negatives(labels, count, seed))


def test_negatives_are_drawn_evenly():
    labels = np.array([0, 1, 0, 2, 1, 0])
    drawn = np.bincount(retrieval.negatives(labels, 30_000)[1], minlength=6)
    np.testing.assert_allclose(drawn / 30_000, [0.25, 0, 0.25, 0.25, 0, 0.25], atol=0.01)
    with pytest.raises(CountError, match="3 images of one class"):
        retrieval.negatives(np.zeros(3))


def test_hits_and_r_precision():
    text = normal(40, 8)
    others = retrieval.negatives(np.arange(40), 20)
    assert retrieval.hits(3 * text, text, others).all()
    assert retrieval.hits(-text, text, others).sum() == 0
    # The same sentence among the others does not count against an image.
    twins = np.concatenate([text, text])
    assert retrieval.hits(twins, twins, np.array([[(i + 40) % 80] for i in range(80)])).all()
    # Captions may come from a larger pool.
    assert not retrieval.hits(text, -text, np.zeros((40, 1), int), pool=text[:1]).all()
    found = retrieval.retrieval_precision(np.arange(100) % 4 != 0, seed=None)
    assert found.value == pytest.approx(75, abs=6)
    all_right = retrieval.retrieval_precision(np.ones(100, bool))
    assert (all_right.value, all_right.spread) == (100, 0)
    with pytest.raises(CountError, match="10 images are too few for 10 folds"):
        retrieval.retrieval_precision(np.ones(10), dropped=1)
    with pytest.raises(CountError, match="40 and 3 rows"):
        retrieval.hits(text, text, others[:3])


def test_a_fold_may_drop_its_last_entry():
    hits = np.ones(20)
    hits[9] = 0  # the last of the first fold of two
    assert retrieval.retrieval_precision(hits, count=2, seed=None).value == 95
    assert retrieval.retrieval_precision(hits, count=2, dropped=1, seed=None).value == 100


def test_pools_look_both_ways():
    text = np.eye(4)
    assert retrieval.pool_precision(text, text, pool=2).value == 100
    # Image 1 shows caption 0 more than its own, which still finds no image that shows it better.
    image = text.copy()
    image[1] = [0.9, 0.1, 0, 0]
    found = retrieval.pool_precision(image, text, pool=4)
    assert found.value == 100 * (3 / 4 + 4 / 4) / 2
    assert found.facts == {"generated": 4, "pool": 4}
    with pytest.raises(CountError, match="4 images make no pool of 100"):
        retrieval.pool_precision(image, text)


# --- Diversity ---------------------------------------------------------------------------------


def gap(a, b):
    assert len(a) == len(b) == 4
    return jnp.abs(jnp.asarray(a) - jnp.asarray(b)).mean((1, 2))


def test_diversity_is_the_mean_over_pairs_of_each_caption():
    images = np.stack([np.full((3, 2, 2), 5.0), normal(3, 2, 2)])
    found = diversity.by_caption(images, gap, batch=4)
    own = [np.abs(images[1, i] - images[1, j]).mean() for i, j in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(found, [0, np.mean(own)], rtol=1e-6)
    total = diversity.diversity(found, 3)
    assert total.value == pytest.approx(np.mean(own) / 2)
    assert total.facts == {"captions": 2, "samples": 3}
    one = diversity.by_caption(images, gap, most=1, batch=4)[1]
    assert min(abs(one - x) for x in own) < 1e-6


def test_diversity_refuses():
    with pytest.raises(CountError, match="1 samples of a caption make no pair"):
        diversity.pairs(1)
    bad = normal(3, 2, 2, 2)
    bad[2, 1] = np.nan
    with pytest.raises(FeatureError, match="caption 2 are not finite"):
        diversity.by_caption(bad, gap, batch=4)
    assert len(diversity.pairs(10)) == 45
    chosen = diversity.pairs(10, 7, seed=3)
    assert len({tuple(p) for p in chosen}) == 7
    assert (chosen[:, 0] < chosen[:, 1]).all()


# --- Pixels and records ------------------------------------------------------------------------


def test_pixels_by_every_rule():
    x = jnp.array([-2.0, -1.0, 0.0, 0.9999, 1.0, 2.0])
    assert pixels.to_pixels(x, "floor").tolist() == [0, 0, 127, 254, 255, 255]
    assert pixels.to_pixels(x, "stylegan").tolist() == [0, 0, 128, 255, 255, 255]
    assert pixels.to_pixels(x, "save_image").tolist() == [0, 0, 128, 255, 255, 255]
    kept = pixels.to_pixels(x, "none")
    assert kept.dtype == jnp.float32
    np.testing.assert_allclose(kept, [0, 0, 127.5, 254.98725, 255, 255], rtol=1e-6)
    with pytest.raises(ConfigError, match="pixels='round': known: none, floor"):
        pixels.to_pixels(x, "round")


def test_scores_are_plain_values():
    found = kernel.kid(normal(30, 4), normal(30, 4, seed=1), subsets=3, size=10)
    told = json.loads(json.dumps(found.with_facts(features="pool3", protocol="clean").as_dict()))
    assert told["facts"]["features"] == "pool3"
    assert told["value"] == found.value
