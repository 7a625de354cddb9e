"""Intervals are as wide as scores really move from one draw of examples to the next."""

import numpy as np
import pytest

from jaxt2i.metrics import confidence, frechet, kernel
from jaxt2i.metrics.inception_score import inception_score
from jaxt2i.metrics.score import CountError
from jaxt2i.metrics.statistics import gaussian, of_rows

NORMAL = 2 * 1.96  # width of a 95 % interval, in standard deviations


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def width(interval):
    return interval.high - interval.low


def test_the_interval_of_a_mean_covers_the_truth_as_often_as_it_says():
    inside = 0
    for seed in range(200):
        found = confidence.of_mean(normal(60, seed=seed) + 3, repeats=200, level=0.9, seed=seed)
        inside += found.low <= 3 <= found.high
    assert 0.82 <= inside / 200 <= 0.95
    found = confidence.of_mean(normal(400))
    assert width(found) == pytest.approx(NORMAL * normal(400).std() / 20, rel=0.1)
    assert (found.level, found.method) == (0.95, "1000 resamples of 400 examples, seed 0")


def moved(draw):
    """The standard deviation of a score over independent draws."""
    return np.std([draw(seed) for seed in range(1, 101)])


def test_fid_intervals():
    real = gaussian(of_rows(normal(5000, 6)))

    def fake(seed):
        return normal(600, 6, seed=seed) * 1.2 + 0.3

    def value(seed):
        return frechet.fid(real, gaussian(of_rows(fake(seed)))).value

    widths = [width(confidence.of_fid(real, fake(s), repeats=200, seed=s)) for s in range(1, 11)]
    assert np.mean(widths) == pytest.approx(NORMAL * moved(value), rel=0.2)
    found = confidence.of_fid(real, fake(1))
    assert found.low < value(1) < found.high
    assert found == confidence.of_fid(real, fake(1))
    # Around the score as it is reported, not around the larger ones of resamples.
    assert (found.low + found.high) / 2 == pytest.approx(value(1), rel=0.05)


def test_kid_intervals_are_not_the_spread_over_subsets():
    real = normal(200, 6)

    def fake(seed):
        return normal(200, 6, seed=seed) + 0.3

    def value(seed):
        return kernel.mmd2_unbiased(fake(seed), normal(200, 6, seed=1000 + seed))

    score = kernel.kid(fake(1), real, subsets=20, size=50)
    found = confidence.of_kid(fake(1), real, score.value)
    assert width(found) == pytest.approx(NORMAL * moved(value), rel=0.35)
    assert width(found) < NORMAL * score.spread / 1.5
    assert found.low < score.value < found.high


def test_a_group_never_meets_itself_as_a_copy_of_its_rows():
    # Two equal sets whose rows are far apart: pairs of a row with itself would dominate the kernel.
    x = 50 * normal(80, 40)
    value = kernel.mmd2_unbiased(x, x + 1e-9)
    found = confidence.of_kid(x, normal(80, 40, seed=1) * 50, 0.0, groups=10)
    assert width(found) < abs(value)


def test_any_score_has_an_interval():
    logits = 3 * normal(300, 5)

    def statistic(rows):
        return inception_score(logits[rows], splits=1).value

    found = confidence.of_statistic(statistic, 300, repeats=100)
    assert found.low < statistic(np.arange(300)) < found.high

    def value(seed):
        return inception_score(3 * normal(300, 5, seed=seed), splits=1).value

    assert width(found) == pytest.approx(NORMAL * moved(value), rel=0.35)


def test_scores_carry_their_interval():
    score = kernel.kid(normal(40, 4), normal(40, 4, seed=1), subsets=2, size=20)
    told = score.with_interval(confidence.of_mean(normal(9))).as_dict()
    assert set(told["interval"]) == {"low", "high", "level", "method"}


def test_too_few_examples_are_refused():
    with pytest.raises(CountError, match="an interval needs two examples, there are 1"):
        confidence.of_mean(np.ones(1))
    with pytest.raises(CountError, match="39 examples cannot be dealt to 20 groups"):
        confidence.of_fid(gaussian(of_rows(normal(50, 3))), normal(39, 3))
    with pytest.raises(CountError, match="39 examples cannot be dealt to 20 groups"):
        confidence.of_kid(normal(39, 3), normal(50, 3), 0.0)


def test_fid_by_rows_is_fid_by_moments():
    """Fewer images than features: the small eigenvalue problem gives the large one's value."""
    rng = np.random.default_rng(0)
    real = gaussian(of_rows(rng.normal(size=(300, 40)) @ rng.normal(size=(40, 40)) + 3))
    fake = rng.normal(size=(36, 40)) @ rng.normal(size=(40, 40)) + 2
    dealt = np.array_split(rng.permutation(36), 9)
    for ddof in (0, 1):
        ways = [
            way(real, fake, dealt, ddof)
            for way in (confidence._fid_by_rows, confidence._fid_by_moments)
        ]
        for weights in (np.ones(9, int), np.array([0, 2, 1, 1, 3, 0, 1, 1, 0])):
            np.testing.assert_allclose(*(way(weights) for way in ways), rtol=1e-6)
