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


def test_inception_score_intervals_where_resamples_would_be_too_narrow():
    head = normal(16, 100, seed=99)

    def logits(seed):
        return normal(200, 16, seed=seed) @ head

    how = {"splits": 2, "order": "shuffled", "first": 1}

    def value(seed):
        return inception_score(logits(seed), **how).value

    widths = [width(confidence.of_inception_score(logits(s), **how)) for s in range(1, 6)]
    # A jackknife errs on the wide side, never below.
    assert 0.95 < np.mean(widths) / (NORMAL * moved(value)) < 1.3
    one = {"splits": 1}
    resampled = confidence.of_statistic(
        lambda rows: inception_score(logits(1)[rows], **one).value, 200, repeats=100
    )
    assert width(resampled) < 0.95 * width(confidence.of_inception_score(logits(1), **one))
    found = confidence.of_inception_score(logits(1), **how)
    assert (found.low + found.high) / 2 == pytest.approx(value(1))
    assert confidence.of_inception_score(np.zeros((40, 3)))[:2] == (1, 1)


def test_intervals_of_the_fid_of_infinitely_many():
    real = gaussian(of_rows(normal(5000, 6)))

    def fake(seed):
        return normal(300, 6, seed=seed) * 1.2 + 0.3

    def value(seed):
        return frechet.fid_infinity(real, fake(seed), smallest=100, seed=seed).value

    def interval(seed):
        score = frechet.fid_infinity(real, fake(seed), smallest=100)
        of_all = confidence.of_fid(real, fake(seed), seed=seed)
        subsets = frechet.subsets(300, 100)
        return confidence.of_fid_infinity(score.value, score.facts["fid"], of_all, subsets), of_all

    found = [interval(seed) for seed in range(1, 9)]
    assert np.mean([width(x) for x, _ in found]) == pytest.approx(NORMAL * moved(value), rel=0.2)
    assert all(width(x) > width(of_all) for x, of_all in found)


def test_cmmd_intervals():
    def unit(seed):
        x = normal(120, 8, seed=seed) + 0.4
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def value(seed):
        return kernel.cmmd(unit(seed), -unit(1000 + seed), sigma=1).value

    kw = {"kernel": kernel.gaussian_rbf(1), "scale": 1000}
    found = [confidence.of_kid(unit(s), -unit(1000 + s), value(s), **kw) for s in range(1, 6)]
    assert np.mean([width(x) for x in found]) == pytest.approx(NORMAL * moved(value), rel=0.2)


def test_shares_are_never_certain_and_clusters_are_no_crowds():
    none, half = confidence.of_share(np.zeros(50)), confidence.of_share(np.arange(100) < 50)
    assert none[:2] == (0, pytest.approx(0.071, abs=0.002))  # the rule of three and a little
    assert confidence.of_share(np.ones(50), scale=100)[:2] == (pytest.approx(92.9, abs=0.2), 100)
    assert width(half) == pytest.approx(NORMAL * 0.05, rel=0.05)
    # Eight promises that are kept or broken together are as good as one.
    together = confidence.of_share(8 * (np.arange(100) < 50), np.full(100, 8))
    assert together[:2] == pytest.approx(half[:2])
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(300):
        said = rng.integers(0, 5, 60)
        right = rng.binomial(said, rng.beta(18, 2, 60))
        found = confidence.of_share(right, said)
        inside += found.low <= 0.9 <= found.high
    assert 0.91 <= inside / 300 <= 0.98


def test_f_scores_and_memorised_shares():
    p, r = np.arange(100) < 80, np.arange(400) < 120
    found = confidence.of_f_score(p, r)
    assert found.low < 2 * 0.8 * 0.3 / 1.1 < found.high
    assert width(found) == pytest.approx(NORMAL * 0.027, rel=0.2)
    assert confidence.of_f_score(np.ones(9, bool), np.ones(9, bool)).high == 1

    def distances(seed):
        return np.abs(normal(300, seed=seed)), np.abs(normal(200, seed=1000 + seed))

    def value(seed):
        fake, held_out = distances(seed)
        return np.mean(fake < np.quantile(held_out, 0.1))

    widths = [width(confidence.of_memorised(*distances(s), 0.1)) for s in range(1, 6)]
    assert np.mean(widths) == pytest.approx(NORMAL * moved(value), rel=0.25)
    none = confidence.of_memorised(np.ones(100), np.zeros(100), 0.01)
    assert none.low == 0 < none.high < 0.05


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
