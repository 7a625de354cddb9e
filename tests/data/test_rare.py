"""Weights that show rare classes more often."""

import numpy as np
import pytest

from jaxt2i.data import rare

# 100 records: class 0 in all of them, class 1 in ten, class 2 in one.
RECORDS = np.array([*range(100), *range(10), 3, 3])
CLASSES = np.array([0] * 100 + [1] * 10 + [2, 2])
PAIRS = rare.presence(RECORDS, CLASSES)


def test_a_class_counts_once_in_a_record():
    assert len(PAIRS) == 111


def test_repeat_factors_are_those_of_lvis():
    """max(1, sqrt(t / f)) with t = 0.4: f = 1, 0.1 and 0.01 give 1, 2 and 6.32."""
    seen = rare.weights("repeat", PAIRS, 100, 0.4)
    np.testing.assert_allclose(seen[3], np.sqrt(40))
    np.testing.assert_allclose(seen[[0, 1, 9]], 2)
    np.testing.assert_allclose(seen[10:], 1)


def test_records_without_objects_stay():
    seen = rare.weights("repeat", rare.presence(np.array([0]), np.array([0])), 3, 0.001)
    np.testing.assert_allclose(seen, 1)


def test_balanced_classes_are_drawn_equally_often():
    seen = rare.weights("balanced", PAIRS, 100, 0.0)
    assert seen.sum() == pytest.approx(100)
    # A third of the draws for each class, shared by its records.
    np.testing.assert_allclose(seen[50], 100 / 3 / 100)
    np.testing.assert_allclose(seen[0], 100 / 3 / 100 + 100 / 3 / 10)
    np.testing.assert_allclose(seen[3], 100 / 3 / 100 + 100 / 3 / 10 + 100 / 3)


def test_the_histogram_names_the_rarest_first():
    seen = rare.weights("balanced", PAIRS, 100, 0.0)
    table = rare.histogram(PAIRS, seen, ["sky", "bird"])
    assert list(table) == ["2", "bird", "sky"]
    assert table["bird"] == [10, round(float(seen[:10].sum()), 1)]
    assert table["sky"] == [100, 100.0]
