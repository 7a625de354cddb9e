"""Orders: permutations by position, lanes of files, mixtures, weights."""

import collections

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxt2i.data.order import (
    BLOCK,
    Alike,
    AlikeEndless,
    Lanes,
    Shards,
    Weighted,
    apportioned,
    lanes_for,
)


def stream(order, count, start=0):
    return [order(p) for p in range(start, start + count)]


# --- Files in lanes ----------------------------------------------------------------------------

COUNTS = [5, 0, 7, 3, 6, 1, 4, 6]


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_an_epoch_of_every_lane_sees_its_files_once(counts, lanes, window, seed):
    lanes = min(lanes, sum(n > 0 for n in counts))
    shards = Shards(counts, seed, lanes, window)
    seen = []
    for lane, total in enumerate(shards.totals):
        first = [shards.at(lane, p) for p in range(total)]
        second = [shards.at(lane, p) for p in range(total, 2 * total)]
        assert sorted(first) == sorted(second)
        seen += first
    assert sorted(seen) == list(range(sum(counts)))
    assert max(shards.totals) - min(shards.totals) <= max(counts)


def test_a_window_is_finished_before_the_next_file_is_opened():
    shards = Shards([10] * 12, 3, 1, 4)
    files = [shards.at(0, p) // 10 for p in range(240)]
    groups = [sorted(set(files[k : k + 40])) for k in range(0, 240, 40)]
    assert all(len(group) == 4 for group in groups)
    assert sorted(groups[0] + groups[1] + groups[2]) == list(range(12))
    assert groups[:3] != groups[3:], "another epoch groups the files anew"
    assert len(set(files[:10])) > 1, "the files of a window are mixed"


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_read_files_of_their_own(count):
    """The rows of a process come from its lanes' files; all rows together are the same stream."""
    batch = 8
    lanes = Lanes([Shards([6] * 8, 1, 4, 2)], [1], batch, 1)
    whole = stream(lanes, 10 * batch)
    rows = batch // count
    shares = [
        [lanes(step * batch + p * rows + r) for step in range(10) for r in range(rows)]
        for p in range(count)
    ]
    joined = np.array(shares).reshape(count, 10, rows).transpose(1, 0, 2).reshape(-1)
    assert joined.tolist() == whole
    files = [{i // 6 for i in share} for share in shares]
    assert sum(map(len, files)) == len(set().union(*files)), "no file is read twice"


def test_a_mixture_has_its_shares_and_loses_nothing():
    first, second = Shards([50] * 4, 1, 2, 2), Shards([20] * 4, 2, 2, 2)
    lanes = Lanes([first, second], [3, 1], 8, 5)
    seen = stream(lanes, 8 * BLOCK)
    assert sum(i < 200 for i in seen) == 6 * BLOCK
    counts = collections.Counter(seen)
    assert set(counts) == set(range(280))
    large = [counts[i] for i in range(200)]
    assert max(large) - min(large) <= 2
    early = [i < 200 for i in seen[:512]]
    assert 0.65 < np.mean(early) < 0.85, "parts are mixed, not one after the other"


def test_the_order_of_lanes_is_pinned():
    """Changing this changes what a resumed run sees."""
    lanes = Lanes([Shards(COUNTS, 1, 2, 2), Shards([4, 4], 2, 2, 2)], [2, 1], 4, 3)
    assert stream(lanes, 12) == [3, 24, 28, 15, 10, 8, 33, 17, 22, 38, 16, 32]


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=9))
def test_apportioned_slots_add_up(weights):
    slots = apportioned(weights, BLOCK)
    assert slots.sum() == BLOCK
    assert slots.min() >= 1
    shares = np.array(weights) / sum(weights) * BLOCK
    assert np.all((np.abs(slots - shares) < len(weights) + 1) | (slots == 1))


def test_lanes_divide_the_batch():
    assert lanes_for(files=100, batch=64, most=8) == 8
    assert lanes_for(files=5, batch=64, most=8) == 4
    assert lanes_for(files=1, batch=64, most=8) == 1
    assert lanes_for(files=100, batch=12, most=8) == 6


# --- Weights -----------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 5), min_size=1, max_size=20).filter(lambda w: sum(w) > 0.6))
@settings(deadline=None, max_examples=60)
def test_weights_are_met_in_every_epoch(weights):
    order = Weighted(np.array(weights), 7)
    counts = collections.Counter(stream(order, order.size))
    scale = order.size / sum(weights)
    for i, weight in enumerate(weights):
        assert np.floor(weight * scale - 1e-6) <= counts[i] <= np.ceil(weight * scale + 1e-6)


def test_fractions_are_met_over_epochs():
    order = Weighted(np.array([0.5, 1.0, 2.25, 0.25]), 0)
    assert order.size == 4
    counts = collections.Counter(stream(order, 4 * 2000))
    np.testing.assert_allclose(
        [counts[i] / 2000 for i in range(4)], [0.5, 1, 2.25, 0.25], atol=0.05
    )


# --- Kinds -------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 4), min_size=8, max_size=60), st.integers(1, 3), st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_batches_are_of_one_kind_and_an_epoch_repeats_nothing(kinds, batch, seed):
    kinds = np.array(kinds)
    assume(np.bincount(kinds).max() >= batch)
    order = Alike(kinds, seed, batch)
    assert order.size == sum(n // batch for n in np.bincount(kinds)) * batch
    for epoch in range(2):
        seen = np.array(stream(order, order.size, epoch * order.size))
        assert len(set(seen.tolist())) == order.size
        rows = kinds[seen].reshape(-1, batch)
        assert (rows == rows[:, :1]).all()


def test_kinds_come_mixed_and_without_an_end():
    kinds = np.arange(300) % 3
    rows = kinds[stream(Alike(kinds, 1, 4), 300)].reshape(-1, 4)[:, 0]
    assert len(set(rows[:25].tolist())) == 3
    order = AlikeEndless(lambda i: i % 5, 1, 4)
    first = stream(order, 400)
    rows = np.array(first).reshape(-1, 4) % 5
    assert (rows == rows[:, :1]).all()
    assert np.bincount(rows[:, 0], minlength=5).min() > 8
    assert len(set(first)) > 390
    assert stream(AlikeEndless(lambda i: i % 5, 1, 4), 4, 200) == first[200:204]


def test_the_order_of_kinds_is_pinned():
    """Changing this changes what a resumed run sees."""
    assert stream(Alike(np.arange(12) % 2, 3, 2), 6) == [11, 3, 6, 0, 2, 10]


def test_no_kind_that_fills_a_batch():
    with pytest.raises(ValueError, match="no 4 examples"):
        Alike(np.arange(10), 0, 4)
