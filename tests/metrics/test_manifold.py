"""Neighbours and balls, block by block: what one full table of distances gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxt2i.metrics import manifold, nearest
from jaxt2i.metrics.score import CountError, FeatureError


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def table(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.sqrt(np.square(a[:, None] - b[None]).sum(-1))


# --- Neighbours --------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [3, 16, 100])
@pytest.mark.parametrize("metric", nearest.METRICS)
def test_neighbours_are_those_of_the_full_table(block, metric):
    query, bank = normal(41, 5), normal(53, 5, seed=1)
    found = nearest.neighbours(query, bank, 4, metric=metric, block=block)
    if metric == "cosine":
        far = 1 - (query @ bank.T) / np.outer(*(np.linalg.norm(x, axis=1) for x in (query, bank)))
    else:
        far = table(query, bank)
    order = np.argsort(far, 1)[:, :4]
    np.testing.assert_array_equal(found.index, order)
    np.testing.assert_allclose(found.distance, np.take_along_axis(far, order, 1), atol=1e-5)


@pytest.mark.parametrize("block", [4, 64])
def test_no_row_is_its_own_neighbour(block):
    x = normal(30, 4)
    found = nearest.neighbours(x, x, 3, apart=True, block=block)
    far = table(x, x) + np.diag(np.full(30, np.inf))
    np.testing.assert_allclose(found.distance, np.sort(far, 1)[:, :3], rtol=1e-5)
    assert (found.index != np.arange(30)[:, None]).all()


def test_copies_are_at_distance_zero_wherever_they_lie():
    # Large means: without care the rounding of the products is larger than these distances.
    x = np.repeat(normal(8, 512) + 1000, 3, 0)
    found = nearest.neighbours(x, x, 3, apart=True, block=5)
    assert (found.distance[:, :2] == 0).all()
    assert (found.index[:, :2] // 3 == np.arange(24)[:, None] // 3).all()
    far = table(x, x)
    np.testing.assert_allclose(found.distance[:, 2], np.sort(far, 1)[:, 3], rtol=1e-4)


def test_neighbours_refuse():
    x = normal(5, 4)
    with pytest.raises(CountError, match="searched: 5 examples, at least 6"):
        nearest.neighbours(x, x, 5, apart=True)
    with pytest.raises(FeatureError, match="3 wide and those they are compared with 4"):
        nearest.neighbours(x[:, :3], x)
    with pytest.raises(FeatureError, match="metric='l1'; known: euclidean, cosine"):
        nearest.neighbours(x, x, metric="l1")
    with pytest.raises(FeatureError, match="row 0 is all zeros"):
        nearest.neighbours(0 * x, x, metric="cosine")


def test_memorised_images_stand_out():
    train, held_out = normal(600, 8), normal(400, 8, seed=1)
    fair = nearest.memorised(normal(500, 8, seed=2), held_out, train, share=0.05).score
    assert fair.value == pytest.approx(0.05, abs=0.03)
    copies = train[100:160] + 0.01 * normal(60, 8, seed=4)
    mixed = np.concatenate([normal(140, 8, seed=3), copies])
    found, near, _ = nearest.memorised(mixed, held_out, train, share=0.05)
    assert found.value == pytest.approx(0.3 + 0.7 * 0.05, abs=0.03)
    np.testing.assert_array_equal(near.index[140:, 0], np.arange(100, 160))
    assert found.facts["expected"] == 0.05
    with pytest.raises(CountError, match="400 held-out images cannot say"):
        nearest.memorised(mixed, held_out, train, share=0.001)


# --- Balls -------------------------------------------------------------------------------------


def plain(fake, real, k, closed):
    """The definitions, on full tables."""
    own = [np.sort(table(x, x), 1)[:, k] for x in (fake, real)]
    far = table(fake, real)

    def inside(radius):
        return far <= radius if closed else far < radius

    least = far.min(0)
    return manifold.Manifold(
        inside(own[1]).any(1),
        inside(own[0][:, None]).any(0),
        inside(own[1]).sum(1) / k,
        least <= own[1] if closed else least < own[1],
    )


@settings(max_examples=12)
@given(
    st.integers(0, 2**31),
    st.sampled_from([7, 20, 64]),
    st.integers(1, 4),
    st.booleans(),
    st.floats(0, 1),
)
def test_blocks_give_what_full_tables_give(seed, block, k, closed, shift):
    fake, real = normal(37, 4, seed=seed) + np.float32(shift), normal(45, 4, seed=seed + 1)
    found = manifold.manifold(fake, real, k=k, closed=closed, block=block)
    for got, want in zip(found, plain(fake, real, k, closed), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("block", [6, 100])
def test_equal_sets_are_precise_and_complete(closed, block):
    x = normal(40, 64) + 300
    found = manifold.scores(manifold.manifold(x, x, k=3, closed=closed, block=block), 3)
    assert {name: found[name].value for name in ("precision", "recall", "coverage")} == {
        "precision": 1,
        "recall": 1,
        "coverage": 1,
    }
    # Of k balls that reach a row, its own set has k + 1 on average with the surface.
    assert found["density"].value == pytest.approx(4 / 3 if closed else 1, abs=1e-6)
    assert found["f_score"].value == pytest.approx(1)
    copies = np.repeat(x[:8], 5, 0)  # every radius is 0
    found = manifold.manifold(copies, copies, k=3, closed=True, block=block)
    assert found.precision.all()
    assert found.recall.all()


def test_far_sets_and_turned_sets():
    fake, real = normal(50, 6), normal(60, 6, seed=1)
    far = manifold.scores(manifold.manifold(fake + 100, real), 3)
    assert {s.value for s in far.values()} == {0.0}
    here = manifold.manifold(fake, real)
    turn = np.linalg.qr(normal(6, 6, seed=2))[0]
    there = manifold.manifold(fake @ turn + 5, real @ turn + 5)
    for a, b in zip(here, there, strict=True):
        assert np.mean(a != b) < 0.05  # a distance may tie its radius
    # What is precision from one side is recall from the other.
    back = manifold.manifold(real, fake)
    np.testing.assert_array_equal(back.recall, here.precision)
    np.testing.assert_array_equal(back.precision, here.recall)


def test_missing_modes_show_in_recall_and_coverage_alone():
    real = np.concatenate([normal(60, 4), normal(60, 4, seed=1) + 50])
    found = manifold.scores(manifold.manifold(normal(120, 4, seed=2), real), 3)
    assert found["precision"].value > 0.7
    assert found["recall"].value < 0.5
    assert found["coverage"].value < 0.5
    assert found["recall"].facts == {"generated": 120, "real": 120, "k": 3}


def test_half_precision_rounds_features_and_radii():
    fake, real = normal(60, 3), normal(60, 3, seed=1)
    rounded = [x.astype(np.float16).astype(np.float32) for x in (fake, real)]
    half = manifold.manifold(fake, real, half=True)
    assert np.mean(half.precision != manifold.manifold(*rounded).precision) < 0.05
    # At 2048 neighbouring half-precision numbers are 2 apart: all structure below that is gone.
    lost = manifold.manifold(fake / 10 + 2048, real / 10 + 2048 + 0.2, half=True)
    assert lost.precision.all()


def test_manifold_refuses():
    x = normal(4, 3)
    with pytest.raises(CountError, match="real images: 3 examples, at least 4"):
        manifold.manifold(x, x[:3])
    bad = x.copy()
    bad[1, 1] = np.inf
    with pytest.raises(FeatureError, match="generated images are not finite in 1 of 4 rows"):
        manifold.manifold(bad, x)
