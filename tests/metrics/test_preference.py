"""Strengths from choices, agreement, and rank correlations."""

import hypothesis
import numpy as np
import pytest
import scipy.stats
from hypothesis import strategies as st

from jaxt2i.metrics import preference
from jaxt2i.metrics.preference import Choices
from jaxt2i.metrics.score import CountError, MetricError


def simulated(strength, raters, items, rng, sides=2):
    """Answers of raters who choose as Bradley and Terry say."""
    strength = np.asarray(strength)
    pairs = [(a, b) for a in range(len(strength)) for b in range(a + 1, len(strength))]
    rows = []
    for item in range(items):
        a, b = pairs[item % len(pairs)]
        odds = 1 / (1 + np.exp(strength[b] - strength[a]))
        rows += [(r, item, a, b, float(rng.random() < odds)) for r in range(raters)]
    columns = np.array(rows).T
    return Choices(*(c.astype(int) for c in columns[:4]), columns[4])


@hypothesis.given(st.lists(st.floats(-1.5, 1.5), min_size=2, max_size=5), st.integers(0, 2**31 - 1))
@hypothesis.settings(max_examples=25)
def test_known_strengths_are_recovered(strength, seed):
    strength = np.array(strength) - np.mean(strength)
    rng = np.random.default_rng(seed)
    choices = simulated(strength, raters=40, items=40 * len(strength), rng=rng)
    found = preference.bradley_terry(preference.wins(choices, len(strength)))
    # Some 800 answers a pair or more: a standard error below 0.15 for the largest gaps.
    assert np.abs(found - strength).max() < 0.6
    assert found.mean() == pytest.approx(0, abs=1e-9)


def test_intervals_hold_the_truth_as_often_as_they_say():
    truth, inside = np.array([0.5, 0.0, -0.5]), []
    for seed in range(40):
        choices = simulated(truth, raters=8, items=45, rng=np.random.default_rng(seed))
        again = preference.resampled(choices, 3, repeats=200, seed=seed)
        low, high = np.quantile(again, [0.025, 0.975], axis=0)
        inside += ((low <= truth) & (truth <= high)).tolist()
    # The pigeonhole bootstrap errs on the wide side.
    assert np.mean(inside) >= 0.92
    assert np.median(high - low) < 1.5


def test_two_systems_are_the_log_of_the_odds():
    table = np.array([[0, 30], [10, 0]])
    a, b = preference.bradley_terry(table)
    assert a - b == pytest.approx(np.log(30.5 / 10.5))
    never_lost = preference.bradley_terry(np.array([[0, 1000], [0, 0]]))
    assert never_lost[0] - never_lost[1] == pytest.approx(np.log(2001))


def test_many_tables_at_once_are_as_one_by_one():
    rng = np.random.default_rng(0)
    tables = rng.integers(1, 30, (6, 4, 4)) * (1 - np.eye(4))
    alone = [preference.bradley_terry(t) for t in tables]
    np.testing.assert_allclose(preference.bradley_terry(tables), alone, atol=1e-8)


def test_systems_that_nothing_links_are_not_ranked():
    table = np.zeros((4, 4))
    table[0, 1] = table[2, 3] = 5
    with pytest.raises(CountError, match="number 3, 4"):
        preference.bradley_terry(table)


def test_agreement_is_krippendorffs():
    # Krippendorff 2011, "Computing Krippendorff's alpha-reliability", C: nominal, 4 observers,
    # 12 units, values missing: 0.743.
    data = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
            [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
        ]
    )
    rater, item = np.nonzero(data)
    nothing = np.zeros(len(rater), int)
    found = preference.agreement(
        Choices(rater, item, nothing, nothing, data[rater, item].astype(float))
    )
    assert found.alpha == pytest.approx(0.743, abs=5e-4)
    assert found.items == 11


@hypothesis.given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=9))
def test_rank_correlations_are_scipys(pairs):
    a, b = np.array(pairs, float).T
    hypothesis.assume(np.ptp(a) and np.ptp(b))
    assert preference.kendall(a, b) == pytest.approx(scipy.stats.kendalltau(a, b).statistic)
    assert preference.spearman(a, b) == pytest.approx(scipy.stats.spearmanr(a, b).statistic)


def test_what_chance_makes_of_four_systems():
    assert preference.chance([1, 2, 3, 4], [1, 2, 3, 4]) == pytest.approx(2 / 24)
    assert preference.chance(np.arange(20), np.arange(20)) is None
    assert np.isnan(preference.kendall([1, 1], [1, 2]))
    with pytest.raises(MetricError, match="two or more systems"):
        preference.spearman([1], [1])
