"""The Layout Quality Score: its matching against scipy's, its edges, its mean over a data set."""

import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from jaxt2i.metrics import layout_quality
from jaxt2i.metrics.layout_quality import Layout
from jaxt2i.metrics.score import CountError, MetricError


def layouts(seed, counts, size=7, classes=3):
    random = np.random.default_rng(seed)
    there = np.arange(size) < np.array(counts)[:, None]
    boxes = random.uniform(0.05, 0.5, (len(counts), size, 4)).astype(np.float32)
    label = random.integers(0, classes, there.shape).astype(np.int32)
    return Layout(boxes, label, there)


def by_scipy(true, predicted):
    """(pairs, sum of their distances), class by class."""
    pairs, total = 0, 0.0
    for kind in range(3):
        a, b = (
            (x.boxes[..., :2] + x.boxes[..., 2:] / 2)[x.there & (x.label == kind)]
            for x in (true, predicted)
        )
        distance = np.linalg.norm(a[:, None] - b[None], axis=-1)
        rows = linear_sum_assignment(distance)
        pairs, total = pairs + len(rows[0]), total + distance[rows].sum()
    return pairs, total


def test_as_many_pairs_of_a_class_as_there_are_with_the_least_sum_of_distances():
    counts = np.random.default_rng(0).integers(0, 8, (2, 60))
    true, predicted = layouts(1, counts[0]), layouts(2, counts[1])
    found = jax.device_get(jax.jit(layout_quality.qualities)(true, predicted))
    for n in range(60):
        pairs, total = by_scipy(*(jax.tree.map(lambda x, n=n: x[n], y) for y in (true, predicted)))
        assert found.lr[n] * max(counts[0, n], 1) == pytest.approx(pairs, abs=1e-5)
        assert found.lp[n] * max(counts[1, n], 1) == pytest.approx(pairs, abs=1e-5)
        assert found.alc[n] * pairs == pytest.approx(total, abs=1e-4)
        if pairs < 2:
            assert found.rlc[n] == 0
            assert found.rac[n] == pairs
    whole = np.stack(found)
    assert np.isfinite(whole).all()
    assert found.lqs.min() >= 0
    assert found.lqs.max() <= 4


def test_a_data_set_is_the_mean_over_pictures_that_have_objects():
    true, predicted = layouts(3, [4, 0, 7, 1]), layouts(4, [7, 2, 3, 0])
    score, each = layout_quality.dataset(true, predicted, reading="label_set", sigma=0.5)
    assert score.value == pytest.approx(each.lqs.mean())
    assert len(each.lqs) == 3
    assert score.facts["pictures_without_objects"] == 1
    assert score.facts["reading"] == "label_set"
    assert score.interval.low < score.value < score.interval.high
    perfect, _ = layout_quality.dataset(true, true, intervals=False)
    assert perfect.value == pytest.approx(4)
    assert perfect.interval is None
    with pytest.raises(CountError, match="none of these has any"):
        layout_quality.dataset(layouts(3, [0, 0]), predicted)
    with pytest.raises(MetricError, match="reading='both'; expected one of instance, label_set"):
        layout_quality.dataset(true, predicted, reading="both")
