"""Weights that show rare classes more often."""

import numpy as np
import pytest

from jaxt2i.data import order, rare
from jaxt2i.data.drawn import scenes
from jaxt2i.data.drawn.synthetic import Synthetic
from jaxt2i.data.schema import DataError

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


@pytest.mark.parametrize("kind", rare.KINDS)
def test_one_record_weighs_what_all_together_say(kind):
    counts = rare.factors(kind, np.bincount(PAIRS[:, 1]) / 100, 100, 0.4)
    of_record = [PAIRS[PAIRS[:, 0] == i, 1] for i in range(100)]
    np.testing.assert_allclose(
        [rare.weight(kind, counts, classes) for classes in of_record],
        rare.weights(kind, PAIRS, 100, 0.4),
    )


def test_an_endless_order_draws_by_weight():
    """Odd examples weigh a quarter of even ones: a fifth of what is drawn."""
    drawn = order.WeightedEndless(lambda index: 1.0 if index % 2 else 4.0, 4.0, seed=3)
    found = np.array([drawn(position) for position in range(2000)])
    assert (found % 2).mean() == pytest.approx(0.2, abs=0.03)
    assert drawn(17) == found[17]
    assert len(np.unique(found)) == 2000


def test_procedural_scenes_show_every_class_equally_often(monkeypatch):
    monkeypatch.setattr(rare, "COUNTED", 300)
    source = Synthetic("scenes", 32, rare="balanced")
    drawn, counts = source.order(0, 16), np.zeros(17)
    for position in range(300):
        classes = {thing["label"] for thing in source.facts(drawn(position))["objects"]}
        counts[list(classes)] += 1 / len(classes)
    as_it_comes = np.bincount(source._counted[:, 1], minlength=17)
    assert counts.max() / counts.min() < as_it_comes.max() / as_it_comes.min()
    table = source.report["classes"]
    assert [n for n, _ in table.values()] == sorted(as_it_comes.tolist())
    more = [seen / there for there, seen in table.values()]
    assert more[0] > more[-1], "the rarest first"
    assert Synthetic("scenes", 32).order(0, 16)(5) == 5


def test_scarce_classes_are_rare_in_training_alone():
    """Six of 17 classes: from a fifth of the pictures each to one in a hundred."""
    source = Synthetic("scenes", 32, scarce=0.02)

    def shares(of):
        seen = np.concatenate([of._classes(index) for index in range(1500)])
        share = np.bincount(seen, minlength=17) / 1500
        few = np.isin(scenes.CLASSES, scenes.SCARCE)
        return share[few].max(), share[~few].min()

    few, others = shares(source)
    assert 0 < few < 0.03
    assert others > 0.1
    # Whatever was asked for before, an example is the same.
    assert Synthetic("scenes", 32, scarce=0.02).captions(700) == source.captions(700)
    held_out = Synthetic("scenes", 32, split="val", scarce=0.02)
    assert held_out.captions(3) == Synthetic("scenes", 32, split="val").captions(3)


def test_scarce_is_of_scenes():
    with pytest.raises(DataError, match=r"scarce is 0\.5 with config.data.corpus='blooms'"):
        Synthetic("blooms", 32, scarce=0.5)
