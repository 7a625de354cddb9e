"""Counting what was recognised, on cases small enough to count by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.data.drawn.meaning import Verdict
from jaxt2i.metrics.recognised import found, overlap, summary, tally


def test_overlap_is_intersection_over_union():
    a = jnp.float32([[0, 0, 2, 2], [0, 0, 1, 1]])
    b = jnp.float32([[1, 1, 2, 2], [5, 5, 1, 1], [0, 0, 2, 2], [0, 0, 0, 0]])
    want = [[1 / 7, 0, 1, 0], [0, 0, 0.25, 0]]
    np.testing.assert_allclose(overlap(a, b), want, atol=1e-6)


def pictures():
    """Two pictures of two objects and of one."""
    return {
        "boxes": np.float32([[[0, 0, 0.4, 0.4], [0.5, 0.5, 0.4, 0.4]], [[0.2, 0.2, 0.5, 0.5]] * 2]),
        "box_label": np.int32([[3, 4], [5, 0]]),
        "box_mask": np.array([[True, True], [True, False]]),
        "box_attributes": np.int32([[[1, 2, 0], [3, 0, 1]], [[7, 1, 0], [0, 0, 0]]]),
        "setting": np.int32([[2, -1], [0, 3]]),
    }


def scores(**changes):
    seen = {k: v.copy() for k, v in pictures().items()}
    for key, (place, value) in changes.items():
        seen[key][place] = value
    return {k: float(v) for k, v in found(seen, pictures()).items()}


def test_truth_is_found_whole():
    assert set(scores().values()) == {1.0}
    # Objects have no order, and what is masked has no meaning.
    swapped = {k: v[:, ::-1] if k != "setting" else v for k, v in pictures().items()}
    assert {float(x) for x in found(swapped, pictures()).values()} == {1.0}


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"box_label": ((0, 1), 9)}, {"class": 2 / 3, "colour": 2 / 3, "size": 2 / 3, "all": 0.5}),
        ({"box_attributes": ((0, 0, 0), 9)}, {"colour": 2 / 3, "all": 0.5}),
        ({"box_attributes": ((1, 0, 1), 9)}, {"size": 2 / 3, "all": 0.5}),
        ({"boxes": ((0, 0), [0.6, 0, 0.1, 0.1])}, {"class": 2 / 3, "count": 1}),
        ({"box_mask": ((1, 0), False)}, {"class": 2 / 3, "count": 0.5, "all": 0.5}),
        ({"box_mask": ((1, 1), True)}, {"class": 1, "count": 0.5, "all": 0.5}),
        ({"setting": ((1, 0), 1)}, {"place": 0.5, "class": 1, "all": 0.5}),
    ],
)
def test_each_mistake_costs_its_own_score(change, want):
    got = scores(**change)
    for key, value in want.items():
        assert got[key] == pytest.approx(value), key


def test_promises_are_counted_with_and_without_missing_things():
    said = [
        Verdict("colour", "red", "ball", found, right)
        for found, right in ((True, True), (True, False), (False, False), (False, False))
    ]
    assert tally(said) == {"right": 0.25, "of_found": 0.5, "said": 4}
    assert tally(said[2:]) == {"right": 0.0, "of_found": None, "said": 2}
    assert tally([]) == {"right": None, "of_found": None, "said": 0}


def test_summary_breaks_down_by_class_relation_and_number():
    first = [
        Verdict("class", "sun", "sun", True, True),
        Verdict("colour", "red", "sun", True, False),
        Verdict("class", "car", "car", True, True),
        Verdict("relation", "above", "sun", True, True),
    ]
    second = [
        Verdict("class", "fish", "fish", True, False),
        Verdict("relation", "above", "fish", False, False),
    ]
    third = [Verdict("total", "three", "", True, True), Verdict("place", "sea", "", True, True)]
    out = summary([first, second, third], [2, 2, 3], ["fish", "car", "sun", "boat"])
    assert out["promises"] == pytest.approx(5 / 8)
    assert out["all"] == pytest.approx(1 / 3)
    assert out["kinds"]["class"] == {"right": 2 / 3, "of_found": 2 / 3, "said": 3}
    assert out["kinds"]["relation"] == {"right": 0.5, "of_found": 1.0, "said": 2}
    assert out["rare"] == {"right": 0.0, "of_found": 0.0, "said": 1}
    assert list(out["classes"]) == ["fish", "car", "sun"]
    assert out["classes"]["sun"]["colour"]["right"] == 0
    assert out["relations"] == {"above": {"right": 0.5, "of_found": 1.0, "said": 2}}
    assert out["numbers"] == {2: {"all": 0.0, "pictures": 2}, 3: {"all": 1.0, "pictures": 1}}
